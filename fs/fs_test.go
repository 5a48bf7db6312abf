package fs

import (
	"encoding/json"
	"errors"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
	"modfs/lru"
)

// mountTest mounts what s serves, read-only and without prefetching, so that each request has a cause. set, if not nil,
// changes the options. The mount is gone when the test ends, whatever the test has left open.
func mountTest(tb testing.TB, s *proxytest.Server, set func(*Options)) (dir string, f *FS) {
	tb.Helper()
	fusetest.Require(tb)
	dir = tb.TempDir()
	f, err := Mount(dir, testOptions(tb, s, set))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { shut(tb, f) })
	return dir, f
}

func testOptions(tb testing.TB, s *proxytest.Server, set func(*Options)) Options {
	o := Options{
		Store:      lru.Config{Dir: tb.TempDir()},
		Fetch:      fetch.Config{Proxy: s.URL(), SumDB: s.SumDB()},
		ReadOnly:   true,
		NoPrefetch: true,
	}
	if set != nil {
		set(&o)
	}
	return o
}

// makeWritable lets a store be removed: what clients wrote may be closed to their user, who need not be root.
func makeWritable(dir string) {
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700) // best effort
		}
		return nil
	})
}

// asRoot skips a test that changes what others may not: the directories of a module are closed to their owner as well (0555).
func asRoot(tb testing.TB) {
	if os.Geteuid() != 0 {
		tb.Skip("only root may write to directories of mode 0555")
	}
}

// unmounted is a file system without a mount, for tests that play the kernel themselves.
func unmounted(tb testing.TB, s *proxytest.Server, set func(*Options)) *FS {
	tb.Helper()
	f, err := newFS(tb.TempDir(), testOptions(tb, s, set))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.close(); err != nil {
			tb.Error(err)
		}
	})
	return f
}

// shut ends a mount and waits until the kernel has let go of it.
func shut(tb testing.TB, f *FS) {
	tb.Helper()
	if err := f.Close(); err != nil {
		tb.Error(err)
	}
	select {
	case <-f.served:
	case <-time.After(2 * time.Minute):
		tb.Error("somebody still uses the mount")
	}
}

// sameStore is for mountTest: the store of a mount that was shut.
func sameStore(f *FS) func(*Options) {
	return func(o *Options) { o.Store.Dir = f.store.Dir() }
}

// noMemory is for mountTest: every read goes to the store.
func noMemory(o *Options) { o.MemoryLimit = 1 }

// asked returns what the proxy was asked since the last call, sorted; questions to the checksum database don't count.
func asked(s *proxytest.Server) []string {
	rs := slices.DeleteFunc(s.Requests(), func(r string) bool { return strings.Contains(r, "/sumdb") })
	s.ResetRequests()
	slices.Sort(rs)
	return rs
}

// wantAsked checks what the proxy was asked since the last such check.
func wantAsked(tb testing.TB, s *proxytest.Server, want ...string) {
	tb.Helper()
	slices.Sort(want)
	if got := asked(s); !slices.Equal(got, want) {
		tb.Errorf("the proxy was asked %q, want %q", got, want)
	}
}

// version is m's name and version.
func version(m proxytest.Module) module.Version {
	return module.Version{Path: m.Path, Version: m.Version}
}

var moduleA = module.Version{Path: "example.com/a", Version: "v1.0.0"}

// in returns where something of the module cache is below dir, by its slash path.
func in(dir, p string) string { return filepath.Join(dir, filepath.FromSlash(p)) }

func readFile(tb testing.TB, name string) string {
	tb.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// wantErr checks the errno of a failure.
func wantErr(tb testing.TB, err error, want syscall.Errno) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("got %v, want %v", err, want)
	}
}

// list returns the names in a directory, sorted.
func list(tb testing.TB, dir string) []string {
	tb.Helper()
	des, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	names := []string{}
	for _, d := range des {
		names = append(names, d.Name())
	}
	return names
}

