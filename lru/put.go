package lru

import (
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"
)

// Put creates or replaces the file of key, atomically: whoever reads it gets the old content or the new.
//
// It does not sync, because that takes milliseconds and a build puts hundreds of small files. After a crash of the process
// the file is there; after a power failure it may be missing or cut short, so whoever reads it verifies it.
//
// It waits for room for a second at most, and not for fills: they put files themselves.
func (s *Store) Put(key string, data []byte) error {
	if err := s.checkKey(key); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.ops.Done()
	s.hold()
	defer s.leave()
	t, err := s.newTemp(s.ctx, true)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if _, err = t.Write(data); err == nil {
		err = s.commit(t, key, false)
	}
	if err != nil {
		t.discard()
		return fmt.Errorf("%s: %w", key, err)
	}
	// Some file systems report only now that a write failed.
	if err := s.closeFile(t.f, t.e); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// commit gives t its key. The file that had it is replaced. t stays open, and t.e.refs counts that. With sync, the content
// is on disk before the name is, so that not even a power failure can leave the name with anything else.
//
// If it fails, t is as before and is to be discarded.
func (s *Store) commit(t *Temp, key string, sync bool) error {
	if err := t.settle(sync); err != nil {
		return err
	}
	if err := s.enter(t.ctx, key, terms{own: t.charged, brief: t.brief}); err != nil {
		return err
	}
	now := s.cfg.Now()
	e := &entry{key: key, size: t.Size(), disk: t.charged, evictable: s.mayEvict(key), used: now, stamped: now, refs: 1}
	e.minor = s.isMinor(key, e.evictable)
	// Each time anew, so that the key is not busy while room is made.
	if err := s.retry(block, func() error { return s.rename(t, e) }); err != nil {
		s.exit(key)
		return err
	}
	return nil
}

// rename gives t the key of e, which describes it from then on. The ledger passes from the one to the other under the lock
// under which everybody else sees the change, so its bytes are never counted twice, nor not at all.
func (s *Store) rename(t *Temp, e *entry) error {
	s.mu.Lock()
	s.lockKey(e.key)
	old := s.entries[e.key]
	if old != nil {
		s.delist(old) // or it might be evicted under the new file's name
	}
	s.mu.Unlock()
	err := s.hooked("rename", e.key)
	if err == nil {
		err = s.inDir(path.Dir(e.key), func() error { return s.move(t.name, e.key) })
	}
	if isGone(err) {
		err = fmt.Errorf("somebody else removed it from the store's directory while it was written: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlockKey(e.key)
	if err != nil {
		if old != nil {
			s.enlist(old)
		}
		return err
	}
	t.e = e
	s.entries[e.key] = e
	s.temps -= e.disk
	s.live += e.disk
	s.enlist(e)
	s.unlink(t.name) // tmp/ stays
	if old != nil {
		s.live -= old.disk
		s.orphan(old) // the directory stays: it has e now
	}
	s.moved()
	return nil
}

// move renames a file. A directory that somebody put where it is to go is in the way.
func (s *Store) move(from, to string) error {
	err := os.Rename(s.path(from), s.path(to))
	if s.foreign(to) && (errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTEMPTY)) {
		s.log.Error("not a file of the store, removed", "name", to)
		if err := os.RemoveAll(s.path(to)); err != nil {
			return err
		}
		err = os.Rename(s.path(from), s.path(to))
	}
	return err
}

// Remove removes the file of key. It is no error if there is none. Who has it open can go on reading.
func (s *Store) Remove(key string) error {
	e, err := s.takeKey(key)
	if e == nil {
		return err
	}
	defer s.ops.Done()
	err = s.remove(key)
	s.mu.Lock()
	s.unlockKey(key)
	if err != nil {
		s.enlist(e) // it is still there, and may go another day
		s.mu.Unlock()
		return fmt.Errorf("%s: remove: %w", key, err)
	}
	delete(s.entries, key)
	s.live -= e.disk
	empty := s.orphan(e)
	s.mu.Unlock()
	s.prune(empty)
	return nil
}

// takeKey makes key busy and returns its entry, which may then not be evicted, and which is still found in s.entries by those
// who do not wait: Stat and Touch. If it returns one, the caller ends with unlockKey and s.ops.Done. It returns nil if there
// is no file.
func (s *Store) takeKey(key string) (*entry, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.lockKey(key)
	e := s.entries[key]
	if e == nil {
		s.unlockKey(key)
		return nil, nil
	}
	s.delist(e)
	s.ops.Add(1)
	return e, nil
}

// Quarantine takes the file of key, which was found damaged, out of use; it is kept for inspection below quarantine/, where
// the oldest of more than eight files goes, and all go before anything is evicted. It is no error if there is none. Who has
// it open can go on reading.
func (s *Store) Quarantine(key string) error {
	if err := s.checkKey(key); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.ops.Done()
	name := s.quarantineName(key)
	// Its new directory entry may cost a block, which is made room for before the key is busy: eviction takes its time.
	s.hold()
	err := s.enter(s.ctx, name, terms{brief: true})
	s.leave()
	if errors.Is(err, ErrNoSpace) {
		return s.Remove(key) // that it is out of use is what matters
	}
	if err != nil {
		return fmt.Errorf("%s: quarantine: %w", key, err)
	}
	e, err := s.takeKey(key)
	if e == nil {
		s.exit(name)
		return err
	}
	defer s.ops.Done()
	more, err := s.isolate(key, name, e)
	if err != nil {
		s.mu.Lock()
		s.unlockKey(key)
		s.enlist(e)
		s.mu.Unlock()
		s.exit(name)
		if isGone(err) || errors.Is(err, errChanged) {
			return s.Remove(key) // gone behind our back, or not worth keeping
		}
		return fmt.Errorf("%s: quarantine: %w", key, err)
	}
	s.mu.Lock()
	s.unlockKey(key)
	delete(s.entries, key)
	s.live -= e.disk
	e.disk += more
	s.quarantined += e.disk
	empty := s.unlink(key)
	e.key = name // Files that are open know their key themselves
	s.quar = append(s.quar, e)
	s.mu.Unlock()
	s.prune(empty)
	s.trimQuarantine()
	return nil
}

// isolate renames the file of key, whose entry is e, to its name in quarantine/. It returns how many bytes more than it had it
// takes by now: somebody may have written to it. What is not a file is not kept; the error is then errChanged.
func (s *Store) isolate(key, name string, e *entry) (more int64, err error) {
	if err := s.hooked("rename", name); err != nil {
		return 0, err
	}
	fi, err := os.Lstat(s.path(key))
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: %s", errChanged, fi.Mode())
	}
	err = s.inDir(quarantineDir, func() error { return os.Rename(s.path(key), s.path(name)) })
	return max(0, allocated(fi)-e.disk), err
}

// quarantineName returns a new name in quarantine/; names sort by time. The base of a key says which file it was well
// enough, and leaves the name short.
func (s *Store) quarantineName(key string) string {
	base := path.Base(key)
	if len(base) > 200 {
		base = base[len(base)-200:]
	}
	return fmt.Sprintf("%s/%s-%06d-%s", quarantineDir, s.cfg.Now().UTC().Format("20060102T150405.000"), s.seq.Add(1), base)
}

// trimQuarantine removes the oldest files of more than maxQuarantine. They are told from those that take chose by no longer
// being in s.quar.
func (s *Store) trimQuarantine() {
	s.mu.Lock()
	n := max(0, len(s.quar)-maxQuarantine)
	out := s.quar[:n:n]
	s.quar = s.quar[n:]
	s.mu.Unlock()
	for _, e := range out {
		s.dropQuarantined(e)
	}
}
