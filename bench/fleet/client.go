package main

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// client is the xDS client of a proxy, and behaves as Envoy does. It asks for clusters first, then for their endpoints, for
// listeners once it has all endpoints, and then for scopes and routes. Before it ACKs a response, it asks for the resources that
// the response names.
type client struct {
	delta   bool
	node    []byte // the field `node` of the first request
	nack    bool   // refuses the next response
	mute    bool   // never ACKs a response
	greeted bool   // the first request of this stream has been sent
	subs    [kinds]sub
}

// sub is the subscription to one type.
type sub struct {
	held    *held
	asked   *names     // nil before the first request; the empty set for a wildcard
	version string     // SotW: the last version that was ACKed
	nonce   string     // SotW: the last nonce that was received
	owed    []response // responses without an ACK; SotW: the last one only
}

// start begins a stream. With keep it subscribes again as on the stream before, and tells the server what it holds.
func (c *client) start(w *memo, keep bool, out func([]byte)) {
	c.greeted = false
	if !keep {
		c.subs = [kinds]sub{}
	}
	none := w.names(nil)
	c.subs[cds].asked = none
	for kind := range c.subs {
		s := &c.subs[kind]
		s.nonce, s.owed = "", nil
		if s.asked == nil {
			continue
		}
		if c.delta {
			body := s.asked.since(nil).subscribe
			if s.held != nil {
				body = append(append([]byte{}, body...), s.held.initial()...)
			}
			c.request(kind, body, out)
		} else {
			c.sotw(kind, out)
		}
	}
}

// receive handles a response with this content, and sends the requests that Envoy would send.
func (c *client) receive(w *memo, r response, b *batch, out func([]byte)) {
	s := &c.subs[r.kind]
	if !c.delta {
		s.nonce = string(r.nonce)
	}
	if c.nack {
		c.refuse(r, out)
		return
	}
	s.held = w.apply(s.held, b, c.delta)
	if !c.delta {
		s.version = string(r.version)
	}
	c.follow(w, r.kind, out)
	if c.mute {
		if !c.delta {
			s.owed = nil
		}
		s.owed = append(s.owed, response{kind: r.kind, nonce: bytes.Clone(r.nonce)})
		return
	}
	c.answer(r, out)
}

// answer ACKs a response.
func (c *client) answer(r response, out func([]byte)) {
	if c.delta {
		c.ack(r, out)
	} else {
		c.sotw(r.kind, out)
	}
}

// settle ACKs the responses that came while the client was mute.
func (c *client) settle(out func([]byte)) {
	for kind := range c.subs {
		s := &c.subs[kind]
		for _, r := range s.owed {
			c.answer(r, out)
		}
		s.owed = nil
	}
}

// follow asks for the resources that the newest response names.
func (c *client) follow(w *memo, kind int, out func([]byte)) {
	none := w.names(nil)
	switch kind {
	case cds:
		c.ask(w, eds, c.subs[cds].held.wants, out)
	case lds:
		if c.subs[lds].held.scoped && c.subs[srds].asked == nil {
			c.subs[srds].asked = none
			c.wildcard(srds, out)
		}
	}
	if (kind == cds || kind == eds) && c.subs[lds].asked == nil && c.warm() {
		c.subs[lds].asked = none
		c.wildcard(lds, out)
	}
	if kind == lds || kind == srds {
		c.ask(w, rds, c.routes(w), out)
	}
}

// warm returns true if the client has the endpoints of all its clusters.
func (c *client) warm() bool {
	clusters := c.subs[cds].held
	return clusters != nil && c.subs[eds].held.has(clusters.wants)
}

// routes returns the RouteConfigurations that listeners and scopes name.
func (c *client) routes(w *memo) *names {
	set := w.names(nil)
	for _, kind := range [...]int{lds, srds} {
		if h := c.subs[kind].held; h != nil {
			set = w.union(h.wants, set)
		}
	}
	return set
}

