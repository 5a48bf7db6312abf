package fs

import (
	"fmt"
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errStale is for a node that the kernel should have forgotten.
const errStale = syscall.ESTALE

// Open is not implemented, so that the kernel stops sending it, and RELEASE with it: reads come with the node ID, which
// is all that we need.
func (f *FS) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// OpenDir is not implemented for the same reason. The kernel then also keeps listings, as if each OPENDIR had been
// answered with FOPEN_KEEP_CACHE|FOPEN_CACHE_DIR.
func (f *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Flush is not implemented: nothing is buffered.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read implements fuse.RawFileSystem.
func (f *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f.stats.reads.Add(1)
	f.noteRequest()
	f.at("read")
	off := int64(in.Offset)
	if off < 0 {
		return nil, fuse.EINVAL
	}
	if slot, i, ok := moduleEntry(in.NodeId); ok {
		return f.readInModule(cancel, slot, i, in.Pid, off, buf)
	}
	n := f.nodes.get(in.NodeId)
	if n == nil {
		return nil, fuse.Status(errStale)
	}
	if n.isDir() {
		return nil, fuse.EISDIR
	}
	if n.over != nil {
		return f.readOverlay(n, off, buf)
	}
	if n.data != nil {
		return f.slice(n.data, off, len(buf)), fuse.OK
	}
	return f.readDownload(cancel, n, in.Pid, off, buf)
}

func (f *FS) readInModule(cancel <-chan struct{}, slot uint64, i int, caller uint32, off int64, buf []byte) (fuse.ReadResult, fuse.Status) {
	md := f.modules.get(slot)
	if md == nil {
		return nil, fuse.Status(errStale)
	}
	if off == 0 {
		f.readAhead(md, i)
	}
	// What is in memory is answered without setting up a context.
	if held, ok := f.content.get(contentKey{slot, i}); ok && held.covers(off, len(buf)) {
		return f.answerRead(contentKey{slot, i}, held, off, len(buf)), fuse.OK
	}
	ctx, done := f.request(cancel, caller)
	defer done()
	defer f.waited(caller, md.Version, "read")()
	c, release, err := f.openFile(ctx, md, i, off, len(buf))
	if err != nil {
		return nil, f.fail("read", md.Version, err)
	}
	defer release()
	if c.spool == nil {
		return f.answerRead(contentKey{slot, i}, c.content, off, len(buf)), fuse.OK
	}
	got, err := f.readSpool(ctx, md, i, c.spool, off, buf)
	if err != nil && err != io.EOF {
		return nil, f.fail("read", md.Version, fmt.Errorf("%s: read %s: %w", md.Version, c.spool.Key(), err))
	}
	f.stats.served.Add(int64(got))
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// answerRead answers a read from c. Once a reader has come to its end, the kernel has it, and it makes room for others.
func (f *FS) answerRead(key contentKey, c content, off int64, n int) fuse.ReadResult {
	if off+int64(n) >= int64(len(c.data)) {
		f.content.remove(key)
	}
	return f.slice(c.data, off, n)
}

// slice answers a read with a part of data, without copying it.
func (f *FS) slice(data []byte, off int64, n int) fuse.ReadResult {
	if off >= int64(len(data)) {
		return fuse.ReadResultData(nil)
	}
	data = data[off:min(int64(len(data)), off+int64(n))]
	f.stats.served.Add(int64(len(data)))
	return fuse.ReadResultData(data)
}

// StatFs implements fuse.RawFileSystem. The size of the file system is the store's limit, or that of the partition that it
// is on where that is smaller.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	u := f.usage()
	total, free := u.Total, u.Free
	if u.Limit > 0 && u.Limit < total {
		total = u.Limit
		free = min(free, max(0, u.Limit-u.Bytes))
	}
	out.Bsize = blockSize
	out.Frsize = blockSize
	out.Blocks = uint64(total) / blockSize
	out.Bfree = uint64(free) / blockSize
	out.Bavail = out.Bfree
	out.NameLen = 255
	return fuse.OK
}
