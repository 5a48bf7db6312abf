package fs

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// place is where a FUSE request wants to change a name.
type place struct {
	parent *node
	path   string
	Path
}

// change begins a change of names in the directory with an ID. The caller ends it by unlocking overlay.names, unless there
// is an error.
func (f *FS) change(dir uint64, name string) (place, fuse.Status) {
	if f.overlay == nil {
		return place{}, fuse.EROFS
	}
	f.overlay.names.Lock()
	status := fuse.EIO
	defer func() {
		if status != fuse.OK { // also if it panics
			f.overlay.names.Unlock()
		}
	}()
	f.at("change")
	pl, status := f.place(dir, name)
	return pl, status
}

// place returns what name in the directory with an ID is, if it may be changed: not inside a lazy module, whose content is
// what it is for good. The caller holds overlay.names, or the directory could have another path by the time it is used.
func (f *FS) place(dir uint64, name string) (place, fuse.Status) {
	if _, _, ok := moduleEntry(dir); ok {
		return place{}, fuse.EROFS
	}
	parent := f.nodes.get(dir)
	switch {
	case parent == nil:
		return place{}, fuse.Status(errStale)
	case !parent.isDir():
		return place{}, fuse.ENOTDIR
	}
	if n := parent.over; n != nil {
		if _, ok := f.nodes.where(dir); !ok {
			return place{}, fuse.ENOENT // it was removed
		}
	}
	p := path.Join(parent.path, name)
	pp := f.private.parse(p)
	if pp.Kind == KindControl {
		return place{}, fuse.EROFS
	}
	return place{parent: parent, path: p, Path: pp}, fuse.OK
}

// overStatus is the answer to an operation on the overlay: the errno of the disk.
func (f *FS) overStatus(op, p string, err error) fuse.Status {
	if isNotExist(err) && f.overlay.gone() {
		err = fmt.Errorf("the writable layer was removed from the store's directory (%v), unmount and mount again: %w", err, syscall.EIO)
	}
	var no syscall.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &no):
	case errors.Is(err, iofs.ErrExist):
		no = syscall.EEXIST
	case errors.Is(err, iofs.ErrNotExist):
		no = syscall.ENOENT
	case errors.Is(err, iofs.ErrPermission):
		no = syscall.EACCES
	default: // os.Root's refusal of a path that leads out of it, for one
		f.log.Warn("writable layer", "op", op, "path", p, "err", err)
		no = syscall.EIO
	}
	if no == syscall.ENOSPC || no == syscall.EIO || no == syscall.EDQUOT || no == syscall.EROFS {
		f.failAs(op, parse(p).Mod, err, no)
	}
	return fuse.Status(no)
}

// make runs do, which makes something where nothing is, gives it to the caller and answers with what it is.
func (f *FS) make(op string, in *fuse.InHeader, name string, out *fuse.EntryOut, do func(p string) error) fuse.Status {
	pl, status := f.change(in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	defer f.overlay.names.Unlock()
	// What may be replaced may also be there for other clients, and not for this one.
	if f.overlay.has(pl.path) || !pl.Kind.replaceable() && f.lazily(pl.path, pl.Path) {
		return fuse.Status(syscall.EEXIST)
	}
	err := f.roomy(blockSize, func() error {
		if err := f.overlay.parents(pl.path); err != nil {
			return err
		}
		return do(pl.path)
	})
	if err != nil {
		return f.overStatus(op, pl.path, err)
	}
	f.own(pl.path, &in.Caller)
	f.made(pl.path, pl.Path)
	st, err := f.overlay.lstat(pl.path)
	if err != nil {
		return f.overStatus(op, pl.path, err)
	}
	f.overEntry(out, pl.path, pl.Path, st)
	return fuse.OK
}

// roomy runs do, which needs about n bytes of the partition. If that is full, what the store can fetch again makes room for what a
// client wants to keep.
func (f *FS) roomy(n int64, do func() error) error {
	for {
		err := do()
		full := errors.Is(err, syscall.ENOSPC) && !errors.Is(err, errOverlayFull) || errors.Is(err, syscall.EDQUOT)
		if !full || f.store.Relieve(n) == 0 {
			return err
		}
	}
}

// own gives what the daemon made for a client to that client. Only root can, and only a mount for more than one user needs it.
func (f *FS) own(p string, who *fuse.Caller) {
	if f.owner.Uid == 0 && (who.Uid != f.owner.Uid || who.Gid != f.owner.Gid) {
		if err := f.overlay.root.Lchown(p, int(who.Uid), int(who.Gid)); err != nil {
			f.log.Warn("writable layer", "op", "chown", "path", p, "err", err)
		}
	}
}

// Mkdir implements fuse.RawFileSystem.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.make("mkdir", &in.InHeader, name, out, func(p string) error {
		if err := f.overlay.root.Mkdir(p, 0o700); err != nil {
			return err
		}
		err := f.overlay.root.Chmod(p, goMode(in.Mode)) // the kernel applied the client's umask; ours must not count
		if err != nil {
			f.overlay.root.Remove(p) // best effort: nobody has seen it
		}
		return err
	})
}

