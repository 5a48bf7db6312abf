package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// busyModules are modules with enough files to be in the middle of, and busyProgram is a program that needs all of them.
func busyModules() []proxytest.Module {
	const modules, packages, files = 12, 10, 20
	var mods []proxytest.Module
	for i := range modules {
		m := proxytest.Module{Path: fmt.Sprintf("example.com/busy%02d", i), Version: "v1.0.0", Files: make(map[string]string)}
		m.Files["go.mod"] = "module " + m.Path + "\n\ngo 1.21\n"
		for p := range packages {
			for f := range files {
				m.Files[fmt.Sprintf("p%d/f%02d.go", p, f)] = fmt.Sprintf("package p%d\n\n// F%d says who it is. %s\nfunc F%[2]d() string { return %[4]q }\n",
					p, f, strings.Repeat("It is one of many. ", f), fmt.Sprintf("%s p%d f%d", m.Path, p, f))
			}
		}
		mods = append(mods, m)
	}
	return mods
}

// busyProgram writes a program that needs all of mods into a new directory, with its go.sum.
func busyProgram(t *testing.T, s *proxytest.Server, mods []proxytest.Module) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var mod, sum, imports, body strings.Builder
	mod.WriteString("module example.com/prog\n\ngo 1.21\n\nrequire (\n")
	for i, m := range mods {
		fmt.Fprintf(&mod, "\t%s %s\n", m.Path, m.Version)
		fmt.Fprintf(&sum, "%s %s %s\n%[1]s %[2]s/go.mod %[4]s\n", m.Path, m.Version, s.ZipHash(m.Path, m.Version), s.ModHash(m.Path, m.Version))
		fmt.Fprintf(&imports, "\tm%d %q\n", i, m.Path+"/p0")
		fmt.Fprintf(&body, "\tprintln(m%d.F0())\n", i)
	}
	mod.WriteString(")\n")
	for name, content := range map[string]string{
		"go.mod": mod.String(), "go.sum": sum.String(),
		"main.go": "package main\n\nimport (\n" + imports.String() + ")\n\nfunc main() {\n" + body.String() + "}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// seed returns the seed of a test with chance in it, MODFS_SEED if that is set, and says which it is.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("MODFS_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MODFS_SEED=%d", n)
	return n
}

// busy is a mount on which much is going on, until its daemon is killed.
type busy struct {
	*mounted
	t     *testing.T
	proxy *proxytest.Server
	mods  []proxytest.Module
	prog  string

	readOnly, client bool
	killed           atomic.Bool

	mu      sync.Mutex
	written []int // files that a client has written and closed
	next    int
}

// work has go commands, readers and a writer use the mount, until kill returns, and returns when all have noticed.
func (b *busy) work(rng *rand.Rand, kill func()) {
	var done sync.WaitGroup
	b.killed.Store(false)
	for _, args := range [][]string{{"list", "-deps", "./..."}, {"mod", "download"}} {
		cmd := b.goCommand(b.prog, args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			b.t.Fatal(err)
		}
		done.Go(func() {
			if err := cmd.Wait(); err != nil && !b.killed.Load() {
				b.t.Errorf("go %v: %v\n%s", args, err, &out)
			}
		})
	}
	if !b.client { // or it would depend on the go commands what is there
		for range 2 {
			done.Go(b.reader(rand.New(rand.NewPCG(rng.Uint64(), 0))))
		}
	}
	if !b.readOnly {
		done.Go(b.writer)
	}
	kill()
	done.Wait()
}

// reader reads files of modules. Until the daemon is killed all can be read, and what is read is right at any time.
func (b *busy) reader(rng *rand.Rand) func() {
	return func() {
		for !b.killed.Load() { // the kernel may have it all, daemon or not
			m := b.mods[rng.IntN(len(b.mods))]
			name := fmt.Sprintf("p%d/f%02d.go", rng.IntN(10), rng.IntN(20))
			data, err := b.read(m.String() + "/" + name)
			switch {
			case err == nil && string(data) != m.Files[name]:
				b.t.Errorf("%s/%s: %q", m, name, data)
			case err == nil:
			case !b.killed.Load():
				b.t.Errorf("%s/%s: %v", m, name, err)
				return
			}
		}
	}
}

