package fs

import (
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/mod/module"
)

// What a client removes of the lazy tree is evicted from the store, and stays removed until it is put there again: a file
// of cache/download until it is created, a module's directory until its V.mod is stored anew (or it is created), a file in
// a module until the module is. This holds for the life of the mount.
//
// Where the daemon resolves (Options.ResolveClient is false) a client may have no other way to get a removed module than
// by its name. There, what is removed is in no listing, and comes back when it is looked up.

// removals are the paths of the lazy tree that clients removed.
type removals struct {
	mu    sync.Mutex
	paths *simplelru.LRU[string, struct{}]
}

// maxRemovals bounds how many there are, some 20 MB of them. Who removes more finds the first ones back, as far as a go command
// with a go.sum asks for them.
const maxRemovals = 1 << 17

func (r *removals) add(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil {
		r.paths, _ = simplelru.NewLRU[string, struct{}](maxRemovals, nil) // fails only for sizes < 1
	}
	r.paths.Add(strings.Clone(p), struct{}{})
}

func (r *removals) remove(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths != nil {
		r.paths.Remove(p)
	}
}

func (r *removals) has(p string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paths != nil && r.paths.Contains(p)
}

// removed is called after the overlay lost p, or a client removed it from the lazy tree, which must not show it again.
func (f *FS) removed(p string, pp Path) {
	switch pp.Kind {
	case KindNone, KindOwn, KindFile, KindControl, KindPkg:
		return
	case KindModule:
		f.evictModule(pp.Mod)
		f.forgetName(inMod(zipHashKey(pp.Mod)))
	case KindInfo, KindMod, KindZip, KindList, KindLatest, KindQuery:
		f.zips.drop(storeKey(p))
		f.evict(storeKey(p))
	case KindVersions: // on a mount where clients resolve, nobody sees these two, nor removes them
		f.evict(listKey(pp.Mod.Path))
		f.evict(latestKey(pp.Mod.Path))
	}
	f.removals.add(p)
	f.touch(p, inMod(zipKey(pp.Mod)))
}

// evict drops a file of the store.
func (f *FS) evict(key string) {
	if err := f.store.Remove(key); err != nil {
		f.log.Warn("not removed", "key", key, "err", err) // it is hidden anyway
	}
	if m, file, ok := ofModule(key); ok && file == "zip" {
		f.gone(m)
	}
}

// made is called after p came to be in the overlay. Directories above it are there again too.
func (f *FS) made(p string, pp Path) {
	f.back(p)
	if pp.Kind == KindMod {
		f.offer(pp.Mod) // the go command stores it when it gets a module anew
		f.promise(pp.Mod)
	}
}

// back ends the removal of p and of the directories above it.
func (f *FS) back(p string) {
	for ; p != "."; p = path.Dir(p) {
		f.removals.remove(p)
	}
}

// evictModule drops what the store has of a module's content.
func (f *FS) evictModule(m module.Version) {
	if md := f.modules.find(m); md != nil {
		f.trees.remove(md.slot)
	}
	f.zips.drop(zipKey(m))
	f.evict(zipKey(m))
	f.evict(indexKey(m))
	for _, key := range f.spooled(m) {
		f.zips.drop(key)
		f.evict(key)
	}
	// Looking at a module may have brought these back after a client removed them.
	for _, key := range [...]string{infoKey(m), modKey(m)} {
		if f.removals.has(inMod(key)) {
			f.evict(key)
		}
	}
	f.modules.retire(m)
}

// spooled returns the keys of the files of a module that the store has inflated.
func (f *FS) spooled(m module.Version) (keys []string) {
	dir := path.Dir(spoolKey(m, 0))
	for _, name := range f.readStore(dir) {
		keys = append(keys, dir+"/"+name)
	}
	return keys
}

// removeLazyFile removes a file that only the lazy tree has.
func (f *FS) removeLazyFile(pl place) fuse.Status {
	switch {
	case !f.lazily(pl.path, pl.Path):
		return fuse.ENOENT
	case pl.Kind.isDir() && !(pl.Kind == KindSumDB && !sumdbIsDir(pl.Rest)):
		return fuse.Status(syscall.EISDIR)
	}
	f.removed(pl.path, pl.Path)
	f.nodes.unname(pl.path, 0, true)
	return fuse.OK
}

