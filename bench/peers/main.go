// Command peers serves the benchmark's models with github.com/envoyproxy/go-control-plane, to compare Turnout with it.
//
//	peers --setup ordinary|strongest --models M [--tables one|each] [--resources least|same] [--port P] [--tls CERT,KEY,CA]
//
// It serves M models, each with a blue and a green cluster, to every xDS client. Once it listens, it prints one line of JSON,
// {"port":…,"pid":…}. Then it answers each line on its standard input:
//
//	{"cmd":"switch","model":0}   the model's traffic goes to its other version: {"done":true,"took_ns":…,"version":"green"}
//	{"cmd":"stats"}              memory and garbage collection: {"heap_bytes":…,"sys_bytes":…,"gcs":…,"gc_cpu_seconds":…,…}
//	{"cmd":"free"}               collects garbage and returns free memory to the system: {"done":true}
//	{"cmd":"quit"}               ends; so does the end of the input
//
// A command that fails is answered with {"error":…}. `took_ns` ends when the cache has the change and has woken its watches,
// not when clients have it.
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
	models := flag.Int("models", 10, "number of models")
	tables := flag.String("tables", "one", "one route table for all models, or one for each")
	resources := flag.String("resources", "least", "the smallest that work (least), or the same as Turnout's (same)")
	port := flag.Int("port", 0, "the port of the xDS server on 127.0.0.1; 0 takes a free one")
	tlsFiles := flag.String("tls", "", "mutual TLS: certificate, key and the clients' authorities, as CERT,KEY,CA")
	ordered := flag.Bool("ordered", true, "answer types in order, if the library lets one choose")
	flag.Parse()
	if err := run(*setup, *models, *tables, *resources, *port, *tlsFiles, *ordered); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(setup string, models int, tables, resources string, port int, tlsFiles string, ordered bool) error {
	if models < 1 || tables != "one" && tables != "each" {
		return fmt.Errorf("models must be 1 or more, and tables one or each; not %d and %q", models, tables)
	}
	if resources != "least" && resources != "same" {
		return fmt.Errorf("resources must be least or same, not %q", resources)
	}
	peer, err := newPeer(setup, newContent(models, tables == "each", resources == "same"), ordered)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	secure, err := tlsOptions(tlsFiles)
	if err != nil {
		return err
	}
	grpcServer := newServer(peer, ordered, secure...)
	failed := make(chan error, 1)
	go func() { failed <- grpcServer.Serve(listener) }()

	write(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port, "pid": os.Getpid()})
	go func() { failed <- answerCommands(os.Stdin, peer) }()
	return <-failed
}

func newServer(peer peer, ordered bool, more ...grpc.ServerOption) *grpc.Server {
	var options []config.XDSOption
	if ordered {
		options = append(options, sotw.WithOrderedADS())
	}
	// No callbacks: they would cost CPU.
	xds := server.NewServer(context.Background(), peer.watched(), nil, options...)
	grpcServer := grpc.NewServer(append(serverOptions(), more...)...)
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, xds)
	return grpcServer
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

// answerCommands answers commands until the input ends.
func answerCommands(input io.Reader, peer peer) error {
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		var request command
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			write(map[string]any{"error": err.Error()})
			continue
		}
		switch request.Cmd {
		case "switch":
			start := time.Now()
			version, err := peer.move(request.Model)
			if err != nil {
				write(map[string]any{"error": err.Error()})
				continue
			}
			write(map[string]any{"done": true, "took_ns": time.Since(start).Nanoseconds(), "version": version})
		case "stats":
			write(stats())
		case "free":
			debug.FreeOSMemory()
			write(map[string]any{"done": true})
		case "quit":
			return nil
		default:
			write(map[string]any{"error": fmt.Sprintf("there is no command %q", request.Cmd)})
		}
	}
	return lines.Err()
}

func stats() map[string]any {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return map[string]any{
		"heap_bytes":     memory.HeapAlloc,
		"sys_bytes":      memory.Sys,
		"released_bytes": memory.HeapReleased,
		"stack_bytes":    memory.StackInuse,
		"gcs":            memory.NumGC,
		"gc_pause_ns":    memory.PauseTotalNs,
		"gc_cpu_share":   memory.GCCPUFraction,
		"goroutines":     runtime.NumGoroutine(),
	}
}

// write writes a line to the standard output. Nothing else writes there.
func write(answer map[string]any) {
	line, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}
