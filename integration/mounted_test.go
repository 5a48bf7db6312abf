package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
	"modfs/fs/fusetest"
)

// nightly says that the tests which have one are wanted in their long form: all that can be tried in turn, hours of load.
var nightly = os.Getenv("MODFS_NIGHTLY") == "1"

// mounted is a mount of the command under test, for tests that break something around it: the proxy, the disk, the daemon.
// Its daemon is a process of its own, as users have it.
type mounted struct {
	t     *testing.T
	dir   string // the mountpoint
	store string
	env   []string // of modfs, and of go commands that use the mount
	args  []string // of modfs mount, without --background, --store and the mountpoint

	panics bool // the daemon may log panics: they are what the test is about
}

// mount mounts with args, as `modfs mount` takes them, a module cache that is served by proxy. When t ends it is unmounted,
// and its daemon, which must not have panicked or raced, is gone.
func mount(t *testing.T, proxy *proxytest.Server, args ...string) *mounted {
	t.Helper()
	return mountWith(t, proxy, filepath.Join(t.TempDir(), "store"), nil, args)
}

// mountEnv is mount with variables for the environment of modfs, and of go commands, besides those that make them use proxy.
func mountEnv(t *testing.T, proxy *proxytest.Server, env []string, args ...string) *mounted {
	t.Helper()
	return mountWith(t, proxy, filepath.Join(t.TempDir(), "store"), env, args)
}

// mountStore is mount with a store of the test's.
func mountStore(t *testing.T, proxy *proxytest.Server, store string, args ...string) *mounted {
	t.Helper()
	return mountWith(t, proxy, store, nil, args)
}

func mountWith(t *testing.T, proxy *proxytest.Server, store string, env, args []string) *mounted {
	t.Helper()
	fusetest.Require(t)
	dir := t.TempDir()
	m := &mounted{t: t, dir: filepath.Join(dir, "mnt"), store: store, args: args}
	m.env = append(os.Environ(), "HOME="+dir, "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+m.dir, "GOTELEMETRY=off", "GOWORK=off",
		"GORACE=atexit_sleep_ms=0") // with -race each modfs would wait a second before it exits
	m.env = slices.Clip(slices.Concat(m.env, proxy.Env(), env)) // several at once may append to it
	m.start()
	if os.Geteuid() != 0 {
		t.Cleanup(func() { makeWritable(store) }) // what clients wrote may be closed to their user
	}
	t.Cleanup(m.end)
	return m
}

// start starts the daemon, again if it was killed or unmounted.
func (m *mounted) start() {
	m.t.Helper()
	// A busy machine keeps this process from answering for long: that is no fault of the proxy.
	args := []string{"mount", "--background", "--store", m.store, "--idle-timeout", "5m"}
	if out, err := m.modfs(slices.Concat(args, m.args, []string{m.dir})...); err != nil {
		m.t.Fatalf("mount: %v\n%s", err, out)
	}
}

// modfs runs the command under test and returns what it printed.
func (m *mounted) modfs(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "modfs"), args...)
	cmd.Env = m.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// status is the state of the daemon.
func (m *mounted) status() *modfs.Status {
	m.t.Helper()
	s, err := modfs.ReadStatus(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// kill kills the daemon, and returns when the kernel knows.
func (m *mounted) kill() {
	m.t.Helper()
	if err := syscall.Kill(m.status().PID, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the mount is stale", func() bool {
		f, err := modfs.Find(m.dir)
		return err == nil && (f == nil || f.Stale)
	})
}

// end unmounts, if the test has not, and looks at what the daemon left.
func (m *mounted) end() {
	if s, err := modfs.ReadStatus(m.dir); err == nil {
		defer func() {
			m.eventually("the daemon ends", func() bool { return ended(s.PID) })
		}()
	}
	if out, err := m.modfs("unmount", "--lazy", m.dir); err != nil && !strings.Contains(out, "is not a modfs mount") {
		m.t.Errorf("unmount: %v\n%s", err, out)
	}
	log := m.log()
	if strings.Contains(log, "DATA RACE") || !m.panics && strings.Contains(log, "panic") {
		m.t.Errorf("the daemon's log:\n%s", log)
	}
}

// ended reports whether a process has ended, even if whoever should take notice of that has not.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte(") Z ")) || syscall.Kill(pid, 0) == syscall.ESRCH
}

// log is what the daemon has logged.
func (m *mounted) log() string {
	data, err := os.ReadFile(filepath.Join(m.store, "modfs.log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Error(err)
	}
	return string(data)
}

// path returns the path of a file in the mount.
func (m *mounted) path(name string) string { return filepath.Join(m.dir, name) }

// read reads a file of the mount.
func (m *mounted) read(name string) ([]byte, error) { return os.ReadFile(m.path(name)) }

// errors is what .modfs/errors holds, oldest first.
func (m *mounted) errors() []modfs.Event {
	m.t.Helper()
	data, err := m.read(".modfs/errors")
	if err != nil {
		m.t.Fatal(err)
	}
	var events []modfs.Event
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var e modfs.Event
		if err := dec.Decode(&e); err == io.EOF {
			return events
		} else if err != nil {
			m.t.Fatalf(".modfs/errors: %v\n%s", err, data)
		}
		events = append(events, e)
	}
}

// wantErrno fails the test unless err is that error number, whose reason, which .modfs/errors gives as the last one, contains
// each of texts.
func (m *mounted) wantErrno(err error, want syscall.Errno, texts ...string) {
	m.t.Helper()
	var got syscall.Errno
	errors.As(err, &got)
	if got != want {
		m.t.Errorf("error %v (%s), want %s", err, unix.ErrnoName(got), unix.ErrnoName(want))
	}
	events := m.errors()
	if len(events) == 0 {
		m.t.Errorf(".modfs/errors is empty, want the reason of %s", unix.ErrnoName(want))
		return
	}
	last := events[len(events)-1]
	for _, text := range append(texts, unix.ErrnoName(want)) {
		if !strings.Contains(last.Cause+" "+last.Errno, text) {
			m.t.Errorf("last line of .modfs/errors is %+v, want %q in it", last, text)
		}
	}
}

// kept returns the files of the store, by their keys, whose names end in one of suffixes.
func (m *mounted) kept(suffixes ...string) []string {
	m.t.Helper()
	var names []string
	err := filepath.WalkDir(m.store, func(p string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // it went meanwhile
		}
		rel, _ := filepath.Rel(m.store, p)
		if err == nil && !d.IsDir() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(rel, s) }) {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return names
}

// goCommand returns a go command in dir that uses the mount as its module cache.
func (m *mounted) goCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = m.env
	return cmd
}

// eventually waits until ok returns true.
func (m *mounted) eventually(what string, ok func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("waited %v in vain until %s", patience, what)
		}
	}
}
