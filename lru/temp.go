package lru

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Temp is a file that is being written and has no key yet. It is valid until the fill that it was made for returns. Its
// bytes are charged to the store before they are written, which may evict other files. Its methods may
// be called concurrently.
//
// Besides those of the system, errors are ErrTooLarge, ErrNoSpace and ErrClosed.
//
// What is charged and not yet given by the partition is in Store.pending, for whoever asks statfs meanwhile: always
// charged - allocated for each Temp.
type Temp struct {
	s     *Store
	ctx   context.Context // of the fill
	name  string          // below DIR
	brief bool            // it waits for room as Put does
	f     *os.File
	e     *entry // once it has a key

	size atomic.Int64 // of the content

	mu        sync.Mutex
	since     time.Time // Spare's
	sealed    bool      // the fill has returned: nothing may change any more
	announced int64     // by Reserve
	prealloc  int64     // bytes that the file system was asked for ahead
	charged   int64     // what the ledger has for it
	allocated int64     // of charged: what the partition has given
}

// errSealed is what a fill gets that goes on after it has returned.
var errSealed = errors.New("write after the end of the fill")

// newTemp creates a file under tmp/. The caller is one of s.holders, and commits or discards it.
func (s *Store) newTemp(ctx context.Context, brief bool) (*Temp, error) {
	t := &Temp{s: s, ctx: ctx, brief: brief, name: tmpDir + "/" + strconv.FormatInt(s.seq.Add(1), 10)}
	if err := s.enter(ctx, t.name, terms{brief: brief}); err != nil {
		return nil, err
	}
	err := s.retry(block, func() error {
		return s.inDir(tmpDir, func() (err error) {
			if err := s.hooked("create", t.name); err != nil {
				return err
			}
			t.f, err = os.OpenFile(s.path(t.name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		})
	})
	if err != nil {
		s.exit(t.name)
		return nil, err
	}
	return t, nil
}

// Size returns how many bytes were written.
func (t *Temp) Size() int64 { return t.size.Load() }

// ReadAt implements io.ReaderAt for what was written.
func (t *Temp) ReadAt(p []byte, off int64) (int, error) { return t.f.ReadAt(p, off) }

// Spare spares what was used since a time: from now on, room for t is made only by evicting what was not, and is not waited
// for. Where that does not do, the error is ErrNoSpace, although a fill that spares nothing might succeed.
func (t *Temp) Spare(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = since
}

// Write implements io.Writer: it appends p.
func (t *Temp) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	done := 0
	// More than once only if the partition was full, and eviction helped.
	for {
		if t.sealed {
			return done, errSealed
		}
		size := t.size.Load()
		rest := p[done:]
		if err := t.charge(max(size+int64(len(rest)), t.announced)); err != nil {
			return done, err
		}
		err := t.s.hooked("write", t.name)
		n := 0
		if err == nil {
			n, err = t.f.WriteAt(rest, size)
		}
		done += n
		t.size.Store(size + int64(n))
		t.got(fileDisk(size + int64(n)))
		t.s.progress.Add(1)
		if err == nil {
			return done, nil
		}
		if !diskFull(err) {
			return done, err
		}
		if !t.since.IsZero() || t.s.relieve(int64(len(rest)-n)) == 0 {
			return done, fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
}

// Reserve announces that the file will have n bytes in the end, all of them and not what is still to come. Room for them
// is made now, rather than in the middle of a download. It is no promise; n may be announced anew, and an n below what was
// written already means that. The error is ErrTooLarge if it can never fit; then nothing was evicted for it.
func (t *Temp) Reserve(n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed {
		return errSealed
	}
	n = max(n, t.size.Load())
	if err := t.charge(n); err != nil {
		return err
	}
	t.announced = n
	t.refund(fileDisk(n))
	if n < 16*block || n <= t.prealloc {
		return nil // a few blocks come with the first write
	}
	return t.retry(n, func() error {
		if err := t.s.hooked("preallocate", t.name); err != nil {
			return err
		}
		ok, err := preallocate(t.f, n)
		if ok {
			t.prealloc = n
			t.got(fileDisk(n))
		}
		return err
	})
}

// Truncate cuts the file to its first n bytes; what is written next goes there. What Reserve announced stays so.
func (t *Temp) Truncate(n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.sealed:
		return errSealed
	case n < 0 || n > t.size.Load():
		return fmt.Errorf("truncate to %d: %w: the size is %d", n, os.ErrInvalid, t.size.Load())
	}
	if err := t.f.Truncate(n); err != nil {
		return err
	}
	t.size.Store(n)
	// That gave back what was preallocated, too. It is not asked for again: the next Reserve does that, and who starts
	// anew announces anew.
	t.s.pending.Add(t.allocated - min(t.allocated, fileDisk(n)))
	t.allocated = min(t.allocated, fileDisk(n))
	t.prealloc = 0
	t.refund(fileDisk(max(n, t.announced)))
	return nil
}

// charge has the ledger charge at least what a file of size bytes takes. t.mu is held, as for the other methods below.
func (t *Temp) charge(size int64) error { return t.chargeDisk(fileDisk(size)) }

func (t *Temp) chargeDisk(disk int64) error {
	if disk <= t.charged {
		return nil
	}
	if err := t.s.tooLarge(disk); err != nil {
		return err
	}
	if err := t.s.reserve(t.ctx, disk-t.charged, terms{own: t.charged, since: t.since, brief: t.brief}); err != nil {
		return err
	}
	t.charged = disk
	return nil
}

// retry is Store.retry, unless that would evict what is spared.
func (t *Temp) retry(n int64, op func() error) error {
	if t.since.IsZero() {
		return t.s.retry(n, op)
	}
	err := op()
	if diskFull(err) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// got notes that the partition has given disk bytes in all.
func (t *Temp) got(disk int64) {
	if disk = min(disk, t.charged); disk > t.allocated {
		t.s.pending.Add(t.allocated - disk)
		t.allocated = disk
	}
}

// refund gives back what is charged beyond disk bytes, unless the partition has given them.
func (t *Temp) refund(disk int64) {
	if disk = max(disk, t.allocated); disk < t.charged {
		t.s.release(t.charged-disk, t.charged-disk)
		t.charged = disk
	}
}

// seal makes the content final.
func (t *Temp) seal() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sealed = true
}

// settle makes what is charged what the file really takes. With sync its content outlives a power failure.
func (t *Temp) settle(sync bool) error {
	t.seal()
	t.mu.Lock()
	defer t.mu.Unlock()
	size := t.size.Load()
	if t.prealloc > size {
		if err := t.f.Truncate(size); err != nil { // frees what lies beyond the end
			return err
		}
	}
	// The mtime is the time of use for who opens the store next, by the same clock.
	if err := t.s.stamp(t.name, t.s.cfg.Now()); err != nil {
		return err
	}
	disk := fileDisk(size)
	if sync {
		err := t.s.hooked("sync", t.name)
		if err == nil {
			err = t.f.Sync()
		}
		if diskFull(err) {
			// It is not tried again: the kernel tells but once of what it could not write, so the file would pass for whole.
			if t.since.IsZero() {
				t.s.relieve(size)
			}
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		if err != nil {
			return err
		}
		fi, err := t.f.Stat()
		if err != nil {
			return err
		}
		// All of it has its place on disk now, so this is the true number. Without sync it may still change.
		disk = max((size+block-1)/block*block, allocated(fi))
	}
	if err := t.chargeDisk(disk); err != nil {
		return err
	}
	t.s.pending.Add(t.allocated - t.charged)
	t.allocated = disk
	if disk < t.charged {
		t.s.release(t.charged-disk, 0)
		t.charged = disk
	}
	return nil
}

// discard closes and removes the file.
func (t *Temp) discard() {
	t.seal()
	t.f.Close() // best effort: nobody wants its content
	if err := t.s.remove(t.name); err != nil {
		t.s.log.Error("temporary file not removed", "name", t.name, "err", err)
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		t.s.later(leftover{t: t})
		return // it stays counted
	}
	t.discarded()
}

// discarded accounts for the file's being gone.
func (t *Temp) discarded() {
	t.s.exit(t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.release(t.charged, t.charged-t.allocated)
	t.charged, t.allocated = 0, 0
}

var _ interface {
	io.Writer
	io.ReaderAt
} = (*Temp)(nil)