// writer writes files, and remembers those that it has closed.
func (b *busy) writer() {
	if err := os.MkdirAll(b.path("mine"), 0o755); err != nil {
		return
	}
	for {
		b.mu.Lock()
		n := b.next
		b.next++
		b.mu.Unlock()
		// By way of another name: what is renamed is whole, too.
		tmp := b.path(fmt.Sprintf("mine/%d.new", n))
		err := os.WriteFile(tmp, writtenContent(n), 0o644)
		if err == nil {
			err = os.Rename(tmp, b.path(fmt.Sprintf("mine/%d", n)))
		}
		if err != nil {
			if !b.killed.Load() {
				b.t.Errorf("write: %v", err)
			}
			return
		}
		b.mu.Lock()
		b.written = append(b.written, n)
		b.mu.Unlock()
	}
}

func writtenContent(n int) []byte { return bytes.Repeat([]byte(strconv.Itoa(n)+"\n"), 1+n*997%20000) }

// check looks at all that a new daemon must have of what its killed predecessors left.
func (b *busy) check(rng *rand.Rand, committed []string) {
	b.t.Helper()
	if names, err := os.ReadDir(filepath.Join(b.store, "tmp")); err != nil || len(names) > 0 {
		b.t.Errorf("tmp has %v, %v", names, err)
	}
	if n := b.status().Store.InFlight; n != 0 {
		b.t.Errorf("%d bytes are in flight", n)
	}
	for _, n := range b.written {
		if data, err := b.read(fmt.Sprintf("mine/%d", n)); err != nil || !bytes.Equal(data, writtenContent(n)) {
			b.t.Errorf("mine/%d: %d bytes, %v", n, len(data), err)
		}
	}
	for _, m := range b.mods {
		esc, err := module.EscapePath(m.Path)
		if err != nil {
			b.t.Fatal(err)
		}
		key := "cache/download/" + esc + "/@v/" + m.Version + ".zip"
		if !slices.Contains(committed, key) {
			continue
		}
		// Whole and right, its pin with it, and without asking again; unless it was evicted meanwhile, where the store is small.
		data, err := os.ReadFile(filepath.Join(b.store, key))
		if errors.Is(err, os.ErrNotExist) && b.status().Store.Evictions > 0 {
			continue
		}
		if err != nil || !bytes.Equal(data, b.proxy.ZipBytes(m.Path, m.Version)) {
			b.t.Errorf("the store's zip of %s: %d bytes, %v", m, len(data), err)
		}
		pins, err := os.ReadFile(filepath.Join(b.store, "pins"))
		if pin := fmt.Sprintf("%s %s %s ", m.Path, m.Version, b.proxy.ZipHash(m.Path, m.Version)); err != nil || !strings.Contains(string(pins), pin) {
			b.t.Errorf("no pin of %s, %v", m, err)
		}
		if b.client || rng.IntN(3) > 0 {
			continue // go mod verify looks at all in the end
		}
		for name, want := range m.Files {
			if data, err := b.read(m.String() + "/" + name); err != nil || string(data) != want {
				b.t.Errorf("%s/%s: %q, %v", m, name, data, err)
			}
		}
		if n := b.proxy.Count(esc + "/@v/" + m.Version + ".zip"); n != 0 && b.status().Store.Evictions == 0 {
			b.t.Errorf("%s was in the store and is fetched again: %q", m, b.proxy.Requests())
		}
	}
	if s := b.status(); s.Counters["damaged"] != 0 || s.Counters["panics"] != 0 {
		b.t.Errorf("counters: %v", s.Counters)
	}
}

