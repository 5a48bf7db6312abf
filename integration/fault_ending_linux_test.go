package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// stallZips has the zips whose names contain s stall in the middle, until Release.
func stallZips(proxy *proxytest.Server, s string) {
	proxy.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") && strings.Contains(path, s) {
			return "stallbody"
		}
		return ""
	})
}

// aFile is a file of a module that proxytest has.
const aFile = "example.com/a@v1.0.0/a.go"

// readResult is what reading a file came to.
type readResult struct {
	data []byte
	err  error
}

// reading reads a file of the mount in the background.
func (m *mounted) reading(name string) <-chan readResult {
	c := make(chan readResult, 1)
	go func() {
		data, err := m.read(name)
		c <- readResult{data, err}
	}()
	return c
}

// soon returns what comes, and fails the test if nothing does.
func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v in vain for %s", patience, what)
		panic("unreachable")
	}
}

// gone waits until a daemon, by its number, has ended.
func (m *mounted) gone(pid int) {
	m.t.Helper()
	m.eventually("the daemon ends", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

// unmounted waits until the mount is not there any more.
func (m *mounted) unmounted() {
	m.t.Helper()
	m.eventually("it is unmounted", func() bool { f, err := modfs.Find(m.dir); return err == nil && f == nil })
}

func isGone(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ESHUTDOWN)
}

// TestTermReader ends the daemon while somebody waits for a download: who does gets what he waits for.
func TestTermReader(t *testing.T) {
	t.Parallel()
	proxy := proxytest.New(t)
	m := mount(t, proxy, "--read-only")
	stallZips(proxy, "")
	pid := m.status().PID
	got := m.reading(aFile)
	m.eventually("the proxy is asked", func() bool { return proxy.Stalled() > 0 })
	syscall.Kill(pid, syscall.SIGTERM)
	m.unmounted()
	proxy.SetFault(nil)
	proxy.Release()
	if r := soon(t, "the file", got); r.err != nil || !bytes.Contains(r.data, []byte("hello from a")) {
		t.Errorf("%q, %v", r.data, r.err)
	}
	m.gone(pid)
}

// TestTermStuck ends the daemon while somebody waits for a proxy that never answers, and others have a file open and do nothing:
// it ends all the same, in its grace and not in the client's time.
func TestTermStuck(t *testing.T) {
	t.Parallel()
	proxy := proxytest.New(t)
	m := mount(t, proxy, "--read-only", "--grace", "1s")
	if _, err := m.read(aFile); err != nil {
		t.Fatal(err)
	}
	idle, err := os.Open(m.path("example.com/a@v1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	stallZips(proxy, "")
	pid := m.status().PID
	got := m.reading("example.com/b@v1.0.0/b.go")
	m.eventually("the proxy is asked", func() bool { return proxy.Stalled() > 0 })
	syscall.Kill(pid, syscall.SIGTERM)
	// Not ETIMEDOUT: that would be the time limit of the download.
	if r := soon(t, "an error", got); !isGone(r.err) {
		t.Errorf("%q, %v", r.data, r.err)
	}
	m.gone(pid)
	if !strings.Contains(m.log(), "ended while in use: 1s have passed") {
		t.Errorf("log:\n%s", m.log())
	}
	if _, err := os.Stat(filepath.Join("/proc/self/fd", strconv.Itoa(int(idle.Fd())), "sub", "sub.go")); err == nil {
		t.Error("the mount is still served")
	}
	m.start()
	if _, err := m.read(aFile); err != nil {
		t.Error(err)
	}
}

// TestTermBuild ends the daemon while go commands work, and others read: the mount stays until the go commands are through, and
// nobody sees an error.
func TestTermBuild(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: go commands build for some seconds")
	}
	mods := busyModules()
	proxy := proxytest.New(t, mods...)
	m := mount(t, proxy, "--read-only", "--grace", "2m")
	prog := busyProgram(t, proxy, mods)
	stallZips(proxy, "busy07")
	pid := m.status().PID
	var failed []chan error
	for i, args := range [][]string{{"build", "-trimpath", "-o", os.DevNull, "."}, {"list", "-deps", "./..."}} {
		cmd := m.goCommand(prog, args...)
		cmd.Env = append(cmd.Env, "GOPROXY=off") // it must not get by itself what the mount fails to give
		if i == 1 {
			cmd.Env = append(cmd.Env, "GOFLAGS=-mod=mod")
		}
		c := make(chan error, 1)
		failed = append(failed, c)
		go func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("go %v: %w\n%s", args, err, out)
			}
			c <- err
		}()
	}
	got := m.reading(mods[7].String() + "/p3/f03.go")
	m.eventually("the proxy is asked", func() bool { return proxy.Stalled() > 0 })
	syscall.Kill(pid, syscall.SIGTERM)
	m.eventually("it waits for the go commands", func() bool { return strings.Contains(m.log(), "waiting for go commands") })
	if f, err := modfs.Find(m.dir); f == nil || err != nil {
		t.Errorf("it is unmounted while go commands use it: %v", err)
	}
	proxy.SetFault(nil)
	proxy.Release()
	if r := soon(t, "a file", got); r.err != nil || string(r.data) != mods[7].Files["p3/f03.go"] {
		t.Errorf("read: %q, %v", r.data, r.err)
	}
	for _, c := range failed {
		if err := soon(t, "a go command", c); err != nil {
			t.Error(err)
		}
	}
	m.unmounted()
	m.gone(pid)
}

