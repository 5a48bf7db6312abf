package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
	"modfs/lru"
)

// numbered is a task that is told from others by its version.
func numbered(i int) task { return task{m: module.Version{Path: "m", Version: fmt.Sprint(i)}} }

// queueTest is a queue whose tasks take a second, some of which fail and some of which panic.
type queueTest struct {
	queue
	mu      sync.Mutex
	ran     []string
	running int
	most    int
	bad     map[string]bool
	crash   map[string]bool
}

func newQueueTest(max int) *queueTest {
	q := &queueTest{bad: make(map[string]bool), crash: make(map[string]bool)}
	q.queue = queue{max: max, run: q.runTask, start: func(work func()) { go work() }, log: slog.New(slog.DiscardHandler)}
	q.recovered = (&FS{log: q.log}).recovered
	return q
}

func (q *queueTest) runTask(t task) error {
	q.mu.Lock()
	q.ran = append(q.ran, t.m.Version)
	q.running++
	q.most = max(q.most, q.running)
	q.mu.Unlock()
	time.Sleep(time.Second)
	q.mu.Lock()
	q.running--
	q.mu.Unlock()
	if q.crash[t.m.Version] {
		panic("crash")
	}
	if q.bad[t.m.Version] {
		return errors.New("bad")
	}
	return nil
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueTest(3)
		for range 2 {
			for i := range 10 {
				q.add(numbered(i))
				q.add(numbered(i)) // known
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			slices.Sort(q.ran)
			if want := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}; !slices.Equal(q.ran, want) || q.most != 3 {
				t.Fatalf("ran %q, %d at a time", q.ran, q.most)
			}
			q.ran = nil
		}
		if q.queue.running != 0 || len(q.known) != 0 || q.tasks != nil {
			t.Errorf("%+v", &q.queue)
		}
	})
}

func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueTest(1)
		for i := range 5 {
			q.add(numbered(i))
		}
		time.Sleep(2500 * time.Millisecond)
		q.add(numbered(5))
		q.add(numbered(0)) // has run
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []string{"0", "1", "2", "3", "4", "5", "0"}; !slices.Equal(q.ran, want) {
			t.Errorf("%q, want %q", q.ran, want)
		}
	})
}

// What failed, or panicked, is left alone for a while, and costs no other task.
func TestQueueFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueTest(1)
		q.bad["1"], q.crash["2"] = true, true
		add := func() {
			for i := range 3 {
				q.add(numbered(i))
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		add()
		add()
		time.Sleep(retryAfter)
		add()
		if want := []string{"0", "1", "2", "0", "0", "1", "2"}; !slices.Equal(q.ran, want) {
			t.Errorf("%q, want %q", q.ran, want)
		}
		if q.queue.running != 0 || len(q.known) != 0 {
			t.Errorf("%+v", &q.queue)
		}
		for i := range 2 * maxTasks {
			q.fail(numbered(i))
		}
		if len(q.failed) > maxTasks {
			t.Errorf("%d failures are remembered", len(q.failed))
		}
	})
}

func TestQueueBound(t *testing.T) {
	q := queue{max: 1, start: func(func()) {}} // nothing runs
	for i := range maxTasks + 100 {
		q.add(numbered(i))
	}
	if len(q.tasks) != maxTasks || len(q.known) != maxTasks {
		t.Errorf("%d tasks, %d known", len(q.tasks), len(q.known))
	}
}

// summed writes a program of two packages, of which the main one needs fewer modules than go.sum lists.
func (g *goCmd) summed() {
	g.tb.Helper()
	g.file("go.mod", "module example.com/main\n\ngo 1.21\n\nrequire (\n\texample.com/b v1.0.0\n\texample.com/large v1.0.0\n)\n")
	g.file("main.go", "package main\n\nimport (\n\t\"io\"\n\t\"os\"\n\n\t\"example.com/b\"\n)\n\n"+
		"func main() {\n\tprintln(b.Hello())\n\tio.Copy(io.Discard, os.Stdin)\n}\n")
	g.ok(os.Mkdir(filepath.Join(g.work, "other"), 0o777))
	g.file("other/other.go", "package other\n\nimport _ \"example.com/large\"\n")
	g.run("mod", "tidy")
}

