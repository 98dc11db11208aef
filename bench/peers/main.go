// Command peers is what Turnout is measured against: github.com/envoyproxy/go-control-plane, doing the same work.
//
//	peers --setup ordinary|strongest --models M [--tables one|each] [--resources least|same] [--port P]
//
// It serves M models, each with a blue and a green cluster, to every xDS client alike, and talks to whoever measures it in
// lines of JSON. It begins with {"port":…,"pid":…}, once it listens. Then it answers each line on its standard input:
//
//	{"cmd":"switch","model":0}   the model's traffic goes to its other version: {"done":true,"took_ns":…,"version":"green"}
//	{"cmd":"stats"}              memory and garbage collection: {"heap_bytes":…,"sys_bytes":…,"gcs":…,"gc_cpu_seconds":…,…}
//	{"cmd":"free"}               collects garbage and gives what is free back to the system: {"done":true}
//	{"cmd":"quit"}               ends; so does the end of the input
//
// What can't be done is answered with {"error":…}. `took_ns` ends when the cache has taken the change and woken its
// watches, not when clients have it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

func main() {
	setup := flag.String("setup", "ordinary", "ordinary or strongest")
	models := flag.Int("models", 10, "how many models")
	tables := flag.String("tables", "one", "one route table for all models, or one for each")
	resources := flag.String("resources", "least", "the least that works, or the same as Turnout's")
	port := flag.Int("port", 0, "the port of the xDS server on 127.0.0.1; 0 takes a free one")
	ordered := flag.Bool("ordered", true, "answers types in order where the library lets one choose")
	flag.Parse()
	if err := run(*setup, *models, *tables, *resources, *port, *ordered); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(setup string, models int, tables, resources string, port int, ordered bool) error {
	if models < 1 || tables != "one" && tables != "each" {
		return fmt.Errorf("there must be a model, and one table or one for each; not %d and %q", models, tables)
	}
	if resources != "least" && resources != "same" {
		return fmt.Errorf("resources are least or same; not %q", resources)
	}
	peer, err := newPeer(setup, newWorld(models, tables == "each", resources == "same"), ordered)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	grpcServer := newServer(peer, ordered)
	failed := make(chan error, 1)
	go func() { failed <- grpcServer.Serve(listener) }()

	say(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port, "pid": os.Getpid()})
	go func() { failed <- obey(os.Stdin, peer) }()
	return <-failed
}

func newServer(peer peer, ordered bool) *grpc.Server {
	var options []config.XDSOption
	if ordered {
		options = append(options, sotw.WithOrderedADS())
	}
	// No callbacks: whoever has some pays for them.
	xds := server.NewServer(context.Background(), peer.watched(), nil, options...)
	made := grpc.NewServer(serverOptions()...)
	discovery.RegisterAggregatedDiscoveryServiceServer(made, xds)
	return made
}

// serverOptions are those of the library's own example server.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxConcurrentStreams(1_000_000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 30 * time.Second, PermitWithoutStream: true}),
	}
}

// command is a line of the input.
type command struct {
	Cmd   string `json:"cmd"`
	Model int    `json:"model"`
}

// obey answers commands; nil when there are no more.
func obey(input io.Reader, peer peer) error {
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			say(map[string]any{"error": err.Error()})
			continue
		}
		switch asked.Cmd {
		case "switch":
			start := time.Now()
			version, err := peer.move(asked.Model)
			if err != nil {
				say(map[string]any{"error": err.Error()})
				continue
			}
			say(map[string]any{"done": true, "took_ns": time.Since(start).Nanoseconds(), "version": version})
		case "stats":
			say(stats())
		case "free":
			debug.FreeOSMemory()
			say(map[string]any{"done": true})
		case "quit":
			return nil
		default:
			say(map[string]any{"error": fmt.Sprintf("there is no command %q", asked.Cmd)})
		}
	}
	return lines.Err()
}

func stats() map[string]any {
	var found runtime.MemStats
	runtime.ReadMemStats(&found)
	return map[string]any{
		"heap_bytes":     found.HeapAlloc,
		"sys_bytes":      found.Sys,
		"released_bytes": found.HeapReleased,
		"stack_bytes":    found.StackInuse,
		"gcs":            found.NumGC,
		"gc_pause_ns":    found.PauseTotalNs,
		"gc_cpu_share":   found.GCCPUFraction,
		"goroutines":     runtime.NumGoroutine(),
	}
}

// say writes a line of output; nobody else writes there.
func say(answer map[string]any) {
	line, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}
