package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverlayRename(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	m.write("work/a", "a")
	m.write("work/b", "bb")
	m.ok(os.Rename(m.path("work/a"), m.path("work/b")))
	m.names("work", "b")
	m.want("work/b", "a")
	m.used(1)
	m.write("cache/vcs/x/f", "f")
	m.ok(os.Rename(m.path("work/b"), m.path("cache/vcs/x/b")))
	m.names("work")
	m.names("cache/vcs/x", "b", "f")
	m.want("cache/vcs/x/b", "a")

	m.mkdir("work/d")
	m.ok(os.Rename(m.path("work/d"), m.path("work/e")))
	m.write("work/e/f", "f")
	m.mkdir("work/d")
	m.fails(unix.Rename(m.path("work/d"), m.path("work/e")), syscall.ENOTEMPTY)
	m.ok(unix.Rename(m.path("work/e"), m.path("work/d"))) // d is empty
	m.names("work", "d")
	m.want("work/d/f", "f")
	m.fails(unix.Rename(m.path("work/d"), m.path("work/d/f/g")), syscall.ENOTDIR)
	m.fails(unix.Rename(m.path("work/d"), m.path("work/d/g")), syscall.EINVAL)
	m.fails(unix.Rename(m.path("work/missing"), m.path("work/x")), syscall.ENOENT)
}

// TestOverlayRenameDir renames directories in which files are open: those that show the lazy tree too and those that don't.
func TestOverlayRenameDir(t *testing.T) {
	for _, names := range [][2]string{
		{"work/one", "work/two"},
		{"new.example/one", "new.example/two"},
		{"work/one", "new.example/one"},
		{"new.example/one", "work/one"},
		{"cache/download/new.example/one", "cache/vcs/one"},
	} {
		t.Run(strings.ReplaceAll(names[0]+" "+names[1], "/", "_"), func(t *testing.T) {
			m := mountRW(t, nil, clientResolves)
			from, to := names[0], names[1]
			m.write(from+"/sub/deep/f", "content")
			m.ok(os.MkdirAll(m.path(filepath.Dir(to)), 0o777))
			f, err := os.OpenFile(m.path(from+"/sub/deep/f"), os.O_RDWR, 0)
			m.ok(err)
			defer f.Close()
			m.there(false, to+"/sub/none", from+"/none")
			d, err := os.Open(m.path(from + "/sub"))
			m.ok(err)
			defer d.Close()
			m.ok(os.Rename(m.path(from), m.path(to)))
			m.there(false, from+"/sub")
			m.want(to+"/sub/deep/f", "content")
			_, err = f.WriteAt([]byte("CON"), 0)
			m.ok(err)
			m.want(to+"/sub/deep/f", "CONtent")
			fd, err := unix.Openat(int(d.Fd()), "new", unix.O_CREAT|unix.O_RDWR, 0o666)
			m.ok(err)
			m.ok(unix.Close(fd))
			m.names(to+"/sub", "deep", "new")
			m.ok(os.Rename(m.path(to+"/sub/deep"), m.path(to+"/deep")))
			m.want(to+"/deep/f", "CONtent")
			m.ok(os.RemoveAll(m.path(to)))
			m.used(7) // f is open
			got, err := io.ReadAll(f)
			if err != nil || string(got) != "CONtent" {
				t.Errorf("%q, %v", got, err)
			}
			m.ok(f.Close())
			m.used(0)
		})
	}
}

