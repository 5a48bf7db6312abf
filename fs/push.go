package fs

import (
	"context"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A go command that lists a directory of a module is going to read how each source file in it begins, and does so with one
// or two reads a file. So before it is told that the listing is at its end, the kernel gets the content of these files: a
// round trip for each directory, instead of several for each file. Of a large directory it gets that of the first ones; while
// the go command reads these, and takes longer for it, it gets the others.

// pushSize is how much the kernel gets of a file that is larger than headSize, in bytes. What has only the imports read
// needs no more, and what is compiled is read to its end anyway.
const pushSize = 16 << 10

// maxPush bounds what is pushed at the end of one listing, in bytes.
const maxPush = 8 << 20

// pushFirst is how many files of a directory are pushed before the listing ends, if there are more.
const pushFirst = 24

// maxPushers bounds how many directories have files pushed after their listings ended; of others, all are before.
const maxPushers = 8

// push gives the kernel the source files of directory dir, if the caller is about to read them. It is an optimization: what
// does not work is read when it is read. An archive that was evicted is fetched for it, which the caller waits as it would for a read.
func (f *FS) push(cancel <-chan struct{}, md *mod, ix *indexed, dir int, caller uint32) {
	if f.server == nil || f.pushUnknown.Load() {
		return
	}
	first, end := ix.children(dir)
	if !hasSource(ix, first, end) || !f.callerOf(caller).opens() {
		return
	}
	ctx, done := f.request(cancel, caller)
	defer done()
	p := &pushing{f: f, md: md, ix: ix, next: first, end: end, room: maxPush}
	if !p.push(ctx, pushFirst) {
		return
	}
	if f.pushers.Add(1) > maxPushers {
		defer f.pushers.Add(-1)
		p.push(ctx, end-first)
		return
	}
	f.background(func() {
		defer f.pushers.Add(-1)
		f.at("push later")
		p.push(f.ctx, end-first)
	})
}

// pushing is the files of a directory that the kernel has not been given: the source files, or with all, those that are no larger
// than headSize.
type pushing struct {
	f         *FS
	md        *mod
	ix        *indexed
	next, end int // entries
	room      int // bytes that may be pushed
	all       bool
	unknown   bool // the kernel did not know the file that was pushed last
}

// has reports whether entry i is to be pushed.
func (p *pushing) has(i int) bool {
	size := p.ix.size(i)
	if size == 0 || p.md.isRemoved(i) {
		return false
	}
	if p.all {
		return size <= headSize
	}
	return isSource(p.ix.name(i))
}

// push gives the kernel n files, or all that are left. It reports whether there may be more.
func (p *pushing) push(ctx context.Context, n int) bool {
	f := p.f
	buf := pushBuffers.Get().(*[headSize]byte)
	defer pushBuffers.Put(buf)
	for ; p.next < p.end && n > 0; p.next++ {
		i := p.next
		if !p.has(i) {
			continue
		}
		data, err := f.beginning(ctx, p.md, p.ix, i, buf)
		if err != nil {
			return false // who reads it gets the error
		}
		status := f.server.InodeNotifyStoreCache(moduleNode(p.md.slot, i), 0, data)
		p.unknown = status == fuse.ENOENT
		switch status {
		case fuse.OK:
			f.stats.pushed.Add(1)
			f.stats.served.Add(int64(len(data)))
			f.content.remove(contentKey{p.md.slot, i})
		case fuse.ENOSYS:
			f.pushUnknown.Store(true)
			return false
		case fuse.ENOENT: // the kernel forgot the file, or never asked for its attributes
			if p.all {
				return false
			}
		default:
			return false
		}
		n--
		if p.room -= len(data); p.room <= 0 {
			return false
		}
	}
	return p.next < p.end
}

// pushBuffers are for beginning.
var pushBuffers = sync.Pool{New: func() any { return new([headSize]byte) }}

// beginning returns what is pushed of a file: all of it or the first pushSize bytes, from memory or inflated into buf. It does
// without the goroutines and locks by which openFile serves many readers of a file: here is one, who waits for all of the
// directory.
func (f *FS) beginning(ctx context.Context, md *mod, ix *indexed, i int, buf *[headSize]byte) (data []byte, err error) {
	size := ix.size(i)
	_, hasHead := ix.head(i)
	held, ok := f.content.get(contentKey{md.slot, i})
	switch {
	case ok && held.covers(0, int(min(size, pushSize))):
		data = held.data
	case size <= headSize:
		data = buf[:size]
		err = f.inflateAll(ctx, md, ix, i, data)
	case hasHead:
		data = buf[:]
		err = f.inflateBeginning(ctx, md, ix, i, buf)
	default:
		held, err = f.inflateToMemory(ctx, md, ix, i)
		data = held.data
	}
	if size > headSize {
		data = data[:min(len(data), pushSize)]
	}
	return data, err
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
