package lru

import (
	"context"
	"fmt"
	"path"
	"time"
)

const (
	// block is the unit that files are counted in, in bytes: the usual one of file systems. Where one takes more for a
	// file, that is found out when the file is complete (see Temp.settle).
	block = 4096
	// skeleton is what an empty store takes: its directory, tmp/, quarantine/, lock and version.
	skeleton = 5 * block
	// defaultPatience is how long somebody waits for space while nothing at all moves. It bounds what cannot be told
	// from here: that a reader who is waited for is itself waiting for us.
	defaultPatience = 30 * time.Second
	// briefPatience is for how long a small file waits for space, in all.
	briefPatience = time.Second
)

// ledger is the account of bytes on disk, guarded by Store.mu.
//
// Its invariant: each field is at least what du would show for that part. Bytes are added before they are allocated and
// taken off after they are freed.
type ledger struct {
	live        int64 // files that have a key, those that are being evicted included
	temps       int64 // files under tmp/, as announced
	unlinked    int64 // files without a name that are still open
	quarantined int64
	dirBytes    int64
	fixed       int64 // lock and version

	evictable int64 // of live: what is in lru
	evicting  int64 // of live: on its way out

	minorBytes int64 // of live: what is in minor

	holders int // who has, or is about to have, bytes in temps
	waiting int // of holders: who waits for space

	evictions, evictedBytes int64

	max, soft, low int64 // the limit; where eviction begins; where it ends
}

func (l *ledger) used() int64 {
	return l.live + l.temps + l.unlinked + l.quarantined + l.dirBytes + l.fixed
}

// setLimit sets the limit to n bytes, 0 for none. The margin below it is for those who measure with du (see the package
// comment), and stops growing where it would be more than du can be off by. Ending below the mark where eviction begins means
// that it is not needed again for the very next file.
func (l *ledger) setLimit(n int64) {
	l.max = n
	l.soft = n - min(n/50, 64<<20)
	l.low = n - n/20
	l.fixed = 2 * block // lock and version
}

// fileDisk returns what a file of size bytes takes on disk at most. File systems count the blocks with their own map of the
// file as the file's; one per 4 MiB is plenty unless a file is in pieces of a few blocks (ext4 has 340 pieces to such a
// block, and the first four need none).
func fileDisk(size int64) int64 {
	n := (size + block - 1) / block * block
	if n > 4*block {
		n += block * (1 + size>>22)
	}
	return n
}

// nameDisk returns what a name takes in its directory: an ext4 directory entry has 8 bytes and the name, in units of 4.
func nameDisk(name string) int64 { return int64(8+len(path.Base(name))+3) &^ 3 }

// dirDisk returns what a directory takes whose names take n bytes. The first block has room for about 4000. Beyond that it
// becomes a tree of blocks (ext4, XFS), each of them at least about half full.
func dirDisk(n int64) int64 {
	if n <= 4000 {
		return block
	}
	return block * (2 + n/2000)
}

// tooLarge returns ErrTooLarge if a file that takes n bytes on disk cannot fit even into an empty store.
func (s *Store) tooLarge(n int64) error {
	if s.max > 0 && n > s.max-skeleton {
		return fmt.Errorf("%w: %d bytes, and the limit is %d", ErrTooLarge, n, s.max)
	}
	return nil
}

// want returns how many bytes are to be evicted so that n more fit well, and whether n fit as things are.
func (s *Store) want(n int64, p partition) (evict int64, fits bool) {
	fits = true
	if s.max > 0 {
		// What is on its way out has been asked for by somebody else and is as good as gone, but not gone.
		if after := s.used() + n - s.evicting; after > s.soft {
			evict = after - s.low
		}
		fits = s.used()+n <= s.max
	}
	if floor := s.floor(p); floor > 0 {
		if short := floor - (p.free - s.pending.Load() - n); short > 0 {
			evict, fits = max(evict, short+floor/20), false
		}
	}
	return evict, fits
}

// floor returns how many bytes of the partition are to stay free.
func (s *Store) floor(p partition) int64 {
	return max(s.cfg.MinFree, int64(s.cfg.MinFreePercent/100*float64(p.total)))
}

func (s *Store) hasFloor() bool { return s.cfg.MinFree > 0 || s.cfg.MinFreePercent > 0 }

// terms say what may be done to make room for a caller of reserve, who is one of s.holders.
type terms struct {
	own int64 // bytes that the caller has in flight already

	// since spares what was used since then, if it is not zero: nobody is waited for, and some room is left for the names of the
	// file and what is put with it.
	since time.Time

	// brief is for small files, which those make who write large ones, or who hold files open: it would be in vain to wait for
	// them. So nobody who is writing is waited for, and others for briefPatience at most.
	brief bool
}

