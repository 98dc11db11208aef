package main

import (
	_ "embed"
	"encoding/json"
	"strings"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// What Turnout's compiler makes of the benchmark's gateway and of its first model; tests/bench/test_peers.py keeps it so.
//
//go:embed turnout.json
var turnoutJSON string

// verbs may follow a model's name, as Turnout's scopes have it.
const verbs = "predict|classify|regress|explain"

// templates are the resources of one model and of the gateway, in JSON; the model's name is to be replaced.
type templates struct {
	Clusters  []json.RawMessage // by version
	Endpoints []json.RawMessage
	Listener  json.RawMessage
	Scopes    []json.RawMessage
	Routes    json.RawMessage
}

func newTemplates() *templates {
	made := &templates{}
	if err := json.Unmarshal([]byte(turnoutJSON), made); err != nil {
		panic(err)
	}
	return made
}

// of reads a template as a resource of a model.
func of[T proto.Message](template json.RawMessage, model int, made T) T {
	text := strings.ReplaceAll(string(template), modelName(0), modelName(model))
	if err := protojson.Unmarshal([]byte(text), made); err != nil {
		panic(err)
	}
	return made
}

func (t *templates) model(model int, each bool) map[resource.Type][]types.Resource {
	made := map[resource.Type][]types.Resource{}
	for version := range versions {
		made[resource.ClusterType] = append(made[resource.ClusterType], of(t.Clusters[version], model, &cluster.Cluster{}))
		found := of(t.Endpoints[version], model, &endpoint.ClusterLoadAssignment{})
		made[resource.EndpointType] = append(made[resource.EndpointType], found)
	}
	if each {
		for _, scope := range t.Scopes {
			found := of(scope, model, &route.ScopedRouteConfiguration{})
			made[resource.ScopedRouteType] = append(made[resource.ScopedRouteType], found)
		}
	}
	return made
}

// table is Turnout's RouteConfiguration of a model, with the traffic on a version.
func (t *templates) table(model int, version string) *route.RouteConfiguration {
	made := of(t.Routes, model, &route.RouteConfiguration{})
	for _, one := range made.GetVirtualHosts()[0].GetRoutes() {
		one.GetRoute().GetWeightedClusters().GetClusters()[0].Name = clusterName(model, version)
	}
	return made
}

// route is the route of that for a table that all models share: it finds by its path what scopes find elsewhere.
func (t *templates) route(model int, version string) *route.Route {
	made := t.table(model, version).GetVirtualHosts()[0].GetRoutes()[0]
	regex := "/[^/]*/[^/]*/" + modelName(model) + "(:(" + verbs + "))?(/.*)?"
	made.Match = &route.RouteMatch{PathSpecifier: &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: regex}}}
	return made
}

// shared is the table that all models share. What is alike in all, how to try again, stands in it once.
func (t *templates) shared(routes []*route.Route) *route.RouteConfiguration {
	made := of(t.Routes, 0, &route.RouteConfiguration{})
	made.Name, made.RequestHeadersToRemove = table, nil // no scope was looked up
	made.VirtualHosts[0].Routes = append([]*route.Route(nil), routes...)
	return made
}

func (t *templates) listener(each bool) *listener.Listener {
	made := of(t.Listener, 0, &listener.Listener{})
	if each {
		return made
	}
	manager := &hcm.HttpConnectionManager{}
	filter := made.GetFilterChains()[0].GetFilters()[0]
	if err := filter.GetTypedConfig().UnmarshalTo(manager); err != nil {
		panic(err)
	}
	manager.EarlyHeaderMutationExtensions = nil // it says which scope
	manager.RouteSpecifier = &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: overADS(), RouteConfigName: table}}
	filter.ConfigType = &listener.Filter_TypedConfig{TypedConfig: packed(manager)}
	return made
}
