package fs

import "path"

// The kernel remembers each name that was ever looked up until it needs the memory for something else, and for as long as it
// does, so must we. Whoever looks up random names, all prefixes of module paths are there, makes both grow. The kernel's part goes
// when memory is short; ours would only follow. So above a limit it is asked to forget what nobody has used for longest.

// nodeMemory is how many bytes path nodes take before the kernel is asked to forget some: about 100,000 of them.
const nodeMemory = 64 << 20

// nodeOverhead is about what a path node takes besides its path and content.
const nodeOverhead = 500

// trimAtOnce is how many nodes the kernel is asked to forget at a time.
const trimAtOnce = 256

// use marks a node, which may be nil, as used. t.mu is held. What the overlay has stays: a client made it, and an open file may
// be known by it alone.
func (t *nodes) use(n *node) {
	if n != nil && n.id != rootID && n.over == nil {
		t.recent.Add(n.id, struct{}{})
	}
}

// lookingIn notes that the kernel looks a name up in a directory, which it has locked meanwhile, until done.
func (t *nodes) lookingIn(id uint64) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy[id]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.busy[id]--; t.busy[id] == 0 {
			delete(t.busy, id)
		}
	}
}

// idle returns the ID of a directory, whether the kernel knows it, and whether it looks up nothing there.
func (t *nodes) idle(path string) (id uint64, known, idle bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, known = t.byPath[path]
	return id, known, known && t.busy[id] == 0
}

// full reports whether the kernel has to forget nodes.
func (t *nodes) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes > t.max && t.recent.Len() > 0
}

// oldName is the name of a node in the directory with an ID.
type oldName struct {
	dir  uint64
	name string
}

// oldest returns names of the nodes that nobody has used for longest, which it does not do again unless they are used again.
// Not in directories in which something is being looked up: there, the kernel would wait for the outcome, and let all others
// wait. Their turn comes again.
func (t *nodes) oldest() []oldName {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old []oldName
	var later []uint64
	for range trimAtOnce {
		id, _, ok := t.recent.RemoveOldest()
		if !ok {
			break
		}
		n := t.byID[id]
		if n == nil || n.over != nil || t.byPath[n.path] != id {
			continue // the kernel has it under no name any more, and forgets it when it is closed
		}
		switch dir, ok := t.byPath[parentDir(n.path)]; {
		case ok && t.busy[dir] == 0:
			old = append(old, oldName{dir, path.Base(n.path)})
		case ok:
			later = append(later, id)
		}
	}
	for _, id := range later {
		t.recent.Add(id, struct{}{})
	}
	return old
}

// trim asks the kernel to forget some nodes, if there are too many.
func (f *FS) trim() {
	if f.server == nil || !f.nodes.full() || !f.trimming.CompareAndSwap(false, true) {
		return
	}
	f.background(func() {
		defer f.trimming.Store(false)
		for _, n := range f.nodes.oldest() {
			f.server.EntryNotify(n.dir, n.name) // best effort: what is in use, the kernel keeps
		}
	})
}
