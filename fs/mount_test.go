package fs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"modfs/fs/fusetest"
)

// eventually polls until cond holds. It waits for much longer than a loaded machine can need.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("timed out waiting: %s", what)
		}
	}
}

// trivialFS is a directory with one file in it.
type trivialFS struct{ fuse.RawFileSystem }

const trivialContent = "hello\n"

func newTrivialFS() *trivialFS { return &trivialFS{fuse.NewDefaultRawFileSystem()} }

func (*trivialFS) attr(node uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: node, Mode: fuse.S_IFDIR | 0o555, Nlink: 2}
	if node != fuse.FUSE_ROOT_ID {
		*a = fuse.Attr{Ino: node, Mode: fuse.S_IFREG | 0o444, Nlink: 1, Size: uint64(len(trivialContent))}
	}
}

func (fs *trivialFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	fs.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (fs *trivialFS) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != "file" {
		return fuse.ENOENT
	}
	out.NodeId = 2
	fs.attr(out.NodeId, &out.Attr)
	return fuse.OK
}

func (*trivialFS) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status    { return fuse.OK }
func (*trivialFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (*trivialFS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	off := min(in.Offset, uint64(len(trivialContent)))
	return fuse.ReadResultData([]byte(trivialContent[off:])), fuse.OK
}

// mounters are the ways to mount, whichever mountFUSE would choose.
var mounters = map[string]func(fuse.RawFileSystem, mountConfig) (*fuse.Server, error){"default": mountFUSE}

// testMount is a mount of a trivialFS that this process serves.
type testMount struct {
	dir, store string
	lock       *os.File
	served     chan struct{} // closed when the kernel let go
}

// newStore makes a directory that looks like a store in use, as far as mounts are concerned.
func newStore(tb testing.TB, dir string) (lock *os.File) {
	tb.Helper()
	lock, err := os.Create(filepath.Join(dir, lockName))
	if err == nil {
		_, err = fmt.Fprintf(lock, "%d\n", os.Getpid())
	}
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return lock
}

func mountTrivial(tb testing.TB, mount func(fuse.RawFileSystem, mountConfig) (*fuse.Server, error), c mountConfig) *testMount {
	tb.Helper()
	fusetest.Require(tb)
	m := &testMount{dir: c.Dir, served: make(chan struct{})}
	if m.dir == "" {
		m.dir = tb.TempDir()
	}
	// Names that would do harm where something is not escaped.
	m.store = filepath.Join(tb.TempDir(), `a, store\with "all"`)
	if err := os.Mkdir(m.store, 0o777); err != nil {
		tb.Fatal(err)
	}
	m.lock = newStore(tb, m.store)
	c.Dir, c.Source = m.dir, sourcePrefix+m.store
	c.fuse.Logger = log.New(io.Discard, "", 0)
	c.fuse.MaxWrite = 1 << 17
	server, err := mount(newTrivialFS(), c)
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(m.served)
		server.Serve()
	}()
	tb.Cleanup(func() {
		if err := Unmount(m.dir, true); err != nil && !errors.Is(err, ErrNotMounted) {
			tb.Error(err)
		}
		<-m.served
		m.lock.Close()
	})
	if err := waitMount(server, m.dir); err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestMountFindUnmount(t *testing.T) {
	for name, mount := range mounters {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a mount, with\\all")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			if f, err := Find(dir); f != nil || err != nil {
				t.Fatalf("Find before mounting: %+v, %v", f, err)
			}
			m := mountTrivial(t, mount, mountConfig{Dir: dir, ReadOnly: true})
			if b, err := os.ReadFile(filepath.Join(dir, "file")); string(b) != trivialContent || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); !errors.Is(err, syscall.EROFS) {
				t.Errorf("write: %v, want EROFS", err)
			}

			var st unix.Stat_t
			if err := unix.Stat(dir, &st); err != nil {
				t.Fatal(err)
			}
			want := Found{Mountpoint: dir, Store: m.store, Device: uint64(st.Dev)}
			if f, err := Find(dir); err != nil || f == nil || *f != want {
				t.Errorf("Find: %+v, %v, want %+v", f, err, want)
			}
			if all, err := Mounts(); err != nil || !slices.Contains(all, want) {
				t.Errorf("Mounts: %+v, %v, want %+v among them", all, err, want)
			}
			err := replaceStale(dir)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("already served by modfs pid %d, store %s", os.Getpid(), m.store)) {
				t.Errorf("replaceStale of a live mount: %v", err)
			}

			if err := Unmount(dir, false); err != nil {
				t.Fatal(err)
			}
			<-m.served
			if f, err := Find(dir); f != nil || err != nil {
				t.Errorf("Find after unmounting: %+v, %v", f, err)
			}
			if err := Unmount(dir, false); !errors.Is(err, ErrNotMounted) {
				t.Errorf("second Unmount: %v", err)
			}
		})
	}
}

// TestFindThroughLinks checks that a mount is found under every name it has, without being asked.
func TestFindThroughLinks(t *testing.T) {
	m := mountTrivial(t, mountFUSE, mountConfig{})
	links := t.TempDir()
	for name, target := range map[string]string{
		"direct": m.dir, "parent": filepath.Dir(m.dir), "again": "direct", "loop": "loop", "dangling": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, found := range map[string]bool{
		"direct": true, "again": true, "parent/" + filepath.Base(m.dir): true, "parent": false, "dangling": false, "missing": false, ".": false,
	} {
		f, err := Find(filepath.Join(links, name))
		if err != nil || (f != nil) != found {
			t.Errorf("Find(%q) = %+v, %v", name, f, err)
		}
	}
	if f, err := Find(filepath.Join(links, "loop")); f != nil || !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Find of a loop: %+v, %v", f, err)
	}
	if err := Unmount(filepath.Join(links, "again"), false); err != nil {
		t.Error(err)
	}
	<-m.served
}

