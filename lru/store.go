// Package lru is a bounded store of files on disk. It knows keys, bytes and disks, and nothing of what the files mean.
//
// # Files
//
// A key is a slash-separated path (io/fs.ValidPath), and the file of a key is found under that path in the store's
// directory. It is complete whenever it is there: it is written under tmp/ and gets its name by rename. [Store.Fill]
// writes it through a callback, once however many ask, and what the callback does not accept never gets a name. So
// whoever verifies in the callback knows that present means verified.
//
//	DIR/version      format of the store, "1"
//	DIR/lock         flock of the process that has it open, with its process ID and Config.Holder
//	DIR/tmp/         what is being written; emptied by Open
//	DIR/quarantine/  the last few files that were found damaged
//	DIR/…            the files, by key
//
// Nothing else is kept on disk: Open walks the directory, and the order of use is that of the files' mtimes, which are
// refreshed at most every few minutes. So there is no database to repair after a crash. A crash of the process loses only
// what was being written. After a power failure, what Fill wrote is still complete if it is there; a file of Put
// may be cut short or empty, so its reader verifies it. Open takes an empty file for an absent one.
//
// # The limit
//
// The ledger counts everything under DIR but Config.Exclude: files in blocks of 4 KiB, with what is being written as far as
// it is announced, the quarantine, directories, and files that were unlinked and are still open, since the disk has those
// too. Bytes are charged before they are written and given back after they are gone, so what du shows never exceeds
// Config.MaxSize at any instant. A walk by du is not an instant: a file that it saw may be evicted, and another one written,
// before it ends. Eviction therefore begins at 98 % of the limit already, and goes on to 95 %.
//
// The files unused for longest go first. Pinned ones and those that Config.Evictable spares stay. A reader is never
// disturbed: an open descriptor survives unlink. What it holds is waited for if there is no other way to make room.
//
// # When somebody else changes the directory
//
// The directory belongs to one process. What another one does there anyway must not hang, crash or mislead this one: a file that
// is gone is absent, one of another size or kind than was put there goes to the quarantine (what it holds, its reader has to
// verify), a directory that is gone is made anew, the whole store included, and what is in the way of one is removed. What
// cannot be unlinked counts, and is tried again from time to time.
//
// # Concurrency
//
// All methods of Store may be called concurrently. Locks are taken in the order Temp.mu, Store.healing, Store.mu. Store.mu guards the maps
// and the ledger and is not held during I/O or callbacks; two things keep what is on disk in step with it:
//
//   - a key is marked busy while its name changes on disk (rename, unlink). Whoever wants to look it up or change it waits.
//   - a directory is marked as leaving while it is removed. Whoever needs it waits, and makes it anew.
package lru

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

var (
	// ErrTooLarge says that a file could never fit: it is larger than Config.MaxSize. Nothing was evicted for it.
	// ReadFile returns it for a file that is larger than the caller wants.
	ErrTooLarge = errors.New("too large for the store")
	// ErrNoSpace says that there is no room and that none can be made: the limit is used up by files that may not be
	// evicted or that are still open, the partition is full, or what must stay free of it would not.
	ErrNoSpace = errors.New("no space in the store")
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("store is closed")
)

// LockedError says that another process has the store open.
type LockedError struct {
	Dir    string
	Holder string // its Config.Holder; empty if it is not known
	PID    int    // 0 if it is not known
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	if e.Holder != "" {
		who += " (" + e.Holder + ")"
	}
	return fmt.Sprintf("store %s is in use by %s", e.Dir, who)
}

// Config says where a store is and what bounds it. Only Dir is required.
type Config struct {
	// Dir is created, with its parents, unless it exists. One that exists must be a store or empty. It is made
	// accessible to its owner only (0700), as is everything in it: who could write to it could change what was verified.
	Dir string

	MaxSize        int64         // bytes on disk; 0: no limit
	MinFree        int64         // bytes of the partition that stay free; 0: none
	MinFreePercent float64       // the same in percent of the partition, 0 to 100; the larger of the two counts
	MaxAge         time.Duration // what is unused for longer is evicted; 0: never

	// Evictable says whether the file of a key may be evicted; nil: all may. It is asked once, when the file comes into
	// the store or the store is opened, and must not call the store.
	Evictable func(key string) bool
	// Minor says whether the file of a key that Evictable spares may go all the same, once such files take more than a quarter
	// of MaxSize or there is nothing else to evict; nil: none may. It is asked as Evictable is.
	Minor func(key string) bool
	// OnEvict is called after the file of a key was evicted, without locks, and told why; nil: nobody wants to know. Remove,
	// Quarantine and replacement are the caller's own doing and are not reported. It must not wait for a fill: it may
	// be running on behalf of one, or of Open. By the time it runs, the key may have a new file already. Typically it
	// closes a descriptor that is kept open for the key.
	OnEvict func(Eviction)
	// OnDamage is called after the file of a key was found not to be the one that was put there: of another size, or no
	// regular file. It is out of use by then, as after Quarantine. Otherwise as OnEvict.
	OnDamage func(key string, err error)

	// OnPanic is told of each panic that the store recovered from, without locks: of a callback, a fill, or its own. Nil:
	// nobody wants to know, and it is logged.
	OnPanic func(what string, v any, stack []byte)

	Pinned  []string         // keys that are pinned from the start; see Store.Pin
	Holder  string           // told to a process that is refused the store, for example a mountpoint
	Exclude []string         // names in Dir that are neither counted nor walked, nor can be keys
	Log     *slog.Logger     // nil: nothing is logged
	Now     func() time.Time // the clock of recency and age; nil: time.Now
}

