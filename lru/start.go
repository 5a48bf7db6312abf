package lru

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	version     = "1" // of the format: the layout in the package comment
	versionFile = "version"
	lockFile    = "lock"
)

// reserved reports whether a name in the store's directory is not for keys: it is ours, or somebody else's, and in neither
// case to be walked, counted or evicted as a file of the store.
func (s *Store) reserved(name string) bool {
	switch name {
	case tmpDir, quarantineDir, lockFile, versionFile:
		return true
	case "lost+found": // the root of a file system has it
		return true
	}
	return slices.Contains(s.cfg.Exclude, name)
}

// checkKey returns an error if key is none.
func (s *Store) checkKey(key string) error {
	if !iofs.ValidPath(key) || key == "." {
		return fmt.Errorf("%q: %w: not a key", key, iofs.ErrInvalid)
	}
	if top, _, _ := strings.Cut(key, "/"); s.reserved(top) {
		return fmt.Errorf("%q: %w: not a key: %s is reserved", key, iofs.ErrInvalid, top)
	}
	return nil
}

// start takes the directory over and finds out what is in it. The order matters: nothing is changed in a directory that may
// not be a store, and nothing in a store before it is locked.
func (s *Store) start() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.refuseForeign(); err != nil {
		return err
	}
	// Whoever can write here can replace what was verified; whoever can read here sees the names of private modules. That
	// the directory itself is closed covers everything below it, whatever its mode.
	fi, err := os.Stat(s.dir)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(s.dir, 0o700); err != nil {
			return fmt.Errorf("store is accessible to other users: %w", err)
		}
	}
	if s.lock, err = acquire(s.path(lockFile), s.dir, s.cfg.Holder); err != nil {
		return err
	}
	if err := s.checkVersion(); err != nil {
		return err
	}
	// The directory goes as well: one that many fills used at once has grown, and does not shrink.
	if err := os.RemoveAll(s.path(tmpDir)); err != nil {
		return err
	}
	for _, name := range []string{tmpDir, quarantineDir} {
		if err := os.Mkdir(s.path(name), 0o700); err != nil && !errors.Is(err, iofs.ErrExist) {
			return err
		}
		s.addDir(name).refs++ // they stay
	}
	for _, name := range []string{".", tmpDir, quarantineDir} {
		fi, err := os.Lstat(s.path(name))
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return fmt.Errorf("%s is not a directory", s.path(name))
		}
		s.foundDir(name, fi)
	}
	if err := s.walk("."); err != nil {
		return err
	}
	if err := s.walk(quarantineDir); err != nil {
		return err
	}
	s.settleIn()
	return nil
}

// refuseForeign returns an error if the directory is not empty and not a store: everything in it would be ours to evict. A
// store is known by its version file, which is the first thing written after the lock.
func (s *Store) refuseForeign() error {
	if _, err := os.Lstat(s.path(versionFile)); !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	des, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, de := range des {
		if !s.reserved(de.Name()) {
			return fmt.Errorf("%s is not a store and not empty: it has %q", s.dir, de.Name())
		}
	}
	return nil
}

