// Command fleet simulates thousands of Envoys that connect to one xDS server, in few threads.
//
// It reads commands from standard input, one JSON object a line, and answers each with one line on standard output. `fleet -h`
// lists them.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	deltaPath = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	sotwPath  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
)

const maxLine = 1 << 20 // bytes

type answer map[string]any

func main() {
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(help())
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(2)
	}
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			fmt.Fprintln(os.Stderr, "fleet: can't write the profile:", err)
			os.Exit(2)
		}
		must(pprof.StartCPUProfile(file))
	}
	err = run(o, os.Stdin, os.Stdout)
	pprof.StopCPUProfile()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// run runs the commands of the input until it ends.
func run(o options, in io.Reader, out io.Writer) error {
	f, err := newFleet(o)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	answers.SetEscapeHTML(false)
	reply := answer{"ok": true, "pid": os.Getpid()}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for {
		if err := answers.Encode(reply); err != nil {
			return err
		}
		if !lines.Scan() {
			break
		}
		c, v, err := read(lines.Bytes())
		switch {
		case err != nil:
			reply = wrong(err.Error())
		case v.do == nil:
			return nil
		default:
			reply = f.handle(c, v)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line is longer than %d bytes", maxLine)
	}
	return lines.Err()
}

func wrong(text string) answer { return answer{"ok": false, "error": text} }

// fleet has all loops. The proxies of a group are distributed to them in turn.
type fleet struct {
	loops  []*loop
	groups map[string]*group
	prefix string
	next   int // the number of the next node
}

func newFleet(o options) (*fleet, error) {
	raiseFileLimit()
	f := &fleet{groups: map[string]*group{}, prefix: o.prefix, next: o.first}
	runtime.GOMAXPROCS(max(o.loops+1, runtime.NumCPU()))
	for range o.loops {
		to := *o.address // a copy, since the socket library writes to it
		l, err := newLoop(&to, o.target)
		if err != nil {
			return nil, err
		}
		go l.run()
		f.loops = append(f.loops, l)
	}
	return f, nil
}

// raiseFileLimit allows as many open files as the system permits.
func raiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

func (f *fleet) handle(c command, v verb) answer {
	if c.QuietMs == 0 {
		c.QuietMs = 100
	}
	if c.Timeout == 0 {
		c.Timeout = 60
	}
	if c.Fraction == 0 {
		c.Fraction = 1
	}
	exists := f.groups[c.Group] != nil
	switch {
	case c.Cmd == "open" && exists:
		return wrong(fmt.Sprintf("the group %q is open already", c.Group))
	case c.Cmd != "open" && slices.Contains(v.keys, "group") && !exists:
		return wrong(fmt.Sprintf("there is no group %q", c.Group))
	}
	return v.do(f, c)
}

func (f *fleet) open(c command) answer {
	g := &group{name: c.Group, path: deltaPath, delta: true, cluster: c.Cluster, meta: c.Metadata, retry: 500 * time.Millisecond}
	if c.Variant == "sotw" {
		g.path, g.delta = sotwPath, false
	}
	if g.cluster == "" {
		g.cluster = "bench"
	}
	if c.RetryMs > 0 {
		g.retry = time.Duration(c.RetryMs) * time.Millisecond
	}
	g.keep = c.Keep == nil || *c.Keep
	g.behave(c)
	f.groups[c.Group] = g
	number := protowire.Number(2)
	if g.delta {
		number = 1
	}
	for i := range c.N {
		p := &proxy{group: g, fd: -1}
		p.client = client{delta: g.delta}
		p.node = node(number, fmt.Sprintf("%s%05d", f.prefix, f.next), g.cluster, g.meta)
		f.next++
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

// behave changes the behaviour of a group as c says. The group must not be in use by proxies.
func (g *group) behave(c command) {
	if c.Nack != nil {
		g.nack = *c.Nack
	}
	if c.Mute != nil {
		g.mute = *c.Mute
	}
	if c.SlowMs != nil {
		g.slow = time.Duration(*c.SlowMs) * time.Millisecond
	}
}

// change replaces a group by another, and calls then for each of its proxies.
func (f *fleet) change(from, to *group, then func(*loop, *proxy)) {
	for _, l := range f.loops {
		l.do(func() {
			for _, p := range l.of(from) {
				p.group = to
				then(l, p)
			}
		})
	}
	f.groups[to.name] = to
}

func (f *fleet) behave(c command) answer {
	from := f.groups[c.Group]
	to := *from
	to.behave(c)
	f.change(from, &to, func(l *loop, p *proxy) { l.turn(p, from) })
	return answer{"ok": true, "at_ns": clock().Nanoseconds()}
}

// keep changes what a group tells the server on new streams. Waits before a reconnect begin with the shortest again.
func (f *fleet) keep(c command) answer {
	to := *f.groups[c.Group]
	to.keep = c.Keep == nil || *c.Keep
	f.change(f.groups[c.Group], &to, func(_ *loop, p *proxy) { p.tries = 0 })
	return answer{"ok": true}
}

// reopen closes all connections of a group, and opens new ones at once.
func (f *fleet) reopen(c command) answer {
	to := *f.groups[c.Group]
	if c.Keep != nil {
		to.keep = *c.Keep
	}
	f.change(f.groups[c.Group], &to, func(l *loop, p *proxy) {
		l.hangUp(p)
		p.epoch++
		p.wanted = false
	})
	return f.connect(c, &to)
}

// close closes all connections of a group, and forgets the group.
func (f *fleet) close(c command) answer {
	g := f.groups[c.Group]
	for _, l := range f.loops {
		l.do(func() {
			others := l.proxies[:0]
			for _, p := range l.proxies {
				if p.group == g {
					l.hangUp(p)
					p.epoch++
					p.wanted = false
				} else {
					others = append(others, p)
				}
			}
			clear(l.proxies[len(others):])
			l.proxies = others
		})
	}
	delete(f.groups, c.Group)
	return answer{"ok": true}
}

// watch resets the counters, and watches the following responses for a RouteConfiguration.
func (f *fleet) watch(c command) answer {
	for _, l := range f.loops {
		l.do(func() {
			l.armed, l.watched, l.content = true, c.Name, []byte(c.Contains)
			clear(l.memo.batches) // these were not searched for the watched change
			for _, p := range l.proxies {
				p.received, p.acked, p.bytes, p.messages = 0, 0, 0, 0
			}
		})
	}
	return answer{"ok": true, "at_ns": clock().Nanoseconds()}
}

// waitSynced waits until all proxies of a group are in sync.
func (f *fleet) waitSynced(c command) answer {
	from := time.Duration(c.FromNs)
	done := f.wait(c, func(p *proxy) bool { return p.inSync > 0 })
	var synced, served, bytes, messages []float64
	last := time.Duration(0)
	n := f.each(c, func(p *proxy) {
		bytes, messages = append(bytes, float64(p.bytes)), append(messages, float64(p.messages))
		if p.inSync > 0 {
			start := p.since
			if from > 0 {
				start = from
			}
			synced = append(synced, (p.inSync - start).Seconds())
			served = append(served, (p.inSync - p.opened).Seconds())
			last = max(last, p.inSync)
		}
	})
	return answer{
		"ok": done, "n": n, "synced": summary(synced), "served": summary(served), "bytes": summary(bytes), "messages": summary(messages),
		"last_ns": last.Nanoseconds(), "errors": f.errors(), "cpu": cpu(),
	}
}

// result waits until all proxies of a group have received and ACKed the watched change, and returns their times.
func (f *fleet) result(c command) answer {
	from := time.Duration(c.FromNs)
	g := f.groups[c.Group]
	done := f.wait(c, func(p *proxy) bool { return p.received > 0 && (g.mute || g.nack || p.acked > 0) })
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

// stats returns the number of connections, and the cost of this program.
func (f *fleet) stats(command) answer {
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

// wait returns once enough proxies of a group satisfy the condition and no response has come for a while; false after the
// timeout.
func (f *fleet) wait(c command, condition func(*proxy) bool) bool {
	deadline := clock() + time.Duration(c.Timeout*float64(time.Second))
	quiet := time.Duration(c.QuietMs) * time.Millisecond
	for {
		now, calm := clock(), time.Duration(0)
		for _, l := range f.loops {
			calm = max(calm, time.Duration(l.active.Load())+quiet-now)
		}
		if c.Now {
			calm = 0
		}
		if calm <= 0 || now > deadline {
			count := 0
			n := f.each(c, func(p *proxy) {
				if condition(p) {
					count++
				}
			})
			enough := float64(count) >= c.Fraction*float64(n)
			if enough || now > deadline {
				return enough
			}
		}
		// Asking the loops costs more than a push to a proxy. So ask no earlier than an answer is possible, and seldom while no
		// response comes. A pause that is not longer than the quiet time delays no answer.
		pause := 10 * time.Millisecond
		if calm <= 0 && !c.Now {
			pause = max(pause, min(quiet, 50*time.Millisecond))
		}
		time.Sleep(min(max(calm, pause), max(deadline-now, 0)+time.Millisecond))
	}
}

// each calls visit for the proxies of a group, and returns their number.
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

// of returns the proxies of a group.
func (l *loop) of(g *group) []*proxy {
	proxies := make([]*proxy, 0, len(l.proxies))
	for _, p := range l.proxies {
		if p.group == g {
			proxies = append(proxies, p)
		}
	}
	return proxies
}

// cpu returns the CPU time of this program so far, in seconds.
func cpu() float64 {
	var usage unix.Rusage
	must(unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
