package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A go command that lists a directory of a module is going to read how each source file in it begins, and does so with one
// or two reads a file. So before it is told that the listing is at its end, the kernel gets the content of these files: a
// round trip for each directory, instead of several for each file.

// pushSize is how much the kernel gets of a file that is larger than headSize, in bytes. What has only the imports read
// needs no more, and what is compiled is read to its end anyway.
const pushSize = 16 << 10

// maxPush bounds what is pushed at the end of one listing, in bytes.
const maxPush = 8 << 20

// push gives the kernel the source files of directory dir, if the caller is about to read them. It is an optimization: what
// does not work is read when it is read.
func (f *FS) push(md *mod, ix *indexed, dir int, caller uint32) {
	if f.server == nil || f.pushUnknown.Load() {
		return
	}
	first, end := ix.children(dir)
	if !hasSource(ix, first, end) || !f.callerOf(caller).opens() {
		return
	}
	room := maxPush
	for i := first; i < end && room > 0; i++ {
		if ix.isDir(i) || ix.size(i) == 0 || !isSource(ix.name(i)) || md.isRemoved(i) {
			continue
		}
		c, release, err := f.openFile(f.ctx, md, i, 0, int(min(ix.size(i), pushSize)))
		if err != nil {
			return // who reads it gets the error
		}
		data := c.data
		if !c.whole || len(data) > headSize {
			data = data[:min(len(data), pushSize)]
		}
		status := fuse.OK
		if len(data) > 0 {
			status = f.server.InodeNotifyStoreCache(moduleNode(md.slot, i), 0, data)
		}
		release()
		switch status {
		case fuse.OK:
			f.stats.pushed.Add(1)
			f.stats.served.Add(int64(len(data)))
			f.content.remove(contentKey{md.slot, i})
		case fuse.ENOSYS:
			f.pushUnknown.Store(true)
			return
		case fuse.ENOENT: // the kernel does not know the file: it forgot it, or never asked for its attributes
		default:
			return
		}
		room -= len(data)
	}
}

// hasSource reports whether there is a source file among the entries [first, end).
func hasSource(ix *indexed, first, end int) bool {
	for i := first; i < end; i++ {
		if !ix.isDir(i) && isSource(ix.name(i)) {
			return true
		}
	}
	return false
}
