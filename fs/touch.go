package fs

import (
	"path"
	"time"
)

// touch notes that something may have come to paths or gone from there, of which the kernel does not know. The moment is the
// mtime of directories above modules, by which it sees that a listing it keeps is old. The directories above paths are
// made to be asked for it at once.
func (f *FS) touch(paths ...string) { f.listingsChanged(false, paths) }

// came is touch where nothing has gone.
func (f *FS) came(paths ...string) { f.listingsChanged(true, paths) }

func (f *FS) listingsChanged(came bool, paths []string) {
	now := time.Now()
	f.changed.Store(now.UnixNano())
	ids := f.nodes.changed(now, came, paths)
	if f.server == nil {
		return
	}
	for _, id := range ids {
		f.server.InodeNotify(id, -1, 0) // best effort: the attributes hold for a minute at most
	}
}

// forgetTries is how often it is tried to make the kernel forget a name in a directory that it looks something up in, and forgetPause
// is between two tries.
const (
	forgetTries = 20
	forgetPause = 100 * time.Millisecond
)

// forgetName makes the kernel look p up anew, soon: not while it waits for us with the directory locked. If it waits there for another
// name, that may take as long as the network does, and all that others look up there would wait, too.
func (f *FS) forgetName(p string) {
	if f.server == nil {
		return
	}
	f.background(func() {
		for range forgetTries {
			dir, known, idle := f.nodes.idle(path.Dir(p))
			if idle {
				f.server.EntryNotify(dir, path.Base(p)) // best effort: it is believed for a minute only
			}
			if idle || !known {
				return
			}
			select {
			case <-time.After(forgetPause):
			case <-f.ctx.Done():
				return
			}
		}
	})
}