// removeLazyDir removes a directory that only the lazy tree has.
func (f *FS) removeLazyDir(pl place) fuse.Status {
	if !f.lazily(pl.path, pl.Path) {
		if md := f.modules.find(pl.Mod); pl.Kind == KindModule && md != nil && md.touched() {
			// Hidden while another client makes something of it. To who removes it, it has gone, with all that was removed of it
			// before; and what then comes back must be whole.
			f.modules.retire(pl.Mod)
			f.forgetName(pl.path)
		}
		return fuse.ENOENT
	}
	if !pl.Kind.isDir() {
		return fuse.ENOTDIR
	}
	if pl.Kind == KindModule {
		// Nothing is fetched to find out whether it is empty: others wait for the lock of names. Of what was never listed, nothing was
		// removed; and what is damaged, who lists it has repaired.
		md := f.modules.intern(pl.Mod)
		ix, ok := f.trees.get(md.slot)
		if !ok && md.touched() {
			var err error
			if ix, err = f.storedIndex(pl.Mod); err != nil {
				return f.fail("rmdir", pl.Mod, err)
			}
		}
		if ix == nil || !md.touched() || md.left(ix, 0) {
			return fuse.Status(syscall.ENOTEMPTY)
		}
	} else if len(f.listPath(&node{path: pl.path, Path: pl.Path})) > 0 {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	f.removed(pl.path, pl.Path)
	f.nodes.unname(pl.path, 0, true)
	return fuse.OK
}

// touched reports whether a client removed anything of the module.
func (md *mod) touched() bool {
	md.mu.Lock()
	defer md.mu.Unlock()
	return len(md.removed) > 0
}

// isRemoved reports whether a client removed entry i.
func (md *mod) isRemoved(i int) bool {
	md.mu.Lock()
	defer md.mu.Unlock()
	return md.removed[i]
}

// left reports whether directory i has an entry that was not removed.
func (md *mod) left(ix *indexed, i int) bool {
	md.mu.Lock()
	defer md.mu.Unlock()
	first, end := ix.children(i)
	for c := first; c < end; c++ {
		if !md.removed[c] {
			return true
		}
	}
	return false
}

// removeInModule removes a file or an empty directory of a lazy module.
func (f *FS) removeInModule(cancel <-chan struct{}, caller uint32, slot uint64, dir int, name string, wantDir bool) fuse.Status {
	if f.overlay == nil {
		return fuse.EROFS
	}
	md := f.modules.get(slot)
	if md == nil {
		return fuse.Status(errStale)
	}
	ix, status := f.tree(cancel, md, caller)
	if status != fuse.OK {
		return status
	}
	i, ok := ix.lookup(dir, name)
	switch {
	case !ok || md.isRemoved(i):
		return fuse.ENOENT
	case wantDir && !ix.isDir(i):
		return fuse.ENOTDIR
	case !wantDir && ix.isDir(i):
		return fuse.Status(syscall.EISDIR)
	case wantDir && md.left(ix, i):
		return fuse.Status(syscall.ENOTEMPTY)
	}
	md.mu.Lock()
	defer md.mu.Unlock()
	if md.removed == nil {
		md.removed = make(map[int]bool)
	}
	md.removed[i] = true
	return fuse.OK
}

// setLazyAttr answers a change of attributes inside a lazy module. chmod succeeds, as rm, chmod -R and the go command expect:
// of a directory it takes effect, for as long as the mount lives, since the kernel checks permissions by it; of a file it
// does not, nor do new times: both are part of what was verified. Owners and content do not change: EPERM, EROFS.
func (f *FS) setLazyAttr(slot uint64, i int, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	md := f.modules.get(slot)
	if md == nil {
		return fuse.Status(errStale)
	}
	if status := lazyChange(in); status != fuse.OK {
		return status
	}
	ix, _ := f.trees.get(slot)
	if mode, ok := in.GetMode(); ok && (i == 0 || ix != nil && ix.isDir(i)) {
		md.mu.Lock()
		if md.modes == nil {
			md.modes = make(map[int]uint32)
		}
		md.modes[i] = mode & 0o7777
		md.mu.Unlock()
	}
	if ix == nil && i != 0 {
		return fuse.Status(errStale)
	}
	out.SetTimeout(f.moduleAttr(&out.Attr, md, ix, i))
	return fuse.OK
}

// setLazyFileAttr is setLazyAttr for the files of cache/download.
func (f *FS) setLazyFileAttr(n *node, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if status := lazyChange(in); status != fuse.OK {
		return status
	}
	out.SetTimeout(f.pathAttr(&out.Attr, n))
	return fuse.OK
}

func lazyChange(in *fuse.SetAttrIn) fuse.Status {
	if _, ok := in.GetSize(); ok {
		return fuse.EROFS
	}
	_, uid := in.GetUID()
	_, gid := in.GetGID()
	if uid || gid {
		return fuse.EPERM
	}
	return fuse.OK
}
