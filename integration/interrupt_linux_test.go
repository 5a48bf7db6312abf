package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// soonEnough is for how long a reader may live after it was told to end. The promise is two seconds, of which one is the mount's;
// the rest is for a machine that is busy.
const soonEnough = 15 * time.Second

// client is a program that waits for the mount.
type client struct {
	*exec.Cmd
	out  bytes.Buffer
	done chan error
}

// startClient starts a program, which is gone when the test ends.
func (m *mounted) startClient(args ...string) *client {
	m.t.Helper()
	c := &client{Cmd: exec.Command(args[0], args[1:]...), done: make(chan error, 1)}
	c.Stdout, c.Stderr = &c.out, os.Stderr
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() { c.done <- c.Wait() }()
	m.t.Cleanup(func() { c.Process.Kill() })
	return c
}

// endBy sends a signal and waits for the end, which it must be the cause of.
func (m *mounted) endBy(c *client, sig syscall.Signal) {
	m.t.Helper()
	select {
	case err := <-c.done:
		m.t.Errorf("%v ended by itself: %v\n%s", c.Args, err, &c.out)
		return
	default:
	}
	if err := c.Process.Signal(sig); err != nil {
		m.t.Fatal(err)
	}
	select {
	case <-c.done:
	case <-time.After(soonEnough):
		m.t.Errorf("%v is still there %v after %v", c.Args, soonEnough, sig)
		return
	}
	if ws := c.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != sig {
		m.t.Errorf("%v ended with %v, want it to be by %v", c.Args, c.ProcessState, sig)
	}
}

// waitBlocked waits until a program is in a system call that the mount has to answer: until its state is D or S, and stays so.
func (m *mounted) waitBlocked(c *client) {
	m.t.Helper()
	m.eventually(fmt.Sprint(c.Args, " waits for the mount"), func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", c.Process.Pid))
		return err != nil || strings.Contains(string(data), "fuse") || strings.Contains(string(data), "request_wait") || strings.Contains(string(data), "folio")
	})
}

