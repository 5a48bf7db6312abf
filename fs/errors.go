package fs

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/mod/module"
	"golang.org/x/sys/unix"

	"modfs/fetch"
)

// maxErrors is how many errors .modfs/errors holds.
const maxErrors = 100

// Event is one error that a client saw: a line of .modfs/errors.
type Event struct {
	Time    time.Time `json:"time"`
	Module  string    `json:"module,omitempty"`
	Version string    `json:"version,omitempty"`
	Op      string    `json:"op"`                // what was wanted, e.g. "zip"
	Cause   string    `json:"cause"`             // the whole chain of errors
	Errno   string    `json:"errno"`             // what the client got, e.g. "EBADMSG"
	Repeats int       `json:"repeats,omitempty"` // how often it happened again since
}

// errorLog keeps the last errors. Its zero value, with max set, is ready.
type errorLog struct {
	max int

	mu    sync.Mutex
	last  []Event // oldest first
	total uint64
	by    map[string]uint64 // by errno
}

// maxCause bounds the text of an error, in bytes: what an upstream said may be in it.
const maxCause = 4 << 10

// cause is the text of an error in .modfs/errors and the log. Where our own files are on disk is nobody's business.
func (f *FS) cause(err error) string {
	s := strings.ReplaceAll(err.Error(), f.store.Dir()+"/", "")
	if len(s) > maxCause {
		s = strings.ToValidUTF8(s[:maxCause], "") + "…"
	}
	return s
}

// add appends e, or counts it with the error before it if it is the same one: a build in which hundreds of files of one
// module fail must not push out the error that came first. It reports whether e was new.
func (l *errorLog) add(e Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if l.by == nil {
		l.by = make(map[string]uint64)
	}
	l.by[e.Errno]++
	if n := len(l.last); n > 0 {
		p := &l.last[n-1]
		if p.Module == e.Module && p.Version == e.Version && p.Op == e.Op && p.Cause == e.Cause {
			p.Repeats++
			p.Time = e.Time
			return false
		}
		if n == l.max {
			l.last = append(l.last[:0], l.last[1:]...)
		}
	}
	l.last = append(l.last, e)
	return true
}

// lines returns the errors as JSON lines, oldest first.
func (l *errorLog) lines() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range l.last {
		enc.Encode(e) // cannot fail: an Event is strings and numbers
	}
	return b.Bytes()
}

// Errors returns the last errors that clients saw, those of .modfs/errors, oldest first.
func (f *FS) Errors() []Event {
	f.errors.mu.Lock()
	defer f.errors.mu.Unlock()
	return slices.Clone(f.errors.last)
}

// byErrno counts the errors by what clients got.
func (l *errorLog) byErrno() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.by)
}

// latest returns the last n errors, oldest first.
func (l *errorLog) latest(n int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Event{}, l.last[max(0, len(l.last)-n):]...)
}

func (l *errorLog) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// insecure reports whether err says that upstream sent what it must not have: another hash than it should be, or a checksum
// database that contradicts itself.
func insecure(err error) bool {
	return errors.Is(err, fetch.ErrMismatch) || errors.Is(err, fetch.ErrSumDB)
}

// failAhead takes the error of what was fetched ahead, for which nobody waits. It is returned, and told only if it must be seen
// to, whether or not somebody opens the module.
func (f *FS) failAhead(op string, m module.Version, err error) error {
	if insecure(err) {
		f.fail(op, m, err)
	}
	return err
}

// fail turns the error of an operation on m into the answer to a client. Here an error stops being one, so here it is
// logged, counted and put into .modfs/errors: all but what merely says that something is not there, or that the client
// itself gave up.
func (f *FS) fail(op string, m module.Version, err error) fuse.Status {
	return f.failAs(op, m, err, errno(err))
}

// failAs is fail for an error of the disk on which the writable layer lies: the client gets just that.
func (f *FS) failAs(op string, m module.Version, err error, no syscall.Errno) fuse.Status {
	if no != syscall.EINTR && no != syscall.ESHUTDOWN {
		a := f.failed(about(ActivityError, m, op), err)
		a.Errno = unix.ErrnoName(no)
		f.note(a)
	}
	quiet := no == syscall.EINTR || no == syscall.ESHUTDOWN || no == syscall.ENOENT && !errors.Is(err, fetch.ErrInvalid)
	if quiet {
		return fuse.Status(no)
	}
	if insecure(err) {
		f.stats.insecure.Add(1)
	}
	e := Event{Time: time.Now(), Module: m.Path, Version: m.Version, Op: op, Cause: f.cause(err), Errno: unix.ErrnoName(no)}
	if f.errors.add(e) {
		log := f.log.Warn
		if no == syscall.EBADMSG {
			log = f.log.Error
		}
		log("request failed", "op", op, "module", m.Path, "version", m.Version, "errno", e.Errno, "err", e.Cause)
		if f.opts.OnError != nil {
			f.opts.OnError(e)
		}
	}
	return fuse.Status(no)
}
