package fs

import (
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hashicorp/golang-lru/v2/simplelru"
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
	dir  *dirNode  // not nil: a directory

	lookups *uint64 // what the kernel knows of; guarded by nodes.mu
	memory  int64   // what nodes.bytes has for it
}

// dirNode is what changes about a directory. It is guarded by nodes.mu.
type dirNode struct {
	changed time.Time // when the kernel was last told that its listing may have changed; the zero time if it never was

	// known: those above were told that it is there, and since then nothing below it has gone. What comes to be below it does not
	// change their listings.
	known bool
}

func (n *node) isDir() bool {
	if n.over != nil {
		return n.over.dir
	}
	return n.Kind.isDir() && n.data == nil
}

// same reports whether the kernel may go on with n where it would now be told of other.
func (n *node) same(other *node) bool {
	if n.over != nil && other.over != nil {
		// Where a directory is tells which it is: its name goes when it does, and its number may be taken again.
		return n.over.dir && other.over.dir || n.over.ino == other.over.ino && n.over.dir == other.over.dir
	}
	if n.over != nil || other.over != nil {
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
	max     int64   // bytes of nodes, above which the kernel is asked to forget some; see trim.go
	private private // what path nodes do not stand for; does not change

	mu     sync.Mutex
	byID   map[uint64]*node
	byPath map[string]uint64 // the ID of the newest at each path
	byIno  map[uint64]uint64 // IDs of the overlay's files by inode: two hard links are one node
	next   uint64
	bytes  int64                            // about what they take
	recent *simplelru.LRU[uint64, struct{}] // in order of use: those that the kernel was not yet asked to forget
	busy   map[uint64]int                   // directories in which the kernel is looking something up
}

// init makes the root, which stands for the path top.
func (t *nodes) init(top string) {
	root := &node{id: rootID, path: top, Path: parse(top), lookups: new(uint64), dir: new(dirNode)}
	t.byID = map[uint64]*node{rootID: root}
	t.byPath = map[string]uint64{top: rootID}
	t.byIno = make(map[uint64]uint64)
	t.busy = make(map[uint64]int)
	t.recent, _ = simplelru.NewLRU[uint64, struct{}](math.MaxInt, nil) // fails only for sizes < 1
	t.next = rootID + 1
	t.max = nodeMemory
}

// get returns the node with an ID, nil if the kernel never heard of it or forgot it.
func (t *nodes) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	t.use(n)
	return n
}

// lookup returns the node that stands for want, and counts a lookup of it. A file whose content or size is not what it was
// gets a new node, so that whoever reads the old one still sees it whole.
func (t *nodes) lookup(want node) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[t.byPath[want.path]]
	if want.over != nil && !want.over.dir {
		if linked := t.byID[t.byIno[want.over.ino]]; linked != nil {
			n = linked
		}
	}
	if n == nil || !n.same(&want) {
		n = &want
		n.id = t.next
		n.lookups = new(uint64)
		if n.isDir() {
			n.dir = new(dirNode)
		}
		t.next++
		t.byID[n.id] = n
		n.memory = nodeOverhead + int64(len(n.path)+len(n.data))
		t.bytes += n.memory
		if n.over != nil && !n.over.dir {
			t.byIno[n.over.ino] = n.id
		}
	}
	t.byPath[want.path] = n.id
	if n.over != nil && !slices.Contains(n.over.names, want.path) {
		n.over.names = append(n.over.names, want.path)
		n = t.renamed(n)
	}
	*n.lookups++
	t.use(n)
	return n
}

// renamed returns n with a path that it has, and puts that in its place.
func (t *nodes) renamed(n *node) *node {
	if len(n.over.names) == 0 || slices.Contains(n.over.names, n.path) {
		return n
	}
	m := *n
	m.path = n.over.names[0]
	m.Path = t.private.parse(m.path)
	t.byID[m.id] = &m
	return &m
}

// replace makes the node with an ID, which stands for a lazy file, stand for a file of the overlay. It returns the new node,
// nil if what is at that path has another node by now.
func (t *nodes) replace(id, ino uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n.over != nil || t.byPath[n.path] != id {
		return nil
	}
	m := *n
	m.size, m.data = 0, nil
	m.over = &overFile{ino: ino, names: []string{m.path}}
	t.byID[id] = &m
	t.byIno[ino] = id
	return &m
}