// synced returns true if the client has every resource that is named.
func (c *client) synced(w *memo) bool {
	listeners := c.subs[lds].held
	if listeners == nil || !c.warm() || listeners.scoped && c.subs[srds].held == nil {
		return false
	}
	return c.subs[rds].held.has(c.routes(w))
}

// ask changes the subscription to these names, and no others.
func (c *client) ask(w *memo, kind int, set *names, out func([]byte)) {
	s := &c.subs[kind]
	if s.asked == set || s.asked == nil && len(set.list) == 0 {
		return
	}
	change := set.since(s.asked)
	s.asked = set
	if len(change.unsubscribe) > 0 {
		s.held = w.keep(s.held, set)
	}
	if !c.delta {
		c.sotw(kind, out)
		return
	}
	body := change.subscribe
	if len(change.unsubscribe) > 0 {
		body = append(append([]byte{}, body...), change.unsubscribe...)
	}
	c.request(kind, body, out)
}

func (c *client) wildcard(kind int, out func([]byte)) {
	if c.delta {
		c.request(kind, nil, out)
	} else {
		c.sotw(kind, out)
	}
}

// begin returns the first bytes of a request, with capacity for `room` bytes beside a type and a nonce.
func (c *client) begin(room int) []byte {
	if c.greeted {
		return make([]byte, 0, 160+room)
	}
	c.greeted = true
	return append(make([]byte, 0, len(c.node)+160+room), c.node...)
}

// request sends a delta request that changes a subscription.
func (c *client) request(kind int, body []byte, out func([]byte)) {
	out(append(appendString(c.begin(len(body)), 2, urls[kind]), body...))
}

func (c *client) ack(r response, out func([]byte)) {
	out(appendField(appendString(c.begin(0), 2, urls[r.kind]), 6, r.nonce))
}

// sotw sends a SotW request, which is an ACK and a subscription at once.
func (c *client) sotw(kind int, out func([]byte)) {
	out(c.state(kind))
}

func (c *client) state(kind int) []byte {
	s := &c.subs[kind]
	body := c.begin(len(s.asked.sotw))
	if s.version != "" {
		body = appendString(body, 1, s.version)
	}
	body = append(body, s.asked.sotw...)
	body = appendString(body, 4, urls[kind])
	if s.nonce != "" {
		body = appendString(body, 5, s.nonce)
	}
	return body
}

func (c *client) refuse(r response, out func([]byte)) {
	if c.delta {
		out(appendField(appendField(appendString(c.begin(0), 2, urls[r.kind]), 6, r.nonce), 7, refusal))
	} else {
		out(appendField(c.state(r.kind), 6, refusal))
	}
}

// refusal is a google.rpc.Status with INVALID_ARGUMENT and a message.
var refusal = appendString(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3), 2, "refused on purpose")

// node returns the field `node` of a request, as an Envoy fills it in. `field` is its number.
func node(field protowire.Number, id, cluster string, metadata map[string]string) []byte {
	body := appendString(appendString(nil, 1, id), 2, cluster)
	if len(metadata) > 0 {
		var fields []byte
		for name, text := range metadata { // google.protobuf.Struct
			entry := appendField(appendString(nil, 1, name), 2, appendString(nil, 3, text))
			fields = appendField(fields, 1, entry)
		}
		body = appendField(body, 3, fields)
	}
	body = appendString(body, 6, "envoy")
	var version []byte
	for number, part := range [...]uint64{1, 40, 0} {
		version = protowire.AppendVarint(protowire.AppendTag(version, protowire.Number(number+1), protowire.VarintType), part)
	}
	body = appendField(body, 8, appendField(nil, 1, version))
	body = appendString(body, 10, "envoy.lb.does_not_support_overprovisioning")
	body = appendString(body, 10, "envoy.lrs.supports_send_all_clusters")
	return appendField(nil, field, body)
}

func appendField(to []byte, number protowire.Number, bytes []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), bytes)
}

func appendString(to []byte, number protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), text)
}
