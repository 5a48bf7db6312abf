package lru

import (
	"cmp"
	"math"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// refresh is how old the mtime of a file in use gets. It is what recency is off by after a restart, and spares an inode
// write per use.
const refresh = 5 * time.Minute

// entry is a file of the store. What changes is guarded by Store.mu.
type entry struct {
	key       string
	size      int64 // of the content
	disk      int64 // what the ledger has for it
	evictable bool  // Config.Evictable
	minor     bool  // Config.Minor
	used      time.Time
	stamped   time.Time // used, as the file's mtime has it
	refs      int       // descriptors that are open, or about to be
	gone      bool      // it has no name any more
}

// newRecency returns the order of use. It is bounded by bytes and not by number, so it never evicts by itself.
func newRecency() *simplelru.LRU[string, *entry] {
	l, err := simplelru.NewLRU[string, *entry](math.MaxInt, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return l
}

// enlist makes e, which is in s.entries, one that may be evicted, as the one used last, unless it has to stay. s.mu is
// held.
func (s *Store) enlist(e *entry) {
	_, pinned := s.pins[e.key]
	_, busy := s.busy[e.key]
	// Who has the key busy enlists it again, or its successor.
	if e.evictable && !pinned && !busy && !s.lru.Contains(e.key) {
		s.lru.Add(e.key, e)
		s.evictable += e.disk
	}
	if e.minor && !pinned && !busy && !s.minor.Contains(e.key) {
		s.minor.Add(e.key, e)
		s.minorBytes += e.disk
	}
}

// delist makes e one that may not be evicted. s.mu is held.
func (s *Store) delist(e *entry) {
	if s.lru.Remove(e.key) {
		s.evictable -= e.disk
	}
	if s.minor.Remove(e.key) {
		s.minorBytes -= e.disk
	}
}

// use marks e as used now. It reports whether the mtime of its file is due, which the caller then sets without holding
// s.mu, as it does now.
func (s *Store) use(e *entry, now time.Time) (due bool) {
	if now.After(e.used) { // one who was slower to get the lock does not make it older
		e.used = now
	}
	if !e.evictable {
		s.minor.Get(e.key) // not worth an inode write: after a restart it is as old as it is
		return false
	}
	s.lru.Get(e.key) // moves it to the front, if it is there
	if now.Sub(e.stamped) < refresh {
		return false
	}
	e.stamped = now
	return true
}

// stamp sets the mtime of a file. It may meanwhile be another one at the same key, which is in use as well.
func (s *Store) stamp(name string, now time.Time) error {
	return os.Chtimes(s.path(name), time.Time{}, now)
}

// restore puts what the walk at start found in order of use. Ties, as after an archive was unpacked, are broken by key, so
// that two starts agree.
func (s *Store) restore() {
	es := make([]*entry, 0, len(s.entries))
	for _, e := range s.entries {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *entry) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.key, b.key))
	})
	for _, e := range es {
		s.enlist(e)
	}
}

// Touch marks the file of key as used, if there is one.
func (s *Store) Touch(key string) {
	if s.begin() != nil {
		return
	}
	defer s.ops.Done()
	now := s.cfg.Now()
	s.mu.Lock()
	e := s.entries[key]
	if e == nil {
		s.mu.Unlock()
		return
	}
	due := s.use(e, now)
	s.mu.Unlock()
	if due {
		s.stamp(key, now) // best effort: it costs at most the order after a restart
	}
}

// Pin spares the file of key from eviction, whether it is there already or comes later, or ends that; its file then
// counts as used now. Pins are not kept on disk: a store that is opened has those of Config.Pinned.
func (s *Store) Pin(key string, on bool) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if !on {
		delete(s.pins, key)
		if e != nil {
			s.use(e, now)
			s.enlist(e)
			s.moved()
		}
		return
	}
	s.pins[key] = struct{}{}
	if e != nil {
		s.delist(e)
	}
}
