package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const models = 3

// client is a delta stream to a peer that serves three models.
type client struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]
}

// ask subscribes to names of a type, or to all if there are none. It ACKs and returns the response.
func (c client) ask(kind string, names ...string) map[string]*discovery.Resource {
	c.t.Helper()
	request := &discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n"}, TypeUrl: kind, ResourceNamesSubscribe: names}
	if err := c.stream.Send(request); err != nil {
		c.t.Fatal(err)
	}
	return c.next(kind)
}

func (c client) next(kind string) map[string]*discovery.Resource {
	c.t.Helper()
	answer, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	if answer.GetTypeUrl() != kind {
		c.t.Fatalf("got %s instead of %s", answer.GetTypeUrl(), kind)
	}
	ack := &discovery.DeltaDiscoveryRequest{TypeUrl: kind, ResponseNonce: answer.GetNonce()}
	if err := c.stream.Send(ack); err != nil {
		c.t.Fatal(err)
	}
	found := map[string]*discovery.Resource{}
	for _, one := range answer.GetResources() {
		found[one.GetName()] = one
	}
	return found
}

// routed returns the clusters of a table's routes, each once.
func routed(t *testing.T, table *discovery.Resource) []string {
	t.Helper()
	var config route.RouteConfiguration
	if err := table.GetResource().UnmarshalTo(&config); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, one := range config.GetVirtualHosts()[0].GetRoutes() {
		to := one.GetRoute()
		if weighted := to.GetWeightedClusters().GetClusters(); len(weighted) == 1 {
			found = append(found, weighted[0].GetName())
		} else {
			found = append(found, to.GetCluster())
		}
	}
	return slices.Compact(found)
}

func started(t *testing.T, peer peer) client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(peer, true)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return client{t, stream}
}

func TestSwitchSendsTheTableAndNothingElse(t *testing.T) {
	for _, setup := range []string{"ordinary", "strongest"} {
		for i := range 4 {
			each, same := i&1 != 0, i&2 != 0
			t.Run(fmt.Sprint(setup, " each ", each, " same ", same), func(t *testing.T) {
				peer, err := newPeer(setup, newContent(models, each, same), true)
				if err != nil {
					t.Fatal(err)
				}
				client := started(t, peer)
				clusters := client.ask(resource.ClusterType)
				var names []string
				for name := range clusters {
					names = append(names, name)
				}
				if len(names) != 2*models || len(client.ask(resource.EndpointType, names...)) != 2*models {
					t.Fatalf("clusters %v", names)
				}
				if len(client.ask(resource.ListenerType)) != 1 {
					t.Fatal("there is one listener")
				}
				tables := []string{table}
				if each {
					tables = nil
					for model := range models {
						tables = append(tables, modelName(model))
					}
					scopes := models
					if same {
						scopes = 5*scopes + 4 // four verbs; the gateway's own answers
						tables = append(tables, "gateways/edge")
					}
					if found := client.ask(resource.ScopedRouteType); len(found) != scopes {
						t.Fatalf("scopes %v", found)
					}
				}
				if before := client.ask(resource.RouteType, tables...); len(before) != len(tables) {
					t.Fatalf("tables %v", before)
				}
				for _, version := range []string{"green", "blue", "green"} {
					if said, err := peer.move(1); err != nil || said != version {
						t.Fatal(said, err)
					}
					name, wanted := table, []string{"model-0000/blue", "model-0001/" + version, "model-0002/blue"}
					if each {
						name, wanted = "model-0001", wanted[1:2]
					}
					after := client.next(resource.RouteType)
					if found := routed(t, after[name]); len(after) != 1 || !slices.Equal(found, wanted) {
						t.Fatal(after)
					}
				}
				if _, err := peer.move(models); err == nil {
					t.Fatal("there is no such model")
				}
			})
		}
	}
}
