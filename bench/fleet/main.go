// Command fleet plays thousands of Envoys towards one xDS server: a connection each, in few threads.
//
// It is driven by JSON, one object a line on standard input, and answers each with one line on standard output. Times are in
// seconds; points in time are nanoseconds of CLOCK_MONOTONIC.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	deltaPath = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	sotwPath  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
)

// command is what a line may say. Unset numbers are 0, which stands for the default that is named.
type command struct {
	Cmd   string `json:"cmd"`
	Group string `json:"group"` // proxies that were opened under this name; "" is a name like any other

	// open
	N        int               `json:"n"`
	Variant  string            `json:"variant"` // delta (default) or sotw
	Rate     float64           `json:"rate"`    // connections a second; 0: all at once. Also for reopen
	Cluster  string            `json:"cluster"` // the nodes' cluster; bench
	Metadata map[string]string `json:"metadata"`
	Nack     bool              `json:"nack"`     // refuses every change once it has everything
	Mute     bool              `json:"mute"`     // never ACKs
	SlowMs   int               `json:"slow_ms"`  // reads 4 KiB in this time
	RetryMs  int               `json:"retry_ms"` // the first wait after a connection broke; 500

	Keep *bool `json:"keep"` // open, reopen: a new stream says what is held; true

	// watch
	Name     string `json:"name"`     // of the RouteConfiguration that will change; "" is any
	Contains string `json:"contains"` // what it will contain

	// wait_synced, result
	FromNs   int64   `json:"from_ns"`
	Timeout  float64 `json:"timeout"`  // 60
	QuietMs  int     `json:"quiet_ms"` // how long nothing came; 100
	Fraction float64 `json:"fraction"` // of the group that is waited for; 1
	Now      bool    `json:"now"`      // don't wait for quiet
}

type answer map[string]any

func main() {
	target := flag.String("target", "", "address of the xDS server, HOST:PORT")
	loops := flag.Int("loops", 1, "threads")
	flag.Parse()
	f, err := newFleet(*target, *loops)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	out.Encode(answer{"ok": true, "pid": os.Getpid()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			out.Encode(answer{"ok": false, "error": err.Error()})
			continue
		}
		if c.Cmd == "quit" {
			return
		}
		out.Encode(f.handle(c))
	}
}

// fleet is all loops; the proxies of a group are dealt out to them in turn.
type fleet struct {
	loops  []*loop
	groups map[string]*group
	nodes  int
}

func newFleet(target string, loops int) (*fleet, error) {
	raise()
	address, err := net.ResolveTCPAddr("tcp4", target)
	if err != nil || address.Port == 0 {
		return nil, fmt.Errorf("-target %q is no HOST:PORT: %w", target, err)
	}
	to := &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())}
	f := &fleet{groups: map[string]*group{}}
	runtime.GOMAXPROCS(max(loops+1, runtime.NumCPU()))
	for range loops {
		l, err := newLoop(to, target)
		if err != nil {
			return nil, err
		}
		go l.run()
		f.loops = append(f.loops, l)
	}
	return f, nil
}

// raise allows as many open files as the system lets us.
func raise() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

func (f *fleet) handle(c command) answer {
	if c.QuietMs == 0 {
		c.QuietMs = 100
	}
	if c.Timeout == 0 {
		c.Timeout = 60
	}
	if c.Fraction == 0 {
		c.Fraction = 1
	}
	switch c.Cmd {
	case "open":
		return f.open(c)
	case "watch":
		return f.watch(c)
	case "stats":
		return f.stats()
	}
	ofGroup := map[string]func(command) answer{
		"reopen": f.reopen, "keep": f.keep, "close": f.close, "wait_synced": f.waitSynced, "result": f.result,
	}
	do := ofGroup[c.Cmd]
	switch {
	case do == nil:
		return answer{"ok": false, "error": "there is no command " + strconv.Quote(c.Cmd)}
	case f.groups[c.Group] == nil:
		return answer{"ok": false, "error": "there is no group " + strconv.Quote(c.Group)}
	}
	return do(c)
}

