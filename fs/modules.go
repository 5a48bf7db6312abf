package fs

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/module"
)

// mod is a module version that a client asked for and that exists.
type mod struct {
	module.Version
	slot uint64

	// zipKey is where its archive is in the store.
	zipKey string

	// mu makes repairs of the archive happen one at a time. generation counts them: who found damage in an older
	// generation has only to try again. zipSize is what a client was told that the archive's size is; 0: nothing yet.
	mu         sync.Mutex
	generation int
	zipSize    int64

	// What clients of a read-write mount removed, and the permissions of directories that they changed, by entry.
	// Guarded by mu.
	removed map[int]bool
	modes   map[int]uint32

	// When the archive turned out not to be what it must be; see resolve.go. Guarded by mu.
	refused time.Time

	// Whether a client is hashing the archive, and when one was last told of V.ziphash; see resolve.go. Guarded by mu.
	hashing   bool
	hashShown time.Time

	// Whether stats.saved has what it did not have to download, or it was downloaded. A module counts once.
	counted atomic.Bool

	sequence sequence // in which its files are read

	lookups uint64 // of its nodes, that the kernel knows of; guarded by modules.mu
}

// idle reports whether nothing is known of the module that could not be found out again. It may say no when somebody uses it.
func (md *mod) idle() bool {
	if !md.mu.TryLock() {
		return false
	}
	defer md.mu.Unlock()
	return len(md.removed) == 0 && len(md.modes) == 0 && !md.hashing &&
		time.Since(md.refused) > refusedTimeout && time.Since(md.hashShown) > hashGrace
}

// maxModules is how many module versions are remembered that the kernel does not know, some 30 MB. No build has as many; a scan
// of versions that do not exist, or a service that builds everything, would take more and more memory without it.
const maxModules = 1 << 16

// modules gives each module version its slot, which it keeps for as long as the kernel knows a node of it, and usually for the
// life of the mount. A slot is never given to another version.
type modules struct {
	mu     sync.Mutex
	bySlot map[uint64]*mod
	slots  map[module.Version]*mod
	last   uint64 // the slot that was given last; 0 is none: the zero node ID must mean nothing
	full   int    // how many slots there are when it is time to sweep
	max    int
}

func (t *modules) init() {
	t.bySlot = make(map[uint64]*mod)
	t.slots = make(map[module.Version]*mod)
	t.max, t.full = maxModules, maxModules
}

// intern returns m's slot, a new one if it has none.
func (t *modules) intern(m module.Version) *mod {
	t.mu.Lock()
	defer t.mu.Unlock()
	md := t.slots[m]
	if md == nil {
		if len(t.slots) >= t.full {
			t.sweep()
		}
		// The strings outlive the request buffer and the longer path that they were cut from.
		m = module.Version{Path: strings.Clone(m.Path), Version: strings.Clone(m.Version)}
		t.last++
		md = &mod{Version: m, slot: t.last, zipKey: zipKey(m)}
		t.bySlot[md.slot] = md
		t.slots[m] = md
	}
	return md
}

// sweep takes their slots from the modules that the kernel does not know. One that is being used at the moment gets its slot
// back when the kernel is told of it; see told. t.mu is held, and so may those of modules be, but nobody waits for them.
func (t *modules) sweep() {
	for m, md := range t.slots {
		if md.lookups == 0 && md.idle() {
			delete(t.slots, m)
			delete(t.bySlot, md.slot)
		}
	}
	t.full = max(t.max, 2*len(t.slots)) // so that it costs little for each new one, however many have to stay
}

// find returns m's slot, nil if it has none.
func (t *modules) find(m module.Version) *mod {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.slots[m]
}

// told notes that the kernel is being told of a node of a module.
func (t *modules) told(md *mod) {
	t.mu.Lock()
	defer t.mu.Unlock()
	md.lookups++
	t.bySlot[md.slot] = md
}

// forget takes back lookups of a node in a slot.
func (t *modules) forget(slot, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	md := t.bySlot[slot]
	if md == nil {
		return
	}
	md.lookups -= min(lookups, md.lookups)
	t.free(md)
}

// free takes the slot from a module that was retired, or swept while somebody used it, once the kernel does not know it. t.mu
// is held.
func (t *modules) free(md *mod) {
	if md.lookups == 0 && t.slots[md.Version] != md {
		delete(t.bySlot, md.slot)
	}
}

// retire takes m's slot away: what has it open goes on with that, and the next to ask for m gets another. The kernel marks
// a removed directory as dead, whatever is made of its number.
func (t *modules) retire(m module.Version) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if md := t.slots[m]; md != nil {
		delete(t.slots, m)
		t.free(md)
	}
}

// inKernel returns the slots of the modules that the kernel knows.
func (t *modules) inKernel() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var slots []uint64
	for slot, md := range t.bySlot {
		if md.lookups > 0 {
			slots = append(slots, slot)
		}
	}
	return slots
}

// get returns the module of a slot, nil if there is no such slot.
func (t *modules) get(slot uint64) *mod {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bySlot[slot]
}

func (t *modules) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.bySlot)
}