// snapshot returns all that is below root: modes and contents by slash path.
func snapshot(tb testing.TB, root string) map[string]string {
	tb.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(p string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all[rel] = fi.Mode().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if int64(len(data)) != fi.Size() {
				tb.Errorf("%s has %d bytes, stat says %d", rel, len(data), fi.Size())
			}
			all[rel] += " " + string(data)
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// unzipped unpacks m as the go command does.
func unzipped(tb testing.TB, s *proxytest.Server, m proxytest.Module) (dir string) {
	tb.Helper()
	zipFile := filepath.Join(tb.TempDir(), "m.zip")
	if err := os.WriteFile(zipFile, s.ZipBytes(m.Path, m.Version), 0o666); err != nil {
		tb.Fatal(err)
	}
	dir = filepath.Join(tb.TempDir(), "m")
	if err := modzip.Unzip(dir, version(m), zipFile); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// wantTree checks that the mount at dir has m as the go command would unpack it and then take its permissions to write.
func wantTree(tb testing.TB, s *proxytest.Server, dir string, m proxytest.Module) {
	tb.Helper()
	want := snapshot(tb, unzipped(tb, s, m))
	for p, v := range want {
		if strings.HasPrefix(v, "d") {
			want[p] = "dr-xr-xr-x"
		}
	}
	got := snapshot(tb, in(dir, moduleDir(version(m))))
	if maps.Equal(got, want) {
		return
	}
	for p := range maps.Keys(want) {
		if got[p] != want[p] {
			tb.Errorf("%s/%s: got %.40q, want %.40q", m, p, got[p], want[p])
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			tb.Errorf("%s/%s: %.40q, and should not be there", m, p, got[p])
		}
	}
}

// events returns what .modfs/errors has.
func events(tb testing.TB, dir string) []Event {
	tb.Helper()
	var all []Event
	for line := range strings.Lines(readFile(tb, in(dir, ".modfs/errors"))) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			tb.Fatalf("%q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// lookup is what the kernel does for a path of which it knows nothing. The node ID in the answer is 0 if there is nothing.
func lookup(f *FS, p string) (out fuse.EntryOut, status fuse.Status) {
	out.NodeId = rootID
	for name := range strings.SplitSeq(p, "/") {
		parent := out.NodeId
		out = fuse.EntryOut{}
		if status = f.Lookup(nil, &fuse.InHeader{NodeId: parent}, name, &out); status != fuse.OK || out.NodeId == 0 {
			return out, status
		}
	}
	return out, status
}

// TestClose ends a mount that is in use.
func TestClose(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, noMemory)
	file, err := os.Open(in(dir, "example.com/a@v1.0.0/a.go"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := f.Unmount(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("unmounted while a file is open: %v", err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if found, err := Find(dir); found != nil || err != nil {
		t.Errorf("still mounted: %+v, %v", found, err)
	}
	if data, err := io.ReadAll(file); err == nil {
		t.Errorf("read %q after Close", data)
	}
	file.Close()
	f.Wait()
	// The store is free again, and so is the mountpoint.
	g, err := Mount(dir, testOptions(t, s, sameStore(f)))
	if err != nil {
		t.Fatal(err)
	}
	shut(t, g)
}

func TestMountRefused(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	var locked *lru.LockedError
	if _, err := Mount(t.TempDir(), testOptions(t, s, sameStore(f))); !errors.As(err, &locked) {
		t.Errorf("two mounts of one store: %v", err)
	} else if locked.PID != os.Getpid() || locked.Holder != dir {
		t.Errorf("locked by %+v, want this process, for %s", locked, dir)
	}
	for what, set := range map[string]func(*Options){
		"no store":           func(o *Options) { o.Store.Dir = "" },
		"bad proxy":          func(o *Options) { o.Fetch.Proxy = "ftp://proxy.example" },
		"bad database":       func(o *Options) { o.Fetch.SumDB = "sum.example+x" },
		"store below a file": func(o *Options) { o.Store.Dir = "/dev/null/store" },
	} {
		o := testOptions(t, s, set)
		if g, err := Mount(t.TempDir(), o); err == nil {
			t.Errorf("%s: no error", what)
			shut(t, g)
		}
		if o.Store.Dir != "" && storeLocked(o.Store.Dir) && what != "store below a file" {
			t.Errorf("%s: the store is still locked", what)
		}
	}
	if _, err := Mount(in(t.TempDir(), "missing"), testOptions(t, s, nil)); err == nil {
		t.Error("mounted at a directory that is not there")
	}
}