// build checks that the program can be built, and what it then says.
func (b *busy) build() {
	b.t.Helper()
	prog := filepath.Join(b.t.TempDir(), "prog")
	if out, err := b.goCommand(b.prog, "build", "-trimpath", "-o", prog, ".").CombinedOutput(); err != nil {
		b.t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command(prog).CombinedOutput()
	var want strings.Builder
	for _, m := range b.mods {
		fmt.Fprintf(&want, "%s p0 f0\n", m.Path)
	}
	if err != nil || string(out) != want.String() {
		b.t.Errorf("the program says %q, %v, want %q", out, err, &want)
	}
	if out, err := b.goCommand(b.prog, "mod", "verify").CombinedOutput(); err != nil {
		b.t.Errorf("go mod verify: %v\n%s", err, out)
	}
}

// TestKillDaemon kills the daemon at random moments of much work and starts it again: on the same store and mountpoint, with
// nothing to repair, nothing lost and nothing wrong.
//
// It is done 20 times, and 1,000 with MODFS_NIGHTLY=1, which takes a quarter of an hour. MODFS_SEED repeats a run, as far as
// time allows.
func TestKillDaemon(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: 20 daemons are killed in turn: some seconds")
	}
	const perStore = 5 // until all is fetched, and there is nothing to be in the middle of
	kills := 20
	if nightly {
		kills = 1000
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	mods := busyModules()
	modes := []struct {
		name             string
		args             []string
		readOnly, client bool
	}{
		{"read-only", []string{"--read-only"}, true, false},
		{"read-write", []string{"--resolve", "daemon"}, false, false},
		{"clients resolve", nil, false, true},
		{"evicting", []string{"--read-only", "--max-size", "1MiB", "--min-free", "0"}, true, false},
	}
	for i := range kills / perStore {
		mode := modes[i%len(modes)]
		t.Run(fmt.Sprintf("%d %s", i, mode.name), func(t *testing.T) {
			proxy := proxytest.New(t, mods...)
			proxy.SetFault(func(path string) string {
				if strings.HasSuffix(path, ".zip") {
					return "slow"
				}
				return ""
			})
			b := &busy{t: t, proxy: proxy, mods: mods, prog: busyProgram(t, proxy, mods), readOnly: mode.readOnly, client: mode.client}
			b.mounted = mount(t, proxy, mode.args...)
			for range perStore {
				pid := b.status().PID
				b.work(rng, func() {
					time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
					b.killed.Store(true)
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				})
				b.eventually("the mount is stale", func() bool { f, err := modfs.Find(b.dir); return err == nil && f != nil && f.Stale })
				committed := b.kept(".zip")
				proxy.ResetRequests()
				b.start()
				b.check(rng, committed)
				if t.Failed() {
					return
				}
			}
			proxy.SetFault(nil)
			b.build()
		})
	}
}

// sitter is a process that sits in a mount: it has a file open and mapped, a directory watched, and it stands in one.
type sitter struct {
	t     *testing.T
	file  *os.File
	mem   []byte
	watch int
	shell *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
}

func (m *mounted) sit() *sitter {
	m.t.Helper()
	s := &sitter{t: m.t}
	fatal := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	var err error
	s.file, err = os.Open(m.path("example.com/large@v1.0.0/large.txt"))
	fatal(err)
	s.mem, err = unix.Mmap(int(s.file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	fatal(err)
	s.watch, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	fatal(err)
	_, err = unix.InotifyAddWatch(s.watch, m.path("example.com/a@v1.0.0"), unix.IN_ALL_EVENTS)
	fatal(err)
	s.shell = exec.Command("sh", "-c", `cd "$1"; while read line; do eval "$line"; echo $?; done`, "sh", m.path("example.com/a@v1.0.0"))
	s.in, err = s.shell.StdinPipe()
	fatal(err)
	out, err := s.shell.StdoutPipe()
	fatal(err)
	s.out = bufio.NewReader(out)
	fatal(s.shell.Start())
	if status := s.run("test -d ."); status != "0" {
		m.t.Fatalf("test -d .: %s", status)
	}
	return s
}

// run has the shell run a command, and returns the exit status.
func (s *sitter) run(command string) string {
	s.t.Helper()
	c := make(chan string, 1)
	go func() {
		fmt.Fprintln(s.in, command)
		line, _ := s.out.ReadString('\n')
		c <- strings.TrimSpace(line)
	}()
	return soon(s.t, command, c)
}

// touch reads the mapping; reading what cannot be had is an error, and no crash.
func (s *sitter) touch() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("fault: %v", p)
		}
	}()
	touched.Store(uint32(s.mem[0]))
	return nil
}

