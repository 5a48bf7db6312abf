package lru

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRecencySurvives(t *testing.T) {
	clk := newClock()
	c := Config{Dir: filepath.Join(t.TempDir(), "s"), Now: clk.now}
	s := open(t, c)
	for _, k := range []string{"d/a", "b", "d/c", "e"} {
		fill(t, s, k, 100)
		clk.advance(time.Hour)
	}
	s.Touch("b")
	clk.advance(time.Hour)
	if _, err := s.ReadFile("d/a", 100); err != nil {
		t.Error(err)
	}
	clk.advance(refresh / 2)
	s.Touch("b")
	clk.advance(refresh / 4)
	s.Touch("d/a") // before a refresh is due, so the mtime does not tell
	if used, _ := s.Stat("d/a"); !used.Used.Equal(clk.now()) {
		t.Errorf("used %v, want %v", used.Used, clk.now())
	}
	if got, want := s.lru.Keys(), []string{"d/c", "e", "b", "d/a"}; !slices.Equal(got, want) {
		t.Errorf("order %s, want %s", got, want)
	}
	s.Close()
	os.Chtimes(filepath.Join(c.Dir, "e"), time.Time{}, clk.now().Add(1000*time.Hour)) // by a clock that was wrong
	want := []string{"d/c", "d/a", "b", "e"}
	s = open(t, c)
	if got := s.lru.Keys(); !slices.Equal(got, want) {
		t.Errorf("order %s, want %s", got, want)
	}
	if i, _ := s.Stat("e"); i.Used.After(clk.now()) {
		t.Errorf("e is used in the future, at %v", i.Used)
	}
	verify(t, s, 0)
	s.Close()
	c.MaxSize = s.Usage().Bytes - 1 // a smaller limit than last time
	s = open(t, c)
	if has(s, "d/c") || !has(s, "e") {
		t.Errorf("order %s", s.lru.Keys())
	}
	verify(t, s, 0)
}

func TestOpenFinds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s := open(t, Config{Dir: dir})
	mustPut(t, s, "d/file", []byte("x"))
	mustPut(t, s, "d/empty", nil)
	s.Close()
	os.WriteFile(filepath.Join(dir, "tmp", "7"), []byte("half"), 0o600)
	os.MkdirAll(filepath.Join(dir, "e", "m", "pty"), 0o700)
	os.Mkdir(filepath.Join(dir, "overlay"), 0o700)
	os.WriteFile(filepath.Join(dir, "overlay", "file"), []byte("x"), 0o600)
	os.Symlink("/etc/passwd", filepath.Join(dir, "d", "link"))
	os.Symlink("/etc", filepath.Join(dir, "l"))
	os.Chmod(filepath.Join(dir, "d/file"), 0o666)
	os.Chmod(dir, 0o755)
	s = open(t, Config{Dir: dir, Exclude: []string{"overlay"}})
	if got := s.lru.Keys(); !slices.Equal(got, []string{"d/file"}) {
		t.Errorf("found %s", got)
	}
	for _, name := range []string{"tmp/7", "e", "d/empty"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]os.FileMode{".": 0o700, "d/file": 0o600} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	if _, err := s.Get("l/passwd"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("followed a link: %v", err)
	}
	s.Evict(0) // the link stays, and its directory
	if _, err := os.Lstat(filepath.Join(dir, "d", "link")); err != nil {
		t.Error(err)
	}
	mustPut(t, s, "d/file", []byte("y"))
	if _, err := os.Stat(filepath.Join(dir, "overlay", "file")); err != nil {
		t.Error(err)
	}
}