// Whatever a reader waits for, it ends when it is told to, and what it waited for comes to others, fetched once.
func TestInterruptWaiting(t *testing.T) {
	t.Parallel()
	const a, b = "example.com/a@v1.0.0/", "example.com/many@v1.0.0/"
	for _, tt := range []struct {
		name    string
		stall   string // what of the proxy hangs: a part of the path
		fault   string
		clients [3][]string // two to be interrupted, and one to go on
		before  string      // is read before anything hangs
		stalled int
		once    []string // what is asked for once
	}{
		{"info", ".info", "stall", [3][]string{{"stat", a}, {"ls", b}, {"stat", "example.com/b@v1.0.0"}}, "", 3, []string{"a/@v/v1.0.0.info", "many/@v/v1.0.0.info"}},
		{"mod", ".mod", "stallbody", [3][]string{{"cat", "cache/download/example.com/a/@v/v1.0.0.mod"}, {"stat", "cache/download/example.com/many/@v/v1.0.0.mod"},
			{"cat", "cache/download/example.com/b/@v/v1.0.0.mod"}}, "", 3, []string{"a/@v/v1.0.0.mod", "many/@v/v1.0.0.mod"}},
		{"list", "/list", "stall", [3][]string{{"cat", "cache/download/example.com/a/@v/list"}, {"cat", "cache/download/example.com/many/@v/list"},
			{"cat", "cache/download/example.com/b/@v/list"}}, "", 3, []string{"a/@v/list", "many/@v/list"}},
		{"header", "a/@v/v1.0.0.zip", "stall", [3][]string{{"cat", a + "a.go"}, {"cat", a + "LICENSE"}, {"cat", a + "go.mod"}}, "", 1, []string{".zip"}},
		{"body", "a/@v/v1.0.0.zip", "stallbody", [3][]string{{"cat", a + "a.go"}, {"cat", a + "LICENSE"}, {"cat", a + "go.mod"}}, "", 1, []string{".zip"}},
		{"readdir", "a/@v/v1.0.0.zip", "stallbody", [3][]string{{"ls", a}, {"ls", a}, {"ls", a}}, "", 1, []string{".zip"}},
		{"lookup", "a/@v/v1.0.0.zip", "stallbody", [3][]string{{"stat", a + "nothing"}, {"stat", a + "sub/sub.go"}, {"stat", a + "a.go"}}, "", 1, []string{".zip"}},
		{"archive", "a/@v/v1.0.0.zip", "stallbody", [3][]string{{"cat", "cache/download/example.com/a/@v/v1.0.0.zip"}, {"cat", a + "a.go"},
			{"cat", a + "go.mod"}}, "cache/download/example.com/a/@v/v1.0.0.mod", 1, []string{"GET /example.com/a/@v/v1.0.0.zip"}},
		{"database", "sumdb", "stall", [3][]string{{"cat", a + "a.go"}, {"cat", a + "LICENSE"}, {"cat", a + "go.mod"}}, "", 1, []string{".zip"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			proxy := proxytest.New(t)
			m := mount(t, proxy, "--read-only")
			if tt.before != "" {
				os.Stat(m.path(tt.before))
			}
			proxy.SetFault(func(path string) string {
				if strings.Contains(path, tt.stall) && !(tt.name == "archive" && proxy.Count("GET /example.com/a/@v/v1.0.0.zip") == 0) {
					return tt.fault
				}
				return ""
			})
			defer proxy.Release() // so that the daemon can end
			var clients []*client
			for _, args := range tt.clients {
				clients = append(clients, m.startClient(args[0], m.path(args[1])))
			}
			m.eventually("the proxy hangs", func() bool { return proxy.Stalled() >= tt.stalled })
			for _, c := range clients {
				m.waitBlocked(c)
			}
			m.endBy(clients[0], syscall.SIGINT)
			m.endBy(clients[1], syscall.SIGKILL)
			if n := proxy.Stalled(); n < tt.stalled {
				t.Errorf("%d requests hang, want %d: somebody gave up", n, tt.stalled)
			}
			proxy.SetFault(nil)
			proxy.Release()
			if err := <-clients[2].done; err != nil {
				t.Errorf("%v, which nobody told to end: %v", clients[2].Args, err)
			}
			for _, args := range tt.clients {
				if args[1] == a+"nothing" {
					continue
				}
				if out, err := exec.Command(args[0], m.path(args[1])).Output(); err != nil || len(out) == 0 {
					t.Errorf("%q afterwards: %v", args, err)
				}
			}
			for _, what := range tt.once {
				if n := proxy.Count(what); n != 1 {
					t.Errorf("%s was asked for %d times:\n%s", what, n, strings.Join(proxy.Requests(), "\n"))
				}
			}
			if events := m.errors(); len(events) > 0 {
				t.Errorf("errors: %+v", events)
			}
		})
	}
}

