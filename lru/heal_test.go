package lru

import (
	"bytes"
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// foreigners replace a file of the store by something else.
var foreigners = map[string]func(name string) error{
	"shorter": func(name string) error { return os.Truncate(name, 10) },
	"longer": func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write(make([]byte, 100<<10))
		return err
	},
	"empty": func(name string) error { return os.Truncate(name, 0) },
	"gone":  os.Remove,
	"fifo":  replace(func(name string) error { return syscall.Mkfifo(name, 0o600) }),
	"link":  replace(func(name string) error { return os.Symlink("/dev/zero", name) }),
	"directory": replace(func(name string) error {
		return errors.Join(os.MkdirAll(filepath.Join(name, "sub"), 0o700), os.WriteFile(filepath.Join(name, "f"), []byte("x"), 0o600))
	}),
	"parent is a file": func(name string) error {
		dir := filepath.Dir(name)
		return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("x"), 0o600))
	},
}

func replace(by func(name string) error) func(string) error {
	return func(name string) error { return errors.Join(os.Remove(name), by(name)) }
}

// TestChangedFile: whatever somebody makes of a file of the store, Get neither hangs nor returns it, and it can be had again.
func TestChangedFile(t *testing.T) {
	for name, change := range foreigners {
		t.Run(name, func(t *testing.T) {
			var damaged []string
			s := open(t, Config{OnDamage: func(key string, err error) { damaged = append(damaged, key) }})
			fill(t, s, "d/a", 5000)
			fill(t, s, "e/b", 5000)
			if err := change(s.path("d/a")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get("d/a"); !errors.Is(err, iofs.ErrNotExist) {
				t.Errorf("got %v, want that there is none", err)
			}
			told := name != "gone" && name != "parent is a file"
			if told != (len(damaged) == 1) {
				t.Errorf("told of %q", damaged)
			}
			fill(t, s, "d/a", 5000)
			for _, key := range []string{"d/a", "e/b"} {
				if data, err := s.ReadFile(key, mib); err != nil || !bytes.Equal(data, content(key, 5000)) {
					t.Errorf("%s: %d bytes, %v", key, len(data), err)
				}
			}
			settled(t, s)
			verify(t, s, 0)
		})
	}
}

// settled waits until nothing runs in the background.
func settled(t testing.TB, s *Store) {
	await(t, "what runs in the background", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.reconciling && !s.sweeping
	})
}

