package fs

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Listing never fetches, with one exception: the tree of a module itself, whose listing is of no use without. Directories
// above modules list what the store has seen: a scanner that walks the mount must not download the world.

// ReadDir implements fuse.RawFileSystem.
func (f *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, l.Offset, func(e fuse.DirEntry, _ func(*fuse.EntryOut)) bool {
		return l.AddDirEntry(e)
	})
}

// ReadDirPlus implements fuse.RawFileSystem: ReadDir that answers the lookup of each name as well.
func (f *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, l.Offset, func(e fuse.DirEntry, fill func(*fuse.EntryOut)) bool {
		out := l.AddDirLookupEntry(e)
		if out == nil {
			return false
		}
		if fill != nil {
			fill(out)
		}
		return true
	})
}

// adder adds an entry to a listing; fill answers its lookup, and is nil for "." and "..", of which the kernel wants none. It
// returns false when the listing is full.
type adder func(e fuse.DirEntry, fill func(*fuse.EntryOut)) bool

func (f *FS) list(cancel <-chan struct{}, in *fuse.ReadIn, off uint64, add adder) fuse.Status {
	f.stats.listings.Add(1)
	f.noteRequest()
	f.at("list")
	if slot, i, ok := moduleEntry(in.NodeId); ok {
		return f.listInModule(cancel, slot, i, off, in.Pid, add)
	}
	if f.overlay != nil {
		// Nothing that is listed may change its name before its node is made.
		f.overlay.names.RLock()
		defer f.overlay.names.RUnlock()
	}
	n := f.nodes.get(in.NodeId)
	if n == nil {
		return fuse.Status(errStale)
	}
	if !n.isDir() {
		return fuse.ENOTDIR
	}
	up := pathIno(parentDir(n.path))
	if !addDots(off, pathIno(n.path), up, add) {
		return fuse.OK
	}
	for _, e := range f.listPath(n) {
		if e.cookie <= off || e.load != nil && !e.load(&e) {
			continue
		}
		// An entry has its own offset, not its position: without handles each READDIR sees the directory anew, and what
		// has come or gone in between must neither hide nor repeat the others.
		de := fuse.DirEntry{Name: e.name, Mode: e.mode, Ino: e.ino, Off: e.cookie}
		if !add(de, e.fill) {
			break
		}
	}
	return fuse.OK
}

// parentDir is path.Dir, but for "" as the root.
func parentDir(p string) string {
	if d := path.Dir(p); d != "." {
		return d
	}
	return ""
}

func addDots(off, ino, up uint64, add adder) bool {
	if off < direntDot && !add(fuse.DirEntry{Name: ".", Mode: fuse.S_IFDIR, Ino: ino, Off: direntDot}, nil) {
		return false
	}
	return off >= direntUp || add(fuse.DirEntry{Name: "..", Mode: fuse.S_IFDIR, Ino: up, Off: direntUp}, nil)
}

// listInModule lists directory i of a module. Offsets are positions: the tree never changes.
func (f *FS) listInModule(cancel <-chan struct{}, slot uint64, i int, off uint64, caller uint32, add adder) fuse.Status {
	md := f.modules.get(slot)
	if md == nil {
		return fuse.Status(errStale)
	}
	ix, status := f.tree(cancel, md, caller)
	if status != fuse.OK {
		return status
	}
	if i >= ix.len() || !ix.isDir(i) {
		return fuse.ENOTDIR
	}
	up := moduleNode(slot, ix.parent(i))
	if i == 0 {
		up = pathIno(path.Dir(inMod(moduleDir(md.Version))))
	}
	if !addDots(off, moduleNode(slot, i), up, add) {
		return fuse.OK
	}
	first, end := ix.children(i)
	if off >= firstCookie {
		first += int(min(off-firstCookie+1, uint64(end-first)))
	}
	base, _ := ix.children(i)
	if first == end && off >= firstCookie {
		f.push(cancel, md, ix, i, caller) // by now the kernel knows all that is in it
	}
	for c := first; c < end; c++ {
		if f.overlay != nil && md.isRemoved(c) {
			continue
		}
		mode := uint32(fuse.S_IFREG)
		if ix.isDir(c) {
			mode = fuse.S_IFDIR
		}
		de := fuse.DirEntry{Name: ix.name(c), Mode: mode, Ino: moduleNode(slot, c), Off: firstCookie + uint64(c-base)}
		if !add(de, func(out *fuse.EntryOut) { f.moduleEntryOut(out, md, ix, c, forever) }) {
			break
		}
	}
	return fuse.OK
}

