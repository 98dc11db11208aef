package main

import "bytes"

// Thousands of proxies receive the same messages, of megabytes in their first sync, in pieces that alternate between them. So a
// long message is not assembled for each proxy. Its pieces are compared with a message that was read before; equal bytes are
// neither kept nor read again.

// body is a long message that was read. Its bytes are immutable.
type body struct {
	bytes []byte
	at    int      // where its nonce begins; messages to different proxies differ from there
	read  response // the result of scan up to there
}

// message is a message from the server. With `like` it is the first `same` bytes of that body, followed by its own bytes.
type message struct {
	like *body
	same int
	own  []byte
}

// scan returns the part of the message that each proxy reads itself.
func (m message) scan(delta bool) (response, bool) {
	if m.like == nil || m.same < m.like.at {
		return scan(response{kind: -1}, m.whole(), delta)
	}
	return scan(m.like.read, append(bytes.Clone(m.like.bytes[m.like.at:m.same]), m.own...), delta)
}

// whole returns all bytes of the message.
func (m message) whole() []byte {
	if m.like == nil {
		return m.own
	}
	return append(m.like.bytes[:m.same:m.same], m.own...)
}

// Bounds of the bodies that are kept. Messages shorter than `shortest` are cheap to assemble.
const (
	shortest  = 64 << 10
	maxBodies = 32
	maxBytes  = 256 << 20
)

// bodies are the newest long messages, with the newest at the end.
type bodies []*body

// keep remembers a new message if it is long.
func (all *bodies) keep(m message, delta bool) {
	if m.same+len(m.own) < shortest {
		return
	}
	whole := bytes.Clone(m.whole())
	at := nonceAt(whole)
	read, ok := scan(response{kind: -1}, whole[:at], delta)
	if at == 0 || !ok {
		return
	}
	*all = append(*all, &body{whole, at, read})
	total := 0
	for i := len(*all) - 1; i >= 0; i-- {
		if total += len((*all)[i].bytes); total > maxBytes || len(*all)-i > maxBodies {
			*all = append(bodies(nil), (*all)[i+1:]...)
			return
		}
	}
}

// find returns a body of about this size that begins like this message, or nil. `data` is the first piece of the message, with
// its head.
func (all bodies) find(data []byte, size int) *body {
	if size < shortest || len(data) < 512 || data[0] != 0 {
		return nil
	}
	for i := len(all) - 1; i >= 0; i-- {
		candidate := all[i]
		if off := len(candidate.bytes) - size; off > -64 && off < 64 && bytes.Equal(candidate.bytes[:507], data[5:512]) {
			return candidate
		}
	}
	return nil
}

// common returns the length of the common prefix.
func common(a, b []byte) int {
	least, n := 0, min(len(a), len(b))
	for step := n; step > 0; step /= 2 { // `least` bytes are equal; look at most at `step` bytes after them
		for least+step <= n && bytes.Equal(a[least:least+step], b[least:least+step]) {
			least += step
		}
	}
	return least
}
