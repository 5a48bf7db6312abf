package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"path"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// For how long the kernel may rely on what it was told.
const (
	// forever is for what cannot change: all that is inside a module, and what is decided by a name alone.
	forever = 10 * 24 * time.Hour

	// moduleTimeout is for M@V. It could be longer; that it is looked up again now and then is how we see that it is in
	// use, which is what the store evicts by.
	moduleTimeout = time.Minute

	// missingTimeout is for a version that upstream does not have: somebody may just be publishing it.
	missingTimeout = 3 * time.Second

	// answerTimeout is for upstream's answers that change with time: list and @latest.
	answerTimeout = 30 * time.Second

	// The attributes of directories above modules hold for at least minDirTimeout and at most maxDirTimeout, or busyDirTimeout
	// while other such directories change; see dirTimeout.
	minDirTimeout  = time.Second
	busyDirTimeout = 10 * time.Second
	maxDirTimeout  = time.Minute
)

// Lookup implements fuse.RawFileSystem.
func (f *FS) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.stats.lookups.Add(1)
	f.noteRequest()
	f.at("lookup")
	if slot, i, ok := moduleEntry(header.NodeId); ok {
		return f.lookupInModule(cancel, slot, i, name, header.Pid, out)
	}
	ctx, done := f.request(cancel, header.Pid)
	defer done()
	defer f.nodes.lookingIn(header.NodeId)()
	for {
		parent := f.nodes.get(header.NodeId)
		if parent == nil {
			return fuse.Status(errStale)
		}
		if !parent.isDir() {
			return fuse.ENOTDIR
		}
		p := path.Join(parent.path, name)
		if parent.Kind == KindControl || name == controlDir {
			if pp := f.private.parse(p); pp.Kind == KindControl {
				return f.lookupControl(p, pp, header.Uid, out)
			}
		}
		status := f.lookupPath(ctx, p, header.Pid, out)
		if f.overlay == nil || f.nodes.path(parent.id) == parent.path {
			return status
		}
		// It was renamed meanwhile, and what is said about the old path may be wrong of the new one.
		if status == fuse.OK && out.NodeId != 0 {
			f.Forget(out.NodeId, 1)
		}
		*out = fuse.EntryOut{}
	}
}

// lookupInModule looks a name up in directory i of a module. It waits for the network only if the module's tree was never
// seen.
func (f *FS) lookupInModule(cancel <-chan struct{}, slot uint64, i int, name string, caller uint32, out *fuse.EntryOut) fuse.Status {
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
	child, ok := ix.lookup(i, name)
	if !ok || f.overlay != nil && md.isRemoved(child) {
		return missing(out, forever)
	}
	f.moduleEntryOut(out, md, ix, child, forever)
	return fuse.OK
}

// tree is load for a FUSE request.
func (f *FS) tree(cancel <-chan struct{}, md *mod, caller uint32) (*indexed, fuse.Status) {
	if ix, ok := f.trees.get(md.slot); ok {
		return ix, fuse.OK
	}
	f.hintIfMissing(caller, md.Version)
	ctx, done := f.request(cancel, caller)
	defer done()
	defer f.waited(caller, md.Version, "open")()
	var ix *indexed
	err := f.repairing(ctx, md, func() (err error) {
		ix, err = f.load(ctx, md)
		return err
	})
	if err != nil {
		return nil, f.fail("open", md.Version, err)
	}
	return ix, fuse.OK
}

// lookupPath looks up what is not inside a module. Each kind of path costs at most the request that DESIGN's table, kept
// in docs/design.md, says.
func (f *FS) lookupPath(ctx context.Context, p string, caller uint32, out *fuse.EntryOut) fuse.Status {
	pp := f.private.parse(p)
	if status, ok := f.lookupOverlay(p, pp, out); ok {
		return status
	}
	defer f.waitedPath(caller, pp)()
	switch pp.Kind {
	case KindNone, KindOwn, KindFile:
		return missing(out, forever) // who makes it goes through the kernel, which then knows better
	case KindModule:
		if f.overlay != nil && f.opts.ResolveClient {
			f.hintIfMissing(caller, pp.Mod) // for it is fetched below
		}
		if err := f.offeredDir(ctx, pp.Mod, caller); err != nil {
			return f.failLookup("info", pp, err, out)
		}
		md := f.modules.intern(pp.Mod)
		f.store.Touch(md.zipKey)
		if f.overlay != nil && f.opts.ResolveClient && f.callerOf(caller).opens() {
			// Once it was told that the directory is there, the go command takes what is wrong with the module for a failure.
			// So it is told only if nothing is; if something is, it gets the module by itself, or says why not.
			if _, err := f.load(ctx, md); err != nil {
				md.refuse()
				return f.failLookup("zip", pp, err, out)
			}
		}
		ix, _ := f.trees.get(md.slot)
		timeout := moduleTimeout
		if !f.opened(pp.Mod) {
			timeout = f.offerTimeout(timeout)
		} else if !f.show(md) {
			return missing(out, 0)
		}
		f.moduleEntryOut(out, md, ix, 0, timeout)
		return fuse.OK
	case KindSumDB:
		if !sumdbIsDir(pp.Rest) {
			return f.lookupSumDB(ctx, p, pp, out)
		}
	}
	if pp.Kind.isDir() {
		if !f.leads(p, pp) && !f.wantedBelow(p, pp, caller) {
			return missing(out, 0)
		}
		f.entryOut(out, f.nodes.lookup(node{path: p, Path: pp}), f.nameTimeout())
		return fuse.OK
	}
	return f.lookupDownload(ctx, p, pp, caller, out)
}