func TestUnmountBusy(t *testing.T) {
	m := mountTrivial(t, mountFUSE, mountConfig{})
	f, err := os.Open(filepath.Join(m.dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Unmount(m.dir, false); !errors.Is(err, syscall.EBUSY) {
		t.Fatalf("Unmount while a file is open: %v, want EBUSY", err)
	}
	if err := Unmount(m.dir, true); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(m.dir); found != nil || err != nil {
		t.Errorf("still found: %+v, %v", found, err)
	}
	select {
	case <-m.served:
		t.Error("no longer served while a file is open")
	default:
	}
	if b, err := io.ReadAll(f); string(b) != trivialContent || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	f.Close()
	<-m.served
}

// TestStaleMount kills a daemon and replaces its mount.
func TestStaleMount(t *testing.T) {
	fusetest.Require(t)
	dir := t.TempDir()
	t.Cleanup(func() { Unmount(dir, true) }) // if the test fails early
	killDaemon(t, dir)
	if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("stat of a dead mount: %v", err)
	}
	f, err := Find(dir)
	if err != nil || f == nil || !f.Stale || f.Mountpoint != dir {
		t.Fatalf("Find of a dead mount: %+v, %v", f, err)
	}
	if err := replaceStale(dir); err != nil {
		t.Fatal(err)
	}
	if f, err := Find(dir); f != nil || err != nil {
		t.Errorf("still found: %+v, %v", f, err)
	}
	mountTrivial(t, mountFUSE, mountConfig{Dir: dir})
}

// killDaemon starts a process that mounts a trivialFS at dir, and kills it.
func killDaemon(t *testing.T, dir string) {
	t.Helper()
	cmd := reexec(t, "serve", dir, t.TempDir())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := io.ReadFull(stdout, ready); err != nil || string(ready) != "ready\n" {
		t.Errorf("daemon said %q, %v", ready, err)
	}
	if f, err := Find(dir); err != nil || f == nil || f.Stale {
		t.Errorf("Find of a live mount: %+v, %v", f, err)
	}
	cmd.Process.Kill()
	cmd.Wait() // the error is that we killed it
}

// TestNoInheritedDescriptor checks that a child process cannot keep a mount alive.
func TestNoInheritedDescriptor(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc/self/fd")
	}
	for name, mount := range mounters {
		t.Run(name, func(t *testing.T) {
			mountTrivial(t, mount, mountConfig{})
			out, err := reexec(t, "descriptors").Output()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(string(out), "end\n") || strings.Contains(string(out), "fuse") {
				t.Errorf("a child has the descriptors\n%s", out)
			}
		})
	}
}

// TestStoreLocked checks that looking is not in the way of a daemon, whatever the lock's file holds.
func TestStoreLocked(t *testing.T) {
	dir := t.TempDir()
	if storeLocked(dir) || storeLocked(filepath.Join(dir, "missing")) {
		t.Error("no lock, and held")
	}
	lock := newStore(t, dir)
	if !storeLocked(dir) || storePID(dir) != os.Getpid() {
		t.Errorf("held by us, but %v, pid %d", storeLocked(dir), storePID(dir))
	}
	lock.Close()
	if storeLocked(dir) {
		t.Error("held by nobody")
	}
	newStore(t, dir).Close()
	for content, want := range map[string]int{"": 0, "no number": 0, "pid 12 at /mnt/3": 12, `{"pid":7}`: 7, "99999999999999999999 5": 5} {
		if err := os.WriteFile(filepath.Join(dir, lockName), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		if got := storePID(dir); got != want {
			t.Errorf("%q: pid %d, want %d", content, got, want)
		}
	}
	// Anybody can have the table of mounts lead to anything.
	pipe := filepath.Join(t.TempDir(), lockName)
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := soonDone(t, "what reads a pipe", func() error {
		if dir := filepath.Dir(pipe); storeLocked(dir) || storePID(dir) != 0 {
			return errors.New("a pipe is a lock")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestMountErrors(t *testing.T) {
	fusetest.Require(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + "-missing"} {
		_, err := mountFUSE(newTrivialFS(), mountConfig{Dir: dir, Source: "modfs:x"})
		if err == nil || !strings.HasPrefix(err.Error(), "mount "+dir+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("mounted at %s: %v", dir, err)
		}
	}
}

const childEnv = "MODFS_TEST_CHILD"

// reexec returns this test binary as a command that runs child instead of tests.
func reexec(tb testing.TB, args ...string) *exec.Cmd {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), childEnv+"=mount")
	cmd.Stderr = os.Stderr
	return cmd
}

func init() {
	if os.Getenv(childEnv) == "mount" {
		child(os.Args[1:])
		os.Exit(0)
	}
}

// child is what a child process of the tests does: "serve DIR STORE" until killed, or list "descriptors".
func child(args []string) {
	if args[0] == "descriptors" {
		fds, _ := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			fmt.Println(fd.Name(), link)
		}
		fmt.Println("end")
		return
	}
	lock, err := os.Create(filepath.Join(args[2], lockName))
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		panic(err)
	}
	server, err := mountFUSE(newTrivialFS(), mountConfig{Dir: args[1], Source: sourcePrefix + args[2]})
	if err != nil {
		panic(err)
	}
	go server.Serve()
	if err := waitMount(server, args[1]); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	select {} // until killed
}
