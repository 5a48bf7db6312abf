package fs

import (
	"os"
	"path"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// SetAttr implements fuse.RawFileSystem. Truncation by open(2) comes here too, as there is no OPEN.
func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.overlay == nil {
		return fuse.EROFS
	}
	if slot, i, ok := moduleEntry(in.NodeId); ok {
		return f.setLazyAttr(slot, i, in, out)
	}
	n := f.nodes.get(in.NodeId)
	if n == nil {
		return fuse.Status(errStale)
	}
	if _, ok := in.GetSize(); ok && n.Kind == KindZipHash && n.over == nil {
		out.SetTimeout(f.pathAttr(&out.Attr, n)) // see writeHash
		return fuse.OK
	}
	if size, ok := in.GetSize(); ok && n.Kind.replaceable() {
		var status fuse.Status
		if n, status = f.copyUp(cancel, n, size > 0, &in.Caller); status != fuse.OK {
			return status
		}
	}
	if n.over == nil {
		if !n.isDir() || n.Kind == KindControl {
			return f.setLazyFileAttr(n, in, out)
		}
		if err := f.setDirAttr(n, in); err != nil {
			return f.overStatus("setattr", n.path, err)
		}
		out.SetTimeout(f.pathAttr(&out.Attr, n))
		return fuse.OK
	}
	if err := f.setOverAttr(n, in); err != nil {
		return f.overStatus("setattr", n.path, err)
	}
	out.SetTimeout(overTimeout)
	return f.overStatus("getattr", n.path, f.overAttr(&out.Attr, n))
}

// setDirAttr changes a directory that the lazy tree shows too: it gets attributes of its own by being in the overlay.
func (f *FS) setDirAttr(n *node, in *fuse.SetAttrIn) error {
	f.overlay.names.Lock()
	defer f.overlay.names.Unlock()
	p := overName(f.nodes.path(n.id))
	if err := f.overlay.root.MkdirAll(p, 0o755); err != nil {
		return err
	}
	return setAttr(pathAttrs{f.overlay.root, p}, in)
}

// setOverAttr changes what the overlay has at n.
func (f *FS) setOverAttr(n *node, in *fuse.SetAttrIn) error {
	if size, ok := in.GetSize(); ok {
		if err := f.truncate(n, int64(size)); err != nil {
			return err
		}
	}
	if n.over.dir || n.over.link {
		f.overlay.names.RLock()
		defer f.overlay.names.RUnlock()
		p, ok := f.nodes.where(n.id)
		if !ok {
			return syscall.ESTALE
		}
		if n.over.link {
			return setLinkAttr(f.overlay.root, p, in)
		}
		return setAttr(pathAttrs{f.overlay.root, p}, in)
	}
	return f.withFile(n, false, func(file *os.File) error { return setAttr(fileAttrs{file}, in) })
}

// attrs is something whose attributes can be changed: by its path, or where that may be gone, by a descriptor.
type attrs interface {
	chown(uid, gid int) error
	chmod(mode os.FileMode) error
	chtimes(atime, mtime time.Time) error // a zero time is left as it is
}

type fileAttrs struct{ file *os.File }

func (a fileAttrs) chown(uid, gid int) error             { return a.file.Chown(uid, gid) }
func (a fileAttrs) chmod(mode os.FileMode) error         { return a.file.Chmod(mode) }
func (a fileAttrs) chtimes(atime, mtime time.Time) error { return setTimes(a.file, atime, mtime) }

// pathAttrs is for directories: one without permissions cannot be opened, but made accessible again.
type pathAttrs struct {
	root *os.Root
	path string
}

func (a pathAttrs) chown(uid, gid int) error             { return a.root.Lchown(a.path, uid, gid) }
func (a pathAttrs) chmod(mode os.FileMode) error         { return a.root.Chmod(a.path, mode) }
func (a pathAttrs) chtimes(atime, mtime time.Time) error { return a.root.Chtimes(a.path, atime, mtime) }

// setAttr makes the changes that in asks for, but that of the size.
func setAttr(a attrs, in *fuse.SetAttrIn) error {
	uid, uidOK := in.GetUID()
	gid, gidOK := in.GetGID()
	if uidOK || gidOK {
		if err := a.chown(idOr(uid, uidOK), idOr(gid, gidOK)); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := a.chmod(goMode(mode)); err != nil {
			return err
		}
	}
	atime, atimeOK := in.GetATime()
	mtime, mtimeOK := in.GetMTime()
	if !atimeOK && !mtimeOK {
		return nil
	}
	return a.chtimes(timeOr(atime, atimeOK), timeOr(mtime, mtimeOK))
}

// setLinkAttr changes a symbolic link, which has an owner and times; not what it leads to.
func setLinkAttr(root *os.Root, p string, in *fuse.SetAttrIn) error {
	uid, uidOK := in.GetUID()
	gid, gidOK := in.GetGID()
	if uidOK || gidOK {
		if err := root.Lchown(p, idOr(uid, uidOK), idOr(gid, gidOK)); err != nil {
			return err
		}
	}
	atime, atimeOK := in.GetATime()
	mtime, mtimeOK := in.GetMTime()
	if !atimeOK && !mtimeOK {
		return nil
	}
	dir, err := root.Open(path.Dir(p))
	if err != nil {
		return err
	}
	defer dir.Close()
	return setLinkTimes(dir, path.Base(p), timeOr(atime, atimeOK), timeOr(mtime, mtimeOK))
}

func idOr(id uint32, ok bool) int {
	if !ok {
		return -1 // leave it
	}
	return int(id)
}

func timeOr(t time.Time, ok bool) time.Time {
	if !ok {
		return time.Time{} // leave it
	}
	return t
}

// truncate changes the size of an overlay file.
func (f *FS) truncate(n *node, size int64) error {
	if n.over.dir || n.over.link {
		return syscall.EINVAL
	}
	return f.withFile(n, true, func(file *os.File) error {
		return f.overlay.resize(file, size, func() error { return file.Truncate(size) })
	})
}