func (f *fleet) open(c command) answer {
	if f.groups[c.Group] != nil {
		return answer{"ok": false, "error": "the group is open already"}
	}
	g := &group{name: c.Group, path: deltaPath, delta: true, nack: c.Nack, mute: c.Mute, cluster: c.Cluster, meta: c.Metadata}
	if c.Variant == "sotw" {
		g.path, g.delta = sotwPath, false
	}
	if g.cluster == "" {
		g.cluster = "bench"
	}
	g.slow = time.Duration(c.SlowMs) * time.Millisecond
	g.retry = 500 * time.Millisecond
	if c.RetryMs > 0 {
		g.retry = time.Duration(c.RetryMs) * time.Millisecond
	}
	g.keep = c.Keep == nil || *c.Keep
	f.groups[c.Group] = g
	number := protowire.Number(2)
	if g.delta {
		number = 1
	}
	for i := range c.N {
		f.nodes++
		p := &proxy{group: g, fd: -1}
		p.client = client{delta: g.delta, nack: g.nack, mute: g.mute}
		p.node = node(number, fmt.Sprintf("envoy-%05d", f.nodes), g.cluster, g.meta)
		l := f.loops[i%len(f.loops)]
		l.do(func() { l.proxies = append(l.proxies, p) })
	}
	return f.connect(c, g)
}

// connect opens the connections of a group, at a rate or all at once.
func (f *fleet) connect(c command, g *group) answer {
	now := clock()
	for i, l := range f.loops {
		l.do(func() {
			for j, p := range l.of(g) {
				p.inSync, p.since, p.tries = 0, now, 0
				wait := time.Duration(0)
				if c.Rate > 0 {
					wait = time.Duration(float64(j*len(f.loops)+i) / c.Rate * float64(time.Second))
				}
				l.after(wait, func() { l.connect(p) })
			}
		})
	}
	return answer{"ok": true, "at_ns": now.Nanoseconds()}
}

// keep changes what a group says on new streams from now on; waits begin from the shortest again.
func (f *fleet) keep(c command) answer {
	keep := c.Keep == nil || *c.Keep
	for _, l := range f.loops {
		l.do(func() {
			f.groups[c.Group].keep = keep
			for _, p := range l.of(f.groups[c.Group]) {
				p.tries = 0
			}
		})
	}
	return answer{"ok": true}
}

// reopen closes all connections of a group, and opens them anew at once.
func (f *fleet) reopen(c command) answer {
	g := f.groups[c.Group]
	for _, l := range f.loops {
		l.do(func() {
			if c.Keep != nil {
				g.keep = *c.Keep
			}
			for _, p := range l.of(g) {
				l.hangUp(p)
				p.epoch++
				p.wanted = false
			}
		})
	}
	return f.connect(c, g)
}

// close closes all connections of a group for good.
func (f *fleet) close(c command) answer {
	g := f.groups[c.Group]
	for _, l := range f.loops {
		l.do(func() {
			left := l.proxies[:0]
			for _, p := range l.proxies {
				if p.group == g {
					l.hangUp(p)
					p.epoch++
					p.wanted = false
				} else {
					left = append(left, p)
				}
			}
			clear(l.proxies[len(left):])
			l.proxies = left
		})
	}
	delete(f.groups, c.Group)
	return answer{"ok": true}
}

// watch counts anew, and looks for a RouteConfiguration from now on.
func (f *fleet) watch(c command) answer {
	for _, l := range f.loops {
		l.do(func() {
			l.armed, l.watched, l.content = true, c.Name, []byte(c.Contains)
			clear(l.world.batches) // what was read before was not looked through
			for _, p := range l.proxies {
				p.received, p.acked, p.bytes, p.messages = 0, 0, 0, 0
			}
		})
	}
	return answer{"ok": true, "at_ns": clock().Nanoseconds()}
}

