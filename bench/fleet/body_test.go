package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// made is a response with these resources; the nonce stands where servers put it.
func made(kind int, resources [][]byte, nonce string, removed ...string) []byte {
	body := appendString(nil, 1, "7")
	for _, r := range resources {
		body = appendField(body, 2, r)
	}
	body = appendString(appendString(body, 4, urls[kind]), 5, nonce)
	for _, name := range removed {
		body = appendString(body, 6, name)
	}
	return body
}

// several are resources of some 500 bytes each, for a message of this size.
func several(random *rand.Rand, size int) (found [][]byte) {
	for i := 0; i*500 < size; i++ {
		content := make([]byte, 400+random.IntN(200))
		for j := range content {
			content[j] = byte(random.Uint32())
		}
		value := appendField(appendString(nil, 1, fmt.Sprintf("cluster-%d", i)), 9, content)
		packed := appendField(appendString(nil, 1, urls[cds]), 2, value)
		found = append(found, appendField(appendString(appendString(nil, 3, fmt.Sprintf("cluster-%d", i)), 1, "v"), 2, packed))
	}
	return found
}

// What is read of messages does not depend on the pieces in which they come, nor on what came before.
func TestMessagesInPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	base := several(random, 300_000)
	changed := append([][]byte{}, base...)
	changed[len(changed)/2] = several(random, 1)[0]
	var bodies [][]byte
	for range 200 {
		resources := [][][]byte{base, changed, base[:len(base)-1], base[:3], nil, several(random, 100_000)}[random.IntN(6)]
		var removed []string
		if random.IntN(3) == 0 {
			removed = []string{fmt.Sprint("gone-", random.IntN(3))}
		}
		bodies = append(bodies, made(cds, resources, fmt.Sprint(random.IntN(1000)), removed...))
	}
	w := newWire("")
	read, compared := 0, 0
	for range 30 {
		// Each is a connection that gets some of the messages, in pieces of any length.
		var stream []byte
		var expected [][]byte
		for range 1 + random.IntN(8) {
			body := bodies[random.IntN(len(bodies))]
			expected = append(expected, body)
			stream = append(binary.BigEndian.AppendUint32(append(stream, 0), uint32(len(body))), body...)
		}
		c := &conn{}
		for len(stream) > 0 {
			n := min(len(stream), 1+random.IntN([]int{9, 600, plainFrame}[random.IntN(3)]))
			err := w.data(c, stream[:n], n, false, func(m message) error {
				body := expected[0]
				expected = expected[1:]
				if !bytes.Equal(m.whole(), body) {
					t.Fatal("another message came out than went in")
				}
				found, ok := m.scan(true)
				wanted, _ := scan(response{kind: -1}, body, true)
				if !ok || found.kind != wanted.kind || found.sum != wanted.sum || !bytes.Equal(found.nonce, wanted.nonce) {
					t.Fatalf("read as %v, not %v", found, wanted)
				}
				read++
				if m.like != nil && m.same >= m.like.at {
					compared++
				} else {
					w.bodies.keep(m, true)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			stream = stream[n:]
		}
		if len(expected) > 0 || len(c.msg) > 0 || c.like != nil {
			t.Fatal("something is left over")
		}
	}
	if compared < read/5 {
		t.Fatalf("of %d messages only %d were found to be known", read, compared)
	}
}

// Some servers send their resources in another order to each.
func TestOrderIsNoDifference(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	resources := several(random, 5000)
	sum := func(nonce string, resources [][]byte, removed ...string) uint64 {
		r, ok := scan(response{kind: -1}, made(cds, resources, nonce, removed...), true)
		if !ok || r.kind != cds || string(r.nonce) != nonce {
			t.Fatalf("read as %v", r)
		}
		return r.sum
	}
	first := sum("1", resources, "a", "b")
	random.Shuffle(len(resources), func(i, j int) { resources[i], resources[j] = resources[j], resources[i] })
	if sum("20", resources, "b", "a") != first {
		t.Fatal("another order, or another nonce, is another response")
	}
	if sum("1", resources, "a") == first || sum("1", resources[1:], "a", "b") == first || sum("1", nil) == sum("1", nil, "a") {
		t.Fatal("other resources are the same response")
	}
}

func TestCommon(t *testing.T) {
	a := bytes.Repeat([]byte("turnout"), 100)
	for i := range a {
		b := bytes.Clone(a)
		b[i]++
		if n := common(a, b); n != i {
			t.Fatalf("%d bytes in common, not %d", n, i)
		}
		if n := common(a[:i], a); n != i {
			t.Fatalf("%d bytes in common, not %d", n, i)
		}
	}
}

func TestSpareBuffers(t *testing.T) {
	var s spare
	for _, size := range []int{1, 64, 65, 5000, 1 << 20} {
		one := s.take(size)
		if len(one) != 0 || cap(one) < size {
			t.Fatalf("no room for %d bytes", size)
		}
		s.give(append(one, 1))
		if again := s.take(size); &again[:1][0] != &one[:1][0] || len(again) != 0 {
			t.Fatalf("a buffer for %d bytes was not used again", size)
		}
	}
	if s.bytes != 0 {
		t.Fatalf("%d bytes are said to be kept, and none are", s.bytes)
	}
	for range 3 {
		s.give(make([]byte, 0, mostSpare/2))
	}
	if s.bytes > mostSpare {
		t.Fatalf("%d bytes are kept", s.bytes)
	}
}
