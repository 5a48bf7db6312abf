package fs

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// overlayDir is where the writable layer lies in the store's directory. The store neither counts nor evicts it.
const overlayDir = "overlay"

// overlay is the writable layer of a read-write mount: what clients created, in a directory tree of the same shape on disk.
// It is looked up before the lazy tree. Its crash safety is that of the file system that it lies on.
//
// All access goes through an os.Root: a client may leave a symbolic link to anywhere in it, and the daemon, which may be
// root, must not be led out.
type overlay struct {
	root *os.Root
	dir  *os.File // the root, for lstat
	max  int64    // bytes of files that it may hold; 0: no limit

	// names orders what changes names with what depends on them. Unlike all other locks it is held over I/O, but only
	// the metadata I/O on the local disk whose outcome it protects; never over anything that may wait for a network.
	names sync.RWMutex

	mu   sync.Mutex
	used int64                               // bytes of files, kept up to date as they grow and shrink
	open *simplelru.LRU[*overFile, struct{}] // descriptors that may be closed
}

// maxOverlayFiles is how many descriptors on files of the overlay are kept open.
const maxOverlayFiles = 256

// overFile is what a node of the overlay stands for: one inode of the disk, whatever its names are.
type overFile struct {
	ino       uint64
	dir, link bool // a directory, a symbolic link; else a regular file

	target atomic.Pointer[string] // of a symbolic link, which never changes; nil: not known

	// names are those of its paths that the kernel asked for and that it still has; guarded by nodes.mu. A directory has
	// one at most.
	names []string

	// mu guards the descriptor. With no OPEN and RELEASE, it is opened at the first read or write. Once the last name is
	// gone it must last for as long as the kernel remembers the node, because somebody may have the file open: it is then
	// pinned.
	mu       sync.Mutex
	file     *os.File
	writable bool
	pinned   bool
}

// openOverlay opens the overlay of the store at dir, and makes it if there is none.
func openOverlay(dir string, max int64) (*overlay, error) {
	dir = filepath.Join(dir, overlayDir)
	if err := os.MkdirAll(filepath.Join(dir, modRoot), 0o755); err != nil {
		return nil, fmt.Errorf("make the writable layer: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the writable layer: %w", err)
	}
	o := &overlay{root: root, max: max}
	if o.dir, err = root.Open("."); err != nil {
		root.Close()
		return nil, fmt.Errorf("open the writable layer: %w", err)
	}
	o.open, _ = simplelru.NewLRU[*overFile, struct{}](maxOverlayFiles, nil) // fails only for sizes < 1
	err = iofs.WalkDir(root.FS(), ".", func(_ string, d iofs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read cannot be counted
		}
		if fi, err := d.Info(); err == nil {
			o.used += fi.Size()
		}
		return nil
	})
	if err != nil {
		o.dir.Close()
		root.Close()
		return nil, fmt.Errorf("measure the writable layer: %w", err)
	}
	return o, nil
}

func (o *overlay) close() {
	o.mu.Lock()
	files := o.open.Keys()
	o.mu.Unlock()
	for _, of := range files {
		of.close()
	}
	o.dir.Close()
	o.root.Close()
}

// overName is p as os.Root wants it.
func overName(p string) string {
	if p == "" {
		return "."
	}
	return p
}

// lstat returns the attributes of what the overlay has at p.
func (o *overlay) lstat(p string) (*syscall.Stat_t, error) {
	if st, ok, err := lstatBelow(o.dir, overName(p)); ok {
		return st, err
	}
	fi, err := o.root.Lstat(overName(p))
	if err != nil {
		return nil, err
	}
	return fi.Sys().(*syscall.Stat_t), nil
}

func (o *overlay) has(p string) bool {
	_, err := o.lstat(p)
	return err == nil
}

// readDir returns what the overlay has in directory p, nothing if that is not there.
func (o *overlay) readDir(p string) []iofs.DirEntry {
	d, err := o.root.Open(overName(p))
	if err != nil {
		return nil
	}
	defer d.Close()
	es, _ := d.ReadDir(-1) // what it could read before an error
	return es
}

// parents makes the directories above p, which the lazy tree may have shown without their being there.
func (o *overlay) parents(p string) error {
	dir := path.Dir(p)
	if dir == "." || o.has(dir) {
		return nil
	}
	return o.root.MkdirAll(dir, 0o755)
}

