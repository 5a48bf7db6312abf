package fs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"modfs/fs/fusetest"
)

// TestOverlayUnprivileged runs a daemon and its client as a user to whom permissions mean something.
func TestOverlayUnprivileged(t *testing.T) {
	fusetest.Require(t)
	if os.Geteuid() != 0 || os.Getenv(unprivilegedEnv) != "" {
		unprivileged(t)
		return
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("no setpriv to become another user with")
	}
	const id = 65534
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, id, id); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	exe = filepath.Join(dir, "fs.test") // where it is now, that user may not look
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	// The device may be root's alone. What it takes to mount is given up afterwards.
	const caps = "+dac_override,+sys_admin"
	cmd := exec.Command(setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps="+caps, "--ambient-caps="+caps,
		exe, "-test.run=^TestOverlayUnprivileged$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), unprivilegedEnv+"=1", "TMPDIR="+dir, "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if mounts, err := Mounts(); err == nil {
		for _, m := range mounts {
			if below(m.Mountpoint, dir) {
				Unmount(m.Mountpoint, true) // that user no longer could
			}
		}
	}
	switch {
	case err == nil && strings.Contains(string(out), "--- SKIP"):
		t.Skipf("as user %d:\n%s", id, out)
	case err != nil || !strings.Contains(string(out), "--- PASS"):
		t.Errorf("as user %d: %v\n%s", id, err, out)
	}
}

// dropCapabilities gives up all capabilities of this process.
func dropCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

const unprivilegedEnv = "MODFS_TEST_UNPRIVILEGED"

// unprivileged does what needs permissions on a mount that is not root's.
func unprivileged(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	if os.Geteuid() == 0 {
		t.Fatal("still root")
	}
	if err := dropCapabilities(); err != nil {
		t.Skipf("cannot give up capabilities: %v", err)
	}

	// The way of the go command: a file is created without permission to write, and written.
	m.ok(os.MkdirAll(m.path("own.example/m@v1.0.0/sub"), 0o777))
	for i := range 3 {
		name := m.path(fmt.Sprintf("own.example/m@v1.0.0/sub/f%d", i))
		file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
		m.ok(err)
		_, err = file.WriteString("content")
		m.ok(err)
		for j := range maxOverlayFiles { // its descriptor is closed meanwhile
			m.write(fmt.Sprintf("work/%d", j), "")
		}
		_, err = file.WriteString(" and more")
		m.ok(err)
		m.ok(file.Close())
		got, err := os.ReadFile(name)
		if err != nil || string(got) != "content and more" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := os.OpenFile(name, os.O_WRONLY, 0); !errors.Is(err, os.ErrPermission) {
			t.Errorf("opened for writing: %v", err)
		}
		if fi, err := os.Stat(name); err != nil || fi.Mode() != 0o444 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	}
	m.ok(os.Chmod(m.path("own.example/m@v1.0.0/sub"), 0o555))
	m.ok(os.Chmod(m.path("own.example/m@v1.0.0"), 0o555))
	m.fails(os.Remove(m.path("own.example/m@v1.0.0/sub/f0")), os.ErrPermission)
	m.fails(os.Remove(m.path("own.example/m@v1.0.0/sub")), os.ErrPermission)
	m.ok(os.Chmod(m.path("own.example/m@v1.0.0/sub"), 0))
	if _, err := os.ReadDir(m.path("own.example/m@v1.0.0/sub")); !errors.Is(err, os.ErrPermission) {
		t.Errorf("listed: %v", err)
	}

	// A lazy module has the same permissions, which can be given and then count.
	a := module1(t, "example.com/a@v1.0.0")
	m.storeMod(a)
	m.wantTree(a, a.String())
	m.fails(os.Remove(m.path(a.String()+"/a.go")), os.ErrPermission)
	if _, err := os.OpenFile(m.path(a.String()+"/a.go"), os.O_RDWR, 0); !errors.Is(err, os.ErrPermission) {
		t.Errorf("opened for writing: %v", err)
	}
	m.ok(os.Chmod(m.path(a.String()), 0o755))
	m.ok(os.Remove(m.path(a.String() + "/a.go")))
	m.there(false, a.String()+"/a.go")
	m.clean()
	m.names("")
	if left := m.stored(); len(left) > 0 {
		t.Errorf("store has %q", left)
	}
	m.used(0)
}
