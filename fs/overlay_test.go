package fs

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
	"modfs/lru"
)

// rwMount is a read-write mount of the modules of a test server.
type rwMount struct {
	*FS
	tb     testing.TB
	dir    string
	server *proxytest.Server
	opts   Options
}

// mountRW mounts read-write. set, if not nil, changes the options.
func mountRW(tb testing.TB, server *proxytest.Server, set func(*Options)) *rwMount {
	tb.Helper()
	fusetest.Require(tb)
	if server == nil {
		server = proxytest.New(tb)
	}
	o := Options{
		Store:      lru.Config{Dir: tb.TempDir()},
		Fetch:      fetch.Config{Proxy: server.URL(), SumDB: server.SumDB()},
		NoPrefetch: true,
	}
	tb.Cleanup(func() { makeWritable(o.Store.Dir) })
	if set != nil {
		set(&o)
	}
	m := &rwMount{tb: tb, dir: tb.TempDir(), server: server, opts: o}
	m.mount()
	tb.Cleanup(func() { m.Close() }) // again, if the test has closed it
	return m
}

func (m *rwMount) mount() {
	m.tb.Helper()
	var err error
	if m.FS, err = Mount(m.dir, m.opts); err != nil {
		m.tb.Fatal(err)
	}
}

// clientResolves is for mountRW: what the lazy tree does not have, clients can then make under any name.
func clientResolves(o *Options) { o.ResolveClient = true }

// remount is a new daemon for the same store and mountpoint.
func (m *rwMount) remount() {
	m.tb.Helper()
	if err := m.Unmount(); err != nil {
		m.tb.Fatal(err)
	}
	m.Wait()
	if err := m.Close(); err != nil {
		m.tb.Fatal(err)
	}
	m.mount()
}

func (m *rwMount) path(p string) string { return filepath.Join(m.dir, filepath.FromSlash(p)) }

func (m *rwMount) write(p, data string) {
	m.tb.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(p)), 0o777); err != nil {
		m.tb.Fatal(err)
	}
	if err := os.WriteFile(m.path(p), []byte(data), 0o666); err != nil {
		m.tb.Fatal(err)
	}
}

func (m *rwMount) mkdir(p string) {
	m.tb.Helper()
	m.ok(os.Mkdir(m.path(p), 0o777))
}

// want checks the content of a file.
func (m *rwMount) want(p, data string) {
	m.tb.Helper()
	got, err := os.ReadFile(m.path(p))
	if err != nil || string(got) != data {
		m.tb.Errorf("%s: %q, %v, want %q", p, got, err, data)
	}
}

// names checks what a directory lists.
func (m *rwMount) names(p string, want ...string) {
	m.tb.Helper()
	des, err := os.ReadDir(m.path(p))
	var got []string
	for _, d := range des {
		got = append(got, d.Name())
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		m.tb.Errorf("listing of %q: %q, %v, want %q", p, got, err, want)
	}
}

func (m *rwMount) exists(p string) bool {
	_, err := os.Lstat(m.path(p))
	return err == nil
}

func (m *rwMount) there(want bool, paths ...string) {
	m.tb.Helper()
	for _, p := range paths {
		if m.exists(p) != want {
			m.tb.Errorf("%s is there: %v, want %v", p, !want, want)
		}
	}
}

func (m *rwMount) ok(err error) {
	m.tb.Helper()
	if err != nil {
		m.tb.Fatal(err)
	}
}

func (m *rwMount) fails(err, want error) {
	m.tb.Helper()
	if !errors.Is(err, want) {
		m.tb.Errorf("%v, want %v", err, want)
	}
}

// used checks the account of the writable layer, once the kernel has forgotten what was removed: it tells us when it has
// answered the client already.
func (m *rwMount) used(want int64) {
	m.tb.Helper()
	eventually(m.tb, "overlay usage", func() bool { return m.Status().Overlay.Bytes == want })
}

