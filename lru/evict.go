package lru

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"
)

// maxQuarantine is how many files are kept in quarantine.
const maxQuarantine = 8

// maintenance is how often age and the partition's free space are looked at while nobody asks for space.
const maintenance = time.Minute

// Cause says why a file was evicted.
type Cause uint8

// The causes.
const (
	ForRoom  Cause = iota // something else needed the room: of the limit, or of the partition
	ForAge                // it was unused for longer than Config.MaxAge
	OnDemand              // the owner asked for it: Evict, EvictUnused
	Lost                  // somebody else removed it
)

// Eviction is told to Config.OnEvict.
type Eviction struct {
	Key  string
	Size int64 // of the content, in bytes
	Why  Cause
}

// victims are files that nobody finds any more, and that drop unlinks.
type victims struct {
	files, quarantined []*entry
	why                Cause
}

func (v victims) any() bool { return len(v.files)+len(v.quarantined) > 0 }

// take chooses victims of want bytes: from the quarantine first, since no one is served from there, then those unused for
// longest, whether or not they are open. They are absent from then on, and the caller drops them. s.mu is held.
func (s *Store) take(want int64) victims { return s.takeUnused(want, time.Time{}) }

// takeUnused is take, but for what was used since a time. The zero time spares nothing.
func (s *Store) takeUnused(want int64, since time.Time) (v victims) {
	for want > 0 && len(s.quar) > 0 {
		e := s.quar[0]
		s.quar = s.quar[1:]
		v.quarantined = append(v.quarantined, e)
		want -= e.disk
	}
	if since.IsZero() {
		minor := s.takeMinor(want, s.maxMinor())
		v.files = minor.files
		for _, e := range minor.files {
			want -= e.disk
		}
	}
	for want > 0 {
		_, e, ok := s.lru.GetOldest()
		if !ok || !since.IsZero() && !e.used.Before(since) {
			break
		}
		s.takeEntry(e)
		v.files = append(v.files, e)
		want -= e.disk
	}
	return v
}

// takeOlder chooses those that were last used before t. The order of use is that of the times, but for what was unpinned or
// put back after a failure, which can only keep others for a while longer. s.mu is held.
func (s *Store) takeOlder(t time.Time) (v victims) {
	v.why = ForAge
	for {
		_, e, ok := s.lru.GetOldest()
		if !ok || !e.used.Before(t) {
			return v
		}
		s.takeEntry(e)
		v.files = append(v.files, e)
	}
}

// takeEntry makes e absent. Its key is busy until its name is gone, too, or a new file could get the name and be unlinked in
// its place. Who is in lru is not busy, so this never waits. s.mu is held.
func (s *Store) takeEntry(e *entry) {
	s.delist(e)
	delete(s.entries, e.key)
	s.busy[e.key] = struct{}{}
	s.evicting += e.disk
}

// drop unlinks victims and returns how many bytes that freed. What is still open is freed when it is closed; who keeps files
// open just in case is told by OnEvict, and has closed them when drop counts.
func (s *Store) drop(v victims) (freed int64) {
	for _, e := range v.quarantined {
		s.dropQuarantined(e)
	}
	for _, e := range v.files {
		err := s.remove(e.key)
		s.mu.Lock()
		delete(s.busy, e.key)
		s.evicting -= e.disk
		if err != nil {
			// It is there and counts, but trying again and again would not help.
			e.evictable = false
			s.entries[e.key] = e
			s.cond.Broadcast()
			s.later(leftover{e: e})
			s.mu.Unlock()
			s.log.Error("file not evicted", "key", e.key, "err", err)
			continue
		}
		s.live -= e.disk
		s.evictions++
		s.evictedBytes += e.disk
		empty := s.orphan(e)
		s.mu.Unlock()
		s.prune(empty)
	}
	// After the last of them, so that a callback that takes its time keeps no key busy.
	if s.cfg.OnEvict != nil {
		for _, e := range v.files {
			s.guard("OnEvict", func() { s.cfg.OnEvict(Eviction{e.key, e.size, v.why}) })
		}
	}
	s.mu.Lock()
	for _, e := range append(v.files, v.quarantined...) {
		if e.gone && e.refs == 0 {
			freed += e.disk
		}
	}
	s.mu.Unlock()
	if len(v.files) > 0 {
		s.log.Info("evicted", "files", len(v.files), "bytes", freed)
	}
	return freed
}

// orphan accounts for a file whose name is gone from its directory and that is no longer counted where it was. The caller
// prunes the directory whose name is returned. s.mu is held.
func (s *Store) orphan(e *entry) (empty string) {
	e.gone = true
	if e.refs > 0 {
		s.unlinked += e.disk
	}
	s.moved()
	return s.unlink(e.key)
}

// unref ends the use of e's file by a descriptor, which is closed by now. The last one of a file that has no name frees its
// blocks, for which somebody may be waiting. s.mu is held.
func (s *Store) unref(e *entry) {
	e.refs--
	if e.refs == 0 && e.gone {
		s.unlinked -= e.disk
		s.moved()
	}
}