// reserve charges n bytes to what is in flight, evicting as needed. When nothing is left to evict, it waits for readers to close
// what was unlinked, and for others who are writing to finish, because what they wrote can then be evicted. It gives up with
// ErrNoSpace when there is nobody to wait for, or nothing has moved for s.patience; with some terms, earlier.
func (s *Store) reserve(ctx context.Context, n int64, t terms) error {
	if n <= 0 {
		return nil
	}
	var (
		p     partition
		stale = s.hasFloor()
		swept bool
		since = t.since
		w     = waiter{brief: t.brief}
	)
	defer w.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer w.leave(s)
	for {
		if stale {
			s.mu.Unlock()
			now, err := s.measure()
			s.mu.Lock()
			if err != nil {
				return err
			}
			p, stale = now, false
		}
		if s.closed {
			return ErrClosed
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		evict, fits := s.want(n, p)
		if !since.IsZero() {
			if evict, fits = s.want(n+max(spareRoom, n/spareShare), p); evict > 0 {
				fits = false // it would be the next one's to evict for
			}
		}
		// Looked at again after each wait: what there was to hope for may be gone.
		short := int64(0)
		if !fits {
			short = s.short(n, t.own, p)
		}
		if short > s.minorBytes {
			if len(s.stuck) > 0 && !swept {
				swept = true
				s.mu.Unlock()
				s.sweep() // what could not be unlinked may be now
				s.mu.Lock()
				continue
			}
			return s.full(n, p) // and nothing was evicted in vain
		}
		v := s.takeUnused(evict, since)
		if !v.any() && since.IsZero() {
			v = s.takeMinor(short, 0)
		}
		if v.any() {
			s.mu.Unlock()
			freed := s.drop(v)
			s.mu.Lock()
			// Counted and not measured again: some file systems free blocks in the background, and a partition that
			// seems full for a moment longer must not cost the whole store.
			p.free += freed
			continue
		}
		if fits {
			s.temps += n
			s.pending.Add(n)
			return nil
		}
		if !since.IsZero() {
			return fmt.Errorf("%w: %d bytes needed, and all that may go was used since %s", ErrNoSpace, n, since.Format(time.DateTime))
		}
		if s.evicting == 0 && s.unlinked == 0 && (t.brief || !w.others(s)) || !w.wait(ctx, s) {
			return s.full(n, p)
		}
		stale = s.hasFloor()
	}
}

// spareRoom is what reserve keeps for names, in bytes: a new path may take some directories of a block each. What the owner puts
// besides, knowing the file, may take a share of it.
const (
	spareRoom  = 16 * block
	spareShare = 8
)

// short returns by how much n bytes would not fit if all went that can go but minor files; 0 or less: they would fit.
func (s *Store) short(n, own int64, p partition) int64 {
	going := s.evictable + s.evicting + s.quarantined + s.unlinked + s.temps - own
	short := int64(0)
	if s.max > 0 {
		short = s.used() - going + n - s.max
	}
	if floor := s.floor(p); floor > 0 {
		short = max(short, floor-(p.free-s.pending.Load()+going-n))
	}
	return short
}

// full returns the ErrNoSpace that says why n bytes do not fit.
func (s *Store) full(n int64, p partition) error {
	if s.max > 0 && s.used()+n > s.max {
		stay := s.live - s.evictable - s.evicting
		return fmt.Errorf("%w: %d bytes needed, %d of %d used: %d by files that may not be evicted, %d by files being written, "+
			"%d by files evicted but still open", ErrNoSpace, n, s.used(), s.max, stay, s.temps, s.unlinked)
	}
	return fmt.Errorf("%w: %d bytes needed, the partition has %d free, of which %d are to stay free",
		ErrNoSpace, n, p.free, s.floor(p))
}

// release gives back n bytes that were charged to what is in flight, of which pending were never allocated.
func (s *Store) release(n, pending int64) {
	s.pending.Add(-pending)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.temps -= n
	s.moved()
}

// moved wakes who waits for space. s.mu is held.
func (s *Store) moved() {
	s.progress.Add(1)
	s.cond.Broadcast()
}

// hold makes the caller one of those who have bytes in flight; leave ends that.
func (s *Store) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders++
}

func (s *Store) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders--
	s.moved()
}

// waiter is one call's waiting for space. Its methods but stop are called with s.mu held.
type waiter struct {
	brief    bool // no longer than briefPatience
	timer    *time.Timer
	stopWake func() bool
	counted  bool // in s.waiting, from the first wait until it has or has not got its space
	since    time.Time
	seen     int64
}

// others reports whether somebody else is writing who does not wait for space, and will therefore finish.
func (w *waiter) others(s *Store) bool {
	running := s.holders - s.waiting
	if !w.counted {
		running--
	}
	return running > 0
}

// wait waits until something has moved, and reports false if nothing has for too long.
func (w *waiter) wait(ctx context.Context, s *Store) bool {
	patience := s.patience
	if w.brief {
		patience = min(patience, briefPatience)
	}
	if patience <= 0 {
		return false
	}
	if !w.counted {
		w.counted = true
		s.waiting++
		s.cond.Broadcast() // who waits for us to finish must think again
		// A sync.Cond knows neither contexts nor time.
		wake := func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.cond.Broadcast()
		}
		w.timer = time.AfterFunc(patience, wake)
		w.stopWake = context.AfterFunc(ctx, wake)
		w.since, w.seen = time.Now(), s.progress.Load()
	}
	waited := time.Since(w.since)
	if waited >= patience {
		if w.brief || s.progress.Load() == w.seen {
			return false
		}
		w.since, w.seen, waited = time.Now(), s.progress.Load(), 0
	}
	w.timer.Reset(patience - waited) // each time: it may have fired a moment before the patience was up
	s.cond.Wait()
	return true
}

// leave ends the waiting: others may count on this one again.
func (w *waiter) leave(s *Store) {
	if w.counted {
		w.counted = false
		s.waiting--
	}
}

// stop releases what wait acquired.
func (w *waiter) stop() {
	if w.timer != nil {
		w.timer.Stop()
		w.stopWake()
	}
}
