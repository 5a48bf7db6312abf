package fs

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"modfs/lru"
)

// budget is a cache in memory that is bounded by bytes, the least recently used going first.
type budget[K comparable, V any] struct {
	mu   sync.Mutex
	lru  *simplelru.LRU[K, sized[V]]
	used int64
	max  int64
}

type sized[V any] struct {
	value V
	bytes int64
}

// entryOverhead is about what an entry costs besides its value: list element, map cell, key.
const entryOverhead = 200

func newBudget[K comparable, V any](max int64) *budget[K, V] {
	b := &budget[K, V]{max: max}
	// The number of entries is bounded by their bytes; the error is for sizes below 1 only.
	b.lru, _ = simplelru.NewLRU(int(max/entryOverhead)+1, func(_ K, v sized[V]) { b.used -= v.bytes })
	return b
}

func (b *budget[K, V]) get(k K) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.lru.Get(k)
	return v.value, ok
}

// add keeps v, of so many bytes, unless it alone is over the limit.
func (b *budget[K, V]) add(k K, v V, bytes int64) {
	bytes += entryOverhead
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lru.Remove(k) // so that its bytes are taken off
	if bytes > b.max {
		return
	}
	for b.used+bytes > b.max {
		b.lru.RemoveOldest()
	}
	b.used += bytes
	b.lru.Add(k, sized[V]{v, bytes})
}

// addSpare is add if there is room for v without anything else going.
func (b *budget[K, V]) addSpare(k K, v V, bytes int64) {
	b.mu.Lock()
	full := b.used+bytes+entryOverhead > b.max
	b.mu.Unlock()
	if !full {
		b.add(k, v, bytes)
	}
}

func (b *budget[K, V]) remove(k K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lru.Remove(k)
}

func (b *budget[K, V]) bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// allowance bounds bytes that are in use for a while.
type allowance struct {
	mu   sync.Mutex
	used int64
	max  int64
}

// take reports whether there are n bytes more, which the caller then has until it gives them back.
func (a *allowance) take(n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used+n > a.max {
		return false
	}
	a.used += n
	return true
}

func (a *allowance) give(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used -= n
}

// maxHandles is how many files of the store are kept open. A build reads from hundreds of modules in turn; the usual
// limit of a process is 1024 descriptors, which the runtime raises where it may.
const maxHandles = 256

// handles are open files of the store, kept so that a read costs no open.
type handles struct {
	mu  sync.Mutex
	lru *simplelru.LRU[string, *handle]
}

// handle is an open file. It is closed when it is no longer in the table and nobody reads from it.
type handle struct {
	*lru.File
	sums *blockSums // of what was inflated; nil for an archive, whose index has them
	refs int        // guarded by handles.mu; the table has one
}

func newHandles(n int) *handles {
	h := &handles{}
	h.lru, _ = simplelru.NewLRU[string, *handle](n, nil) // fails only for n < 1
	return h
}

// get returns the open file at key, nil if there is none. The caller puts it back.
func (t *handles) get(key string) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, ok := t.lru.Get(key)
	if !ok {
		return nil
	}
	h.refs++
	return h
}

// add takes over file, which is the newest at key, and returns it as get does.
func (t *handles) add(key string, file *lru.File) *handle { return t.addSummed(key, file, nil) }

func (t *handles) addSummed(key string, file *lru.File, sums *blockSums) *handle {
	h := &handle{File: file, sums: sums, refs: 2}
	t.mu.Lock()
	var out []*handle
	if old, ok := t.lru.Peek(key); ok {
		t.lru.Remove(key)
		out = append(out, old)
	} else if t.lru.Len() >= maxHandles {
		_, old, _ := t.lru.RemoveOldest()
		out = append(out, old)
	}
	t.lru.Add(key, h)
	t.mu.Unlock()
	for _, old := range out {
		t.put(old)
	}
	return h
}

// put gives back what get or add returned.
func (t *handles) put(h *handle) {
	t.mu.Lock()
	h.refs--
	last := h.refs == 0
	t.mu.Unlock()
	if last {
		h.Close() // best effort: it was only read
	}
}

// drop forgets the file at key; it is closed when its last reader is done.
func (t *handles) drop(key string) {
	t.mu.Lock()
	h, ok := t.lru.Peek(key)
	if ok {
		t.lru.Remove(key)
	}
	t.mu.Unlock()
	if ok {
		t.put(h)
	}
}

func (t *handles) closeAll() {
	t.mu.Lock()
	all := t.lru.Values()
	t.lru.Purge()
	t.mu.Unlock()
	for _, h := range all {
		t.put(h)
	}
}
