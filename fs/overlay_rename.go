package fs

import (
	"errors"
	iofs "io/fs"
	"path"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Flags of renameat2(2).
const (
	renameNoReplace = 1 << 0
	renameExchange  = 1 << 1
)

// Rename implements fuse.RawFileSystem. What is lazy cannot be renamed: it is where it is because of its name. The answer is
// EXDEV, after which mv copies, as between two file systems.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if _, _, ok := moduleEntry(in.NodeId); ok && f.overlay != nil {
		return fuse.Status(syscall.EXDEV)
	}
	if in.Flags&^renameNoReplace != 0 {
		return fuse.EINVAL
	}
	from, status := f.change(in.NodeId, oldName)
	if status != fuse.OK {
		return status
	}
	defer f.overlay.names.Unlock()
	to, status := f.place(in.Newdir, newName)
	if status != fuse.OK {
		return status
	}
	st, err := f.overlay.lstat(from.path)
	if errors.Is(err, iofs.ErrNotExist) {
		if f.lazily(from.path, from.Path) {
			return fuse.Status(syscall.EXDEV)
		}
		return fuse.ENOENT
	}
	if err != nil {
		return f.overStatus("rename", from.path, err)
	}
	dir := st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	if dir && from.Kind.merged() && f.lazyBelow(from.path, from.Path) {
		return fuse.Status(syscall.EXDEV)
	}
	old, err := f.overlay.lstat(to.path)
	there := err == nil
	if lazy := !there && f.lazily(to.path, to.Path); lazy || there {
		if in.Flags&renameNoReplace != 0 {
			return fuse.Status(syscall.EEXIST)
		}
		if lazy && (dir || to.Kind == KindModule) {
			return fuse.Status(syscall.ENOTEMPTY)
		}
	}
	if there && old.Ino == st.Ino && !dir {
		return fuse.OK // two names of one file: POSIX says that nothing happens
	}
	if there && dir && to.Kind.merged() && f.lazyBelow(to.path, to.Path) {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	if there {
		f.pin(to.path, old)
	}
	if err = f.overlay.parents(to.path); err == nil {
		err = f.overlay.rename(from.path, to.path, there && dir)
	}
	if err != nil {
		return f.overStatus("rename", from.path, err)
	}
	if there {
		f.unlinked(to.path, old)
	}
	f.nodes.rename(from.path, to.path, dir)
	f.removed(from.path, from.Path)
	f.made(to.path, to.Path)
	return fuse.OK
}

// rename renames on disk; over says that to is a directory, which os.Root.Rename does not replace even where it is empty.
func (o *overlay) rename(from, to string, over bool) error {
	if !over {
		return o.root.Rename(from, to)
	}
	fromDir, err := o.root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer fromDir.Close()
	toDir, err := o.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer toDir.Close()
	return unix.Renameat(int(fromDir.Fd()), path.Base(from), int(toDir.Fd()), path.Base(to))
}

// lazyBelow reports whether a directory shows anything that is not the overlay's.
func (f *FS) lazyBelow(p string, pp Path) bool {
	return slices.ContainsFunc(f.listPath(&node{path: p, Path: pp}), func(e listEntry) bool { return e.load == nil })
}
