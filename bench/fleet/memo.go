package main

import (
	"hash/maphash"
	"sort"
)

// Thousands of proxies hold the same resources. So the state of a proxy is one pointer for each type, to a value that all share.
// The state after a response is computed for the first proxy and looked up for the others. Values are immutable.

// held is the set of resources of one type that a proxy holds.
type held struct {
	kind  int
	items map[string]*item // nil for a name that does not exist, according to the server
	sum   uint64           // of the items, in any order

	next   map[*batch]*held // the state after a response
	covers map[*names]bool
	only   map[*names]*held
	wants  *names
	scoped bool
	first  []byte // initial_resource_versions
}

// names is a set of names that proxies subscribe to.
type names struct {
	list []string
	set  map[string]struct{}
	sum  uint64
	with map[*names]*names // the union
	from map[*names]change // the change from a subscription to another set
	sotw []byte            // resource_names
}

type change struct{ subscribe, unsubscribe []byte }

type key struct {
	kind int
	sum  uint64
}

// maxEntries is the bound of each table. A full table is emptied, and its values are computed once more.
const maxEntries = 4096

// memo has the values that the proxies of one loop share.
type memo struct {
	batches map[key]*batch
	states  map[key]*held
	sets    map[uint64]*names
}

func newMemo() *memo {
	return &memo{batches: map[key]*batch{}, states: map[key]*held{}, sets: map[uint64]*names{}}
}

// seen returns the content of a response that came before; nil if none did.
func (w *memo) seen(r response) *batch { return w.batches[key{r.kind, r.sum}] }

// read parses a response that comes for the first time.
func (w *memo) read(r response, body []byte, delta bool, hit func(string, []byte) bool) *batch {
	if len(w.batches) >= maxEntries {
		clear(w.batches)
	}
	b := parse(r.kind, body, delta, hit)
	w.batches[key{r.kind, r.sum}] = b
	return b
}

// held returns the state with these items. Equal states are the same pointer.
func (w *memo) held(kind int, items map[string]*item) *held {
	h := &held{kind: kind, items: items, sum: uint64(len(items)), next: map[*batch]*held{}}
	h.covers, h.only = map[*names]bool{}, map[*names]*held{}
	var refs []string
	for name, i := range items {
		if i == nil {
			h.sum += maphash.String(seed, name)
			continue
		}
		h.sum += i.sum
		h.scoped = h.scoped || i.scoped
		refs = append(refs, i.refs...)
	}
	k := key{kind, h.sum}
	if cached := w.states[k]; cached != nil {
		return cached
	}
	if len(w.states) >= maxEntries {
		clear(w.states)
	}
	h.wants = w.names(refs)
	w.states[k] = h
	return h
}

// apply returns the state after a response. nil is the state before any response.
func (w *memo) apply(h *held, b *batch, delta bool) *held {
	if h == nil {
		h = w.held(b.kind, nil)
	}
	if next := h.next[b]; next != nil {
		return next
	}
	named := b.kind == eds || b.kind == rds
	items := make(map[string]*item, len(h.items)+len(b.items))
	if delta || named { // a SotW response is complete, except for types that are subscribed to by name
		for name, i := range h.items {
			items[name] = i
		}
	}
	for _, i := range b.items {
		items[i.name] = i
	}
	for _, name := range b.removed {
		if named {
			items[name] = nil
		} else {
			delete(items, name)
		}
	}
	if len(h.next) >= maxEntries {
		clear(h.next)
	}
	next := w.held(b.kind, items)
	h.next[b] = next
	return next
}

// keep returns the state of a proxy that subscribes to only these names from now on.
func (w *memo) keep(h *held, set *names) *held {
	if h == nil {
		return nil
	}
	if cached := h.only[set]; cached != nil {
		return cached
	}
	items := make(map[string]*item, len(set.list))
	for name, i := range h.items {
		if _, wanted := set.set[name]; wanted {
			items[name] = i
		}
	}
	if len(h.only) >= maxEntries {
		clear(h.only)
	}
	h.only[set] = w.held(h.kind, items)
	return h.only[set]
}

// has returns true if the server has answered for every name.
func (h *held) has(set *names) bool {
	if len(set.list) == 0 {
		return true
	}
	if h == nil {
		return false
	}
	cached, ok := h.covers[set]
	if ok {
		return cached
	}
	all := true
	for _, name := range set.list {
		if _, answered := h.items[name]; !answered {
			all = false
			break
		}
	}
	if len(h.covers) >= maxEntries {
		clear(h.covers)
	}
	h.covers[set] = all
	return all
}

// initial returns the field initial_resource_versions of a delta request.
func (h *held) initial() []byte {
	if h.first == nil {
		for name, i := range h.items {
			if i != nil {
				h.first = appendField(h.first, 5, appendString(appendString(nil, 1, name), 2, i.version))
			}
		}
	}
	return h.first
}

// names returns the set of these names. Equal sets are the same pointer.
func (w *memo) names(list []string) *names {
	n := &names{set: make(map[string]struct{}, len(list)), with: map[*names]*names{}, from: map[*names]change{}}
	for _, name := range list {
		if _, duplicate := n.set[name]; !duplicate {
			n.set[name] = struct{}{}
			n.list = append(n.list, name)
			n.sum += maphash.String(seed, name)
		}
	}
	if cached := w.sets[n.sum]; cached != nil && len(cached.list) == len(n.list) {
		return cached
	}
	if len(w.sets) >= maxEntries {
		clear(w.sets)
	}
	sort.Strings(n.list)
	for _, name := range n.list {
		n.sotw = appendString(n.sotw, 3, name)
	}
	w.sets[n.sum] = n
	return n
}

// union returns the union of two sets.
func (w *memo) union(a, b *names) *names {
	if len(a.list) == 0 || a == b {
		return b
	}
	if len(b.list) == 0 {
		return a
	}
	if both := a.with[b]; both != nil {
		return both
	}
	both := w.names(append(append([]string{}, a.list...), b.list...))
	a.with[b] = both
	return both
}

// since returns the fields of a delta request that change a subscription to `old` into one to n. `old` may be nil.
func (n *names) since(old *names) change {
	if cached, ok := n.from[old]; ok {
		return cached
	}
	var c change
	for _, name := range n.list {
		if old != nil {
			if _, subscribed := old.set[name]; subscribed {
				continue
			}
		}
		c.subscribe = appendString(c.subscribe, 3, name)
	}
	if old != nil {
		for _, name := range old.list {
			if _, wanted := n.set[name]; !wanted {
				c.unsubscribe = appendString(c.unsubscribe, 4, name)
			}
		}
	}
	n.from[old] = c
	return c
}