func TestRefusedDirectories(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(Config{}); err == nil {
		t.Error("opened nowhere")
	}
	os.WriteFile(filepath.Join(dir, "version"), []byte("7\n"), 0o600)
	_, err := Open(Config{Dir: dir})
	if err == nil || err.Error() != "store "+dir+" has version 7; this modfs knows 1" {
		t.Errorf("version 7: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "version"), nil, 0o600) // a crash at the very start
	open(t, Config{Dir: dir}).Close()

	home := t.TempDir()
	os.WriteFile(filepath.Join(home, "thesis.tex"), []byte("x"), 0o644)
	os.Chmod(home, 0o755)
	_, err = Open(Config{Dir: home})
	if err == nil || !strings.Contains(err.Error(), "not a store") {
		t.Errorf("home: %v", err)
	}
	des, _ := os.ReadDir(home)
	if fi, _ := os.Stat(home); len(des) != 1 || fi.Mode().Perm() != 0o755 {
		t.Errorf("home was changed: %v, %v", des, fi.Mode())
	}
	open(t, Config{Dir: home, Exclude: []string{"thesis.tex"}})
}

func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s := open(t, Config{Dir: dir, Holder: "/mnt/go\nmod"})
	for range 2 {
		_, err := Open(Config{Dir: dir})
		l, ok := errors.AsType[*LockedError](err)
		if !ok || l.PID != os.Getpid() || l.Holder != "/mnt/go mod" || l.Dir != dir {
			t.Fatalf("got %v", err)
		}
		if want := fmt.Sprintf("store %s is in use by process %d (/mnt/go mod)", dir, os.Getpid()); l.Error() != want {
			t.Errorf("got %s, want %s", l, want)
		}
	}
	s.Close()
	open(t, Config{Dir: dir})
}

// childEnv names the store that this test binary, run as a child, works on until it is killed.
const childEnv = "MODFS_LRU_TEST_CHILD"

// child changes the store without end, and writes a line after each change. What Fill makes has the content of its key.
func child(dir string) {
	s, err := Open(Config{Dir: dir, MaxSize: mib, Evictable: evictableInChild})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 6))
	for {
		key := fmt.Sprintf("%c/%d/%d.zip", 'a'+r.IntN(3), r.IntN(4), r.IntN(10))
		switch r.IntN(8) {
		case 0:
			err = s.Remove(key)
		case 1:
			err = s.Quarantine(key)
		case 2, 3:
			key = strings.Replace(key, ".zip", ".mod", 1)
			err = s.Put(key, content(key, 1+r.IntN(3000)))
		default:
			var f *File
			if f, err = s.Fill(context.Background(), key, filler(key, 1+r.IntN(100_000))); err == nil {
				err = f.Close()
			}
		}
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(key)
	}
}

func evictableInChild(key string) bool { return strings.HasSuffix(key, ".zip") }

// TestKill kills a process that changes a store, at random points. The next one finds only complete files.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Skip("no path to this test binary:", err)
	}
	dir := filepath.Join(t.TempDir(), "s")
	for round := range 6 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The point where it dies is random: it goes on while we read.
		lines := bufio.NewScanner(out)
		for range 20 + rand.IntN(60) {
			if !lines.Scan() || strings.HasPrefix(lines.Text(), "error:") {
				t.Errorf("child: %q", lines.Text())
				break
			}
		}
		_, err = Open(Config{Dir: dir})
		if l, ok := errors.AsType[*LockedError](err); !ok || l.PID != cmd.Process.Pid {
			t.Errorf("round %d: the child does not hold the store: %v", round, err)
		}
		cmd.Process.Kill()
		cmd.Wait()

		s, err := Open(Config{Dir: dir, MaxSize: mib, Evictable: evictableInChild})
		if err != nil {
			t.Fatal(err)
		}
		verify(t, s, 0)
		for key, e := range s.entries {
			got, err := s.ReadFile(key, mib)
			if err != nil || !bytes.Equal(got, content(key, int(e.size))) {
				t.Errorf("round %d: %s: %d bytes, %v", round, key, len(got), err)
			}
		}
		if len(s.entries) == 0 {
			t.Errorf("round %d: nothing there", round)
		}
		s.Close()
	}
}
