package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// newResponse returns a response with these resources. The nonce is where servers put it.
func newResponse(kind int, resources [][]byte, nonce string, removed ...string) []byte {
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

// newResources returns resources of about 500 bytes each, for a message of this size.
func newResources(random *rand.Rand, size int) (resources [][]byte) {
	for i := 0; i*500 < size; i++ {
		content := make([]byte, 400+random.IntN(200))
		for j := range content {
			content[j] = byte(random.Uint32())
		}
		value := appendField(appendString(nil, 1, fmt.Sprintf("cluster-%d", i)), 9, content)
		packed := appendField(appendString(nil, 1, urls[cds]), 2, value)
		resources = append(resources, appendField(appendString(appendString(nil, 3, fmt.Sprintf("cluster-%d", i)), 1, "v"), 2, packed))
	}
	return resources
}

// The result of reading messages depends neither on their pieces nor on earlier messages.
func TestMessagesInPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	base := newResources(random, 300_000)
	changed := append([][]byte{}, base...)
	changed[len(changed)/2] = newResources(random, 1)[0]
	var bodies [][]byte
	for range 200 {
		resources := [][][]byte{base, changed, base[:len(base)-1], base[:3], nil, newResources(random, 100_000)}[random.IntN(6)]
		var removed []string
		if random.IntN(3) == 0 {
			removed = []string{fmt.Sprint("gone-", random.IntN(3))}
		}
		bodies = append(bodies, newResponse(cds, resources, fmt.Sprint(random.IntN(1000)), removed...))
	}
	w := newWire("")
	read, compared := 0, 0
	for range 30 {
		// A connection that gets some of the messages, in pieces of any length.
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
					t.Fatal("the message differs from the one that was sent")
				}
				result, ok := m.scan(true)
				wanted, _ := scan(response{kind: -1}, body, true)
				if !ok || result.kind != wanted.kind || result.sum != wanted.sum || !bytes.Equal(result.nonce, wanted.nonce) {
					t.Fatalf("read as %v, not %v", result, wanted)
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
			t.Fatal("some data was not read")
		}
	}
	if compared < read/5 {
		t.Fatalf("of %d messages only %d were compared with an earlier one", read, compared)
	}
}

// Some servers send their resources in a different order to each client.
func TestOrderIsNoDifference(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	resources := newResources(random, 5000)
	sum := func(nonce string, resources [][]byte, removed ...string) uint64 {
		r, ok := scan(response{kind: -1}, newResponse(cds, resources, nonce, removed...), true)
		if !ok || r.kind != cds || string(r.nonce) != nonce {
			t.Fatalf("read as %v", r)
		}
		return r.sum
	}
	first := sum("1", resources, "a", "b")
	random.Shuffle(len(resources), func(i, j int) { resources[i], resources[j] = resources[j], resources[i] })
	if sum("20", resources, "b", "a") != first {
		t.Fatal("a response in another order or with another nonce differs")
	}
	if sum("1", resources, "a") == first || sum("1", resources[1:], "a", "b") == first || sum("1", nil) == sum("1", nil, "a") {
		t.Fatal("a response with other resources is equal")
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
		t.Fatalf("%d bytes are counted, but none is kept", s.bytes)
	}
	for range 3 {
		s.give(make([]byte, 0, maxSpare/2))
	}
	if s.bytes > maxSpare {
		t.Fatalf("%d bytes are kept", s.bytes)
	}
}
