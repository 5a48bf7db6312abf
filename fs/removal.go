package fs

import (
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
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
	paths map[string]bool
}

func (r *removals) add(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil {
		r.paths = make(map[string]bool)
	}
	// What is removed whole needs no records of its parts.
	for q := range r.paths {
		if strings.HasPrefix(q, p+"/") {
			delete(r.paths, q)
		}
	}
	r.paths[strings.Clone(p)] = true
}

func (r *removals) remove(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paths, p)
}

func (r *removals) has(p string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paths[p]
}

// removed is called after the overlay lost p: the lazy file of that name must not come up from below.
func (f *FS) removed(p string, pp Path) {
	switch pp.Kind {
	case KindNone, KindOwn, KindFile, KindControl, KindPkg:
		return
	case KindModule:
		f.evictModule(pp)
	case KindInfo, KindMod, KindZip, KindList, KindLatest:
		f.store.Remove(storeKey(p)) // best effort: it is hidden anyway
	}
	f.removals.add(p)
	f.touch()
}

// made is called after p came to be in the overlay. Directories above it are there again too.
func (f *FS) made(p string, pp Path) {
	for q := p; q != "."; q = path.Dir(q) {
		f.removals.remove(q)
	}
	if pp.Kind == KindMod {
		f.removals.remove(inMod(moduleDir(pp.Mod)))
		f.promise(pp.Mod)
	}
	f.touch()
}

// evictModule drops what the store has of a module's content.
func (f *FS) evictModule(pp Path) {
	md := f.modules.intern(pp.Mod)
	f.zips.drop(md.zipKey)
	f.trees.remove(md.slot)
	for _, key := range [...]string{md.zipKey, indexKey(pp.Mod)} {
		if err := f.store.Remove(key); err != nil {
			f.log.Warn("not removed", "key", key, "err", err)
		}
	}
	md.mu.Lock()
	md.removed = nil
	md.mu.Unlock()
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
	return fuse.OK
}

// removeLazyDir removes a directory that only the lazy tree has.
func (f *FS) removeLazyDir(pl place) fuse.Status {
	if !f.lazily(pl.path, pl.Path) {
		return fuse.ENOENT
	}
	if !pl.Kind.isDir() {
		return fuse.ENOTDIR
	}
	if pl.Kind == KindModule {
		// Nothing is fetched to find out whether it is empty: what was never listed is not.
		md := f.modules.intern(pl.Mod)
		ix, ok := f.trees.get(md.slot)
		if !ok || md.left(ix, 0) {
			return fuse.Status(syscall.ENOTEMPTY)
		}
	} else if len(f.listPath(&node{path: pl.path, Path: pl.Path})) > 0 {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	f.removed(pl.path, pl.Path)
	return fuse.OK
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
func (f *FS) removeInModule(cancel <-chan struct{}, slot uint64, dir int, name string, wantDir bool) fuse.Status {
	if f.overlay == nil {
		return fuse.EROFS
	}
	md := f.modules.get(slot)
	if md == nil {
		return fuse.Status(errStale)
	}
	ix, status := f.tree(cancel, md)
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