// While the daemon has work of its own, which takes as long as the disk lets it: to write an archive, verify it, keep it, and inflate a
// large file of it into the store.
func TestInterruptWorking(t *testing.T) {
	t.Parallel()
	disk := newFaultFS(t)
	proxy := proxytest.New(t)
	m := mountStore(t, proxy, disk.store(), "--read-only", "--min-free", "0")
	const size = 5 << 20 // too large for the memory
	for _, state := range []struct{ what, op, before string }{
		{"writes", "write", ""}, {"verifies", "read", ""}, {"keeps", "rename", ""}, {"inflates", "write", "small"},
	} {
		t.Run(state.what, func(t *testing.T) {
			m := *m
			m.t = t
			big := proxytest.Module{Path: "example.com/" + state.what, Version: "v1.0.0"}
			big.Zip = proxytest.RawZip{Entries: []proxytest.RawEntry{
				proxytest.RawStored(big.String()+"/small", "x"), proxytest.RawZeros(big.String()+"/big0", size),
				proxytest.RawZeros(big.String()+"/big1", size), proxytest.RawZeros(big.String()+"/big2", size),
			}}.Bytes()
			if err := proxy.Add(big); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"cache/download/" + big.Path + "/@v/v1.0.0.mod", big.String(), big.String() + "/" + state.before} {
				if _, err := os.Stat(m.path(name)); err != nil {
					t.Fatal(err)
				}
			}
			if state.before != "" {
				if _, err := m.read(big.String() + "/" + state.before); err != nil {
					t.Fatal(err)
				}
			}
			hold := make(chan struct{})
			release := sync.OnceFunc(func() { close(hold) })
			defer release()
			disk.set(fault{op: state.op, nth: 1, every: true, hold: hold})
			defer disk.set(fault{})
			var clients []*client
			for i := range 3 { // each with a file of its own: the kernel looks up a name for one process at a time
				c := m.startClient("cat", m.path(fmt.Sprint(big, "/big", i)))
				c.Stdout = nil
				clients = append(clients, c)
			}
			m.eventually("the disk is waited for", func() bool { return disk.hit() > 0 })
			for _, c := range clients {
				m.waitBlocked(c)
			}
			m.endBy(clients[0], syscall.SIGINT)
			m.endBy(clients[1], syscall.SIGKILL)
			disk.set(fault{})
			release()
			if err := <-clients[2].done; err != nil {
				t.Errorf("who was not told to end: %v", err)
			}
			for i := range 3 {
				m.wantZeros(fmt.Sprint(big, "/big", i), size)
			}
			if n := proxy.Count("GET /" + big.Path + "/@v/v1.0.0.zip"); n != 1 {
				t.Errorf("the zip was fetched %d times", n)
			}
		})
	}
	if events := m.errors(); len(events) > 0 {
		t.Errorf("errors: %+v", events)
	}
}

// A full store: a zip waits for another one that takes all the room, and cannot be evicted as it is still on its way.
func TestInterruptFullStore(t *testing.T) {
	t.Parallel()
	module := func(path string) proxytest.Module {
		data := make([]byte, 20<<20)
		rand.NewChaCha8([32]byte{}).Read(data)
		m := proxytest.Module{Path: path, Version: "v1.0.0"}
		m.Zip = proxytest.RawZip{Entries: []proxytest.RawEntry{
			proxytest.RawStored(m.String()+"/a.go", "package a\n"), proxytest.RawStored(m.String()+"/b.go", "package a\n"),
			proxytest.RawStored(m.String()+"/c.go", "package a\n"), proxytest.RawStored(m.String()+"/data", string(data))}}.Bytes()
		return m
	}
	x, y := module("example.com/x"), module("example.com/y")
	proxy := proxytest.New(t, x, y)
	m := mount(t, proxy, "--read-only", "--max-size", "32MiB")
	proxy.SetFault(func(path string) string {
		if strings.HasSuffix(path, "x/@v/v1.0.0.zip") {
			return "stallbody"
		}
		return ""
	})
	defer proxy.Release()
	first := m.startClient("cat", m.path(x.String()+"/a.go"))
	m.eventually("the proxy hangs", func() bool { return proxy.Stalled() == 1 })
	waiting := []*client{m.startClient("cat", m.path(y.String()+"/a.go")), m.startClient("cat", m.path(y.String()+"/b.go"))}
	last := m.startClient("cat", m.path(y.String()+"/c.go"))
	m.eventually("the second zip is asked for", func() bool { return proxy.Count("y/@v/v1.0.0.zip") == 1 })
	for _, c := range append(waiting, last) {
		m.waitBlocked(c)
	}
	m.endBy(waiting[0], syscall.SIGINT)
	m.endBy(waiting[1], syscall.SIGKILL)
	proxy.SetFault(nil)
	proxy.Release()
	for _, c := range []*client{first, last} {
		if err := <-c.done; err != nil || c.out.String() != "package a\n" {
			t.Errorf("%v: %v, %q", c.Args, err, &c.out)
		}
	}
	for _, zip := range []string{"x/@v/v1.0.0.zip", "y/@v/v1.0.0.zip"} {
		if n := proxy.Count(zip); n != 1 {
			t.Errorf("%s was asked for %d times", zip, n)
		}
	}
}