// checkVersion returns an error if another version of this package wrote the store, and signs a new one.
func (s *Store) checkVersion() error {
	name := s.path(versionFile)
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	switch v := strings.TrimSpace(string(data)); v {
	case version:
		return nil
	case "": // new, or we crashed right here
	default:
		return fmt.Errorf("store %s has version %.20s; this modfs knows %s", s.dir, v, version)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(version + "\n")
	// Before anything else is written: a store whose version is lost is a foreign directory.
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	d.Sync() // best effort: not every file system can
	return d.Close()
}

// walk makes known what is in a directory and below. Nobody else has the store yet, so it takes no lock. A file that cannot be
// looked at is an error and not left out: it would take space that nobody counts.
func (s *Store) walk(dir string) error {
	des, err := os.ReadDir(s.path(dir))
	if err != nil {
		return err
	}
	for _, de := range des {
		if dir == "." && s.reserved(de.Name()) {
			continue
		}
		name := path.Join(dir, de.Name())
		fi, err := de.Info()
		if err != nil {
			return err
		}
		switch {
		case !iofs.ValidPath(name):
			s.log.Warn("not ours, ignored", "name", name)
		case fi.IsDir() && dir != quarantineDir:
			s.addDir(name)
			s.foundDir(name, fi)
			if err := s.walk(name); err != nil {
				return err
			}
		case fi.Mode().IsRegular():
			if err := s.found(name, fi); err != nil {
				return err
			}
		default:
			// A symbolic link could make us serve, count or remove what is elsewhere.
			s.log.Warn("not a regular file, ignored", "name", name, "mode", fi.Mode())
		}
	}
	return nil
}

// foundDir notes that a directory is on disk. What it takes there may be more than its names do now: directories do not
// shrink.
func (s *Store) foundDir(name string, fi os.FileInfo) {
	d := s.addDir(name)
	d.made = true
	if more := allocated(fi) - d.disk; more > 0 {
		d.disk += more
		s.dirBytes += more
	}
}

// found makes a file known.
func (s *Store) found(name string, fi os.FileInfo) error {
	if fi.Size() == 0 {
		// What a power failure leaves of a file whose content was not synced. A file that has reason to be empty is
		// cheap to make again.
		s.log.Debug("empty file removed", "name", name)
		return os.Remove(s.path(name))
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(s.path(name), 0o600); err != nil {
			return err
		}
	}
	// The larger of the two numbers: what was put just before a power failure may not have its blocks yet, and a file
	// system may take more than we would think.
	e := &entry{
		key:  name,
		size: fi.Size(),
		disk: max(fileDisk(fi.Size()), allocated(fi)),
		used: fi.ModTime(),
	}
	if now := s.cfg.Now(); e.used.After(now) {
		e.used = now // a clock that was wrong must not keep it for ever
	}
	e.stamped = e.used
	s.link(name)
	if path.Dir(name) == quarantineDir {
		s.quar = append(s.quar, e) // in order of names, which is that of time
		s.quarantined += e.disk
		return nil
	}
	e.evictable = s.mayEvict(name)
	e.minor = s.isMinor(name, e.evictable)
	s.entries[name] = e
	s.live += e.disk
	return nil
}

// settleIn brings what was found into bounds: the limit may be lower than last time, or somebody may have put files there.
func (s *Store) settleIn() {
	s.restore()
	// Collected first, because prune changes the map. A directory that becomes empty thereby is pruned along with it.
	var empty []string
	for name, d := range s.dirs {
		if d.refs == 0 {
			d.leaving = true
			empty = append(empty, name)
		}
	}
	for _, name := range empty {
		s.prune(name)
	}
	s.trimQuarantine()
	if s.max > 0 && s.used() > s.max {
		s.drop(s.take(s.used() - s.low))
		s.drop(s.takeMinor(s.used()-s.low, 0))
		if s.used() > s.max {
			s.log.Warn("over the limit with files that may not be evicted", "bytes", s.used(), "limit", s.max)
		}
	}
	if s.cfg.MaxAge > 0 || s.hasFloor() {
		s.maintain()
		s.ops.Add(1)
		go s.maintainForever()
	}
}

// Check returns an error unless dir is a store of this version. It changes nothing.
func Check(dir string) error {
	data, err := os.ReadFile(dir + "/" + versionFile)
	switch v := strings.TrimSpace(string(data)); {
	case errors.Is(err, iofs.ErrNotExist):
		return fmt.Errorf("%s is not a store: it has no file %q", dir, versionFile)
	case err != nil:
		return err
	case v != version:
		return fmt.Errorf("store %s has version %.20q; this modfs knows %s", dir, v, version)
	}
	return nil
}
