package main

import (
	_ "embed"
	"encoding/json"
	"strings"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The resources that Turnout's compiler makes for the benchmark's gateway and its first model. tests/bench/test_peers.py checks
// that they are up to date.
//
//go:embed turnout.json
var turnoutJSON string

// verbs may follow a model's name, as in Turnout's scopes.
const verbs = "predict|classify|regress|explain"

// templates are the resources of one model and of the gateway, in JSON. The model's name is replaced.
type templates struct {
	Clusters  []json.RawMessage // by version
	Endpoints []json.RawMessage
	Listener  json.RawMessage
	Scopes    []json.RawMessage
	Routes    json.RawMessage
	// The gateway's own answers, and the scopes that lead to them.
	OwnScopes []json.RawMessage `json:"own_scopes"`
	OwnRoutes json.RawMessage   `json:"own_routes"`
}

func newTemplates() *templates {
	result := &templates{}
	if err := json.Unmarshal([]byte(turnoutJSON), result); err != nil {
		panic(err)
	}
	return result
}

// of returns a template as a resource of a model.
func of[T proto.Message](template json.RawMessage, model int, result T) T {
	text := strings.ReplaceAll(string(template), modelName(0), modelName(model))
	if err := protojson.Unmarshal([]byte(text), result); err != nil {
		panic(err)
	}
	return result
}

func (t *templates) model(model int, each bool) map[resource.Type][]types.Resource {
	result := map[resource.Type][]types.Resource{}
	for version := range versions {
		result[resource.ClusterType] = append(result[resource.ClusterType], of(t.Clusters[version], model, &cluster.Cluster{}))
		assignment := of(t.Endpoints[version], model, &endpoint.ClusterLoadAssignment{})
		result[resource.EndpointType] = append(result[resource.EndpointType], assignment)
	}
	if each {
		for _, scope := range t.Scopes {
			assignment := of(scope, model, &route.ScopedRouteConfiguration{})
			result[resource.ScopedRouteType] = append(result[resource.ScopedRouteType], assignment)
		}
	}
	return result
}

// ownScopes returns the scopes of the gateway's own answers.
func (t *templates) ownScopes() []types.Resource {
	var result []types.Resource
	for _, scope := range t.OwnScopes {
		result = append(result, of(scope, 0, &route.ScopedRouteConfiguration{}))
	}
	return result
}

// ownAnswers returns the table of the gateway's own answers. Two of them list the models; the template has one model.
func (t *templates) ownAnswers(models int) *route.RouteConfiguration {
	result := of(t.OwnRoutes, 0, &route.RouteConfiguration{})
	longest := 0
	for _, one := range result.GetVirtualHosts()[0].GetRoutes() {
		body := one.GetDirectResponse().GetBody()
		text := body.GetInlineString()
		if first, last, found := listItem(text); found {
			var items []string
			for model := range models {
				items = append(items, strings.ReplaceAll(text[first:last], modelName(0), modelName(model)))
			}
			text = text[:first] + strings.Join(items, ",") + text[last:]
			body.Specifier = &core.DataSource_InlineString{InlineString: text}
		}
		longest = max(longest, len(text))
	}
	result.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(uint32(longest))
	return result
}

// listItem returns where the item of the first model begins and ends in a list of models: between its square brackets.
func listItem(text string) (first, last int, found bool) {
	first, last = strings.Index(text, "[")+1, strings.LastIndex(text, "]")
	return first, last, last > first && strings.Contains(text[first:last], modelName(0))
}

// table returns Turnout's RouteConfiguration of a model, with the traffic on a version.
func (t *templates) table(model int, version string) *route.RouteConfiguration {
	result := of(t.Routes, model, &route.RouteConfiguration{})
	for _, one := range result.GetVirtualHosts()[0].GetRoutes() {
		one.GetRoute().GetWeightedClusters().GetClusters()[0].Name = clusterName(model, version)
	}
	return result
}

// routes returns a model's routes for a table that all models share. They match the path that otherwise selects the scope.
func (t *templates) routes(model int, version string) []*route.Route {
	result := t.table(model, version).GetVirtualHosts()[0].GetRoutes()
	regex := "/[^/]*/[^/]*/" + modelName(model) + "(:(" + verbs + "))?(/.*)?"
	for _, one := range result {
		one.Match.PathSpecifier = &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: regex}}
	}
	return result
}

// shared returns the table that all models share. It has the retry policy, which is the same for all models, only once.
func (t *templates) shared(routes []*route.Route) *route.RouteConfiguration {
	result := of(t.Routes, 0, &route.RouteConfiguration{})
	result.Name, result.RequestHeadersToRemove = table, nil // there is no scope
	result.VirtualHosts[0].Routes = routes
	return result
}

func (t *templates) listener(each bool) *listener.Listener {
	result := of(t.Listener, 0, &listener.Listener{})
	if each {
		return result
	}
	manager := &hcm.HttpConnectionManager{}
	filter := result.GetFilterChains()[0].GetFilters()[0]
	if err := filter.GetTypedConfig().UnmarshalTo(manager); err != nil {
		panic(err)
	}
	manager.EarlyHeaderMutationExtensions = nil // it sets the scope
	manager.RouteSpecifier = &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: overADS(), RouteConfigName: table}}
	filter.ConfigType = &listener.Filter_TypedConfig{TypedConfig: packed(manager)}
	return result
}
