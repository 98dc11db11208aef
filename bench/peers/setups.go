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

// peer is one way to use the library.
type peer interface {
	// watched is what its xDS server reads from.
	watched() cache.Cache
	// move gives a model's traffic to its other version, whose name it returns.
	move(model int) (string, error)
}

func newPeer(setup string, world *world, ordered bool) (peer, error) {
	switch setup {
	case "ordinary":
		return newOrdinary(world, ordered)
	case "strongest":
		return newStrongest(world), nil
	default:
		return nil, fmt.Errorf("there is no setup %q; there are ordinary and strongest", setup)
	}
}

// ordinary is what the library's documentation describes and most of its users do: every change makes a snapshot of
// everything, checked to be consistent, and sets it. The nodes share one: a snapshot for each would cost that many times more.
type ordinary struct {
	cache   cache.SnapshotCache
	world   *world
	version int
}

// everyone puts all nodes in one group.
type everyone struct{}

func (everyone) ID(*core.Node) string { return "everyone" }

func newOrdinary(world *world, ordered bool) (*ordinary, error) {
	made := &ordinary{cache: cache.NewSnapshotCache(ordered, everyone{}, nil), world: world}
	return made, made.publish()
}

func (o *ordinary) watched() cache.Cache { return o.cache }

func (o *ordinary) move(model int) (string, error) {
	if _, err := o.world.move(model); err != nil {
		return "", err
	}
	return o.world.version(model), o.publish()
}

func (o *ordinary) publish() error {
	o.version++
	resources := map[resource.Type][]types.Resource{resource.RouteType: o.world.tables()}
	for kind, found := range o.world.fixed {
		resources[kind] = found
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

// strongest is the least work that the library can be made to do: a cache of its own for each type, bytes marshalled once
// for all streams, and only what changed is touched. It keeps no order between types and knows no groups of nodes.
type strongest struct {
	caches map[resource.Type]*cache.LinearCache
	mux    *cache.MuxCache
	world  *world
}

func newStrongest(world *world) *strongest {
	made := &strongest{caches: map[resource.Type]*cache.LinearCache{}, world: world}
	made.mux = &cache.MuxCache{
		Classify:      func(request *cache.Request) string { return request.GetTypeUrl() },
		ClassifyDelta: func(request *cache.DeltaRequest) string { return request.GetTypeUrl() },
		Caches:        map[string]cache.Cache{},
	}
	kinds := []resource.Type{
		resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.ScopedRouteType, resource.RouteType,
	}
	for _, kind := range kinds {
		found := world.fixed[kind]
		if kind == resource.RouteType {
			found = world.tables()
		}
		made.caches[kind] = cache.NewLinearCache(kind, cache.WithInitialResources(cache.IndexRawResourcesByName(found)))
		made.mux.Caches[kind] = made.caches[kind]
	}
	return made
}

func (s *strongest) watched() cache.Cache { return s.mux }

func (s *strongest) move(model int) (string, error) {
	changed, err := s.world.move(model)
	if err != nil {
		return "", err
	}
	return s.world.version(model), s.caches[resource.RouteType].UpdateResource(changed.GetName(), changed)
}