// listEntry is a name in a directory above modules.
type listEntry struct {
	name   string
	mode   uint32
	ino    uint64
	cookie uint64 // its offset in the directory: a hash of the name
	fill   func(*fuse.EntryOut)

	// load, if not nil, sets what is missing when the entry is about to be shown. It returns false if it has gone.
	load func(*listEntry) bool
}

// listPath returns what is in the directory of a path node, ordered by cookie.
func (f *FS) listPath(n *node) []listEntry {
	var es []listEntry
	add := func(name string) {
		if e, ok := f.listed(path.Join(n.path, name)); ok {
			es = append(es, e)
		}
	}
	if f.overlay != nil {
		es = f.listOverlay(n)
		written := make(map[string]bool, len(es))
		for _, e := range es {
			written[e.name] = true
		}
		lazy := add
		add = func(name string) {
			if p := path.Join(n.path, name); !written[name] && f.shows(p, f.private.parse(p)) {
				lazy(name)
			}
		}
	}
	if n.over != nil {
		return byCookie(es)
	}
	switch n.Kind {
	case KindPkg:
		add(modRoot)
	case KindRoot:
		add("cache")
		f.listModules("", add)
	case KindPrefix:
		f.listModules(storeKey(n.path), add)
	case KindCache:
		add("download")
	case KindDownload, KindEscPath, KindVersions:
		for _, d := range f.readStore(storeKey(n.path)) {
			add(d)
		}
		if n.Kind == KindDownload {
			add("sumdb")
		}
		if n.Kind == KindVersions {
			f.listHashes(n.Mod.Path, add)
		}
	case KindSumDB:
		for _, d := range f.readStore(path.Join("sumdb", n.Rest)) {
			add(d)
		}
	}
	return byCookie(es)
}

func byCookie(es []listEntry) []listEntry {
	slices.SortFunc(es, func(a, b listEntry) int { return cmp.Compare(a.cookie, b.cookie) })
	return slices.CompactFunc(es, func(a, b listEntry) bool { return a.name == b.name })
}

// cookie is the offset of a name in its directory.
func cookie(name string) uint64 { return max(firstCookie, pathIno(name)&^pathInoBit) }

// listOverlay returns what the overlay has in the directory of a path node.
func (f *FS) listOverlay(n *node) []listEntry {
	des := f.overlay.readDir(n.path)
	es := make([]listEntry, 0, len(des))
	for _, d := range des {
		p := path.Join(n.path, d.Name())
		es = append(es, listEntry{name: d.Name(), cookie: cookie(d.Name()), load: func(e *listEntry) bool {
			st, err := f.overlay.lstat(p)
			if err != nil {
				return false
			}
			pp := f.private.parse(p)
			e.mode, e.ino = uint32(st.Mode)&syscall.S_IFMT, st.Ino
			if e.mode == syscall.S_IFDIR && pp.Kind.merged() {
				e.ino = pathIno(p)
			}
			e.fill = func(out *fuse.EntryOut) { f.overEntry(out, p, pp, st) }
			return true
		}})
	}
	return es
}

// listModules lists the modules below a prefix whose tree was ever seen, and the prefixes that lead to more of them: the
// store's indexes lie in directories of the same names.
func (f *FS) listModules(prefix string, add func(string)) {
	for _, name := range f.readStore(path.Join("index", prefix)) {
		add(name)
	}
}