var touched atomic.Uint32 // or nothing would be read

// leave checks that all that it does now ends, in an error where that needs a daemon, and then leaves.
func (s *sitter) leave() {
	s.t.Helper()
	read := make(chan error, 1)
	go func() {
		_, err := s.file.ReadAt(make([]byte, 4096), 1<<20)
		read <- err
	}()
	if err := soon(s.t, "a read of an open file", read); !errors.Is(err, syscall.ENOTCONN) {
		s.t.Errorf("a read of an open file: %v", err)
	}
	mapped := make(chan error, 1)
	go func() { mapped <- s.touch() }()
	if err := soon(s.t, "a read of a mapping", mapped); err == nil {
		s.t.Error("a page that was never read can be read from a mapping")
	}
	for _, command := range []string{"cat sub/sub.go >/dev/null 2>&1", "ls . >/dev/null 2>&1"} {
		if status := s.run(command); status == "0" || status == "" {
			s.t.Errorf("%s in the dead mount: %q", command, status)
		}
	}
	if _, err := unix.Read(s.watch, make([]byte, 4096)); err != nil && err != unix.EAGAIN {
		s.t.Errorf("a read of the watch: %v", err)
	}
	s.in.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.shell.Wait() }()
	soon(s.t, "the shell to end", ended)
	unix.Munmap(s.mem)
	unix.Close(s.watch)
	s.file.Close()
}

// TestSitters ends a daemon while processes sit in its mount, and starts another in the same place: those that sat there get
// errors at worst and never hang, those that come are served.
func TestSitters(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"kill", "terminate"} {
		t.Run(how, func(t *testing.T) {
			m := mount(t, proxytest.New(t), "--read-only", "--grace", "1s")
			if _, err := m.read("example.com/large@v1.0.0/go.mod"); err != nil {
				t.Fatal(err)
			}
			s := m.sit()
			if how == "kill" {
				m.kill()
			} else if err := syscall.Kill(m.status().PID, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			} else {
				m.unmounted()
			}
			m.start()
			if data, err := m.read(aFile); err != nil || !strings.Contains(string(data), "hello from a") {
				t.Errorf("the new mount: %q, %v", data, err)
			}
			s.leave()
			if _, err := m.read("example.com/b@v1.0.0/b.go"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMountRace has many daemons want one mountpoint, with one store or each with its own: one gets it, and the others say why
// they did not.
func TestMountRace(t *testing.T) {
	t.Parallel()
	const daemons = 4
	for _, stores := range []string{"one store", "own stores"} {
		t.Run(stores, func(t *testing.T) {
			m := mount(t, proxytest.New(t), "--read-only")
			if out, err := m.modfs("unmount", m.dir); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			type outcome struct {
				out string
				err error
			}
			ended := make(chan outcome, daemons)
			for i := range daemons {
				store := m.store
				if stores == "own stores" {
					store += strconv.Itoa(i)
				}
				go func() {
					out, err := m.modfs("mount", "--background", "--read-only", "--store", store, m.dir)
					ended <- outcome{out, err}
				}()
			}
			won := 0
			for range daemons {
				o := soon(t, "a daemon", ended)
				if o.err == nil {
					won++
				} else if !strings.Contains(o.out, "locked by process") && !strings.Contains(o.out, "served") || strings.Count(o.out, "\n") != 1 {
					t.Errorf("%v: %q", o.err, o.out)
				}
			}
			if won != 1 {
				t.Errorf("%d daemons have mounted", won)
			}
			mounts, err := modfs.Mounts()
			if err != nil {
				t.Fatal(err)
			}
			there := slices.DeleteFunc(mounts, func(f modfs.Found) bool { return f.Mountpoint != m.dir })
			if len(there) != 1 {
				t.Errorf("mounted: %+v", there)
			}
			if _, err := m.read(aFile); err != nil {
				t.Error(err)
			}
			for range there[min(1, len(there)):] {
				m.modfs("unmount", "--lazy", m.dir) // what the test's end does not expect
			}
		})
	}
}
