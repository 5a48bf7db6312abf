package fs

import (
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// SetAttr implements fuse.RawFileSystem. Truncation by open(2) comes here too, as there is no OPEN.
func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
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
	if n.over == nil {
		if !n.isDir() || n.Kind == KindControl {
			return f.setLazyFileAttr(n, in, out)
		}
		// A directory that the lazy tree shows gets attributes of its own by being there.
		f.overlay.names.Lock()
		err := f.overlay.root.MkdirAll(overName(f.nodes.path(n.id)), 0o755)
		f.overlay.names.Unlock()
		if err != nil {
			return f.overStatus("mkdir", n.path, err)
		}
	}
	if err := f.setOverAttr(n, in); err != nil {
		return f.overStatus("setattr", n.path, err)
	}
	if n.over == nil {
		out.SetTimeout(f.pathAttr(&out.Attr, n))
		return fuse.OK
	}
	out.SetTimeout(overTimeout)
	return f.overStatus("getattr", n.path, f.overAttr(&out.Attr, n))
}

// setOverAttr changes what the overlay has at n.
func (f *FS) setOverAttr(n *node, in *fuse.SetAttrIn) error {
	if size, ok := in.GetSize(); ok {
		if err := f.truncate(n, int64(size)); err != nil {
			return err
		}
	}
	return f.withNode(n, func(file *os.File) error {
		uid, uidOK := in.GetUID()
		gid, gidOK := in.GetGID()
		if uidOK || gidOK {
			if err := file.Chown(idOr(uid, uidOK), idOr(gid, gidOK)); err != nil {
				return err
			}
		}
		if mode, ok := in.GetMode(); ok {
			if err := file.Chmod(goMode(mode)); err != nil {
				return err
			}
		}
		atime, atimeOK := in.GetATime()
		mtime, mtimeOK := in.GetMTime()
		if !atimeOK && !mtimeOK {
			return nil
		}
		return setTimes(file, timeOr(atime, atimeOK), timeOr(mtime, mtimeOK))
	})
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

// withNode calls do with a descriptor on n, a file or a directory.
func (f *FS) withNode(n *node, do func(*os.File) error) error {
	if n.over != nil && !n.over.dir {
		return f.withFile(n, false, do)
	}
	d, err := f.overlay.root.Open(overName(f.nodes.path(n.id)))
	if err != nil {
		return err
	}
	defer d.Close()
	return do(d)
}

// truncate changes the size of an overlay file.
func (f *FS) truncate(n *node, size int64) error {
	if n.over == nil || n.over.dir {
		return syscall.EISDIR
	}
	return f.withFile(n, true, func(file *os.File) error {
		st, err := fstat(file)
		if err != nil {
			return err
		}
		if err := f.overlay.reserve(size - st.Size); err != nil {
			return err
		}
		return file.Truncate(size)
	})
}