// notified is what listens where a daemon under test tells how it is doing.
type notified struct {
	conn *net.UnixConn
	dir  string
}

func listenNotify(t *testing.T) *notified {
	t.Helper()
	dir := t.TempDir()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notified{conn, dir}
}

func (n *notified) socket() string { return filepath.Join(n.dir, "notify") }

// until returns the next message that contains text, and how many came before it.
func (n *notified) until(t *testing.T, text string) (message string, before int) {
	t.Helper()
	n.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 64<<10)
	for ; ; before++ {
		l, err := n.conn.Read(buf)
		if err != nil {
			t.Fatalf("no message with %s: %v", text, err)
		}
		if message = string(buf[:l]); strings.Contains(message, text) {
			return message, before
		}
	}
}

// foreground starts `modfs mount` as a supervisor does, on the mountpoint and store of m, whose own daemon has ended.
func (m *mounted) foreground(stderr *bytes.Buffer, env []string, args ...string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "modfs"), slices.Concat([]string{"mount", "--store", m.store}, args, []string{m.dir})...)
	cmd.Env = append(slices.Clone(m.env), env...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd
}

// TestNotify is systemd: it is told when the mount can be used, that the daemon works, and when it ends.
func TestNotify(t *testing.T) {
	t.Parallel()
	proxy := proxytest.New(t)
	m := mount(t, proxy, "--read-only")
	if out, err := m.modfs("unmount", m.dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := listenNotify(t)
	var stderr bytes.Buffer
	cmd := m.foreground(&stderr, []string{"NOTIFY_SOCKET=" + n.socket(), "WATCHDOG_USEC=300000"}, "--read-only")
	ready, before := n.until(t, "READY=1")
	if before != 0 || !strings.Contains(ready, "\nMAINPID="+strconv.Itoa(cmd.Process.Pid)+"\n") || !strings.Contains(ready, "STATUS=serving "+m.dir) {
		t.Errorf("after %d other messages: %q", before, ready)
	}
	if pid := m.status().PID; pid != cmd.Process.Pid {
		t.Errorf("ready, and served by %d, not %d", pid, cmd.Process.Pid)
	}
	for range 3 {
		n.until(t, "WATCHDOG=1")
	}
	noDescriptors(t, cmd.Process.Pid, m.store)
	cmd.Process.Signal(syscall.SIGTERM)
	n.until(t, "STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
}

// noDescriptors looks at children of a daemon with a watchdog, which keeps starting them: they have neither its device, nor its
// store's lock, nor are told where its supervisor listens.
func noDescriptors(t *testing.T, pid int, store string) {
	t.Helper()
	seen := 0
	for deadline := time.Now().Add(patience); seen < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("only %d children were seen", seen)
		}
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, list := range lists {
			children, _ := os.ReadFile(list)
			for _, child := range strings.Fields(string(children)) {
				dir := "/proc/" + child
				var links []string
				fds, _ := os.ReadDir(dir + "/fd")
				for _, fd := range fds {
					if link, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil {
						links = append(links, link)
					}
				}
				// Looked at last: before exec, it is a copy of the daemon.
				environ, _ := os.ReadFile(dir + "/environ")
				cmdline, err := os.ReadFile(dir + "/cmdline")
				if err != nil || !strings.HasPrefix(string(cmdline), "modfs-probe") || len(links) == 0 || !bytes.Contains(environ, []byte("MODFS_PROBE=")) {
					continue
				}
				// The first look may have been at the copy.
				again, err := os.ReadDir(dir + "/fd")
				if err != nil || len(again) == 0 {
					continue
				}
				links = links[:0]
				for _, fd := range again {
					if link, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil {
						links = append(links, link)
					}
				}
				seen++
				for _, link := range links {
					if link == "/dev/fuse" || strings.HasPrefix(link, store) || strings.HasPrefix(link, "socket:") {
						t.Errorf("a child has %s: %q", link, links)
					}
				}
				if bytes.Contains(environ, []byte("NOTIFY_SOCKET")) || bytes.Contains(environ, []byte("WATCHDOG_")) {
					t.Errorf("a child has the environment %q", environ)
				}
			}
		}
	}
}

