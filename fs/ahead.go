package fs

import (
	"slices"
	"sync"
)

// Who reads the files of a module one after the other (grep -r, cp -r, an indexer) is going to read the next ones, too. The
// kernel reads ahead within a file, but not from one file to the next; so a directory's next files are pushed to it, while the
// reader is busy with the one that it asked for. That one file in so many is asked for shows that there still is a reader.

const (
	aheadAfter = 3       // how many files must have been read in a row
	aheadFiles = 32      // how many are pushed at once
	aheadBytes = 1 << 20 // and how many bytes they may have
)

// sequence tells whether the files of a module are read one after the other. The zero value is one of which none was.
type sequence struct {
	mu      sync.Mutex
	cursors [8]cursor // the directories that files were read in lately: who walks a tree comes back to them
	newest  int       // of cursors
	run     int       // how many files were read in a row
	pushing bool
	reader  int // the last entry that was read of those that were pushed, or are to be
}

// cursor is where a reader is in a directory.
type cursor struct {
	dir  int32
	next int32 // the first entry that was neither read nor pushed; 0: this is no cursor
}

// read notes that file i is read from its beginning, and returns the entries [first, end) that are to be pushed; if these are not
// none, pushed must be called after it.
func (s *sequence) read(t *tree, i int) (first, end int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := t.parent(i)
	begin, stop := t.children(dir)
	at := slices.IndexFunc(s.cursors[:], func(c cursor) bool { return c.next > 0 && int(c.dir) == dir })
	switch {
	case at < 0 || !hasContent(t, begin, i): // somebody begins with the directory
		if at < 0 {
			s.newest = (s.newest + 1) % len(s.cursors)
			at = s.newest
		}
		if hasContent(t, begin, i) {
			s.run = 0
		}
	case i < int(s.cursors[at].next): // it is being pushed, or read again
		s.reader = max(s.reader, i)
		return 0, 0
	case hasContent(t, int(s.cursors[at].next), i):
		s.run = 0
	default:
		s.run++
	}
	s.cursors[at] = cursor{int32(dir), int32(i + 1)}
	if s.run < aheadAfter || s.pushing || !hasContent(t, i+1, stop) {
		return 0, 0
	}
	s.pushing, s.reader = true, i
	end = i + 1
	for n := 0; end < stop && n < aheadFiles; end++ {
		if t.size(end) > 0 {
			n++
		}
	}
	s.cursors[at].next = int32(end)
	return i + 1, end
}

// overtaken returns which of the entries [next, end) is to be pushed first: if the reader has come there by itself, it is busy with one
// of them, and soon will be with the one after it.
func (s *sequence) overtaken(next, end int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next <= s.reader && s.reader < end {
		return s.reader + 2
	}
	return next
}

// pushed ends what read began. If it was in vain, another run of files must be read first.
func (s *sequence) pushed(inVain bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushing = false
	if inVain {
		s.run = 0
	}
}

// hasContent reports whether there is a file to read among the entries [first, end) of a directory.
func hasContent(t *tree, first, end int) bool {
	for i := first; i < end; i++ {
		if t.size(i) > 0 {
			return true
		}
	}
	return false
}

// readAhead pushes the files to the kernel that will be read after file i, which is being read from its beginning.
func (f *FS) readAhead(md *mod, i int) {
	if f.server == nil || f.pushUnknown.Load() {
		return
	}
	ix, ok := f.trees.get(md.slot)
	if !ok || i >= ix.len() {
		return
	}
	first, end := md.sequence.read(ix.tree, i)
	if first == end {
		return
	}
	f.background(func() {
		p := &pushing{f: f, md: md, ix: ix, next: first, end: end, room: aheadBytes, all: true}
		defer func() { md.sequence.pushed(p.unknown) }()
		for p.push(f.ctx, 1) {
			p.next = md.sequence.overtaken(p.next, end)
		}
	})
}
