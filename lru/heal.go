package lru

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"
	"time"
)

// This file is about what should not happen: that somebody else removes or replaces what is in the store's directory, and that
// the disk refuses to remove something.

// inDir runs op, which needs the directory of that slash name. If it fails as if there were none, somebody removed it: it
// is then made anew, and op runs once more.
func (s *Store) inDir(dir string, op func() error) error {
	err := op()
	if !isGone(err) {
		return err
	}
	if err := s.remake(dir); err != nil {
		return err
	}
	return op()
}

// remake makes a directory anew that was removed, and those above it. The caller has a name linked in it, so that it stays.
func (s *Store) remake(dir string) error {
	if err := s.Reclaim(); err != nil {
		return err
	}
	if fi, err := os.Lstat(s.path(dir)); err != nil || !fi.IsDir() {
		s.log.Error("directory is gone from the store's, making it anew", "dir", dir)
	}
	s.mu.Lock()
	for name := dir; ; name = path.Dir(name) {
		if d := s.dirs[name]; d != nil {
			d.made = false
		}
		if name == "." {
			break
		}
	}
	s.mu.Unlock()
	s.missed()
	return s.makeDir(dir)
}

// Reclaim makes sure that the store's directory is still the one that this process has locked. If somebody removed it, it is made
// anew and locked, unless another process was faster: then it is that one's.
func (s *Store) Reclaim() error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.ops.Done()
	s.healing.Lock()
	defer s.healing.Unlock()
	held, err := s.lock.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(s.path(lockFile))
	if err == nil && os.SameFile(held, there) {
		return nil
	}
	if err != nil && !isGone(err) {
		return err
	}
	s.log.Error("the store's directory was removed, making it anew", "dir", s.dir)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	lock, err := acquire(s.path(lockFile), s.dir, s.cfg.Holder)
	if err != nil {
		return fmt.Errorf("the store's directory was removed while it was in use, unmount it and mount it again: %w", err)
	}
	if err := s.checkVersion(); err != nil {
		lock.Close()
		return err
	}
	s.lock.Close() // best effort: it locks nothing that is to be found
	s.lock = lock
	return nil
}

// mkdirAll is os.MkdirAll, and removes a file that is in the way: in the store's directory, that is not ours.
func (s *Store) mkdirAll(name string) error {
	err := os.MkdirAll(s.path(name), 0o700)
	if !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	for dir := name; dir != "."; dir = path.Dir(dir) {
		if fi, statErr := os.Lstat(s.path(dir)); statErr == nil && !fi.IsDir() && s.foreign(dir) {
			s.log.Error("not a directory of the store, removed", "name", dir, "mode", fi.Mode())
			if err := os.Remove(s.path(dir)); err != nil {
				return err
			}
			return os.MkdirAll(s.path(name), 0o700)
		}
	}
	return err
}

// foreign reports whether a name is neither that of a file nor that of a directory of the store, whoever made what has it.
func (s *Store) foreign(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dirs[name]
	return s.entries[name] == nil && (d == nil || !d.made)
}

// missed has the account corrected in the background, now that a file was missed: who removed one may have removed many.
func (s *Store) missed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.reconciling {
		return
	}
	s.reconciling = true
	s.ops.Add(1)
	go func() {
		defer s.ops.Done()
		s.reconcile()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reconciling = false
	}()
}

// reconcile forgets the files that are gone.
func (s *Store) reconcile() {
	if err := s.Reclaim(); err != nil {
		s.log.Error("the store's directory is not to be had", "err", err)
		return
	}
	s.mu.Lock()
	all := make([]*entry, 0, len(s.entries))
	keys := make([]string, 0, len(s.entries))
	for key, e := range s.entries {
		all, keys = append(all, e), append(keys, key)
	}
	s.mu.Unlock()
	gone := 0
	for i, key := range keys {
		if s.ctx.Err() != nil {
			return
		}
		if _, err := os.Lstat(s.path(key)); isGone(err) && s.forget(key, all[i]) {
			gone++
		}
	}
	if gone > 0 {
		s.log.Warn("files are gone from the store's directory", "files", gone)
	}
}

// forget makes e, the entry of key, absent if its file is gone. It reports whether it did.
func (s *Store) forget(key string, e *entry) bool {
	now, err := s.takeKey(key)
	if now == nil || err != nil {
		return false
	}
	defer s.ops.Done()
	_, err = os.Lstat(s.path(key)) // again: nobody changes it now
	s.mu.Lock()
	s.unlockKey(key)
	if now != e || !isGone(err) {
		s.enlist(now)
		s.mu.Unlock()
		return false
	}
	delete(s.entries, key)
	s.live -= e.disk
	empty := s.orphan(e)
	s.mu.Unlock()
	s.prune(empty)
	if s.cfg.OnEvict != nil {
		s.guard("OnEvict", func() { s.cfg.OnEvict(Eviction{key, e.size, Lost}) })
	}
	return true
}

// leftover is a file that could not be unlinked, and counts until it is.
type leftover struct {
	e           *entry // of a file that has its key again, or
	quarantined bool   // is in quarantine
	t           *Temp  // or a discarded one
}

// sweepPause is how long what could not be unlinked is left alone.
const sweepPause = time.Second

// later has l tried again. s.mu is held.
func (s *Store) later(l leftover) {
	s.stuck = append(s.stuck, l)
	if s.sweeping || s.closed {
		return
	}
	s.sweeping = true
	s.ops.Add(1)
	go func() {
		defer s.ops.Done()
		for again := true; again && s.wait(s.pause); {
			s.sweep()
			s.mu.Lock()
			again = len(s.stuck) > 0
			s.sweeping = again // under the lock under which it was looked at
			s.mu.Unlock()
		}
	}()
}

// wait waits, and reports whether the store is still open.
func (s *Store) wait(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	<-ctx.Done()
	return s.ctx.Err() == nil
}

// sweep makes what could not be unlinked a candidate for eviction again, or tries to unlink it.
func (s *Store) sweep() {
	s.mu.Lock()
	stuck := s.stuck
	s.stuck = nil
	var temps []*Temp
	for _, l := range stuck {
		switch {
		case l.t != nil:
			temps = append(temps, l.t)
		case l.quarantined:
			s.quar = append(s.quar, l.e)
		case s.entries[l.e.key] == l.e:
			l.e.evictable = !l.e.minor // it was a candidate as the one or as the other
			s.enlist(l.e)
		}
	}
	s.moved()
	s.mu.Unlock()
	s.trimQuarantine()
	for _, t := range temps {
		if err := s.remove(t.name); err != nil {
			s.mu.Lock()
			s.stuck = append(s.stuck, leftover{t: t})
			s.mu.Unlock()
			continue
		}
		t.discarded()
	}
}