// TestWedged has a daemon hang that has not died: it finds that out, says where it hangs, and ends, so that those who wait for
// it get an error and its supervisor can start another.
func TestWedged(t *testing.T) {
	t.Parallel()
	proxy := proxytest.New(t)
	m := mount(t, proxy, "--resolve", "daemon")
	if _, err := m.read(aFile); err != nil { // from now on it is listed
		t.Fatal(err)
	}
	if out, err := m.modfs("unmount", m.dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := listenNotify(t)
	var stderr bytes.Buffer
	cmd := m.foreground(&stderr, []string{"NOTIFY_SOCKET=" + n.socket(), "WATCHDOG_USEC=300000"}, "--watchdog", "2s")
	t.Cleanup(func() { cmd.Process.Kill() }) // if the test fails
	n.until(t, "WATCHDOG=1")
	// To open a pipe waits for somebody to write to it. Nobody but the daemon's user could make this one: its place is in the
	// store.
	dir := filepath.Join(m.store, "overlay/mod/cache/download/example.com/a/@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "v1.0.0.mod"), 0o644); err != nil {
		t.Fatal(err)
	}
	hung := make(chan error, 2)
	go func() {
		_, err := os.ReadDir(m.path("example.com"))
		hung <- err
	}()
	go func() { // sooner or later one waits for the listing to end, and all others for that
		for i := 0; ; i++ {
			if err := os.Mkdir(m.path(strconv.Itoa(i)), 0o755); err != nil {
				hung <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	for range 2 {
		if err := soon(t, "who waits for a daemon that hangs", hung); !isGone(err) {
			t.Errorf("who waits for a daemon that hangs gets %v", err)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the daemon ends with %v", err)
	}
	if text := stderr.String(); !strings.Contains(text, "hangs: ending its daemon") || !strings.Contains(text, "clientMod") {
		t.Errorf("it does not say where it hangs:\n%s", text)
	}
	if _, err := os.Stat(m.path("x")); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("stat: %v", err)
	}
	os.Remove(filepath.Join(dir, "v1.0.0.mod"))
	m.start()
}

// TestUnmountForce stops a daemon, so that what asks its mount for something waits for ever: modfs unmount --force ends that.
func TestUnmountForce(t *testing.T) {
	t.Parallel() // a part of it is waiting
	proxy := proxytest.New(t)
	m := mount(t, proxy, "--read-only")
	pid := m.status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) }) // if the test fails
	got := m.reading(aFile)
	out, err := m.modfs(slices.Concat([]string{"mount", "--store", m.store}, m.args, []string{m.dir})...)
	if err == nil || !strings.Contains(out, "its daemon does not answer") || !strings.Contains(out, "modfs unmount --force "+m.dir) {
		t.Errorf("mount: %v\n%s", err, out)
	}
	select {
	case r := <-got:
		t.Errorf("read: %q, %v", r.data, r.err)
	default:
	}
	if out, err := m.modfs("unmount", "--force", m.dir); err != nil {
		t.Errorf("unmount --force: %v\n%s", err, out)
	}
	if r := soon(t, "who waits", got); !isGone(r.err) {
		t.Errorf("who waits gets %q, %v", r.data, r.err)
	}
	m.unmounted()
	m.gone(pid)
	m.start()
	if _, err := m.read(aFile); err != nil {
		t.Error(err)
	}
}