// goMode converts permission bits of the kernel.
func goMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	if mode&syscall.S_ISUID != 0 {
		m |= os.ModeSetuid
	}
	if mode&syscall.S_ISGID != 0 {
		m |= os.ModeSetgid
	}
	if mode&syscall.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}

// Mknod implements fuse.RawFileSystem, for regular files only: a module cache has no devices or pipes.
func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fuse.EPERM
	}
	return f.make("mknod", &in.InHeader, name, out, func(p string) error {
		file, err := f.createFile(p, in.Mode)
		if err == nil {
			err = file.Close()
		}
		return err
	})
}

func (f *FS) createFile(p string, mode uint32) (*os.File, error) {
	file, err := f.overlay.root.OpenFile(p, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(goMode(mode)); err != nil {
		file.Close()
		f.overlay.root.Remove(p) // best effort: nobody has seen it
		return nil, err
	}
	return file, nil
}

// Create implements fuse.RawFileSystem. The kernel sends it for a name that it believes is not there; where it is by now, it
// is opened, unless O_EXCL.
func (f *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	var file *os.File
	status := f.make("create", &in.InHeader, name, &out.EntryOut, func(p string) (err error) {
		file, err = f.createFile(p, in.Mode)
		return err
	})
	if file != nil {
		f.created(out.NodeId, file)
	}
	if status != fuse.Status(syscall.EEXIST) || in.Flags&syscall.O_EXCL != 0 {
		return status
	}
	if status = f.Lookup(cancel, &in.InHeader, name, &out.EntryOut); status == fuse.OK && out.NodeId == 0 {
		return fuse.ENOENT
	}
	if status != fuse.OK {
		return status
	}
	n := f.nodes.get(out.NodeId)
	if n == nil || n.over == nil {
		f.Forget(out.NodeId, 1)
		return fuse.EROFS // it would be opened for writing
	}
	if in.Flags&syscall.O_TRUNC != 0 {
		// The kernel does not do it for a file that it believes to be new.
		if err := f.truncate(n, 0); err != nil {
			f.Forget(out.NodeId, 1)
			return f.overStatus("truncate", n.path, err)
		}
		out.Size = 0
	}
	return fuse.OK
}

// created keeps the descriptor of a new file: it is about to be written to, whatever its mode is.
func (f *FS) created(id uint64, file *os.File) {
	n := f.nodes.get(id)
	if n == nil || n.over == nil {
		file.Close() // best effort: nothing was written
		return
	}
	n.over.mu.Lock()
	if n.over.file == nil {
		n.over.file, n.over.writable, file = file, true, nil
	}
	n.over.mu.Unlock()
	if file != nil {
		file.Close() // best effort, as above
	}
	f.overlay.keep(n.over)
}

// Symlink implements fuse.RawFileSystem.
func (f *FS) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.make("symlink", in, name, out, func(p string) error { return f.overlay.root.Symlink(target, p) })
}

// Readlink implements fuse.RawFileSystem.
func (f *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n := f.nodes.get(in.NodeId)
	if n != nil && n.isCtl() {
		target, status := f.ctl(in.Uid)
		return []byte(target), status
	}
	if n == nil || n.over == nil {
		return nil, fuse.EINVAL
	}
	f.overlay.names.RLock()
	defer f.overlay.names.RUnlock()
	p, ok := f.nodes.where(n.id)
	if !ok {
		// It was replaced while somebody followed it, who followed the old one.
		if target := n.over.target.Load(); target != nil {
			return []byte(*target), fuse.OK
		}
		return nil, fuse.Status(errStale)
	}
	target, err := f.overlay.root.Readlink(p)
	return []byte(target), f.overStatus("readlink", p, err)
}

// Link implements fuse.RawFileSystem. Lazy files have no links: EPERM, as on a file system without.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	pl, status := f.change(in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	defer f.overlay.names.Unlock()
	old := f.nodes.get(in.Oldnodeid)
	if old == nil || old.over == nil {
		return fuse.EPERM
	}
	if f.overlay.has(pl.path) || f.lazily(pl.path, pl.Path) {
		return fuse.Status(syscall.EEXIST)
	}
	from, ok := f.nodes.where(old.id)
	if !ok {
		return fuse.ENOENT
	}
	err := f.overlay.parents(pl.path)
	if err == nil {
		err = f.overlay.root.Link(from, pl.path)
	}
	if err != nil {
		return f.overStatus("link", pl.path, err)
	}
	f.made(pl.path, pl.Path)
	st, err := f.overlay.lstat(pl.path)
	if err != nil {
		return f.overStatus("link", pl.path, err)
	}
	f.overEntry(out, pl.path, pl.Path, st)
	return fuse.OK
}