// waitSynced waits until all proxies of a group have all that they ask for.
func (f *fleet) waitSynced(c command) answer {
	from := time.Duration(c.FromNs)
	done := f.wait(c, func(p *proxy) bool { return p.inSync > 0 })
	var took, served, bytes, messages []float64
	last := time.Duration(0)
	n := f.each(c, func(p *proxy) {
		bytes, messages = append(bytes, float64(p.bytes)), append(messages, float64(p.messages))
		if p.inSync > 0 {
			start := p.since
			if from > 0 {
				start = from
			}
			took = append(took, (p.inSync - start).Seconds())
			served = append(served, (p.inSync - p.stood).Seconds())
			last = max(last, p.inSync)
		}
	})
	return answer{
		"ok": done, "n": n, "synced": summary(took), "served": summary(served), "bytes": summary(bytes), "messages": summary(messages),
		"last_ns": last.Nanoseconds(), "errors": f.errors(), "cpu": cpu(),
	}
}

// result waits until all proxies of a group have received and ACKed what is watched for, and tells how long that took.
func (f *fleet) result(c command) answer {
	from := time.Duration(c.FromNs)
	mute := f.groups[c.Group].mute
	done := f.wait(c, func(p *proxy) bool { return p.received > 0 && (mute || p.acked > 0) })
	var received, acked, bytes, messages []float64
	n := f.each(c, func(p *proxy) {
		if p.received > 0 {
			received = append(received, (p.received - from).Seconds())
		}
		if p.acked > 0 {
			acked = append(acked, (p.acked - from).Seconds())
		}
		bytes, messages = append(bytes, float64(p.bytes)), append(messages, float64(p.messages))
	})
	return answer{
		"ok": done, "n": n, "received": summary(received), "acked": summary(acked), "bytes": summary(bytes),
		"messages": summary(messages), "errors": f.errors(), "cpu": cpu(),
	}
}

// stats is how many connections there are, and what this program has cost.
func (f *fleet) stats() answer {
	open, inSync, connects, messages, total := 0, 0, 0, int64(0), 0
	for _, l := range f.loops {
		l.do(func() {
			total += len(l.proxies)
			for _, p := range l.proxies {
				connects += p.connects
				messages += p.messages
				if p.fd >= 0 {
					open++
				}
				if p.inSync > 0 {
					inSync++
				}
			}
		})
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return answer{
		"ok": true, "n": total, "open": open, "synced": inSync, "connects": connects, "messages": messages,
		"errors": f.errors(), "cpu": cpu(), "heap": memory.HeapAlloc,
	}
}

// wait returns once enough proxies of a group are as they should be and nothing has come for a while; false after the timeout.
func (f *fleet) wait(c command, there func(*proxy) bool) bool {
	deadline := clock() + time.Duration(c.Timeout*float64(time.Second))
	quiet := time.Duration(c.QuietMs) * time.Millisecond
	for {
		active := time.Duration(0)
		for _, l := range f.loops {
			l.do(func() { active = max(active, l.active) })
		}
		now := clock()
		if c.Now || now-active >= quiet || now > deadline {
			count := 0
			n := f.each(c, func(p *proxy) {
				if there(p) {
					count++
				}
			})
			enough := float64(count) >= c.Fraction*float64(n)
			if enough || now > deadline {
				return enough
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// each calls visit for the proxies of a group, and tells how many they are.
func (f *fleet) each(c command, visit func(*proxy)) (n int) {
	g := f.groups[c.Group]
	for _, l := range f.loops {
		l.do(func() {
			for _, p := range l.of(g) {
				n++
				visit(p)
			}
		})
	}
	return n
}

func (f *fleet) errors() map[string]int {
	all := map[string]int{}
	for _, l := range f.loops {
		l.do(func() {
			for text, n := range l.errors {
				all[text] += n
			}
		})
	}
	return all
}

// of is the proxies of a group.
func (l *loop) of(g *group) []*proxy {
	found := make([]*proxy, 0, len(l.proxies))
	for _, p := range l.proxies {
		if p.group == g {
			found = append(found, p)
		}
	}
	return found
}

// cpu is the CPU time of this program so far, in seconds.
func cpu() float64 {
	var usage unix.Rusage
	must(unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