// runUntil runs the go command, whose program ends with its input, until done: what is fetched ahead for a go command is fetched
// only as long as that runs.
func (g *goCmd) runUntil(done func() bool, args ...string) {
	g.tb.Helper()
	var out bytes.Buffer
	cmd := exec.Command(g.tool, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = g.work, g.env, &out, &out
	in, err := cmd.StdinPipe()
	g.ok(err)
	g.ok(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(g.tb, "what is listed comes, or the command ends", func() bool { return done() || len(ended) > 0 })
	in.Close() // best effort: it may have ended
	if err := <-ended; err != nil || !done() {
		g.tb.Fatalf("go %q: %v, before what is listed has come\n%s", args, err, out.String())
	}
}

// onto has the go command use another mount.
func (g *goCmd) onto(m *rwMount) {
	g.rwMount = m
	g.env = append(g.env, "GOMODCACHE="+m.dir)
}

// TestPrefetchSums checks that a go command that builds something makes what its go.sum lists come, but only if it would get
// the same from where the daemon gets it, and if that is wanted.
func TestPrefetchSums(t *testing.T) {
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		t.Skip("processes cannot be looked at on this system")
	}
	server := proxytest.New(t)
	g := newGoCmd(t, mountRW(t, server, nil))
	g.summed()
	largeZip := zipKey(module.Version{Path: "example.com/large", Version: "v1.0.0"})
	ahead := func(o *Options) { o.NoPrefetch = false }
	for _, c := range []struct {
		name string
		set  func(*Options)
		env  string
		args []string
		want bool
	}{
		{"daemon", ahead, "", []string{"run", "."}, true},
		{"client", func(o *Options) { ahead(o); clientResolves(o) }, "", []string{"run", "."}, true},
		{"read-only", func(o *Options) { ahead(o); o.ReadOnly = true }, "", []string{"run", "."}, true},
		{"another proxy", func(o *Options) { ahead(o); clientResolves(o) }, "GOPROXY=" + server.URL() + ",direct", []string{"build", "-o", os.DevNull, "."}, false},
		{"only modules are listed", func(o *Options) { ahead(o); clientResolves(o) }, "", []string{"list", "-m", "all"}, false},
		{"not wanted", clientResolves, "", []string{"list", "-deps", "."}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server.ResetRequests()
			g := *g
			g.env = slices.Clip(g.env)
			if c.env != "" {
				g.env = append(g.env, c.env)
			}
			m := mountRW(t, server, c.set)
			g.onto(m)
			has := func() bool {
				_, err := m.store.Stat(largeZip)
				return err == nil
			}
			if c.want {
				g.runUntil(has, c.args...)
			} else {
				g.run(c.args...)
				if m.ok(m.Close()); has() || m.stats.prefetched.Load() > 0 {
					t.Error("it was fetched ahead")
				}
			}
			for _, name := range []string{"a", "b", "large"} {
				if n := server.Count("GET /example.com/" + name + "/@v/v1.0.0.zip"); n > 1 {
					t.Errorf("the zip of %s was fetched %d times", name, n)
				}
			}
		})
	}
}

// TestSummedMod checks that the go command gets from the mount the go.mod files that its go.sum lists, and does not download
// them.
func TestSummedMod(t *testing.T) {
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		t.Skip("processes cannot be looked at on this system")
	}
	server := proxytest.New(t)
	g := newGoCmd(t, mountRW(t, server, nil))
	g.summed()
	m := mountRW(t, server, clientResolves)
	g.onto(m)
	g.run("list", "-deps", "./...")
	g.run("list", "-m", "-json", "all")
	own, err := filepath.Glob(filepath.Join(m.store.Dir(), overlayDir, modRoot, "cache/download/example.com/*/@v/*.[mi]*"))
	if err != nil || len(own) > 0 {
		t.Errorf("it downloaded %q, %v", own, err)
	}
	// What a client removes is not there until a client puts it there again.
	g.ok(os.Remove(m.path(modKey(moduleA))))
	m.there(false, modKey(moduleA))
	g.run("list", "-deps", "./...")
	m.there(true, modKey(moduleA))
	if own := m.overlay.has(inMod(modKey(moduleA))); !own {
		t.Error("it was not put there by the go command")
	}
}