func TestOverlayFiles(t *testing.T) {
	m := mountRW(t, nil, nil)
	m.write("work/f", "one")
	m.want("work/f", "one")
	m.names("work", "f")
	_, err := os.OpenFile(m.path("work/f"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	m.fails(err, os.ErrExist)

	f, err := os.OpenFile(m.path("work/f"), os.O_APPEND|os.O_WRONLY, 0)
	m.ok(err)
	_, err = f.WriteString(" two")
	m.ok(err)
	m.ok(f.Sync())
	m.ok(f.Close())
	m.want("work/f", "one two")

	m.ok(os.Truncate(m.path("work/f"), 5))
	m.want("work/f", "one t")
	m.ok(os.Truncate(m.path("work/f"), 7))
	m.want("work/f", "one t\x00\x00")
	m.ok(os.WriteFile(m.path("work/f"), []byte("x"), 0o666)) // O_TRUNC
	m.want("work/f", "x")

	f, err = os.OpenFile(m.path("work/f"), os.O_RDWR, 0)
	m.ok(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("end"), 1<<20)
	m.ok(err)
	buf := make([]byte, 3)
	_, err = f.ReadAt(buf, 1<<20)
	m.ok(err)
	if fi, err := f.Stat(); err != nil || fi.Size() != 1<<20+3 || string(buf) != "end" {
		t.Errorf("%v, %v, %q", fi, err, buf)
	}

	// What is not a regular file or directory has no business in a module cache.
	m.fails(unix.Mkfifo(m.path("work/pipe"), 0o666), syscall.EPERM)
	d, err := os.Open(m.path("work"))
	m.ok(err)
	defer d.Close()
	m.ok(d.Sync())
}

func TestOverlayAttributes(t *testing.T) {
	m := mountRW(t, nil, nil)
	m.write("work/f", "x")
	m.ok(os.Symlink("f", m.path("work/link")))
	old := syscall.Umask(0)
	err := os.Mkdir(m.path("work/d"), 0o777)
	syscall.Umask(old)
	m.ok(err)
	stamp := time.Unix(1234567890, 123456000)
	for _, name := range []string{"work/f", "work/d", "work", "cache", "new.example/prefix", "."} {
		m.ok(os.MkdirAll(m.path(filepath.Dir(name)), 0o777))
		if !strings.HasSuffix(name, "/f") {
			m.ok(os.MkdirAll(m.path(name), 0o777))
		}
		for _, mode := range []os.FileMode{0o700, 0o751} {
			m.ok(os.Chmod(m.path(name), mode))
			m.ok(os.Chtimes(m.path(name), time.Time{}, stamp))
			fi, err := os.Stat(m.path(name))
			m.ok(err)
			if fi.Mode().Perm() != mode {
				t.Errorf("%s: mode %v, want %v", name, fi.Mode(), mode)
			}
			// The mtime of a directory that shows the lazy tree as well is that of the last change in either.
			if name == "work/f" && !fi.ModTime().Equal(stamp) {
				t.Errorf("%s: mtime %v, want %v", name, fi.ModTime(), stamp)
			}
		}
	}
	if os.Geteuid() == 0 {
		m.ok(os.Lchown(m.path("work/link"), 1, 2))
		m.ok(os.Chown(m.path("work/f"), 3, -1))
		var st syscall.Stat_t
		m.ok(syscall.Lstat(m.path("work/link"), &st))
		if st.Uid != 1 || st.Gid != 2 {
			t.Errorf("owner of the link: %d:%d", st.Uid, st.Gid)
		}
		m.ok(syscall.Lstat(m.path("work/f"), &st))
		if st.Uid != 3 || st.Gid != 0 {
			t.Errorf("owner of the file: %d:%d", st.Uid, st.Gid)
		}
	}
}

// TestOverlayOpenUnlinked reads and writes files that have no name any more.
func TestOverlayOpenUnlinked(t *testing.T) {
	m := mountRW(t, nil, nil)
	remove := map[string]func(p string) error{
		"unlink": os.Remove,
		"rename over": func(p string) error {
			m.write("work/other", "other")
			return os.Rename(m.path("work/other"), p)
		},
	}
	for name, remove := range remove {
		for _, mode := range []os.FileMode{0o666, 0o444} {
			p := m.path("work/f")
			m.ok(os.MkdirAll(m.path("work"), 0o777))
			f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_RDWR, mode)
			m.ok(err)
			_, err = f.WriteString("before")
			m.ok(err)
			m.ok(remove(p))
			_, err = f.WriteString(", after")
			m.ok(err)
			got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<10))
			if err != nil || string(got) != "before, after" {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			m.ok(f.Truncate(3))
			m.ok(f.Chmod(0o600))
			if fi, err := f.Stat(); err != nil || fi.Size() != 3 || fi.Sys().(*syscall.Stat_t).Nlink != 0 || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, fi, err)
			}
			// Many others in between must not take its descriptor away.
			for i := range maxOverlayFiles + 10 {
				m.write("work/many/"+string(rune('a'+i%26))+strings.Repeat("x", i/26), "x")
			}
			m.ok(os.RemoveAll(m.path("work/many")))
			if got, err = io.ReadAll(io.NewSectionReader(f, 0, 1<<10)); err != nil || string(got) != "bef" {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			m.ok(f.Close())
			os.Remove(p)
			m.names("work")
			m.used(0)
		}
	}
}