// Store is an open store. Close it.
type Store struct {
	cfg Config
	dir string
	log *slog.Logger

	healing sync.Mutex // held while what somebody removed is made anew; taken before Store.mu
	lock    *os.File   // guarded by healing, but in start and at the end of Close

	ctx    context.Context // its lifetime, which is that of fills
	cancel context.CancelFunc
	ops    sync.WaitGroup // fills and whatever else changes the directory; only added to while !closed

	closeOnce sync.Once
	closeErr  error

	patience time.Duration               // see reserve; shorter in tests
	pause    time.Duration               // see sweep; shorter in tests
	hook     func(op, name string) error // called before I/O in tests, nil otherwise; an error is as if from the system
	measure  func() (partition, error)   // statfs; replaced in tests
	pending  atomic.Int64                // bytes charged that the partition has not given yet
	progress atomic.Int64                // counts what may be of use to those who wait for space
	seq      atomic.Int64                // numbers the files under tmp/
	fills    atomic.Int64

	mu      sync.Mutex
	cond    *sync.Cond // broadcast when a key or directory is no longer busy, when bytes are given back, and by Close
	closed  bool
	entries map[string]*entry
	lru     *simplelru.LRU[string, *entry] // those that may be evicted now: evictable, neither pinned nor busy
	minor   *simplelru.LRU[string, *entry] // the same, of minor files; see minor.go
	pins    map[string]struct{}            // keys; of files that are not there, too
	busy    map[string]struct{}            // keys whose name is changing on disk
	dirs    map[string]*dirInfo
	flights map[string]*flight
	quar    []*entry // files in quarantine, oldest first; their keys are names under DIR
	stuck   []leftover
	// Whether sweep, or reconcile, is running.
	sweeping, reconciling bool
	ledger
}

// partition is what the file system that the store lies on has to say, in bytes.
type partition struct{ free, total int64 }

// Open opens the store in c.Dir, creating it if need be. No other process may have it open: the error is then a
// *LockedError. The time it takes is that of a walk over the directory, some microseconds per file.
func Open(c Config) (*Store, error) {
	if c.Dir == "" {
		return nil, errors.New("no directory for the store")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Evictable == nil {
		c.Evictable = func(string) bool { return true }
	}
	s := &Store{
		cfg:      c,
		dir:      dir,
		log:      c.Log,
		patience: defaultPatience,
		pause:    sweepPause,
		entries:  make(map[string]*entry),
		pins:     make(map[string]struct{}),
		busy:     make(map[string]struct{}),
		dirs:     make(map[string]*dirInfo),
		flights:  make(map[string]*flight),
	}
	for _, key := range c.Pinned {
		s.pins[key] = struct{}{}
	}
	s.lru, s.minor = newRecency(), newRecency()
	s.setLimit(c.MaxSize)
	s.cond = sync.NewCond(&s.mu)
	s.measure = func() (partition, error) { return statfs(dir) }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(); err != nil {
		s.cancel()
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, err
	}
	return s, nil
}

// Close ends the store: the context of running fills is canceled, and Close returns when they and all other calls have
// returned. Open Files stay readable and are still to be closed. It may be called more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.cond.Broadcast()
		s.mu.Unlock()
		s.cancel()
		s.ops.Wait()
		s.closeErr = unlock(s.lock)
	})
	return s.closeErr
}

// begin announces an operation that changes the directory, so that Close waits for it. It ends with s.ops.Done.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.ops.Add(1)
	return nil
}

// Dir returns the absolute path of the store's directory.
func (s *Store) Dir() string { return s.dir }

// path returns where the file or directory of that slash name is.
func (s *Store) path(name string) string {
	// Keys are valid and therefore clean, which makes filepath.Join too much work.
	return s.dir + "/" + name
}

// Usage is the state of a store. Sizes are in bytes.
type Usage struct {
	Bytes          int64 `json:"bytes"`           // on disk, all of what the limit is for
	Limit          int64 `json:"limit"`           // Config.MaxSize; 0: none
	Files          int64 `json:"files"`           // that have a key
	EvictableBytes int64 `json:"evictable_bytes"` // of Bytes: what eviction could free at once
	InFlight       int64 `json:"in_flight"`       // of Bytes: being written, or announced
	UnlinkedOpen   int64 `json:"unlinked_open"`   // of Bytes: freed when their readers close them
	Evictions      int64 `json:"evictions"`       // files, since Open
	EvictedBytes   int64 `json:"evicted_bytes"`   // since Open
	Fills          int64 `json:"fills"`           // that ended well, since Open
	Free           int64 `json:"free"`            // of the partition, for this user; 0 if that cannot be told
	Total          int64 `json:"total"`           // of the partition
}

// Usage returns the state of the store.
func (s *Store) Usage() Usage {
	p, err := s.measure()
	if err != nil {
		p = partition{} // best effort: the rest is known all the same
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{
		Bytes:          s.used(),
		Limit:          s.max,
		Files:          int64(len(s.entries)),
		EvictableBytes: s.evictable,
		InFlight:       s.temps,
		UnlinkedOpen:   s.unlinked,
		Evictions:      s.evictions,
		EvictedBytes:   s.evictedBytes,
		Fills:          s.fills.Load(),
		Free:           p.free,
		Total:          p.total,
	}
}
