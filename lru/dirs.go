package lru

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path"
	"syscall"
)

// dirInfo is a directory of the store. Directories have no key and no recency: they come with the first file below them
// and go with the last one, or a store that has seen many modules would be full of empty ones, at a block each.
//
// They are counted in memory, so that nobody has to try rmdir to find out whether a directory is empty, and nobody's
// rename fails because the directory was removed just before: whoever needs one has a name linked in it from before it
// makes the directory until the file there is gone.
type dirInfo struct {
	refs        int   // files and directories in it, and operations that are about to put some there
	names, peak int64 // what their names take (nameDisk), now and at most: directories do not shrink
	disk        int64
	made        bool // it is on disk
	leaving     bool // it is being removed
}

// Slash names are keys, and those of directories; "." is the store's own.
const (
	tmpDir        = "tmp"
	quarantineDir = "quarantine"
)

// link counts name in its directory, which becomes known with all above it. s.mu is held.
func (s *Store) link(name string) {
	d := s.addDir(path.Dir(name))
	d.refs++
	d.names += nameDisk(name)
	d.peak = max(d.peak, d.names)
	if disk := dirDisk(d.peak); disk > d.disk {
		s.dirBytes += disk - d.disk
		d.disk = disk
	}
}

// addDir returns the directory of that name, which becomes known if it is not. s.mu is held.
func (s *Store) addDir(name string) *dirInfo {
	d := s.dirs[name]
	if d == nil {
		if name != "." {
			s.link(name)
		}
		d = &dirInfo{disk: block}
		s.dirs[name] = d
		s.dirBytes += d.disk
	}
	return d
}

// linkCost returns by how much link(name) would raise s.dirBytes. s.mu is held.
func (s *Store) linkCost(name string) int64 {
	parent, n := path.Dir(name), nameDisk(name)
	if d := s.dirs[parent]; d != nil {
		return max(d.disk, dirDisk(d.names+n)) - d.disk
	}
	return s.linkCost(parent) + dirDisk(n)
}

// unlink takes name off its directory. If that was the last one, the caller prunes the directory whose name is returned,
// which is else empty. s.mu is held.
func (s *Store) unlink(name string) (empty string) {
	parent := path.Dir(name)
	d := s.dirs[parent]
	d.refs--
	d.names -= nameDisk(name)
	if d.refs > 0 {
		return ""
	}
	d.leaving = true
	return parent
}

// prune removes a directory that unlink found empty, and those above it that thereby become empty. It does nothing for
// the name "". The directory was marked as leaving under the lock under which it became empty, so nobody can have put
// something there since.
func (s *Store) prune(name string) {
	for name != "" {
		err := syscall.Rmdir(s.path(name)) // os.Remove would also remove a file
		s.mu.Lock()
		d := s.dirs[name]
		d.leaving = false
		s.cond.Broadcast()
		if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
			d.refs++ // something is in there that is not ours: it stays for good
			s.mu.Unlock()
			return
		}
		delete(s.dirs, name)
		s.dirBytes -= d.disk
		s.moved()
		name = s.unlink(name)
		s.mu.Unlock()
	}
}

// leavingDir reports whether a directory on the way to name is being removed. s.mu is held.
func (s *Store) leavingDir(name string) bool {
	for name != "." {
		name = path.Dir(name)
		if d := s.dirs[name]; d != nil && d.leaving {
			return true
		}
	}
	return false
}

// enter links name, after it has reserved what that takes, and makes its directory. After it, a file can be given that name; exit
// undoes it.
func (s *Store) enter(ctx context.Context, name string, t terms) error {
	own := t.own
	var have int64
	for {
		s.mu.Lock()
		// It takes one rmdir per level, no longer.
		for s.leavingDir(name) {
			s.cond.Wait()
		}
		need := s.linkCost(name)
		if need <= have {
			s.link(name)
			s.temps -= have
			s.pending.Add(-have)
			s.mu.Unlock()
			break
		}
		s.mu.Unlock()
		// Others may come and go meanwhile, so it is computed again.
		t.own = own + have
		if err := s.reserve(ctx, need-have, t); err != nil {
			s.release(have, have)
			return err
		}
		have = need
	}
	if err := s.makeDir(path.Dir(name)); err != nil {
		s.exit(name)
		return err
	}
	return nil
}

// exit undoes enter.
func (s *Store) exit(name string) {
	s.mu.Lock()
	empty := s.unlink(name)
	s.mu.Unlock()
	s.prune(empty)
}

// makeDir makes a directory with all above it. The caller has a name linked in it, so that it stays.
func (s *Store) makeDir(name string) error {
	s.mu.Lock()
	made := s.dirs[name].made
	s.mu.Unlock()
	if made {
		return nil
	}
	err := s.retry(block, func() error {
		if err := s.hooked("mkdir", name); err != nil {
			return err
		}
		return s.mkdirAll(name)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; !s.dirs[name].made; name = path.Dir(name) {
		s.dirs[name].made = true
	}
	return nil
}

// syncDir makes the names in a directory outlive a power failure.
//
// Its own name and those above are not synced one by one. The journaling file systems commit what was done before along
// with it, so that would only be flushing the disk again for each level; and where it is lost, a file is missing and none
// is wrong.
func (s *Store) syncDir(name string) error {
	f, err := os.Open(s.path(name))
	if errors.Is(err, iofs.ErrNotExist) {
		return nil // what was in there has been evicted already
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // this file system cannot
	}
	return err
}