func TestOverlayLinks(t *testing.T) {
	m := mountRW(t, nil, nil)
	m.write("work/a", "one")
	m.ok(os.Mkdir(m.path("work/d"), 0o777))
	m.ok(os.Link(m.path("work/a"), m.path("work/d/b")))
	m.used(3)
	m.fails(os.Link(m.path("work/a"), m.path("work/d/b")), os.ErrExist)
	m.ok(os.Remove(m.path("work/a")))
	m.want("work/d/b", "one")
	m.write("work/d/b", "longer")
	m.want("work/d/b", "longer")
	m.used(6)
	m.ok(os.Rename(m.path("work/d"), m.path("work/e")))
	m.want("work/e/b", "longer")
	m.ok(os.Link(m.path("work/e/b"), m.path("work/c")))
	f, err := os.Open(m.path("work/c"))
	m.ok(err)
	defer f.Close()
	m.ok(os.Remove(m.path("work/c")))
	m.ok(os.Remove(m.path("work/e/b")))
	got, err := io.ReadAll(f)
	if err != nil || string(got) != "longer" {
		t.Errorf("%q, %v", got, err)
	}
	m.used(6)
	m.ok(f.Close())
	m.used(0)

	m.ok(os.Symlink("../x/y", m.path("work/link")))
	if got, err := os.Readlink(m.path("work/link")); err != nil || got != "../x/y" {
		t.Errorf("%q, %v", got, err)
	}
	m.ok(os.Remove(m.path("work/link")))
	m.names("work", "e")
}