// TestDirectoryInTheWay: what somebody puts where a file is to go is no obstacle.
func TestDirectoryInTheWay(t *testing.T) {
	s := open(t, Config{})
	if err := os.MkdirAll(filepath.Join(s.path("d/a"), "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, s, "d/a", 5000)
	mustPut(t, s, "d/a", []byte("x"))
	verify(t, s, 0)
}

// TestRemovedDirectory removes directories of the store, the whole of it as well, while it is open.
func TestRemovedDirectory(t *testing.T) {
	for _, dir := range []string{"d", tmpDir, quarantineDir, ".", "content"} {
		t.Run(dir, func(t *testing.T) {
			s := open(t, Config{Holder: "first"})
			fill(t, s, "d/a", 5000)
			fill(t, s, "e/b", 5000)
			names := []string{filepath.Join(s.Dir(), dir)}
			if dir == "content" {
				names, _ = filepath.Glob(s.path("*"))
			}
			for _, name := range names {
				if err := os.RemoveAll(name); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range []string{"d/a", "e/b", "f/c"} {
				fill(t, s, key, 5000)
			}
			if err := s.Quarantine("e/b"); err != nil {
				t.Error(err)
			}
			mustPut(t, s, "g/h/i", []byte("x"))
			settled(t, s)
			verify(t, s, 0)
			// It is still this process's.
			if _, err := Open(Config{Dir: s.Dir()}); err == nil {
				t.Error("somebody else could open it")
			} else if l, ok := errors.AsType[*LockedError](err); !ok || l.Holder != "first" {
				t.Error(err)
			}
		})
	}
}

// TestLostDirectory: when another process has made the removed store anew, it is that one's.
func TestLostDirectory(t *testing.T) {
	s := open(t, Config{Holder: "first"})
	fill(t, s, "d/a", 5000)
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	other := open(t, Config{Dir: s.Dir(), Holder: "second"})
	fill(t, other, "d/b", 5000)
	// Elsewhere than in tmp/, which is there.
	err := os.RemoveAll(s.path("d"))
	if err == nil {
		err = s.Put("d/c", []byte("x"))
	}
	if l, ok := errors.AsType[*LockedError](err); !ok || l.Holder != "second" || !strings.Contains(err.Error(), "unmount") {
		t.Error(err)
	}
}

// TestUnlinkRefused: what the disk refuses to remove counts, is in nobody's way, and goes when the disk allows it.
func TestUnlinkRefused(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	s.pause = time.Millisecond
	var broken atomic.Bool
	s.hook = func(op, name string) error {
		if op == "unlink" && broken.Load() {
			return syscall.EIO
		}
		return nil
	}
	fill(t, s, "a", mib)
	fill(t, s, "b", mib)
	if err := s.Quarantine("b"); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	failed := errors.New("failed")
	_, err := s.Fill(t.Context(), "c", func(_ context.Context, tmp *Temp) error {
		return errors.Join(writeAll(tmp, "c", mib), failed)
	})
	wantErr(t, err, failed)
	_, err = s.Fill(t.Context(), "d", filler("d", 3*mib))
	wantErr(t, err, ErrNoSpace)
	if n := du(t, s.Dir()); n > 4*mib || s.Usage().Bytes < n {
		t.Errorf("du shows %d bytes, ledger has %d", n, s.Usage().Bytes)
	}
	broken.Store(false)
	settled(t, s)
	fill(t, s, "d", 3*mib)
	verify(t, s, 0)
}

// TestUnlinkMinorRefused: a small file that could not be unlinked is one of the small files again.
func TestUnlinkMinorRefused(t *testing.T) {
	s := open(t, Config{
		MaxSize:   4 * mib,
		Evictable: func(key string) bool { return strings.HasSuffix(key, ".zip") },
		Minor:     func(key string) bool { return strings.HasSuffix(key, ".mod") },
	})
	s.pause = time.Millisecond
	var broken atomic.Bool
	s.hook = func(op, name string) error {
		if op == "unlink" && strings.HasSuffix(name, ".mod") && broken.Load() {
			return syscall.EIO
		}
		return nil
	}
	mustPut(t, s, "a.mod", make([]byte, mib/2))
	broken.Store(true)
	_, err := s.Fill(t.Context(), "b.zip", filler("b.zip", 4*mib-mib/4))
	wantErr(t, err, ErrNoSpace)
	broken.Store(false)
	settled(t, s)
	verify(t, s, 0)
	fill(t, s, "b.zip", 4*mib-mib/4)
	verify(t, s, 0)
}

// TestRefill: a damaged file stays until its replacement is there.
func TestRefill(t *testing.T) {
	s := open(t, Config{})
	fill(t, s, "d/a", 5000)
	old, err := s.Get("d/a")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	failed := errors.New("failed")
	_, err = s.Refill(t.Context(), "d/a", func(context.Context, *Temp) error { return failed })
	wantErr(t, err, failed)
	if data, err := s.ReadFile("d/a", mib); err != nil || !bytes.Equal(data, content("d/a", 5000)) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	f, err := s.Refill(t.Context(), "d/a", filler("other", 7000))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if data, err := s.ReadFile("d/a", mib); err != nil || !bytes.Equal(data, content("other", 7000)) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if q, err := os.ReadDir(s.path(quarantineDir)); err != nil || len(q) != 1 {
		t.Errorf("in quarantine: %v, %v", q, err)
	}
	data := make([]byte, 5000)
	if _, err := old.ReadAt(data, 0); err != nil || !bytes.Equal(data, content("d/a", 5000)) {
		t.Errorf("who had it open reads something else: %v", err)
	}
	old.Close()
	verify(t, s, 0)
}