// lookupOverlay answers a lookup for which it need not be known what the lazy tree has: of what the overlay has, and of what
// a client removed.
func (f *FS) lookupOverlay(p string, pp Path, out *fuse.EntryOut) (status fuse.Status, ok bool) {
	if f.overlay == nil {
		return fuse.OK, false
	}
	f.overlay.names.RLock()
	defer f.overlay.names.RUnlock()
	st, err := f.overlay.lstat(p)
	switch {
	case err == nil:
		f.overEntry(out, p, pp, st)
		return fuse.OK, true
	case !errors.Is(err, iofs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return f.overStatus("lookup", p, err), true
	case !f.removals.has(p):
		return fuse.OK, false
	case f.opts.ResolveClient:
		return missing(out, 0), true
	}
	f.removals.remove(p)
	f.touch(p)
	return fuse.OK, false
}

// nameTimeout is for how long the kernel may believe in what the lazy tree shows above modules. On a read-write mount it
// may go away because a client removed something else.
func (f *FS) nameTimeout() time.Duration {
	if f.overlay == nil {
		return forever
	}
	return moduleTimeout
}

// offerTimeout is d, unless what is offered depends on what clients do elsewhere, of which the kernel knows nothing.
func (f *FS) offerTimeout(d time.Duration) time.Duration {
	if f.overlay != nil && f.opts.ResolveClient {
		return 0
	}
	return d
}

// failLookup answers a lookup that failed: what is not there is so for some seconds, all other errors are not remembered.
func (f *FS) failLookup(op string, pp Path, err error, out *fuse.EntryOut) fuse.Status {
	status := f.fail(op, pp.Mod, err)
	if status == fuse.EINTR {
		return status
	}
	if errors.Is(err, errNotOffered) {
		return missing(out, 0) // that may change at any time
	}
	if f.overlay != nil && f.opts.ResolveClient {
		// Whatever the reason is, the go command has its own ways to get the module, and should go them.
		return missing(out, 0)
	}
	if status != fuse.ENOENT {
		return status
	}
	f.stats.notFound.Add(1)
	return missing(out, missingTimeout)
}

// missing answers that there is no such name. The zero node ID lets the kernel remember that.
func missing(out *fuse.EntryOut, d time.Duration) fuse.Status {
	out.NodeId = 0
	out.SetEntryTimeout(d)
	return fuse.OK
}

// Forget implements fuse.RawFileSystem.
func (f *FS) Forget(id, lookups uint64) {
	f.stats.forgets.Add(1)
	if slot, _, ok := moduleEntry(id); ok {
		f.modules.forget(slot, lookups)
		return
	}
	if n := f.nodes.forget(id, lookups); n != nil && n.over != nil {
		f.overlay.forget(n.over)
	}
}

// GetAttr implements fuse.RawFileSystem.
func (f *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.stats.getattrs.Add(1)
	f.noteRequest()
	slot, i, ok := moduleEntry(in.NodeId)
	if !ok {
		n := f.nodes.get(in.NodeId)
		if n == nil {
			return fuse.Status(errStale)
		}
		if n.over != nil {
			out.SetTimeout(overTimeout)
			return f.overStatus("getattr", n.path, f.overAttr(&out.Attr, n))
		}
		out.SetTimeout(f.pathAttr(&out.Attr, n))
		return fuse.OK
	}
	md := f.modules.get(slot)
	if md == nil {
		return fuse.Status(errStale)
	}
	if i == 0 { // stat of M@V fetches nothing
		defer f.waited(in.Pid, md.Version, "stat")()
		ix, _ := f.trees.get(slot)
		out.SetTimeout(f.moduleAttr(&out.Attr, md, ix, 0))
		return fuse.OK
	}
	ix, status := f.tree(cancel, md, in.Pid)
	if status != fuse.OK {
		return status
	}
	if i >= ix.len() {
		return fuse.Status(errStale)
	}
	out.SetTimeout(f.moduleAttr(&out.Attr, md, ix, i))
	return fuse.OK
}

// moduleEntryOut fills in the answer for entry i of a module. ix may be nil for M@V itself.
func (f *FS) moduleEntryOut(out *fuse.EntryOut, md *mod, ix *indexed, i int, entry time.Duration) {
	f.modules.told(md)
	out.NodeId = moduleNode(md.slot, i)
	out.Generation = 1
	out.SetEntryTimeout(entry)
	out.SetAttrTimeout(f.moduleAttr(&out.Attr, md, ix, i))
}

// moduleAttr fills in the attributes of entry i of a module and returns for how long they hold.
func (f *FS) moduleAttr(a *fuse.Attr, md *mod, ix *indexed, i int) time.Duration {
	a.Ino = moduleNode(md.slot, i)
	if ix == nil {
		// M@V before its tree was ever seen. Its attributes may yet change, so they do not hold for long.
		f.dirAttr(a, f.modTime(md.Version), 2)
		f.lazyMode(a, md, 0)
		return moduleTimeout
	}
	if ix.isDir(i) {
		f.dirAttr(a, ix.time, uint32(2+ix.subdirs(i)))
		f.lazyMode(a, md, i)
		return forever
	}
	mode := uint32(fileMode)
	if ix.exec(i) {
		mode = dirMode // the same bits: read and execute for all
	}
	f.fileAttr(a, ix.size(i), mode, ix.time)
	return forever
}

// entryOut fills in the answer for a path node.
func (f *FS) entryOut(out *fuse.EntryOut, n *node, entry time.Duration) {
	out.NodeId = n.id
	out.Generation = 1
	out.SetEntryTimeout(entry)
	out.SetAttrTimeout(f.pathAttr(&out.Attr, n))
	f.trim()
}

// pathAttr fills in the attributes of a path node and returns for how long they hold.
func (f *FS) pathAttr(a *fuse.Attr, n *node) time.Duration {
	a.Ino = pathIno(n.path)
	switch {
	case n.isDir():
		changed := time.Unix(0, f.changed.Load())
		f.dirAttr(a, changed, 1) // 1: the number of subdirectories is not known
		if f.overlay != nil && n.Kind.merged() {
			f.mergeAttr(a, n.path, changed)
		}
		now := time.Now()
		return dirTimeout(now.Sub(f.nodes.lastChanged(n)), now.Sub(changed))
	case n.data != nil:
		a.Ino = n.id | pathInoBit // each content is a file of its own
		mode := f.downloadMode(n)
		if n.Kind == KindControl {
			mode = controlMode(n.Rest)
		}
		f.fileAttr(a, n.size, mode, n.born)
		if n.isCtl() {
			a.Mode = fuse.S_IFLNK | 0o777
			return 0
		}
		return forever
	}
	f.fileAttr(a, n.size, f.downloadMode(n), f.modTime(n.Mod))
	return forever
}

// dirTimeout is for how long the attributes of a directory above modules hold, which the kernel was told to ask for again so long
// ago, while all of them have not changed for a time. Their mtime tells the kernel that a listing that it keeps is old, and to
// check permissions it asks for those of each directory on the way to a file. The kernel is told when a listing changes (touch),
// but not of each change that depends on what clients do elsewhere; so what has not changed for a while is believed for as long.
func dirTimeout(told, unchanged time.Duration) time.Duration {
	return min(max(told, minDirTimeout), max(unchanged, busyDirTimeout), maxDirTimeout)
}

// Permissions, as the go command leaves them after unpacking.
const (
	fileMode = 0o444
	dirMode  = 0o555
)

// downloadMode is the mode of a file of cache/download: one that a client may replace, as the go command leaves them.
func (f *FS) downloadMode(n *node) uint32 {
	if f.overlay != nil && n.Kind.replaceable() {
		return fileMode | 0o200
	}
	return fileMode
}

// mergeAttr fills in the attributes of a directory that is both the overlay's, as far as it is there, and the lazy tree's.
func (f *FS) mergeAttr(a *fuse.Attr, p string, changed time.Time) {
	a.Mode = fuse.S_IFDIR | 0o755
	st, err := f.overlay.lstat(p)
	if err != nil {
		return
	}
	ino := a.Ino
	a.FromStat(st)
	a.Ino, a.Nlink = ino, 1
	if mtime := a.ModTime(); mtime.Before(changed) {
		a.SetTimes(nil, &changed, &changed)
	}
}

// lazyMode gives a directory in a module the permissions that a client gave it.
func (f *FS) lazyMode(a *fuse.Attr, md *mod, i int) {
	md.mu.Lock()
	defer md.mu.Unlock()
	if mode, ok := md.modes[i]; ok {
		a.Mode = fuse.S_IFDIR | mode
	}
}

func (f *FS) dirAttr(a *fuse.Attr, mtime time.Time, nlink uint32) {
	a.Mode = fuse.S_IFDIR | dirMode
	a.Nlink = nlink
	a.Size = blockSize
	a.Blocks = blockSize / 512
	f.commonAttr(a, mtime)
}

func (f *FS) fileAttr(a *fuse.Attr, size int64, mode uint32, mtime time.Time) {
	a.Mode = fuse.S_IFREG | mode
	a.Nlink = 1
	a.Size = uint64(size)
	a.Blocks = uint64(size+511) / 512
	f.commonAttr(a, mtime)
}

func (f *FS) commonAttr(a *fuse.Attr, mtime time.Time) {
	a.Owner = f.owner
	a.Blksize = blockSize
	a.SetTimes(&mtime, &mtime, &mtime)
}

const blockSize = 4096