// errOverlayFull says that Options.OverlayMax is reached.
var errOverlayFull = errors.New("writable layer is full")

// gone reports whether somebody removed the directory that the overlay lies in.
func (o *overlay) gone() bool {
	st, err := fstat(o.dir)
	return err == nil && st.Nlink == 0
}

// reserve makes room for files to grow by n bytes.
func (o *overlay) reserve(n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.max > 0 && o.used+n > o.max {
		return fmt.Errorf("%w (%d of %d bytes): %w", errOverlayFull, o.used, o.max, syscall.ENOSPC)
	}
	o.used += n
	return nil
}

// release takes n bytes off what is reserved.
func (o *overlay) release(n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.used -= n
}

// usage returns how many bytes of files the overlay has.
func (o *overlay) usage() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.used
}

// resize runs do, after which file may have up to size bytes, and keeps account of those that it then has. The kernel lets
// no two requests change the size of one file at the same time.
func (o *overlay) resize(file *os.File, size int64, do func() error) error {
	st, err := fstat(file)
	if err != nil {
		return err
	}
	more := max(0, size-st.Size)
	if more > 0 {
		if err := o.reserve(more); err != nil {
			return err
		}
	}
	err = do()
	if now, statErr := fstat(file); statErr == nil {
		o.release(st.Size + more - now.Size)
	}
	return err
}

// descriptor returns a descriptor on n, open for writing if write is set. It may be closed by others at any time, but not
// under a call that uses it: a call on a closed one fails with os.ErrClosed and is then repeated; see withFile.
//
// The caller holds overlay.names: the path must not change before it is opened.
func (f *FS) descriptor(n *node, write bool) (*os.File, error) {
	of := n.over
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.file != nil && (of.writable || !write) {
		return of.file, nil
	}
	p, ok := f.nodes.where(n.id)
	if !ok {
		return nil, syscall.ESTALE
	}
	file, writable, err := f.overlay.openNode(of, p, write)
	if err != nil {
		return nil, err
	}
	if st, err := fstat(file); err != nil || st.Ino != of.ino {
		file.Close()
		return nil, syscall.ESTALE
	}
	if of.file != nil {
		of.file.Close() // best effort: it was only read
	}
	of.file, of.writable = file, writable
	return file, nil
}

// openNode opens what is at p.
func (o *overlay) openNode(of *overFile, p string, write bool) (file *os.File, writable bool, err error) {
	if of.dir {
		file, err = o.root.Open(overName(p))
		return file, false, err
	}
	return o.openFile(p, write)
}

// openFile opens p for reading, and for writing where that is wanted or allowed anyway. The permission to write was checked
// by the kernel when the client opened the file; the bits may have changed since, as they do when the go command creates a
// file with mode 0444 and writes through that descriptor.
func (o *overlay) openFile(p string, write bool) (file *os.File, writable bool, err error) {
	const flags = syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	if file, err = o.root.OpenFile(p, os.O_RDWR|flags, 0); err == nil {
		return file, true, nil
	}
	if !errors.Is(err, iofs.ErrPermission) {
		return nil, false, err
	}
	if !write {
		if file, err = o.root.OpenFile(p, os.O_RDONLY|flags, 0); err == nil {
			return file, false, nil
		}
	}
	fi, err := o.root.Lstat(p)
	if err != nil {
		return nil, false, err
	}
	if err = o.root.Chmod(p, fi.Mode().Perm()|0o600); err != nil {
		return nil, false, err
	}
	file, err = o.root.OpenFile(p, os.O_RDWR|flags, 0)
	o.root.Chmod(p, fi.Mode().Perm()) // best effort: it was possible a moment ago
	return file, err == nil, err
}

// keep marks of's descriptor as used. The least recently used one is closed where there are too many.
func (o *overlay) keep(of *overFile) {
	var oldest *overFile
	o.mu.Lock()
	if o.open.Len() >= maxOverlayFiles && !o.open.Contains(of) {
		oldest, _, _ = o.open.RemoveOldest()
	}
	o.open.Add(of, struct{}{})
	o.mu.Unlock()
	if oldest != nil {
		oldest.close()
	}
}