func TestOverlayRmdir(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	for _, dir := range []string{"work/d", "new.example/d", "cache/vcs/d", "cache/download/new.example/m/@v"} {
		m.write(dir+"/f", "x")
		m.fails(unix.Rmdir(m.path(dir)), syscall.ENOTEMPTY)
		m.fails(unix.Rmdir(m.path(dir+"/f")), syscall.ENOTDIR)
		m.fails(unix.Unlink(m.path(dir)), syscall.EISDIR)
		m.ok(os.Remove(m.path(dir + "/f")))
		m.ok(unix.Rmdir(m.path(dir)))
		m.there(false, dir)
		m.fails(unix.Rmdir(m.path(dir)), syscall.ENOENT)
		m.mkdir(dir)
		m.write(dir+"/f", "again")
		m.names(dir, "f")
	}
	// A directory that is open stays one that can be asked for its attributes.
	m.mkdir("work/open")
	d, err := os.Open(m.path("work/open"))
	m.ok(err)
	defer d.Close()
	m.ok(os.Remove(m.path("work/open")))
	if fi, err := d.Stat(); err != nil || !fi.IsDir() {
		t.Errorf("%v, %v", fi, err)
	}
	if _, err := unix.Openat(int(d.Fd()), "new", unix.O_CREAT|unix.O_RDWR, 0o666); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("created a file in a removed directory: %v", err)
	}
	m.mkdir("work/open")
	m.names("work/open")
}

// TestOverlayReadDir lists right after each change, more than fits in one answer.
func TestOverlayReadDir(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	for _, dir := range []string{"work", "new.example/dir", "cache/download/new.example/m/@v"} {
		m.ok(os.MkdirAll(m.path(dir), 0o777))
		var want []string
		for i := range 150 {
			name := fmt.Sprintf("%d%040x", i, i)
			if i%3 == 0 {
				m.mkdir(dir + "/" + name)
			} else {
				m.write(dir+"/"+name, name)
			}
			want = append(want, name)
			m.names(dir, slices.Clone(want)...)
		}
		for i := range 100 {
			m.ok(os.Remove(m.path(dir + "/" + want[0])))
			if i%2 == 0 {
				m.ok(os.Rename(m.path(dir+"/"+want[1]), m.path(dir+"/new"+want[1])))
				want[1] = "new" + want[1]
			}
			want = want[1:]
			m.names(dir, slices.Clone(want)...)
		}
	}
}

// TestOverlayRenameRace has readers and writers in a directory that is renamed all the time.
func TestOverlayRenameRace(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	m.write("work/a/f", "content")
	d, err := os.Open(m.path("work/a"))
	m.ok(err)
	defer d.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for range 300 {
			if err := errors.Join(os.Rename(m.path("work/a"), m.path("work/b")), os.Rename(m.path("work/b"), m.path("work/a"))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("own", i)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := useIn(int(d.Fd()), name); err != nil {
					t.Errorf("in a directory that is being renamed: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	m.names("work/a", "f")
	m.names("work", "a")
}

// useIn creates, reads, lists and removes a file by way of an open directory.
func useIn(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_RDWR|unix.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := f.WriteString(name); err != nil {
		return err
	}
	got := make([]byte, len(name))
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != name {
		return fmt.Errorf("read %q: %w", got, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, 0); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if err := unix.Fstatat(dir, "f", &st, 0); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if err := unix.Unlinkat(dir, name, 0); err != nil {
		return fmt.Errorf("unlink: %w", err)
	}
	return nil
}

// TestOverlayFlock checks that locks work between descriptors, and between processes.
func TestOverlayFlock(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	const name = "cache/download/example.com/a/@v/v1.0.0.lock"
	m.write(name, "")
	one, err := os.OpenFile(m.path(name), os.O_RDWR|os.O_CREATE, 0o666)
	m.ok(err)
	defer one.Close()
	two, err := os.OpenFile(m.path(name), os.O_RDWR|os.O_CREATE, 0o666)
	m.ok(err)
	defer two.Close()
	m.ok(unix.Flock(int(one.Fd()), unix.LOCK_EX))
	m.fails(unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
	if flock, err := exec.LookPath("flock"); err == nil {
		if err := exec.Command(flock, "-n", m.path(name), "true").Run(); err == nil {
			t.Error("another process has the lock too")
		}
	}
	m.ok(unix.Flock(int(one.Fd()), unix.LOCK_UN))
	m.ok(unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	m.ok(unix.Flock(int(two.Fd()), unix.LOCK_UN))
}