// listHashes lists the .ziphash files of a module's versions: they are pins, not files of the store.
func (f *FS) listHashes(modPath string, add func(string)) {
	dir := versionsDir(modPath)
	for _, name := range f.readStore(dir) {
		v, ok := strings.CutSuffix(name, ".mod")
		if !ok {
			continue
		}
		pp := ParsePath(dir + "/" + name)
		if pp.Kind == KindMod && f.pins.zip(pp.Mod) != "" {
			add(v + ".ziphash")
		}
	}
}

// readStore returns the names in a directory of the store, none if there is no such directory.
func (f *FS) readStore(dir string) []string {
	des, err := f.store.ReadDir(dir)
	if err != nil {
		return nil // nothing was stored there yet
	}
	names := make([]string, len(des))
	for i, d := range des {
		names[i] = d.Name()
	}
	return names
}

// listed returns the entry for a path that a listing shows, as far as it can be told without asking anybody. What cannot is
// left out.
func (f *FS) listed(p string) (listEntry, bool) {
	pp := f.private.parse(p)
	e := listEntry{name: path.Base(p), ino: pathIno(p), mode: fuse.S_IFREG}
	e.cookie = cookie(e.name)
	switch {
	case pp.Kind == KindModule:
		md := f.modules.intern(pp.Mod)
		e.mode, e.ino = fuse.S_IFDIR, moduleNode(md.slot, 0)
		e.fill = func(out *fuse.EntryOut) {
			ix, _ := f.trees.get(md.slot)
			f.moduleEntryOut(out, md, ix, 0, moduleTimeout)
		}
		return e, true
	case !f.leadsTo(p, pp):
		return listEntry{}, false
	case pp.Kind.isDir() && pp.Kind != KindSumDB || pp.Kind == KindSumDB && sumdbIsDir(pp.Rest):
		e.mode = fuse.S_IFDIR
		e.fill = func(out *fuse.EntryOut) { f.entryOut(out, f.nodes.lookup(node{path: p, Path: pp}), f.nameTimeout()) }
		return e, true
	case pp.Kind == KindInfo, pp.Kind == KindMod, pp.Kind == KindZip, pp.Kind == KindZipHash:
		size, ok := f.knownSize(pp)
		timeout := f.nameTimeout()
		if pp.Kind == KindZip || pp.Kind == KindZipHash {
			timeout = f.offerTimeout(timeout)
		}
		e.fill = func(out *fuse.EntryOut) {
			f.entryOut(out, f.nodes.lookup(node{path: p, Path: pp, size: size}), timeout)
		}
		return e, ok
	case pp.Kind == KindList, pp.Kind == KindLatest, pp.Kind == KindQuery, pp.Kind == KindSumDB:
		// The content must be read to be promised; the lookup that the kernel sends does it.
		e.fill = func(out *fuse.EntryOut) { *out = fuse.EntryOut{} }
		return e, true
	}
	return listEntry{}, false
}

// knownSize returns the size of a file of cache/download without asking upstream.
func (f *FS) knownSize(pp Path) (int64, bool) {
	switch pp.Kind {
	case KindZipHash:
		return ziphashSize, true
	case KindZip:
		return f.knownZipSize(f.modules.intern(pp.Mod))
	}
	key := infoKey(pp.Mod)
	if pp.Kind == KindMod {
		key = modKey(pp.Mod)
	}
	i, err := f.store.Stat(key)
	return i.Size, err == nil
}

// knownZipSize returns the size of a module's zip if the store has it or what indexed it.
func (f *FS) knownZipSize(md *mod) (int64, bool) {
	if i, err := f.store.Stat(md.zipKey); err == nil {
		return i.Size, true
	}
	if ix, ok := f.trees.get(md.slot); ok {
		return ix.zipSize, true
	}
	md.mu.Lock()
	defer md.mu.Unlock()
	return md.zipSize, md.zipSize > 0
}