// Unlink implements fuse.RawFileSystem.
func (f *FS) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if slot, i, ok := moduleEntry(in.NodeId); ok {
		return f.removeInModule(cancel, in.Pid, slot, i, name, false)
	}
	pl, status := f.change(in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	defer f.overlay.names.Unlock()
	st, err := f.overlay.lstat(pl.path)
	if errors.Is(err, iofs.ErrNotExist) {
		return f.removeLazyFile(pl)
	}
	if err == nil && st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return fuse.Status(syscall.EISDIR)
	}
	if err == nil {
		f.pin(pl.path, st)
		err = f.overlay.root.Remove(pl.path)
	}
	if err != nil {
		return f.overStatus("unlink", pl.path, err)
	}
	f.unlinked(pl.path, st)
	f.removed(pl.path, pl.Path)
	return fuse.OK
}

// Rmdir implements fuse.RawFileSystem.
func (f *FS) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if slot, i, ok := moduleEntry(in.NodeId); ok {
		return f.removeInModule(cancel, in.Pid, slot, i, name, true)
	}
	pl, status := f.change(in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	defer f.overlay.names.Unlock()
	st, err := f.overlay.lstat(pl.path)
	switch {
	case err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFDIR:
		return fuse.ENOTDIR
	case errors.Is(err, iofs.ErrNotExist):
		return f.removeLazyDir(pl)
	case err != nil:
		return f.overStatus("rmdir", pl.path, err)
	}
	if pl.Kind.merged() && len(f.listPath(&node{path: pl.path, Path: pl.Path})) > 0 {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	f.pin(pl.path, st)
	if err := f.overlay.root.Remove(pl.path); err != nil {
		return f.overStatus("rmdir", pl.path, err)
	}
	f.unlinked(pl.path, st)
	f.removed(pl.path, pl.Path)
	return fuse.OK
}

// Write implements fuse.RawFileSystem.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, status := f.overNode(in.NodeId)
	if n != nil && n.over == nil && n.Kind == KindZipHash {
		return f.writeHash(cancel, n, in.Pid, in.Offset, data)
	}
	if status != fuse.OK && n != nil && n.Kind.replaceable() {
		n, status = f.copyUp(cancel, n, true, &in.Caller)
	}
	if status != fuse.OK {
		// What was written through a mapping is in the page cache, where others would read it. The pages are locked until
		// the kernel has this answer.
		id := in.NodeId // in is the request's
		f.background(func() { f.server.InodeNotify(id, 0, 0) })
		return 0, status
	}
	written := 0
	err := f.withFile(n, true, func(file *os.File) error {
		return f.roomy(int64(len(data)), func() error {
			return f.overlay.resize(file, int64(in.Offset)+int64(len(data)), func() (err error) {
				written, err = file.WriteAt(data, int64(in.Offset))
				return err
			})
		})
	})
	return uint32(written), f.overStatus("write", n.path, err)
}

// overNode returns an overlay node that a request wants to change.
func (f *FS) overNode(id uint64) (*node, fuse.Status) {
	if _, _, ok := moduleEntry(id); ok || f.overlay == nil {
		return nil, fuse.EROFS
	}
	n := f.nodes.get(id)
	switch {
	case n == nil:
		return nil, fuse.Status(errStale)
	case n.over == nil:
		return n, fuse.EROFS
	}
	return n, fuse.OK
}

// readOverlay answers a read of an overlay file.
func (f *FS) readOverlay(n *node, off int64, buf []byte) (fuse.ReadResult, fuse.Status) {
	got := 0
	err := f.withFile(n, false, func(file *os.File) (err error) {
		got, err = file.ReadAt(buf, off)
		if got > 0 || errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	if err != nil {
		return nil, f.overStatus("read", n.path, err)
	}
	f.stats.served.Add(int64(got))
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// Fsync implements fuse.RawFileSystem.
func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, status := f.overNode(in.NodeId)
	if status != fuse.OK {
		return fuse.OK // lazy files are on disk, or can be had again
	}
	return f.overStatus("fsync", n.path, f.withFile(n, false, (*os.File).Sync))
}

// FsyncDir implements fuse.RawFileSystem.
func (f *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if f.overlay == nil || f.nodes.get(in.NodeId) == nil {
		return fuse.OK
	}
	p := f.nodes.path(in.NodeId)
	d, err := f.overlay.root.Open(overName(p))
	if err != nil {
		return fuse.OK // nothing of it is on disk
	}
	defer d.Close()
	return f.overStatus("fsync", p, d.Sync())
}