// remove unlinks the file of that name. It is no error if there is none.
func (s *Store) remove(name string) error {
	if err := s.hooked("unlink", name); err != nil {
		return err
	}
	err := os.Remove(s.path(name))
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		err = os.RemoveAll(s.path(name)) // somebody put a directory in its place
	}
	if err != nil && !isGone(err) {
		return err
	}
	return nil
}

// dropQuarantined unlinks a file that is no longer in s.quar. Nobody looks it up, so there is no key to keep busy.
func (s *Store) dropQuarantined(e *entry) {
	if err := s.remove(e.key); err != nil {
		s.log.Error("file in quarantine not removed", "key", e.key, "err", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.later(leftover{e: e, quarantined: true})
		return // it stays counted
	}
	s.mu.Lock()
	s.quarantined -= e.disk
	empty := s.orphan(e)
	s.mu.Unlock()
	s.prune(empty)
}

// Evict evicts, oldest first, until at most target bytes are used or nothing is left that may be evicted. It returns how
// many bytes that freed; what is still open is not among them.
func (s *Store) Evict(target int64) (freed int64) {
	if s.begin() != nil {
		return 0
	}
	defer s.ops.Done()
	s.mu.Lock()
	v := s.take(s.used() - s.evicting - target)
	v.why = OnDemand
	s.mu.Unlock()
	return s.drop(v)
}

// EvictUnused evicts what was last used before t, and returns how many bytes that freed; what is still open is not among them.
func (s *Store) EvictUnused(t time.Time) (freed int64) {
	if s.begin() != nil {
		return 0
	}
	defer s.ops.Done()
	s.mu.Lock()
	v := s.takeOlder(t)
	v.why = OnDemand
	s.mu.Unlock()
	return s.drop(v)
}

// Sweep removes what is in quarantine, and returns how many bytes that freed.
func (s *Store) Sweep() (freed int64) {
	if s.begin() != nil {
		return 0
	}
	defer s.ops.Done()
	s.mu.Lock()
	v := victims{quarantined: s.quar, why: OnDemand}
	s.quar = nil
	s.mu.Unlock()
	return s.drop(v)
}

// Relieve evicts for a write that is not the store's, needs about n bytes of the partition that the store lies on, and was told
// that it is full. It returns how many bytes that freed: if none, trying again is pointless.
func (s *Store) Relieve(n int64) (freed int64) {
	if s.begin() != nil {
		return 0
	}
	defer s.ops.Done()
	return s.relieve(n)
}

// relieve evicts for an operation that needs about n bytes and was told that the partition is full. It returns how many
// bytes that freed. It takes a twentieth of what there is at least: a full partition is full for others as well, and an
// eviction for every write would be slow.
func (s *Store) relieve(n int64) (freed int64) {
	s.mu.Lock()
	v := s.take(max(n, s.evictable/20, 16*block))
	if !v.any() {
		v = s.takeMinor(n, 0)
	}
	s.mu.Unlock()
	return s.drop(v)
}

// retry runs op, which needs about n bytes. As long as the partition is full and eviction frees something, it runs op
// again; each time something is gone for good, so it ends. The ledger cannot prevent this: others write to the partition,
// and it may be smaller than the limit.
func (s *Store) retry(n int64, op func() error) error {
	for {
		err := op()
		if !diskFull(err) {
			return err
		}
		if s.relieve(n) == 0 {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
}

// hooked lets a test fail or watch what is about to be done. The operations are mkdir, create, preallocate, write, sync,
// rename, unlink and open.
func (s *Store) hooked(op, name string) error {
	if s.hook == nil {
		return nil
	}
	return s.hook(op, name)
}

// maintain evicts what is too old, and what keeps the partition from having free what it should. Unlike reserve it does so
// even if that is not enough: it is others who need the space.
func (s *Store) maintain() {
	if s.cfg.MaxAge > 0 {
		s.mu.Lock()
		v := s.takeOlder(s.cfg.Now().Add(-s.cfg.MaxAge))
		s.mu.Unlock()
		s.drop(v)
	}
	if !s.hasFloor() {
		return
	}
	p, err := s.measure()
	if err != nil {
		s.log.Warn("free space not known", "err", err)
		return
	}
	s.mu.Lock()
	evict, _ := s.want(0, p)
	v := s.take(evict)
	s.mu.Unlock()
	s.drop(v)
}

// maintainForever runs until the store is closed.
func (s *Store) maintainForever() {
	defer s.ops.Done()
	tick := time.NewTicker(maintenance)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.guard("maintenance", s.maintain)
		}
	}
}

// mayEvict asks the owner whether the file of key may be evicted.
func (s *Store) mayEvict(key string) (may bool) {
	s.guard("Evictable", func() { may = s.cfg.Evictable(key) })
	return may
}

// guard runs a callback of the owner. A panic there must neither end the process, and with it a mount, nor leave a lock
// held.
func (s *Store) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(what, p)
		}
	}()
	f()
}

// panicked notes a panic that was recovered.
func (s *Store) panicked(what string, p any) {
	stack := debug.Stack()
	if s.cfg.OnPanic != nil {
		s.cfg.OnPanic(what, p, stack)
		return
	}
	s.log.Error("panic", "in", what, "err", p, "stack", string(stack))
}
