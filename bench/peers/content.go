package main

import (
	"fmt"
	"slices"
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
	table        = "models" // the name of the route table, if there is one for all models
	listenerName = "edge"
	listenerPort = 10_000
	endpoints    = 2
)

var versions = [2]string{"blue", "green"}

// content has the served resources by type, and the live version of each model. Resources that don't change are built once.
type content struct {
	each   bool                               // a route table for each model, found through scopes; false: one for all
	live   []int                              // by model: the index of its live version
	routes [][]*route.Route                   // by model
	fixed  map[resource.Type][]types.Resource // all except the route tables
	same   *templates                         // Turnout's resources; nil: the least that works
	own    *route.RouteConfiguration          // the gateway's own answers; nil: none
}

func newContent(models int, each, same bool) *content {
	built := &content{each: each, live: make([]int, models), fixed: map[resource.Type][]types.Resource{}}
	if same {
		built.same = newTemplates()
		for model := range models {
			built.routes = append(built.routes, built.routesOf(model))
			for kind, resources := range built.same.model(model, each) {
				built.fixed[kind] = append(built.fixed[kind], resources...)
			}
		}
		built.fixed[resource.ListenerType] = []types.Resource{built.same.listener(each)}
		if each {
			built.fixed[resource.ScopedRouteType] = append(built.fixed[resource.ScopedRouteType], built.same.ownScopes()...)
			built.own = built.same.ownAnswers(models)
		}
		return built
	}
	for model := range models {
		built.routes = append(built.routes, built.routesOf(model))
		for _, version := range versions {
			name := clusterName(model, version)
			built.fixed[resource.ClusterType] = append(built.fixed[resource.ClusterType], newCluster(name))
			built.fixed[resource.EndpointType] = append(built.fixed[resource.EndpointType], newEndpoints(name))
		}
		if each {
			built.fixed[resource.ScopedRouteType] = append(built.fixed[resource.ScopedRouteType], newScope(modelName(model)))
		}
	}
	built.fixed[resource.ListenerType] = []types.Resource{newListener(each)}
	return built
}

// move moves a model's traffic to its other version, and returns the changed route table.
func (w *content) move(model int) (*route.RouteConfiguration, error) {
	if model < 0 || model >= len(w.live) {
		return nil, fmt.Errorf("there is no model %d; there are %d", model, len(w.live))
	}
	w.live[model] = 1 - w.live[model]
	w.routes[model] = w.routesOf(model)
	return w.table(model), nil
}

func (w *content) version(model int) string { return versions[w.live[model]] }

// tables returns all route tables.
func (w *content) tables() []types.Resource {
	if !w.each {
		return []types.Resource{w.table(0)}
	}
	built := make([]types.Resource, len(w.routes))
	for model := range w.routes {
		built[model] = w.table(model)
	}
	if w.own != nil {
		built = append(built, w.own)
	}
	return built
}

// table returns the route table that has a model's route.
func (w *content) table(model int) *route.RouteConfiguration {
	if w.same != nil && w.each {
		return w.same.table(model, w.version(model))
	}
	if w.same != nil {
		return w.same.shared(slices.Concat(w.routes...))
	}
	name, routes := table, w.routes
	if w.each {
		name, routes = modelName(model), w.routes[model:model+1]
	}
	// Caches still read their table, so the new one needs its own list.
	host := &route.VirtualHost{Name: "models", Domains: []string{"*"}, Routes: slices.Concat(routes...)}
	return &route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{host}}
}

// routesOf returns the routes of a model to its live version: the smallest that work, or Turnout's.
func (w *content) routesOf(model int) []*route.Route {
	if w.same != nil {
		return w.same.routes(model, w.version(model))
	}
	match := &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/v2/models/" + modelName(model) + "/"}}
	to := &route.RouteAction_Cluster{Cluster: clusterName(model, w.version(model))}
	action := &route.Route_Route{Route: &route.RouteAction{ClusterSpecifier: to}}
	return []*route.Route{{Match: match, Action: action}}
}

func modelName(model int) string { return fmt.Sprintf("model-%04d", model) }

func clusterName(model int, version string) string { return modelName(model) + "/" + version }

// overADS returns the source of resources that come over the ADS stream.
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
	var resources []*endpoint.LbEndpoint
	for n := range endpoints {
		host := &endpoint.Endpoint{Address: address("127.0.0.1", uint32(9_000+n))}
		resources = append(resources, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: host}})
	}
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: resources}}}
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
	built, err := anypb.New(message)
	if err != nil {
		panic(err)
	}
	return built
}