// changed notes that at now something has come to paths or, unless came is set, may have gone from there. It returns the IDs of the
// directories above them that the kernel knows and whose listings that may change.
func (t *nodes) changed(now time.Time, came bool, paths []string) []uint64 {
	var ids []uint64
	t.mu.Lock()
	defer t.mu.Unlock()
	dirAt := func(p string) (uint64, *dirNode) {
		if id, ok := t.byPath[p]; ok {
			return id, t.byID[id].dir
		}
		return 0, nil
	}
	for _, p := range paths {
		if _, d := dirAt(p); d != nil && !came {
			d.known = false
		}
		for known := false; p != "" && !known; {
			p = parentDir(p)
			id, d := dirAt(p)
			if d == nil {
				continue
			}
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
			known = came && d.known
			d.changed, d.known = now, came
		}
	}
	return ids
}

// lastChanged returns when the kernel was last told that the listing of n, a directory, may have changed.
func (t *nodes) lastChanged(n *node) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.dir.changed
}

// id returns the ID of the node at a path, false if the kernel knows none.
func (t *nodes) id(path string) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.byPath[path]
	return id, ok
}

// path returns where a node is now, "" if it is not known.
func (t *nodes) path(id uint64) string {
	if n := t.get(id); n != nil {
		return n.path
	}
	return ""
}

// where returns where an overlay node is now, and false if it has no name that is known.
func (t *nodes) where(id uint64) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || len(n.over.names) == 0 {
		return "", false
	}
	return n.path, true
}

// overAt returns the overlay node of the file with an inode number, or the directory at path; nil if the kernel knows none.
func (t *nodes) overAt(path string, ino uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[t.byIno[ino]]
	if n == nil {
		n = t.byID[t.byPath[path]]
	}
	if n == nil || n.over == nil {
		return nil
	}
	return n
}

// unname takes a path away, which something else may take next, from the overlay node that has it, and returns that, nil if
// the kernel knows none; named says whether it has other names that are known, and last that there are none at all.
func (t *nodes) unname(path string, ino uint64, last bool) (n *node, named bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n = t.byID[t.byIno[ino]]
	if n == nil {
		n = t.byID[t.byPath[path]]
	}
	delete(t.byPath, path)
	if n == nil || n.over == nil {
		return nil, false
	}
	n.over.names = slices.DeleteFunc(n.over.names, func(name string) bool { return name == path })
	if last && t.byIno[n.over.ino] == n.id {
		delete(t.byIno, n.over.ino)
	}
	return t.renamed(n), len(n.over.names) > 0
}

// rename moves the nodes at and, if that is a directory, below a path.
func (t *nodes) rename(from, to string, dir bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	moved := map[string]uint64{}
	if id, ok := t.byPath[from]; ok && !dir {
		moved[from] = id
	}
	if dir {
		for p, id := range t.byPath {
			if below(p, from) {
				moved[p] = id
			}
		}
	}
	for p := range moved {
		delete(t.byPath, p)
	}
	for p, id := range moved {
		n := t.byID[id]
		if n.over == nil && !n.isDir() {
			continue // a lazy file that was removed, and is still open
		}
		q := to + p[len(from):]
		t.byPath[q] = id
		m := *n
		if n.path == p {
			m.path = q
			m.Path = t.private.parse(q)
		}
		if n.isDir() {
			// Whether a directory is merged with the lazy tree depends on its name.
			if m.Kind.merged() {
				m.over = nil
			} else if m.over == nil {
				m.over = &overFile{dir: true}
			}
			if m.over != nil {
				m.over.names = []string{q}
			}
		} else if i := slices.Index(m.over.names, p); i >= 0 {
			m.over.names[i] = q
		}
		t.byID[id] = &m
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
	t.recent.Remove(id)
	t.bytes -= n.memory
	if t.byPath[n.path] == id {
		delete(t.byPath, n.path)
	}
	if n.over != nil {
		for _, p := range n.over.names {
			if t.byPath[p] == id {
				delete(t.byPath, p)
			}
		}
		if t.byIno[n.over.ino] == id {
			delete(t.byIno, n.over.ino)
		}
	}
	return n
}

func (t *nodes) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}
