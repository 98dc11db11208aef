package main

import (
	"bytes"
	"container/heap"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// group is a set of proxies that were opened together, and behave in the same way.
type group struct {
	name    string
	path    string
	delta   bool
	nack    bool          // refuses responses once it is in sync
	mute    bool          // never ACKs
	slow    time.Duration // the time between two reads of at most slowBytes; 0 reads at once
	retry   time.Duration // the first wait before a reconnect, doubled up to 30 s
	keep    bool          // tells the server on a new stream what it holds from the one before
	cluster string
	meta    map[string]string
}

const slowBytes = 4096

// proxy is one simulated Envoy.
type proxy struct {
	client
	conn
	group   *group
	fd      int // -1 while there is no connection
	epoch   int // counts connections; a timer of an older one does nothing
	tries   int // attempts to connect since the last response
	wanted  bool
	events  uint32
	opening bool // not connected yet

	since    time.Duration // the time of the command to open
	opened   time.Duration // the time at which the newest connection opened
	inSync   time.Duration // the time at which it was in sync; 0 before
	received time.Duration // the time of the first hit since the watch began
	acked    time.Duration
	waiting  bool // the ACK of a hit must be written
	connects int
	bytes    int64
	messages int64
}

// loop is one thread and its share of the proxies. Only that thread uses the loop's state: do() runs on it.
type loop struct {
	target  unix.Sockaddr
	wire    *wire
	memo    *memo
	proxies []*proxy
	byFd    []*proxy
	timers  timers
	epoll   int
	wake    int
	asks    chan func()
	active  atomic.Int64 // the time of the last response; other threads read it too
	errors  map[string]int
	watched string
	content []byte
	armed   bool
}

func newLoop(target unix.Sockaddr, authority string) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l := &loop{target: target, wire: newWire(authority), memo: newMemo(), epoll: epoll, wake: wake}
	l.asks, l.errors = make(chan func(), 16), map[string]int{}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	return l, unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &event)
}

// do runs f on the loop's thread, and waits until it has run.
func (l *loop) do(f func()) {
	done := make(chan struct{})
	l.asks <- func() { f(); close(done) }
	unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-done
}

func (l *loop) run() {
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(l.epoll, events, l.timers.wait())
		if err != nil && err != unix.EINTR {
			panic(err)
		}
		for _, event := range events[:max(n, 0)] {
			if int(event.Fd) == l.wake {
				var b [8]byte
				unix.Read(l.wake, b[:])
				for len(l.asks) > 0 {
					(<-l.asks)()
				}
			} else if p := l.byFd[event.Fd]; p != nil {
				l.ready(p, event.Events)
			}
		}
		for now := clock(); len(l.timers) > 0 && l.timers[0].due <= now; {
			heap.Pop(&l.timers).(timer).run()
		}
	}
}

// after runs f on the loop's thread once this time has passed.
func (l *loop) after(wait time.Duration, f func()) {
	heap.Push(&l.timers, timer{clock() + wait, f})
}

// connect opens the connection of a proxy, and closes an existing one.
func (l *loop) connect(p *proxy) {
	l.hangUp(p)
	p.wanted = true
	p.epoch++
	fd, err := dial(l.target)
	if err != nil {
		l.failed(p, err)
		return
	}
	p.fd = fd
	for len(l.byFd) <= fd {
		l.byFd = append(l.byFd, make([]*proxy, 1024)...)
	}
	l.byFd[fd] = p
	p.connects++
	l.wire.sink.Reset()
	l.wire.open(&p.conn, p.group.path)
	p.out = append(p.out[:0], l.wire.sink.Bytes()...)
	// The first request is sent once the connection is open.
	p.opening = true
	p.events = unix.EPOLLOUT
	event := unix.EpollEvent{Events: p.events, Fd: int32(fd)}
	must(unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

func (l *loop) hangUp(p *proxy) {
	if p.fd >= 0 {
		l.byFd[p.fd] = nil
		unix.Close(p.fd)
		p.fd = -1
	}
	p.conn = conn{}
}

// failed closes a connection that has ended, and opens another later.
func (l *loop) failed(p *proxy, err error) {
	l.errors[err.Error()]++
	l.hangUp(p)
	p.epoch++
	p.inSync = 0
	if !p.wanted {
		return
	}
	// As Envoy does: a random time up to a limit that doubles.
	limit := min(p.group.retry<<min(p.tries, 16), 30*time.Second)
	p.tries++
	epoch := p.epoch
	l.after(time.Duration(rand.Int64N(int64(limit)+1)), func() {
		if p.epoch == epoch && p.wanted {
			l.connect(p)
		}
	})
}

func (l *loop) ready(p *proxy, events uint32) {
	l.wire.sink.Reset()
	if p.opening && events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		p.opening = false
		p.opened = clock()
		l.want(p, unix.EPOLLIN)
		p.client.start(l.memo, p.group.keep, func(m []byte) { l.wire.send(&p.conn, m) })
	}
	var err error
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		err = l.read(p)
	}
	if err == nil {
		err = l.write(p)
	}
	if err != nil {
		l.failed(p, err)
	}
}