// TestPrefetchSpares checks that what is fetched ahead takes no room from what was used, and that who opens it gets it
// nevertheless.
func TestPrefetchSpares(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, func(o *Options) {
		o.NoPrefetch = false
		o.Store.MaxSize = 3 << 20
		o.Fetch.Backoff = time.Second
	})
	large := f.modules.intern(module.Version{Path: "example.com/large", Version: "v1.0.0"})
	many := f.modules.intern(module.Version{Path: "example.com/many", Version: "v1.0.0"})
	z, err := f.openZip(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	f.zips.put(z)
	room := f.store.Usage()
	if _, err := f.store.Fill(t.Context(), "spool/rest", func(_ context.Context, tmp *lru.Temp) error {
		_, err := tmp.Write(make([]byte, room.Limit-room.Bytes-100<<10))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := f.prefetchZip(task{m: many.Version}); !errors.Is(err, errSpared) || !errors.Is(err, lru.ErrNoSpace) {
		t.Errorf("fetched ahead: %v, want no space", err)
	}
	for _, key := range []string{large.zipKey, "spool/rest"} {
		if _, err := f.store.Stat(key); err != nil {
			t.Error(err)
		}
	}
	// One that is being fetched ahead, and will find no room, when somebody opens it.
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "503once"
		}
		return ""
	})
	s.ResetRequests()
	ahead := make(chan error)
	go func() { ahead <- f.prefetchZip(task{m: many.Version}) }()
	eventually(t, "it is being fetched", func() bool { return s.Count("many/@v/v1.0.0.zip") > 0 })
	if z, err = f.openZip(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	f.zips.put(z)
	if err := <-ahead; !errors.Is(err, errSpared) {
		t.Errorf("fetched ahead: %v, want no space", err)
	}
	if f.store.Usage().Evictions == 0 {
		t.Error("nothing was evicted")
	}
}

// TestPointless checks what is not fetched ahead after all.
func TestPointless(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	a := task{m: moduleA}
	if m.pointless(a) {
		t.Error("what nobody has is pointless")
	}
	m.ok(os.MkdirAll(m.path(moduleDir(moduleA)), 0o777))
	if !m.pointless(a) {
		t.Error("what a client has is not")
	}
	m.ok(os.Remove(m.path(moduleDir(moduleA))))
	m.storeFile(storeKey(partialPath(moduleA)), "")
	if !m.pointless(a) {
		t.Error("what a client is making is not")
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return // processes cannot be looked at on this system
	}
	gone := exec.Command("go", "version")
	m.ok(gone.Run())
	b := module.Version{Path: "example.com/b", Version: "v1.0.0"}
	if m.pointless(task{b, uint32(os.Getpid())}) || !m.pointless(task{b, uint32(gone.Process.Pid)}) {
		t.Error("it is not the process that counts")
	}
}

// TestClosePrefetching checks that a file system with much on its way, and more in the queue, ends at once and leaves nothing
// half done.
func TestClosePrefetching(t *testing.T) {
	s := proxytest.New(t)
	for _, fault := range []string{"", "stall", "stallbody"} {
		f := unmounted(t, s, func(o *Options) { o.NoPrefetch = false })
		s.SetFault(func(path string) string {
			if strings.HasSuffix(path, ".zip") {
				return fault
			}
			return ""
		})
		for _, m := range proxytest.Modules() {
			f.soon(version(m))
		}
		if fault != "" {
			eventually(t, "downloads stall", func() bool { return s.Stalled() == zipsAhead })
		}
		if err := f.close(); err != nil {
			t.Error(err)
		}
		if names, err := os.ReadDir(filepath.Join(f.store.Dir(), "tmp")); err != nil || len(names) > 0 {
			t.Errorf("left: %v, %v", names, err)
		}
		s.Release()
	}
}