// close closes the descriptor, unless it is all that is left of the file.
func (of *overFile) close() {
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.file != nil && !of.pinned {
		of.file.Close() // best effort: a failed write was reported when it was made
		of.file = nil
	}
}

// forget is for when the kernel knows the node no longer.
func (o *overlay) forget(of *overFile) {
	o.mu.Lock()
	o.open.Remove(of)
	o.mu.Unlock()
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.file == nil {
		return
	}
	if st, err := fstat(of.file); err == nil && of.pinned && st.Nlink == 0 && !of.dir {
		o.release(st.Size)
	}
	of.file.Close() // best effort, as above
	of.file, of.pinned = nil, false
}

// openedNode is descriptor for who does not hold overlay.names.
func (f *FS) openedNode(n *node, write bool) (*os.File, error) {
	f.overlay.names.RLock()
	defer f.overlay.names.RUnlock()
	f.at("open")
	return f.descriptor(n, write)
}

// withFile calls do with a descriptor on n.
func (f *FS) withFile(n *node, write bool, do func(*os.File) error) error {
	for {
		file, err := f.openedNode(n, write)
		if err != nil {
			return err
		}
		f.overlay.keep(n.over)
		if err = do(file); !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
}

func fstat(file *os.File) (*syscall.Stat_t, error) {
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return fi.Sys().(*syscall.Stat_t), nil
}

// pin opens what is at p, which is st, if the kernel knows of it, because a name of it is about to go. The caller holds
// overlay.names.
func (f *FS) pin(p string, st *syscall.Stat_t) {
	n := f.nodes.overAt(p, st.Ino)
	if n == nil || n.over.link {
		return
	}
	if _, err := f.descriptor(n, false); err != nil {
		f.log.Debug("unlinked file not opened", "path", p, "err", err)
		return
	}
	n.over.mu.Lock()
	n.over.pinned = n.over.file != nil
	n.over.mu.Unlock()
}

// unlinked is called after the name p went, of what was st before. The caller holds overlay.names.
func (f *FS) unlinked(p string, st *syscall.Stat_t) {
	last := st.Nlink <= 1 || st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	n, named := f.nodes.unname(p, st.Ino, last)
	if n != nil {
		n.over.mu.Lock()
		n.over.pinned = n.over.pinned && !named
		open := n.over.pinned
		n.over.mu.Unlock()
		if open {
			return // counted until the kernel forgets it
		}
	}
	if last && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		f.overlay.release(st.Size)
	}
}

// overAttr returns the attributes of an overlay node.
func (f *FS) overAttr(a *fuse.Attr, n *node) error {
	f.overlay.names.RLock()
	defer f.overlay.names.RUnlock()
	var st *syscall.Stat_t
	p, ok := f.nodes.where(n.id)
	if ok {
		var err error
		if st, err = f.overlay.lstat(p); err != nil {
			return err
		}
	} else {
		n.over.mu.Lock()
		defer n.over.mu.Unlock()
		if n.over.file == nil {
			return syscall.ESTALE
		}
		var err error
		if st, err = fstat(n.over.file); err != nil {
			return err
		}
	}
	a.FromStat(st)
	return nil
}

// overTimeout is for overlay files and directories. Whatever changes them goes through the kernel, which knows.
const overTimeout = time.Minute

// overEntry fills in the answer for what the overlay has at p, which is st.
func (f *FS) overEntry(out *fuse.EntryOut, p string, pp Path, st *syscall.Stat_t) {
	dir := st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	if dir && pp.Kind.merged() {
		f.entryOut(out, f.nodes.lookup(node{path: p, Path: pp}), overTimeout)
		return
	}
	n := f.nodes.lookup(node{path: p, Path: pp, over: &overFile{ino: st.Ino, dir: dir, link: st.Mode&syscall.S_IFMT == syscall.S_IFLNK}})
	if n.over != nil && n.over.link && n.over.target.Load() == nil {
		if target, err := f.overlay.root.Readlink(overName(p)); err == nil {
			n.over.target.Store(&target)
		}
	}
	out.NodeId = n.id
	out.Generation = 1
	out.Attr.FromStat(st)
	out.SetEntryTimeout(overTimeout)
	out.SetAttrTimeout(overTimeout)
}

// merged reports whether directories of this kind show what the overlay has together with the lazy tree.
func (k Kind) merged() bool { return k.isDir() && k != KindModule && k != KindControl }
