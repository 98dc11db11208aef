package main

import (
	"hash/maphash"

	"google.golang.org/protobuf/encoding/protowire"
)

// The types that an Envoy of Turnout asks for, in this order.
const (
	cds = iota
	eds
	lds
	srds
	rds
	kinds
)

var urls = [kinds]string{
	cds:  "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	eds:  "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	lds:  "type.googleapis.com/envoy.config.listener.v3.Listener",
	srds: "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
	rds:  "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}

const (
	resourceURL = "type.googleapis.com/envoy.service.discovery.v3.Resource"
	managerURL  = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)

var seed = maphash.MakeSeed()

// response is the part of a response that each proxy reads itself. The other parts are read once for all proxies that receive the
// same bytes.
type response struct {
	kind    int
	nonce   []byte
	version []byte // SotW only
	sum     uint64 // of the content in any order, without the fields that differ between streams
}

// item is one resource. All proxies that hold it share it.
type item struct {
	name    string
	version string
	sum     uint64   // of version and body
	refs    []string // names that a proxy asks for because of it: endpoints of a cluster, routes of a listener or a scope
	scoped  bool     // a listener that finds its routes through scopes
}

// batch is the content of one response.
type batch struct {
	kind    int
	items   []*item
	removed []string
	hit     bool // it has the watched change
}

// scan finds the nonce and the sum of a response; r is the result for the bytes before the body. Both kinds of response have the
// same field numbers up to the nonce.
func scan(r response, body []byte, delta bool) (response, bool) {
	skipped := protowire.Number(6) // control_plane
	if delta {
		skipped = 7
	}
	for at := 0; at < len(body); {
		number, wire, n := protowire.ConsumeTag(body[at:])
		if n < 0 {
			return r, false
		}
		m := protowire.ConsumeFieldValue(number, wire, body[at+n:])
		if m < 0 {
			return r, false
		}
		end := at + n + m
		if number == 1 || number == 5 || number == skipped {
			if wire != protowire.BytesType {
				return r, false
			}
			value, _ := protowire.ConsumeBytes(body[at+n:])
			switch number {
			case 1:
				r.version = value
			case 5:
				r.nonce = value
			}
		} else {
			r.sum += maphash.Bytes(seed, body[at:end])
			if number == 4 && wire == protowire.BytesType {
				value, _ := protowire.ConsumeBytes(body[at+n:])
				r.kind = kindOf(value)
			}
		}
		at = end
	}
	return r, true
}

// nonceAt returns where the nonce of a response begins; 0 if there is none, or if it is the first field.
func nonceAt(body []byte) int {
	for at := 0; at < len(body); {
		number, _, n := protowire.ConsumeField(body[at:])
		if n < 0 {
			break
		}
		if number == 5 {
			return at
		}
		at += n
	}
	return 0
}

func mixed(sum uint64, part []byte) uint64 {
	if len(part) == 0 {
		return sum
	}
	return sum*0x9e3779b97f4a7c15 ^ maphash.Bytes(seed, part)
}

func kindOf(url []byte) int {
	for kind, candidate := range urls {
		if candidate == string(url) {
			return kind
		}
	}
	return -1
}

// each calls f for every field of a message. `bytes` is nil for a number.
func each(body []byte, f func(number protowire.Number, bytes []byte, value uint64)) {
	for len(body) > 0 {
		number, wire, n := protowire.ConsumeTag(body)
		if n < 0 {
			return
		}
		body = body[n:]
		n = protowire.ConsumeFieldValue(number, wire, body)
		if n < 0 {
			return
		}
		switch wire {
		case protowire.BytesType:
			bytes, _ := protowire.ConsumeBytes(body)
			f(number, bytes, 0)
		case protowire.VarintType:
			value, _ := protowire.ConsumeVarint(body)
			f(number, nil, value)
		}
		body = body[n:]
	}
}

// field returns the bytes of the last field with this number in a message.
func field(body []byte, wanted protowire.Number) (last []byte) {
	each(body, func(number protowire.Number, bytes []byte, _ uint64) {
		if number == wanted {
			last = bytes
		}
	})
	return last
}

// parse reads a whole response.
func parse(kind int, body []byte, delta bool, hit func(name string, body []byte) bool) *batch {
	b := &batch{kind: kind}
	add := func(version, resource []byte) {
		url, value := unpack(resource)
		if url == resourceURL { // SotW resources may be wrapped
			version = field(value, 1)
			_, value = unpack(field(value, 2))
		}
		i := &item{name: string(field(value, 1)), version: string(version)}
		i.sum = mixed(mixed(maphash.String(seed, i.name), version), value)
		switch kind {
		case cds:
			i.refs = clusterRefs(i.name, value)
		case lds:
			i.refs, i.scoped = listenerRefs(value)
		case srds:
			if name := field(value, 2); name != nil {
				i.refs = []string{string(name)}
			}
		}
		b.items = append(b.items, i)
		b.hit = b.hit || hit(i.name, value)
	}
	each(body, func(number protowire.Number, bytes []byte, _ uint64) {
		switch {
		case number == 2 && delta:
			add(field(bytes, 1), field(bytes, 2))
		case number == 2:
			add(nil, bytes)
		case number == 6 && delta:
			b.removed = append(b.removed, string(bytes))
		case number == 8 && delta:
			b.removed = append(b.removed, string(field(bytes, 1)))
		}
	})
	return b
}

func unpack(body []byte) (url string, value []byte) {
	return string(field(body, 1)), field(body, 2)
}

// clusterRefs returns the names of a cluster's endpoints; none unless its type is EDS.
func clusterRefs(name string, body []byte) []string {
	isEDS := false
	each(body, func(number protowire.Number, _ []byte, value uint64) {
		isEDS = isEDS || number == 2 && value == 3
	})
	if !isEDS {
		return nil
	}
	if service := field(field(body, 3), 2); len(service) > 0 {
		name = string(service)
	}
	return []string{name}
}

// listenerRefs returns the routes that a listener's connection managers name, and true if one of them gets scopes over ADS.
func listenerRefs(body []byte) (refs []string, scoped bool) {
	each(body, func(number protowire.Number, chain []byte, _ uint64) {
		if number != 3 && number != 25 {
			return
		}
		each(chain, func(number protowire.Number, filter []byte, _ uint64) {
			if number != 3 {
				return
			}
			url, manager := unpack(field(filter, 4))
			if url != managerURL {
				return
			}
			if name := field(field(manager, 3), 2); name != nil {
				refs = append(refs, string(name))
			}
			scoped = scoped || field(field(manager, 31), 5) != nil
		})
	})
	return refs, scoped
}
