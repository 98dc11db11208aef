package main

import (
	"hash/maphash"
	"sort"
)

// Thousands of proxies hold the same. So what a proxy holds of a type is one pointer to a value that all share, and what a
// response makes of it is worked out for the first proxy and looked up for the others. Values are never changed once made.

// held is what a proxy holds of one type.
type held struct {
	kind  int
	items map[string]*item // nil for a name that the server said does not exist
	sum   uint64           // of the items, whatever their order

	next   map[*batch]*held // what a response makes of it
	covers map[*names]bool
	only   map[*names]*held
	wants  *names
	scoped bool
	first  []byte // initial_resource_versions
}

// names is a set of names that proxies ask for.
type names struct {
	list []string
	set  map[string]struct{}
	sum  uint64
	with map[*names]*names // both together
	from map[*names]change // how a subscription to another set becomes this one
	sotw []byte            // resource_names
}

type change struct{ subscribe, unsubscribe []byte }

type key struct {
	kind int
	sum  uint64
}

// Entries in each table; a full one is emptied, and costs one round of working out.
const most = 4096

// world is what the proxies of one loop share.
type world struct {
	batches map[key]*batch
	states  map[key]*held
	sets    map[uint64]*names
}

func newWorld() *world {
	return &world{batches: map[key]*batch{}, states: map[key]*held{}, sets: map[uint64]*names{}}
}

// known is what a response says that was met before; nil if it was not.
func (w *world) known(r response) *batch { return w.batches[key{r.kind, r.sum}] }

// read is what a response says that is met for the first time.
func (w *world) read(r response, body []byte, delta bool, hit func(string, []byte) bool) *batch {
	if len(w.batches) >= most {
		clear(w.batches)
	}
	b := parse(r.kind, body, delta, hit)
	w.batches[key{r.kind, r.sum}] = b
	return b
}

// held is the state with these items; equal states are one.
func (w *world) held(kind int, items map[string]*item) *held {
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
	if known := w.states[k]; known != nil {
		return known
	}
	if len(w.states) >= most {
		clear(w.states)
	}
	h.wants = w.names(refs)
	w.states[k] = h
	return h
}

// apply is what a response makes of what is held; nil stands for nothing held yet.
func (w *world) apply(h *held, b *batch, delta bool) *held {
	if h == nil {
		h = w.held(b.kind, nil)
	}
	if next := h.next[b]; next != nil {
		return next
	}
	named := b.kind == eds || b.kind == rds
	items := make(map[string]*item, len(h.items)+len(b.items))
	if delta || named { // SotW names all there is but of types that are asked for by name
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
	if len(h.next) >= most {
		clear(h.next)
	}
	next := w.held(b.kind, items)
	h.next[b] = next
	return next
}

// keep is what is left of what is held when only these names are asked for.
func (w *world) keep(h *held, set *names) *held {
	if h == nil {
		return nil
	}
	if known := h.only[set]; known != nil {
		return known
	}
	items := make(map[string]*item, len(set.list))
	for name, i := range h.items {
		if _, asked := set.set[name]; asked {
			items[name] = i
		}
	}
	if len(h.only) >= most {
		clear(h.only)
	}
	h.only[set] = w.held(h.kind, items)
	return h.only[set]
}

// has tells whether every name has been answered.
func (h *held) has(set *names) bool {
	if len(set.list) == 0 {
		return true
	}
	if h == nil {
		return false
	}
	known, found := h.covers[set]
	if found {
		return known
	}
	all := true
	for _, name := range set.list {
		if _, there := h.items[name]; !there {
			all = false
			break
		}
	}
	if len(h.covers) >= most {
		clear(h.covers)
	}
	h.covers[set] = all
	return all
}

// initial is the field initial_resource_versions of a delta request.
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

// names is the set of these; equal sets are one.
func (w *world) names(list []string) *names {
	n := &names{set: make(map[string]struct{}, len(list)), with: map[*names]*names{}, from: map[*names]change{}}
	for _, name := range list {
		if _, twice := n.set[name]; !twice {
			n.set[name] = struct{}{}
			n.list = append(n.list, name)
			n.sum += maphash.String(seed, name)
		}
	}
	if known := w.sets[n.sum]; known != nil && len(known.list) == len(n.list) {
		return known
	}
	if len(w.sets) >= most {
		clear(w.sets)
	}
	sort.Strings(n.list)
	for _, name := range n.list {
		n.sotw = appendString(n.sotw, 3, name)
	}
	w.sets[n.sum] = n
	return n
}

// union is both sets together.
func (w *world) union(a, b *names) *names {
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

// since is what a delta request says to turn a subscription to `old` into one to n; `old` may be nil.
func (n *names) since(old *names) change {
	if known, found := n.from[old]; found {
		return known
	}
	var c change
	for _, name := range n.list {
		if old != nil {
			if _, there := old.set[name]; there {
				continue
			}
		}
		c.subscribe = appendString(c.subscribe, 3, name)
	}
	if old != nil {
		for _, name := range old.list {
			if _, there := n.set[name]; !there {
				c.unsubscribe = appendString(c.unsubscribe, 4, name)
			}
		}
	}
	n.from[old] = c
	return c
}