func (l *loop) read(p *proxy) error {
	limit := readSize
	if p.group.slow > 0 {
		limit = slowBytes
	}
	for {
		n, err := unix.Read(p.fd, l.wire.room(&p.conn, limit))
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return nil
		case err != nil:
			return err
		case n == 0:
			return errors.New("the server closed the connection")
		}
		p.bytes += int64(n)
		if err := l.wire.read(&p.conn, n, func(m message) error { return l.message(p, m) }); err != nil {
			if err == io.EOF {
				err = errors.New("the server ended the stream")
			}
			return err
		}
		if p.accepted && p.inSync == 0 && p.group.keep && p.synced(l.memo) {
			p.inSync = clock() // nothing changed since the stream before, so no response will come
		}
		if p.group.slow > 0 {
			l.pause(p, p.group.slow)
			return nil
		}
		if n < limit {
			return nil
		}
	}
}

// pause stops reading for this time.
func (l *loop) pause(p *proxy, wait time.Duration) {
	l.want(p, p.events&^unix.EPOLLIN)
	epoch := p.epoch
	l.after(wait, func() {
		if p.epoch == epoch && p.fd >= 0 {
			l.want(p, p.events|unix.EPOLLIN)
		}
	})
}

// turn is called when the behaviour of a proxy has changed.
func (l *loop) turn(p *proxy, was *group) {
	if p.fd < 0 || p.opening {
		return
	}
	switch now := p.group; {
	case now.slow == was.slow:
	case now.slow > 0:
		l.pause(p, rand.N(now.slow)) // so that not all proxies read at the same time
	default:
		l.want(p, p.events|unix.EPOLLIN)
	}
	if was.mute && !p.group.mute {
		l.wire.sink.Reset()
		p.client.settle(func(m []byte) { l.wire.send(&p.conn, m) })
		p.waiting = p.received > 0 && p.acked == 0
		if err := l.write(p); err != nil {
			l.failed(p, err)
		}
	}
}

func (l *loop) want(p *proxy, events uint32) {
	if p.events != events {
		p.events = events
		event := unix.EpollEvent{Events: events, Fd: int32(p.fd)}
		must(unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, p.fd, &event))
	}
}

func (l *loop) message(p *proxy, m message) error {
	p.messages++
	p.tries = 0
	r, ok := m.scan(p.delta)
	if !ok || r.kind < 0 {
		return errors.New("an invalid response")
	}
	b := l.memo.seen(r)
	if b == nil {
		b = l.memo.read(r, m.whole(), p.delta, l.hit)
		l.wire.bodies.keep(m, p.delta)
	}
	p.nack, p.mute = p.group.nack && p.inSync > 0, p.group.mute
	p.client.receive(l.memo, r, b, func(m []byte) { l.wire.send(&p.conn, m) })
	now := clock()
	l.active.Store(int64(now))
	if l.armed && b.hit && p.received == 0 {
		p.received = now
		p.waiting = !p.mute && !p.nack
	}
	if p.inSync == 0 && p.synced(l.memo) {
		p.inSync = now
	}
	return nil
}

// write writes pending bytes to the socket, and keeps those that it does not accept.
func (l *loop) write(p *proxy) error {
	data := l.wire.sink.Bytes()
	if len(p.out) > 0 {
		p.out = append(p.out, data...)
		data = p.out
	}
	if len(data) > 0 {
		n, err := unix.Write(p.fd, data)
		if err == unix.EAGAIN || err == unix.EINTR {
			n, err = 0, nil
		}
		if err != nil {
			return err
		}
		if n == len(data) {
			p.out = nil
		} else {
			p.out = append([]byte(nil), data[n:]...)
		}
	}
	if len(p.out) > 0 {
		l.want(p, p.events|unix.EPOLLOUT)
		return nil
	}
	l.want(p, p.events&^unix.EPOLLOUT)
	if p.waiting {
		p.waiting = false
		p.acked = clock()
	}
	return nil
}

// hit returns true if a resource is the watched change.
func (l *loop) hit(name string, body []byte) bool {
	return l.armed && (l.watched == "" || l.watched == name) && (len(l.content) == 0 || bytes.Contains(body, l.content))
}

// timers are a heap with the next one on top.
type timers []timer

type timer struct {
	due time.Duration
	run func()
}

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}

// wait returns the time until the next timer is due, in milliseconds; -1 if there is none.
func (t timers) wait() int {
	if len(t) == 0 {
		return -1
	}
	wait := t[0].due - clock()
	if wait <= 0 {
		return 0
	}
	return int((wait + time.Millisecond - 1) / time.Millisecond)
}

// clock returns CLOCK_MONOTONIC, which is the same for all processes of this machine (Python: time.monotonic_ns).
func clock() time.Duration { return epoch + time.Since(started) }

var started, epoch = func() (time.Time, time.Duration) {
	var now unix.Timespec
	must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return time.Now(), time.Duration(now.Nano())
}()
