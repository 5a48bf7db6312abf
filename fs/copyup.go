package fs

import (
	"os"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// replaceable reports whether a lazy file of this kind may be written to, by which it becomes one of the overlay: as if the
// client had removed it, and created another of that name. The files of modules are what they are for good.
func (k Kind) replaceable() bool {
	switch k {
	case KindInfo, KindMod, KindZip, KindZipHash, KindList, KindLatest, KindQuery:
		return true
	}
	return false
}

// copyUp makes the file of node n, of cache/download, one of the overlay: with its content, or empty, and owned by the
// client that is about to write to it. Archives are only replaced whole: nobody changes bytes in one.
func (f *FS) copyUp(cancel <-chan struct{}, n *node, content bool, who *fuse.Caller) (*node, fuse.Status) {
	if n.over != nil {
		return n, fuse.OK
	}
	var data []byte
	if content {
		if n.Kind == KindZip {
			return n, fuse.EROFS
		}
		data = make([]byte, n.size)
		r, status := f.Read(cancel, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: n.id, Caller: *who}}, data)
		if status != fuse.OK {
			return n, status
		}
		if data, status = r.Bytes(data); status != fuse.OK {
			return n, status
		}
	}
	f.overlay.names.Lock()
	defer f.overlay.names.Unlock()
	if f.overlay.has(n.path) || f.nodes.path(n.id) != n.path {
		return n, fuse.Status(errStale) // somebody was faster, with other content
	}
	err := f.overlay.parents(n.path)
	var file *os.File
	if err == nil {
		file, err = f.createFile(n.path, 0o644)
	}
	if err != nil {
		return n, f.overStatus("create", n.path, err)
	}
	err = f.overlay.resize(file, int64(len(data)), func() error {
		_, err := file.WriteAt(data, 0)
		return err
	})
	var st *syscall.Stat_t
	if err == nil {
		st, err = fstat(file)
	}
	var up *node
	if err == nil {
		up = f.nodes.replace(n.id, st.Ino)
	}
	if up == nil {
		// Best effort: nobody has seen it.
		f.overlay.resize(file, 0, func() error { return file.Truncate(0) })
		f.overlay.root.Remove(n.path)
		file.Close()
		if err == nil {
			err = errStale
		}
		return n, f.overStatus("create", n.path, err)
	}
	f.own(n.path, who)
	f.created(up.id, file)
	f.made(up.path, up.Path)
	return up, fuse.OK
}

// writeHash answers a write to a lazy V.ziphash. A go command that downloads an archive by itself writes the hash, without
// regard to what is there, while another may read it: truncating is without effect, and only what is there can be written.
func (f *FS) writeHash(cancel <-chan struct{}, n *node, caller uint32, off uint64, data []byte) (uint32, fuse.Status) {
	ctx, done := f.request(cancel, caller)
	defer done()
	h1, err := f.hash(ctx, n.Mod)
	if err != nil {
		return 0, f.fail("ziphash", n.Mod, err)
	}
	if off > uint64(len(h1)) || !strings.HasPrefix(h1[off:], string(data)) {
		return 0, fuse.EROFS
	}
	return uint32(len(data)), fuse.OK
}
