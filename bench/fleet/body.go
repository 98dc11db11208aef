package main

import "bytes"

// Thousands of proxies are sent the same, megabytes each in their first sync, in pieces that come in turn. So a long message is
// not put together for each: it is compared, as it comes, with one that was read before. What is equal need not be kept, and
// need not be read again.

// body is a long message that was read. Its bytes are never changed.
type body struct {
	bytes []byte
	at    int      // where its nonce begins, by which messages differ
	read  response // what scan found before that
}

// message is one from the server: it begins with so many bytes of another, where there is a like, and goes on with its own.
type message struct {
	like *body
	same int
	own  []byte
}

// scan is what each proxy reads of the message itself.
func (m message) scan(delta bool) (response, bool) {
	if m.like == nil || m.same < m.like.at {
		return scan(response{kind: -1}, m.whole(), delta)
	}
	return scan(m.like.read, append(bytes.Clone(m.like.bytes[m.like.at:m.same]), m.own...), delta)
}

// whole is all bytes of the message.
func (m message) whole() []byte {
	if m.like == nil {
		return m.own
	}
	return append(m.like.bytes[:m.same:m.same], m.own...)
}

// Bodies that are kept: shorter ones cost little to put together.
const (
	shortest   = 64 << 10
	mostBodies = 32
	mostBytes  = 256 << 20
)

// bodies are the newest, the last at the end.
type bodies []*body

// keep remembers a message that was new, if it is long.
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
		if total += len((*all)[i].bytes); total > mostBytes || len(*all)-i > mostBodies {
			*all = append(bodies(nil), (*all)[i+1:]...)
			return
		}
	}
}

// find is a body of about this size that a message begins like, of which some has come; nil if there is none. The data begins
// with the message's head.
func (all bodies) find(data []byte, size int) *body {
	if size < shortest || len(data) < 512 || data[0] != 0 {
		return nil
	}
	for i := len(all) - 1; i >= 0; i-- {
		known := all[i]
		if off := len(known.bytes) - size; off > -64 && off < 64 && bytes.Equal(known.bytes[:507], data[5:512]) {
			return known
		}
	}
	return nil
}

// common is how many bytes both begin with.
func common(a, b []byte) int {
	least, n := 0, min(len(a), len(b))
	for step := n; step > 0; step /= 2 { // so much is equal, and of what follows it is looked at most at this much
		for least+step <= n && bytes.Equal(a[least:least+step], b[least:least+step]) {
			least += step
		}
	}
	return least
}