// TestOverlaySymlinkEscape checks that the daemon is not led out of its layer by links that clients leave in it.
func TestOverlaySymlinkEscape(t *testing.T) {
	m := mountRW(t, nil, nil)
	outside := t.TempDir()
	m.ok(os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	m.write("work/x/f", "x")
	// Behind the back of the kernel, which believes that x is a directory and f a file in it.
	back := filepath.Join(m.store.Dir(), overlayDir, "mod", "work")
	f, err := os.Open(m.path("work/x/f"))
	m.ok(err)
	defer f.Close()
	d, err := os.Open(m.path("work/x"))
	m.ok(err)
	defer d.Close()
	m.ok(os.RemoveAll(filepath.Join(back, "x")))
	m.ok(os.Symlink(outside, filepath.Join(back, "x")))
	if fd, err := unix.Openat(int(d.Fd()), "secret", unix.O_RDONLY, 0); err == nil {
		got := make([]byte, 10)
		n, _ := unix.Read(fd, got)
		unix.Close(fd)
		t.Errorf("read %q through the daemon", got[:n])
	}
	if fd, err := unix.Openat(int(d.Fd()), "new", unix.O_CREAT|unix.O_WRONLY, 0o666); err == nil {
		unix.Close(fd)
		t.Error("created a file through the daemon")
	}
	des, err := os.ReadDir(outside)
	if err != nil || len(des) != 1 {
		t.Errorf("%v, %v", des, err)
	}
}

// TestOverlayMmap writes through a shared mapping.
func TestOverlayMmap(t *testing.T) {
	m := mountRW(t, nil, nil)
	m.write("work/f", strings.Repeat("a", 8192))
	f, err := os.OpenFile(m.path("work/f"), os.O_RDWR, 0)
	m.ok(err)
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	m.ok(err)
	copy(mem[5000:], "changed")
	m.ok(unix.Msync(mem, unix.MS_SYNC))
	m.ok(unix.Munmap(mem))
	want := []byte(strings.Repeat("a", 8192))
	copy(want[5000:], "changed")
	m.want("work/f", string(want))
	got, err := os.ReadFile(filepath.Join(m.store.Dir(), overlayDir, "mod/work/f"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("on disk: %d bytes, %v", len(got), err)
	}
}

func TestOverlaySurvivesRemount(t *testing.T) {
	m := mountRW(t, nil, nil)
	m.write("work/d/f", "kept")
	m.write("cache/vcs/x/HEAD", "ref")
	m.ok(os.Chmod(m.path("work/d/f"), 0o444))
	m.remount()
	m.want("work/d/f", "kept")
	m.want("cache/vcs/x/HEAD", "ref")
	if fi, err := os.Stat(m.path("work/d/f")); err != nil || fi.Mode() != 0o444 {
		t.Errorf("%v, %v", fi, err)
	}
	m.used(7)
}

// TestOverlayCopyLimit: a copy of a file for which the layer has no room is not counted.
func TestOverlayCopyLimit(t *testing.T) {
	m := mountRW(t, nil, func(o *Options) { o.OverlayMax = 1_000 })
	list := m.path("cache/download/example.com/b/@v/list")
	if _, err := os.ReadFile(list); err != nil {
		t.Fatal(err)
	}
	m.write("work/f", strings.Repeat("x", 1_000))
	for range 3 {
		f, err := os.OpenFile(list, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("v1.9.9\n")
			f.Close()
		}
		m.fails(err, syscall.ENOSPC)
		m.used(1_000)
	}
}

func TestOverlayLimit(t *testing.T) {
	m := mountRW(t, nil, func(o *Options) { o.OverlayMax = 10_000 })
	m.write("work/f", strings.Repeat("x", 9_000))
	m.used(9_000)
	f, err := os.OpenFile(m.path("work/g"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	defer f.Close()
	_, err = f.Write(make([]byte, 1_001))
	m.fails(err, syscall.ENOSPC)
	m.fails(f.Truncate(1_001), syscall.ENOSPC)
	m.ok(f.Truncate(1_000))
	m.used(10_000)
	if fi, err := f.Stat(); err != nil || fi.Size() != 1_000 {
		t.Errorf("%v, %v", fi, err)
	}
	s, err := ReadStatus(m.dir)
	m.ok(err)
	if s.Overlay == nil || *s.Overlay != (OverlayStatus{Bytes: 10_000, Limit: 10_000}) {
		t.Errorf("status: %+v", s.Overlay)
	}
	m.ok(os.Remove(m.path("work/f")))
	m.used(1_000)
	_, err = f.WriteAt(make([]byte, 1_000), 9_000)
	m.ok(err)
	m.write("work/small", "")
	m.ok(os.Rename(m.path("work/small"), m.path("work/g")))
	m.used(10_000) // f has it open
	m.ok(f.Close())
	m.used(0)
	if _, err := os.Stat(m.path("nothing")); !errors.Is(err, iofs.ErrNotExist) {
		t.Error(err)
	}
}
