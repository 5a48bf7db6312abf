package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// nobody is a user that has nothing to do with the mount.
const nobody = 65534

// asNobody runs do as another user. Only its thread is, which ends with it.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, nobody, nobody, nobody}, {unix.SYS_SETRESUID, nobody, nobody, nobody}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				t.Errorf("become another user: %v", errno)
				return
			}
		}
		do()
	}()
	<-done
}

// openToAll lets everybody reach the directory of a test. Where temporary files are private already, nobody else can be the test's
// other user.
func openToAll(t *testing.T, dir string) {
	t.Helper()
	for up := os.TempDir(); up != filepath.Dir(up); up = filepath.Dir(up) {
		if fi, err := os.Stat(up); err != nil || fi.Mode().Perm()&0o001 == 0 {
			t.Skipf("other users cannot reach %s: set TMPDIR to a directory that they can", up)
		}
	}
	for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// intrusions are all ways to change something at a path, or below it, if that is a directory.
var intrusions = []struct {
	name string
	do   func(p string) error
}{
	{"open to write", func(p string) error { return closed(os.OpenFile(p, os.O_WRONLY, 0)) }},
	{"open to append", func(p string) error { return closed(os.OpenFile(p, os.O_RDWR|os.O_APPEND, 0)) }},
	{"open and truncate", func(p string) error { return closed(os.OpenFile(p, os.O_RDONLY|os.O_TRUNC, 0)) }},
	{"truncate", func(p string) error { return os.Truncate(p, 0) }},
	{"chmod", func(p string) error { return os.Chmod(p, 0o777) }},
	{"chown", func(p string) error { return os.Lchown(p, nobody, nobody) }},
	{"chtimes", func(p string) error { return os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)) }},
	{"remove", os.Remove},
	{"rename", func(p string) error { return os.Rename(p, p+".old") }},
	{"rename over", func(p string) error { return os.Rename(filepath.Dir(p)+"/a@v1.0.0", p) }},
	{"link", func(p string) error { return os.Link(p, p+".link") }},
	{"setxattr", func(p string) error { return unix.Setxattr(p, "user.x", []byte("x"), 0) }},
	{"create", func(p string) error { return closed(os.OpenFile(p+"/new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)) }},
	{"create beside", func(p string) error { return closed(os.OpenFile(p+".new", os.O_CREATE|os.O_WRONLY, 0o666)) }},
	{"mkdir", func(p string) error { return os.Mkdir(p+"/new", 0o777) }},
	{"symlink", func(p string) error { return os.Symlink("/etc/passwd", p+"/new") }},
	{"mkfifo", func(p string) error { return unix.Mkfifo(p+"/new", 0o666) }},
	{"device", func(p string) error { return unix.Mknod(p+"/new", unix.S_IFCHR|0o666, 1<<8|3) }},
	{"temporary file", func(p string) error { return closed(os.OpenFile(p, unix.O_TMPFILE|os.O_WRONLY, 0o666)) }},
}

func closed(f *os.File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

// refusals are the errors that say that nothing was changed. Those of the second line are of what makes no sense at that path.
var refusals = []error{
	syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EOPNOTSUPP,
	syscall.EISDIR, syscall.ENOTDIR, syscall.ENOENT, syscall.EXDEV, syscall.EEXIST, syscall.ENOTEMPTY, syscall.EINVAL,
}

// TestIsolation has another user try all that can be tried on a mount for all: he can read, and nothing else.
func TestIsolation(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	for _, args := range [][]string{
		{"--read-only"},
		{"--resolve", "daemon"},
		{"--resolve", "client"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			proxy := proxytest.New(t)
			m := mountEnv(t, proxy, []string{"MODFS_TEST_ENVIRON=of-the-daemon"}, append(args, "--allow-other")...)
			openToAll(t, filepath.Dir(m.dir))
			paths := []string{
				".", "example.com", "example.com/a@v1.0.0", "example.com/a@v1.0.0/a.go", "example.com/a@v1.0.0/sub",
				"cache", "cache/download", "cache/download/example.com/a/@v", "cache/download/example.com/a/@v/v1.0.0.info",
				"cache/download/example.com/a/@v/v1.0.0.mod", "cache/download/example.com/a/@v/v1.0.0.zip",
				".modfs", ".modfs/errors", ".modfs/status.json", ".modfs/ctl", "example.com/none@v1.0.0", "none.example",
			}
			if args[0] != "--read-only" {
				cmd := m.goCommand(t.TempDir(), "mod", "download", "example.com/a@v1.0.0")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("go mod download: %v\n%s", err, out)
				}
				paths = append(paths, m.own()...)
			}
			if _, err := m.read("example.com/a@v1.0.0/a.go"); err != nil { // from now on it is listed
				t.Error(err)
			}
			if _, err := os.Readlink(m.path(".modfs/ctl")); err != nil { // what the kernel could keep
				t.Error(err)
			}
			before := m.tree()
			asNobody(t, func() {
				if data, err := m.read("example.com/a@v1.0.0/a.go"); err != nil || !strings.Contains(string(data), "package a") {
					t.Errorf("read: %q, %v", data, err)
				}
				for _, p := range paths {
					for _, w := range intrusions {
						if err := w.do(m.path(p)); !slices.ContainsFunc(refusals, func(no error) bool { return errors.Is(err, no) }) {
							t.Errorf("%s %s: %v", w.name, p, err)
						}
					}
				}
				if _, err := os.ReadDir(m.store); !errors.Is(err, syscall.EACCES) {
					t.Errorf("the store can be listed: %v", err)
				}
				if _, err := os.ReadFile(filepath.Join(m.store, "pins")); !errors.Is(err, syscall.EACCES) {
					t.Errorf("the store can be read: %v", err)
				}
				if _, err := m.read(".modfs/status.json"); !errors.Is(err, syscall.EACCES) {
					t.Errorf("status.json can be read: %v", err)
				}
				if target, err := os.Readlink(m.path(".modfs/ctl")); !errors.Is(err, syscall.EACCES) {
					t.Errorf("the control socket is shown: %q, %v", target, err)
				}
				if _, err := net.Dial("unix", filepath.Join(m.store, modfs.SocketName)); !errors.Is(err, syscall.EACCES) {
					t.Errorf("connected to the control socket: %v", err)
				}
				if _, err := m.read(".modfs/errors"); err != nil {
					t.Errorf("errors cannot be read: %v", err)
				}
				m.read("cache/download/sumdb/evil.example/lookup/example.com/a@v1.0.0")
				os.Stat(m.path("evil.example:8080/x@v1.0.0"))
			})
			if after := m.tree(); !slices.Equal(before, after) {
				t.Errorf("it was\n%s\nand is now\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			if n := proxy.Count("evil"); n > 0 {
				t.Errorf("%d requests for a database of the reader's choice", n)
			}
			for _, name := range []string{".modfs/status.json", ".modfs/errors"} {
				if data, err := m.read(name); err != nil || strings.Contains(string(data), "of-the-daemon") {
					t.Errorf("%s: %v\n%s", name, err, data)
				}
			}
			var st unix.Statfs_t
			if err := unix.Statfs(m.dir, &st); err != nil || st.Flags&unix.ST_NOSUID == 0 || st.Flags&unix.ST_NODEV == 0 {
				t.Errorf("mounted with flags %#x, %v: want nosuid and nodev", st.Flags, err)
			}
		})
	}
}

// own makes files of root's in the writable layer, with various permissions, and returns what another user must not change.
func (m *mounted) own() []string {
	m.t.Helper()
	ok := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	for _, dir := range []string{"own", "own/closed", "own/shared"} {
		ok(os.Mkdir(m.path(dir), 0o755))
	}
	ok(os.WriteFile(m.path("own/file"), []byte("root's"), 0o644))
	ok(os.WriteFile(m.path("own/closed/file"), []byte("root's"), 0o600))
	ok(os.WriteFile(m.path("own/program"), []byte("#!/bin/sh\n"), 0o755))
	ok(os.Chmod(m.path("own/program"), 0o755|fs.ModeSetuid))
	ok(os.Symlink("/etc/passwd", m.path("own/link")))
	ok(os.WriteFile(m.path("own/shared/roots"), []byte("root's"), 0o644))
	ok(os.Chmod(m.path("own/shared"), 0o777|fs.ModeSticky))
	ok(os.Chmod(m.path("own/closed"), 0o700))
	asNobody(m.t, func() {
		if _, err := m.read("own/closed/file"); !errors.Is(err, syscall.EACCES) {
			m.t.Errorf("own/closed/file can be read: %v", err)
		}
		// In a directory for all everybody can have files, as in /tmp, and they are his.
		if err := os.WriteFile(m.path("own/shared/his"), []byte("his"), 0o600); err != nil {
			m.t.Error(err)
		}
		if err := os.Remove(m.path("own/shared/roots")); !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
			m.t.Errorf("a file of another user in a sticky directory was removed: %v", err)
		}
		if err := os.Rename(m.path("own/shared/his"), m.path("own/his")); !errors.Is(err, syscall.EACCES) {
			m.t.Errorf("a file was moved to where its owner may not write: %v", err)
		}
	})
	if fi, err := os.Stat(m.path("own/shared/his")); err != nil || fi.Sys().(*syscall.Stat_t).Uid != nobody {
		m.t.Errorf("own/shared/his is %+v, %v: want the user %d as its owner", fi, err, nobody)
	}
	return []string{"own", "own/file", "own/closed", "own/closed/file", "own/program", "own/link"}
}

// tree lists what is in the mount, in the order of names, with modes, owners and sizes. Directories have no size.
func (m *mounted) tree() []string {
	m.t.Helper()
	var all []string
	err := filepath.WalkDir(m.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		size := fi.Size()
		if d.IsDir() {
			size = 0
		}
		rel, _ := filepath.Rel(m.dir, p)
		// What was looked at is listed from then on.
		if !strings.HasPrefix(rel, "cache/download/") && rel != "none.example" {
			all = append(all, strings.Join([]string{rel, fi.Mode().String(), fmt.Sprint(st.Uid), fmt.Sprint(size)}, " "))
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}
