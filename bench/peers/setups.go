package main

import (
	"context"
	"fmt"
	"strconv"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// peer is one set-up of the library.
type peer interface {
	// watched returns the cache that the xDS server reads.
	watched() cache.Cache
	// move moves a model's traffic to its other version, and returns the version's name.
	move(model int) (string, error)
}

func newPeer(setup string, content *content, ordered bool) (peer, error) {
	switch setup {
	case "ordinary":
		return newOrdinary(content, ordered)
	case "strongest":
		return newStrongest(content), nil
	default:
		return nil, fmt.Errorf("there is no setup %q; there are ordinary and strongest", setup)
	}
}

// ordinary follows the library's documentation, as most users do: every change makes a snapshot of everything, checks that it
// is consistent, and sets it. All nodes share it; a snapshot for each node would cost that many times more.
type ordinary struct {
	cache   cache.SnapshotCache
	content *content
	version int
}

// everyone puts all nodes in one group.
type everyone struct{}

func (everyone) ID(*core.Node) string { return "everyone" }

func newOrdinary(content *content, ordered bool) (*ordinary, error) {
	peer := &ordinary{cache: cache.NewSnapshotCache(ordered, everyone{}, nil), content: content}
	return peer, peer.publish()
}

func (o *ordinary) watched() cache.Cache { return o.cache }

func (o *ordinary) move(model int) (string, error) {
	if _, err := o.content.move(model); err != nil {
		return "", err
	}
	return o.content.version(model), o.publish()
}

func (o *ordinary) publish() error {
	o.version++
	resources := map[resource.Type][]types.Resource{resource.RouteType: o.content.tables()}
	for kind, fixed := range o.content.fixed {
		resources[kind] = fixed
	}
	snapshot, err := cache.NewSnapshot(strconv.Itoa(o.version), resources)
	if err != nil {
		return err
	}
	if err := snapshot.Consistent(); err != nil {
		return err
	}
	return o.cache.SetSnapshot(context.Background(), everyone{}.ID(nil), snapshot)
}

// strongest does the least work that the library allows: a cache for each type, bytes marshalled once for all streams, and an
// update of only the changed resource. It keeps no order between types and has no groups of nodes.
type strongest struct {
	caches  map[resource.Type]*cache.LinearCache
	mux     *cache.MuxCache
	content *content
}

func newStrongest(content *content) *strongest {
	peer := &strongest{caches: map[resource.Type]*cache.LinearCache{}, content: content}
	peer.mux = &cache.MuxCache{
		Classify:      func(request *cache.Request) string { return request.GetTypeUrl() },
		ClassifyDelta: func(request *cache.DeltaRequest) string { return request.GetTypeUrl() },
		Caches:        map[string]cache.Cache{},
	}
	kinds := []resource.Type{
		resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.ScopedRouteType, resource.RouteType,
	}
	for _, kind := range kinds {
		resources := content.fixed[kind]
		if kind == resource.RouteType {
			resources = content.tables()
		}
		peer.caches[kind] = cache.NewLinearCache(kind, cache.WithInitialResources(cache.IndexRawResourcesByName(resources)))
		peer.mux.Caches[kind] = peer.caches[kind]
	}
	return peer
}

func (s *strongest) watched() cache.Cache { return s.mux }

func (s *strongest) move(model int) (string, error) {
	changed, err := s.content.move(model)
	if err != nil {
		return "", err
	}
	return s.content.version(model), s.caches[resource.RouteType].UpdateResource(changed.GetName(), changed)
}
