package fs

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/mod/module"
)

// origins remember where the archives in the store came from: the URL of a proxy, "direct", or "seed NAME". Nothing but a listing
// depends on that.
//
// They are one file of lines, path, version and origin. Lines are appended, and the last one counts; when most of them are of archives
// that are gone, it is written anew.
type origins struct {
	// disk is held by who writes the file, which takes as long as the disk lets it, and guards these:
	disk  sync.Mutex
	file  *os.File // nil: not to be written
	lines int      // in the file

	mu sync.Mutex // guards by; it is taken after disk, and never held while something is written
	by map[module.Version]string
}

const (
	originsFile  = "origins" // in the store's directory
	maxOrigins   = 64 << 20  // bytes of it that are read
	spareOrigins = 1 << 10   // lines more than twice the archives that there are
)

// open reads them. has says whether the store has an archive. It is called once, before note; others may be called already.
func (o *origins) open(dir string, has func(module.Version) bool) {
	by := make(map[module.Version]string)
	name := filepath.Join(dir, originsFile)
	torn := false
	// Somebody may have put a named pipe or a link there: neither is waited for or followed.
	const careful = syscall.O_NONBLOCK | syscall.O_NOFOLLOW
	if file, err := os.OpenFile(name, os.O_RDONLY|careful, 0); err == nil {
		data, _ := readAtMost(file, maxOrigins) // best effort, as all of this
		file.Close()
		torn = len(data) > 0 && data[len(data)-1] != '\n'
		for line := range bytes.Lines(data) {
			o.lines++
			fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), " ", 3)
			if len(fields) != 3 || module.Check(fields[0], fields[1]) != nil {
				continue
			}
			if m := (module.Version{Path: fields[0], Version: fields[1]}); has(m) {
				by[m] = fields[2]
			}
		}
	}
	o.mu.Lock()
	o.by = by
	o.mu.Unlock()
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|careful, 0o600)
	if err != nil {
		return
	}
	o.file = file
	if torn {
		file.WriteString("\n") // best effort: or the next line would continue what a crash left of one
	}
	o.compact()
}

// note remembers where the archive of m came from.
func (o *origins) note(m module.Version, from string) {
	from = strings.Join(strings.Fields(from), " ")
	if from == "" {
		return
	}
	o.disk.Lock()
	defer o.disk.Unlock()
	if o.set(m, from) {
		o.write(m, from)
		o.compact()
	}
}

// set reports whether that is new.
func (o *origins) set(m module.Version, from string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by[m] == from {
		return false
	}
	o.by[m] = from
	return true
}

// forget forgets the archive of m, which is gone.
func (o *origins) forget(m module.Version) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.by, m)
}

// compact writes the file anew if it has too many lines. o.disk is held, or nobody else has o.
func (o *origins) compact() {
	if o.file == nil || o.lines <= 2*o.len()+spareOrigins || o.file.Truncate(0) != nil {
		return
	}
	o.lines = 0
	for m, from := range o.all() {
		o.write(m, from)
	}
}

func (o *origins) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.by)
}

func (o *origins) all() map[module.Version]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.by)
}

// write appends a line, in one write, so that a crash leaves at most the last one incomplete. o.disk is held, or nobody else has o.
func (o *origins) write(m module.Version, from string) {
	if o.file != nil {
		o.lines++
		fmt.Fprintf(o.file, "%s %s %s\n", m.Path, m.Version, from) // best effort
	}
}

// of returns where the archive of m came from, "" if that is not known.
func (o *origins) of(m module.Version) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.by[m]
}

func (o *origins) close() {
	if o.file != nil {
		o.file.Close() // best effort
	}
}
