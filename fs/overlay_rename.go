package fs

import (
	"errors"
	iofs "io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
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
	from, status := f.place(in.NodeId, oldName)
	if status != fuse.OK {
		return status
	}
	to, status := f.place(in.Newdir, newName)
	if status != fuse.OK {
		return status
	}
	if in.Flags&^renameNoReplace != 0 {
		return fuse.EINVAL
	}
	f.overlay.names.Lock()
	defer f.overlay.names.Unlock()
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
		f.pin(to.path)
	}
	if err = f.overlay.parents(to.path); err == nil {
		err = f.overlay.root.Rename(from.path, to.path)
	}
	if err != nil {
		return f.overStatus("rename", from.path, err)
	}
	if there {
		f.unlinked(f.nodes.unname(to.path, old.Nlink <= 1), old)
	}
	f.nodes.rename(from.path, to.path)
	f.removed(from.path, from.Path)
	f.made(to.path, to.Path)
	return fuse.OK
}

// lazyBelow reports whether a directory shows anything that is not the overlay's.
func (f *FS) lazyBelow(p string, pp Path) bool {
	for _, e := range f.listPath(&node{path: p, Path: pp}) {
		if !f.overlay.has(p + "/" + e.name) {
			return true
		}
	}
	return false
}