const (
	stormEnv   = "MODFS_TEST_STORM" // of a child: the directory with the modules that it reads
	stormMods  = 4
	stormFiles = 400
)

func stormModule(i int) proxytest.Module {
	m := proxytest.Module{Path: fmt.Sprintf("example.com/storm%d", i), Version: "v1.0.0", Files: make(map[string]string)}
	for n := range stormFiles {
		m.Files[stormFile(n)] = stormContent(i, n)
	}
	return m
}

func stormFile(n int) string { return fmt.Sprintf("d%d/f%d.txt", n%7, n) }

// stormContent is of all sizes; some are larger than what the kernel reads at a time.
func stormContent(i, n int) string {
	size := n * n % 9000
	if n%50 == 0 {
		size += 300_000
	}
	return strings.Repeat(fmt.Sprintf("module %d file %d\n", i, n), size/16+1)
}

// The child of TestInterruptStorm: it reads all files with bare system calls, none of which may fail, while its own runtime
// interrupts its threads, and its parent all of it.
func init() {
	dir := os.Getenv(stormEnv)
	if dir == "" {
		return
	}
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	var group sync.WaitGroup
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		os.Exit(1)
	}
	for g := range 8 {
		group.Go(func() {
			buf := make([]byte, 1<<20)
			for _, k := range rand.New(rand.NewPCG(uint64(g), 0)).Perm(stormMods * stormFiles) {
				i, n := k/stormFiles, k%stormFiles
				name := filepath.Join(dir, stormDir(i), stormFile(n))
				fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					fail("open %s: %v", name, err)
				}
				want := stormContent(i, n)
				if k, err := unix.Read(fd, buf); err != nil || string(buf[:k]) != want {
					fail("read %s: %d bytes of %d, %v", name, k, len(want), err)
				}
				unix.Close(fd)
				var st unix.Stat_t
				if err := unix.Stat(name, &st); err != nil || st.Size != int64(len(want)) {
					fail("stat %s: %d, %v", name, st.Size, err)
				}
			}
		})
	}
	group.Wait()
	close(stop)
	fmt.Print("ok")
	os.Exit(0)
}

func stormDir(i int) string { return fmt.Sprintf("example.com/storm%d@v1.0.0", i) }

// urge sends SIGURG to each thread of a process, wherever that is.
func urge(pid int) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // best effort: it may be through
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			unix.Tgkill(pid, tid, unix.SIGURG)
		}
	}
}

// Signals that tell nobody to end cost nothing, for however long a request is pending: no EINTR, no other byte, nothing fetched twice.
func TestInterruptStorm(t *testing.T) {
	t.Parallel()
	var mods []proxytest.Module
	for i := range stormMods {
		mods = append(mods, stormModule(i))
	}
	proxy := proxytest.New(t, mods...)
	m := mount(t, proxy, "--read-only")
	proxy.SetFault(func(path string) string {
		if strings.Contains(path, "storm0") && strings.HasSuffix(path, ".zip") {
			return "stallbody"
		}
		return ""
	})
	defer proxy.Release()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), stormEnv+"="+m.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	defer cmd.Process.Kill()
	// Longer than what an interrupt has to be pending for a request to be given up.
	hang := time.AfterFunc(time.Hour, proxy.Release)
	defer hang.Stop()
	hanging := false
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		urge(cmd.Process.Pid)
		if !hanging && proxy.Stalled() > 0 {
			hanging = true
			proxy.SetFault(nil)
			hang.Reset(2500 * time.Millisecond)
		}
		select {
		case err := <-done:
			if err != nil || out.String() != "ok" {
				t.Errorf("%v: %s", err, &out)
			}
			if !hanging {
				t.Error("no request was pending for long")
			}
			for i := range stormMods {
				if n := proxy.Count(fmt.Sprintf("GET /example.com/storm%d/@v/v1.0.0.zip", i)); n != 1 {
					t.Errorf("the zip of storm%d was fetched %d times", i, n)
				}
			}
			if events := m.errors(); len(events) > 0 {
				t.Errorf("errors: %+v", events)
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the child does not end")
		}
	}
}
