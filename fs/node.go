package fs

import (
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/mod/module"
)

// Node IDs come in two kinds.
//
// What is inside a module, M@V itself included, has an ID that is arithmetic: the module's slot and the entry's index in
// its tree. There is no object behind it, nothing to count and nothing to forget; it means the same for as long as the
// mount lives, however often the tree is dropped from memory and read again.
//
//	bit 62 set | slot (38 bits) | index (24 bits)
//
// Everything else (directories above modules, the files of cache/download) is a node in a table, by its path, from its
// first lookup until the kernel forgets it.
const (
	rootID      = fuse.FUSE_ROOT_ID
	moduleBit   = uint64(1) << 62
	indexBits   = 24
	pathInoBit  = uint64(1) << 63 // inode numbers of path nodes: a hash of the path, so that they survive a forget
	maxSlots    = 1<<(62-indexBits) - 1
	indexMask   = 1<<indexBits - 1
	direntDot   = 1 // directory offsets of "." and ".."; see list.go
	direntUp    = 2
	firstCookie = 3
)

func moduleNode(slot uint64, i int) uint64 { return moduleBit | slot<<indexBits | uint64(i) }

// moduleEntry takes the ID of something inside a module apart.
func moduleEntry(id uint64) (slot uint64, i int, ok bool) {
	if id&moduleBit == 0 {
		return 0, 0, false
	}
	return id &^ moduleBit >> indexBits, int(id & indexMask), true
}

// pathIno is the inode number of the path node at p.
func pathIno(p string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(p))
	return h.Sum64() | pathInoBit
}

// node is something outside of modules. It does not change: a rename replaces it by another with the same ID.
type node struct {
	id   uint64
	path string // see layout.go
	Path
	size int64
	data []byte    // the content, where it was made for this very lookup; the kernel never sees half of two versions
	born time.Time // mtime, for data

	over *overFile // not nil: what is there is the overlay's

	lookups *uint64 // what the kernel knows of; guarded by nodes.mu
}

func (n *node) isDir() bool {
	if n.over != nil {
		return n.over.dir
	}
	return n.Kind.isDir() && n.data == nil
}

// same reports whether the kernel may go on with n where it would now be told of other.
func (n *node) same(other *node) bool {
	if (n.over == nil) != (other.over == nil) || n.over != nil && n.over.ino != other.over.ino {
		return false
	}
	return n.size == other.size && n.isDir() == other.isDir() && string(n.data) == string(other.data)
}

// isDir reports whether a path of this kind is a directory. Below cache/download/sumdb the path decides; see
// sumdbIsDir.
func (k Kind) isDir() bool {
	switch k {
	case KindPkg, KindRoot, KindPrefix, KindModule, KindCache, KindDownload, KindEscPath, KindVersions, KindSumDB, KindControl:
		return true
	}
	return false
}

// nodes is the table of path nodes.
type nodes struct {
	mu     sync.Mutex
	byID   map[uint64]*node
	byPath map[string]*node  // the newest at each path
	byIno  map[uint64]uint64 // IDs of the overlay's files by inode: two hard links are one node
	next   uint64
}

// init makes the root, which stands for the path top.
func (t *nodes) init(top string) {
	root := &node{id: rootID, path: top, Path: parse(top), lookups: new(uint64)}
	t.byID = map[uint64]*node{rootID: root}
	t.byPath = map[string]*node{top: root}
	t.byIno = make(map[uint64]uint64)
	t.next = rootID + 1
}

// get returns the node with an ID, nil if the kernel never heard of it or forgot it.
func (t *nodes) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// lookup returns the node that stands for want, and counts a lookup of it. A file whose content or size is not what it was
// gets a new node, so that whoever reads the old one still sees it whole.
func (t *nodes) lookup(want node) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byPath[want.path]
	if want.over != nil {
		if linked := t.byID[t.byIno[want.over.ino]]; linked != nil {
			n = linked
		}
	}
	if n == nil || !n.same(&want) {
		n = &want
		n.id = t.next
		n.lookups = new(uint64)
		t.next++
		t.byID[n.id] = n
		t.byPath[n.path] = n
		if n.over != nil && !n.over.dir {
			t.byIno[n.over.ino] = n.id
		}
	}
	*n.lookups++
	return n
}

// at returns the newest node at a path, nil if the kernel knows none.
func (t *nodes) at(path string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byPath[path]
}

// path returns where a node is now, "" if it is not known.
func (t *nodes) path(id uint64) string {
	if n := t.get(id); n != nil {
		return n.path
	}
	return ""
}

// unname takes the node at a path off that path, which something else may take next, and returns it. Its inode may have other
// names, of which gone says that there are none.
func (t *nodes) unname(path string, gone bool) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byPath[path]
	if n == nil {
		return nil
	}
	delete(t.byPath, path)
	if n.over != nil && gone && t.byIno[n.over.ino] == n.id {
		delete(t.byIno, n.over.ino)
	}
	return n
}

// rename moves the nodes at and below a path.
func (t *nodes) rename(from, to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var moved []*node
	for p, n := range t.byPath {
		if below(p, from) {
			delete(t.byPath, p)
			m := *n
			m.path = to + p[len(from):]
			m.Path = parse(m.path)
			moved = append(moved, &m)
		}
	}
	for _, n := range moved {
		t.byID[n.id] = n
		t.byPath[n.path] = n
	}
}

// forget takes back count lookups, and returns the node if that were all.
func (t *nodes) forget(id, count uint64) *node {
	if id == rootID {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil {
		return nil
	}
	*n.lookups -= min(count, *n.lookups)
	if *n.lookups > 0 {
		return nil
	}
	delete(t.byID, id)
	if t.byPath[n.path] == n {
		delete(t.byPath, n.path)
	}
	if n.over != nil && t.byIno[n.over.ino] == id {
		delete(t.byIno, n.over.ino)
	}
	return n
}

func (t *nodes) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

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
}

// modules gives each module version its slot, for the life of the mount.
type modules struct {
	mu     sync.Mutex
	bySlot []*mod // slot 0 is not used: the zero node ID must mean nothing
	slots  map[module.Version]*mod
}

func (t *modules) init() {
	t.bySlot = []*mod{nil}
	t.slots = make(map[module.Version]*mod)
}

// intern returns m's slot, a new one if it has none.
func (t *modules) intern(m module.Version) *mod {
	t.mu.Lock()
	defer t.mu.Unlock()
	md := t.slots[m]
	if md == nil {
		// The strings outlive the request buffer and the longer path that they were cut from.
		m = module.Version{Path: strings.Clone(m.Path), Version: strings.Clone(m.Version)}
		md = &mod{Version: m, slot: uint64(len(t.bySlot)), zipKey: zipKey(m)}
		t.bySlot = append(t.bySlot, md)
		t.slots[m] = md
	}
	return md
}

// get returns the module of a slot, nil if there is no such slot.
func (t *modules) get(slot uint64) *mod {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slot >= uint64(len(t.bySlot)) {
		return nil
	}
	return t.bySlot[slot]
}

func (t *modules) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.slots)
}
