package main

import (
	"fmt"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	table        = "models" // the route table, where there is one for all
	listenerName = "edge"
	listenerPort = 10_000
	endpoints    = 2
)

var versions = [2]string{"blue", "green"}

// world is what is served: the resources by type, and where each model's traffic goes. What does not change is built once.
type world struct {
	each   bool  // a route table for each model, found through scoped routes; or else one for all
	live   []int // by model: the index of the version that has its traffic
	routes []*route.Route
	fixed  map[resource.Type][]types.Resource // all but the route tables
	same   *templates                         // Turnout's resources; nil: the least that works
}

func newWorld(models int, each, same bool) *world {
	made := &world{each: each, live: make([]int, models), fixed: map[resource.Type][]types.Resource{}}
	if same {
		made.same = newTemplates()
		for model := range models {
			made.routes = append(made.routes, made.route(model))
			for kind, found := range made.same.model(model, each) {
				made.fixed[kind] = append(made.fixed[kind], found...)
			}
		}
		made.fixed[resource.ListenerType] = []types.Resource{made.same.listener(each)}
		return made
	}
	for model := range models {
		made.routes = append(made.routes, made.route(model))
		for _, version := range versions {
			name := clusterName(model, version)
			made.fixed[resource.ClusterType] = append(made.fixed[resource.ClusterType], newCluster(name))
			made.fixed[resource.EndpointType] = append(made.fixed[resource.EndpointType], newEndpoints(name))
		}
		if each {
			made.fixed[resource.ScopedRouteType] = append(made.fixed[resource.ScopedRouteType], newScope(modelName(model)))
		}
	}
	made.fixed[resource.ListenerType] = []types.Resource{newListener(each)}
	return made
}

// move gives a model's traffic to its other version, and returns the route table that changed by it.
func (w *world) move(model int) (*route.RouteConfiguration, error) {
	if model < 0 || model >= len(w.live) {
		return nil, fmt.Errorf("there is no model %d; there are %d", model, len(w.live))
	}
	w.live[model] = 1 - w.live[model]
	w.routes[model] = w.route(model)
	return w.table(model), nil
}

func (w *world) version(model int) string { return versions[w.live[model]] }

// tables returns all route tables.
func (w *world) tables() []types.Resource {
	if !w.each {
		return []types.Resource{w.table(0)}
	}
	made := make([]types.Resource, len(w.routes))
	for model := range w.routes {
		made[model] = w.table(model)
	}
	return made
}

// table returns the route table that has a model's route.
func (w *world) table(model int) *route.RouteConfiguration {
	if w.same != nil && w.each {
		return w.same.table(model, w.version(model))
	}
	if w.same != nil {
		return w.same.shared(w.routes)
	}
	name, routes := table, w.routes
	if w.each {
		name, routes = modelName(model), w.routes[model:model+1]
	}
	// Caches go on reading the table that they have: this one is to have a list of its own.
	host := &route.VirtualHost{Name: "models", Domains: []string{"*"}, Routes: append([]*route.Route(nil), routes...)}
	return &route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{host}}
}

// route returns what sends a model's requests to its live version, and no more, unless it is to be the same as Turnout's.
func (w *world) route(model int) *route.Route {
	if w.same != nil {
		return w.same.route(model, w.version(model))
	}
	match := &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/v2/models/" + modelName(model) + "/"}}
	to := &route.RouteAction_Cluster{Cluster: clusterName(model, w.version(model))}
	return &route.Route{Match: match, Action: &route.Route_Route{Route: &route.RouteAction{ClusterSpecifier: to}}}
}

func modelName(model int) string { return fmt.Sprintf("model-%04d", model) }

func clusterName(model int, version string) string { return modelName(model) + "/" + version }

// overADS says that a resource comes over the stream that its reader came over.
func overADS() *core.ConfigSource {
	ads := &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}
	return &core.ConfigSource{ResourceApiVersion: core.ApiVersion_V3, ConfigSourceSpecifier: ads}
}

func newCluster(name string) *cluster.Cluster {
	return &cluster.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(time.Second),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: overADS()},
	}
}

func newEndpoints(name string) *endpoint.ClusterLoadAssignment {
	var found []*endpoint.LbEndpoint
	for n := range endpoints {
		host := &endpoint.Endpoint{Address: address("127.0.0.1", uint32(9_000+n))}
		found = append(found, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: host}})
	}
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: found}}}
}

func newScope(model string) *route.ScopedRouteConfiguration {
	fragment := &route.ScopedRouteConfiguration_Key_Fragment{
		Type: &route.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: model},
	}
	key := &route.ScopedRouteConfiguration_Key{Fragments: []*route.ScopedRouteConfiguration_Key_Fragment{fragment}}
	return &route.ScopedRouteConfiguration{Name: model, RouteConfigurationName: model, Key: key}
}

func newListener(each bool) *listener.Listener {
	manager := &hcm.HttpConnectionManager{
		StatPrefix: "http",
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: packed(&router.Router{})},
		}},
	}
	if each {
		manager.RouteSpecifier = &hcm.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcm.ScopedRoutes{
			Name:            "models",
			ScopeKeyBuilder: byModel(),
			RdsConfigSource: overADS(),
			ConfigSpecifier: &hcm.ScopedRoutes_ScopedRds{ScopedRds: &hcm.ScopedRds{ScopedRdsConfigSource: overADS()}},
		}}
	} else {
		manager.RouteSpecifier = &hcm.HttpConnectionManager_Rds{
			Rds: &hcm.Rds{ConfigSource: overADS(), RouteConfigName: table},
		}
	}
	filter := &listener.Filter{Name: "http", ConfigType: &listener.Filter_TypedConfig{TypedConfig: packed(manager)}}
	return &listener.Listener{
		Name:         listenerName,
		Address:      address("127.0.0.1", listenerPort),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{filter}}},
	}
}

// byModel takes a scope's key from the path /v2/models/NAME/….
func byModel() *hcm.ScopedRoutes_ScopeKeyBuilder {
	type (
		builder   = hcm.ScopedRoutes_ScopeKeyBuilder
		fragment  = hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder
		extractor = hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor
		header    = hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_
		index     = hcm.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index
	)
	segment := &extractor{Name: ":path", ElementSeparator: "/", ExtractType: &index{Index: 3}}
	return &builder{Fragments: []*fragment{{Type: &header{HeaderValueExtractor: segment}}}}
}

func address(host string, port uint32) *core.Address {
	socket := &core.SocketAddress{Address: host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: socket}}
}

func packed(message proto.Message) *anypb.Any {
	made, err := anypb.New(message)
	if err != nil {
		panic(err)
	}
	return made
}
