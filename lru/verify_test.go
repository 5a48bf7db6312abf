package lru

import (
	"errors"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// du sums what is on disk under dir as du does: blocks of files and directories, each file once.
func du(t testing.TB, dir string) (n int64) {
	t.Helper()
	seen := make(map[uint64]bool)
	err := filepath.WalkDir(dir, func(name string, de iofs.DirEntry, err error) error {
		if errors.Is(err, iofs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := de.Info()
		if errors.Is(err, iofs.ErrNotExist) {
			return nil
		}
		if err == nil && !seen[inode(fi)] {
			seen[inode(fi)] = true
			n += allocated(fi)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// verify checks the ledger and the maps against each other and against the disk. Nobody may be using the store, and open
// says how many bytes are unlinked and still open.
func verify(t testing.TB, s *Store, unlinked int64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var live, evictable, minor, quarantined, dirBytes int64
	refs := map[string]int{".": 2, tmpDir: 1, quarantineDir: 1}
	names := map[string]int64{".": nameDisk(tmpDir) + nameDisk(quarantineDir)}
	for key, e := range s.entries {
		if e.key != key || e.gone || e.refs != 0 {
			t.Errorf("%s: entry %+v", key, e)
		}
		live += e.disk
		refs[path.Dir(key)]++
		names[path.Dir(key)] += nameDisk(key)
		_, pinned := s.pins[key]
		if s.lru.Contains(key) != (e.evictable && !pinned) {
			t.Errorf("%s: in lru %v, evictable %v, pinned %v", key, s.lru.Contains(key), e.evictable, pinned)
		}
		if s.minor.Contains(key) != (e.minor && !pinned) || e.minor && e.evictable {
			t.Errorf("%s: among the minor %v, minor %v, evictable %v, pinned %v", key, s.minor.Contains(key), e.minor, e.evictable, pinned)
		}
		fi, err := os.Lstat(s.path(key))
		if err != nil || fi.Size() != e.size || allocated(fi) > e.disk || fi.Mode() != 0o600 {
			t.Errorf("%s: on disk %v, %v; ledger has %d bytes, %d on disk", key, fi, err, e.size, e.disk)
		}
	}
	for _, e := range s.lru.Values() {
		evictable += e.disk
		if s.entries[e.key] != e {
			t.Errorf("%s: another entry in lru", e.key)
		}
	}
	for _, e := range s.minor.Values() {
		minor += e.disk
		if s.entries[e.key] != e {
			t.Errorf("%s: another entry in minor", e.key)
		}
	}
	for _, e := range s.quar {
		quarantined += e.disk
		refs[quarantineDir]++
		names[quarantineDir] += nameDisk(e.key)
	}
	for name, d := range s.dirs {
		if name != "." && name != tmpDir && name != quarantineDir {
			refs[path.Dir(name)]++
			names[path.Dir(name)] += nameDisk(name)
		}
		dirBytes += d.disk
	}
	for name, d := range s.dirs {
		if d.refs != refs[name] || d.names != names[name] || d.leaving || !d.made || d.refs == 0 {
			t.Errorf("directory %s: %+v, want %d refs, %d bytes of names", name, d, refs[name], names[name])
		}
		fi, err := os.Lstat(s.path(name))
		if err != nil || !fi.IsDir() || fi.Mode().Perm() != 0o700 || allocated(fi) > d.disk {
			t.Errorf("directory %s: on disk %v, %v; ledger has %d", name, fi, err, d.disk)
		}
	}
	if minor != s.minorBytes {
		t.Errorf("ledger %+v, want minor files of %d bytes", s.ledger, minor)
	}
	if live != s.live || evictable != s.evictable || quarantined != s.quarantined || dirBytes != s.dirBytes {
		t.Errorf("ledger %+v, want live %d, evictable %d, quarantined %d, directories %d", s.ledger, live, evictable, quarantined, dirBytes)
	}
	if s.temps != 0 || s.evicting != 0 || s.unlinked != unlinked || s.holders != 0 || s.waiting != 0 || s.pending.Load() != 0 {
		t.Errorf("ledger %+v, pending %d; want unlinked %d and nothing under way", s.ledger, s.pending.Load(), unlinked)
	}
	if len(s.busy) != 0 || len(s.flights) != 0 || len(s.quar) > maxQuarantine {
		t.Errorf("%d busy keys, %d flights, %d in quarantine", len(s.busy), len(s.flights), len(s.quar))
	}
	if tmp, err := os.ReadDir(s.path(tmpDir)); err != nil || len(tmp) > 0 {
		t.Errorf("tmp has %v, %v", tmp, err)
	}
	if n := du(t, s.dir); n > s.used() || s.max > 0 && n > s.max {
		t.Errorf("du shows %d bytes, ledger has %d, limit is %d", n, s.used(), s.max)
	}
	files := 0
	filepath.WalkDir(s.dir, func(name string, de iofs.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.dir, name)
		top, _, _ := strings.Cut(rel, "/")
		if err != nil || de.IsDir() || s.reserved(top) {
			return err
		}
		files++
		return nil
	})
	if files != len(s.entries) {
		t.Errorf("%d files on disk, %d known", files, len(s.entries))
	}
}
