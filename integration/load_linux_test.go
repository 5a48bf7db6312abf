package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// The tests of this file have many processes use one mount whose store is too small for what they want. Whatever the daemon does
// meanwhile, each byte that they read is compared with what it must be.

// loadModules is how many modules there are. Each has loadFiles files of loadSize bytes at most, and a package.
const (
	loadModules = 50
	loadFiles   = 8
	loadSize    = 120 << 10
	hugeFile    = 4<<20 + 200<<10 // of the first module: too large to be kept in memory
	loadLimit   = 9 << 20         // of the store: a third of what the archives, and that file inflated, take
)

func loadPath(i int) string { return fmt.Sprintf("example.com/load/m%02d", i) }

// loadFile returns the name and the content of file j of module i. Reader processes know it, too, without having it from anybody.
func loadFile(i, j int) (name, content string) {
	name = fmt.Sprintf("d%d/f%d.txt", j%3, j)
	r := rand.New(rand.NewChaCha8(sha256.Sum256([]byte(loadPath(i) + "/" + name))))
	n := 1 + r.IntN(loadSize)
	if i == 0 && j == 0 {
		n = hugeFile
	}
	data := make([]byte, n)
	for k := 0; k < n; k += 8 {
		for b, x := 0, r.Uint64(); b < 8 && k+b < n; b, x = b+1, x>>8 {
			data[k+b] = "0123456789abcdefghijklmnopqrstu\n"[x&31]
		}
	}
	return name, string(data)
}

// loadProxy serves the modules of the load tests.
func loadProxy(t *testing.T) *proxytest.Server {
	t.Helper()
	var mods []proxytest.Module
	for i := range loadModules {
		m := proxytest.Module{Path: loadPath(i), Version: "v1.0.0", Files: map[string]string{
			"go.mod": "module " + loadPath(i) + "\n\ngo 1.21\n",
			"m.go":   fmt.Sprintf("// Package m%02d is number %d.\npackage m%02d\n\n// N is %d.\nconst N = %d\n", i, i, i, i, i),
		}}
		for j := range loadFiles {
			name, content := loadFile(i, j)
			m.Files[name] = content
		}
		mods = append(mods, m)
	}
	return proxytest.New(t, mods...)
}

// loadProgram makes a program that uses all modules of the load tests, and returns its directory and what it prints.
func loadProgram(t *testing.T, s *proxytest.Server) (dir, want string) {
	t.Helper()
	dir = t.TempDir()
	var mod, sum, imports, uses strings.Builder
	total := 0
	fmt.Fprintf(&mod, "module example.com/prog\n\ngo 1.21\n\nrequire (\n")
	for i := range loadModules {
		p := loadPath(i)
		fmt.Fprintf(&mod, "\t%s v1.0.0\n", p)
		fmt.Fprintf(&sum, "%s v1.0.0 %s\n%s v1.0.0/go.mod %s\n", p, s.ZipHash(p, "v1.0.0"), p, s.ModHash(p, "v1.0.0"))
		fmt.Fprintf(&imports, "\t%q\n", p)
		fmt.Fprintf(&uses, "+m%02d.N", i)
		total += i
	}
	mod.WriteString(")\n")
	for name, text := range map[string]string{
		"go.mod":  mod.String(),
		"go.sum":  sum.String(),
		"prog.go": "package main\n\nimport (\n\t\"fmt\"\n" + imports.String() + ")\n\nfunc main() { fmt.Print(" + uses.String()[1:] + ") }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, strconv.Itoa(total)
}

// readerEnv makes a process of this test a reader: of so many files, chosen by a seed, below a module cache. With "missing" it does
// not mind files that are not there.
const readerEnv = "MODFS_TEST_READER"

func init() {
	args := strings.Fields(os.Getenv(readerEnv)) // dir seed count [missing]
	if len(args) < 3 {
		return
	}
	seed, err1 := strconv.ParseUint(args[1], 10, 64)
	count, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	r, missing := rand.New(rand.NewPCG(seed, 1)), len(args) > 3
	for range count {
		err := readRandom(args[0], r, missing)
		if err != nil && !(missing && errors.Is(err, os.ErrNotExist)) {
			fmt.Printf("reader %d: %v\n", seed, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// readRandom reads a file, or a part of it, and compares it. The kernel then drops its pages, so that the next reader gets them from
// the daemon.
func readRandom(dir string, r *rand.Rand, missing bool) error {
	i := r.IntN(loadModules)
	name, want := loadFile(i, r.IntN(loadFiles))
	root := filepath.Join(dir, loadPath(i)+"@v1.0.0")
	if r.IntN(4) == 0 {
		des, err := os.ReadDir(root)
		if err != nil {
			return err
		}
		names := make([]string, len(des))
		for k, de := range des {
			names[k] = de.Name()
		}
		if got := strings.Join(names, " "); got != "d0 d1 d2 go.mod m.go" && !missing {
			return fmt.Errorf("%s has %s", root, got)
		}
	}
	file, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return err
	}
	defer file.Close()
	defer unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	off := 0
	if r.IntN(2) == 0 {
		off = r.IntN(len(want))
	}
	got := make([]byte, len(want)-off+1)
	n, err := file.ReadAt(got, int64(off))
	if err != io.EOF {
		return fmt.Errorf("%s: %d bytes at %d, and then %v, want the end of the file", file.Name(), n, off, err)
	}
	if at := mismatch(got[:n], want[off:]); at >= 0 {
		return fmt.Errorf("%s: wrong from byte %d of %d on: %d bytes read at %d, %.40q", file.Name(), off+at, len(want), n, off, got[at:min(n, at+40)])
	}
	return nil
}

// mismatch returns where a and b begin to differ, -1 if they are the same.
func mismatch(a []byte, b string) int {
	if string(a) == b {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// readers runs so many processes that each read count files, and returns what those said that failed.
func readers(ctx context.Context, dir string, processes, count int, more string) []error {
	exe, err := os.Executable()
	if err != nil {
		return []error{err}
	}
	errs := make([]error, processes)
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, exe)
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %s", readerEnv, dir, i, count, more), "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("%w: %s", err, out)
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// scaled is n, or a part of it where each process costs much more: with the race detector, or where time is short.
func scaled(n int) int {
	if raceEnabled || testing.Short() {
		return max(1, n/8)
	}
	return n
}

// TestLoad has 200 processes read from one mount, and go commands build from it, with a store that can hold a third of what they
// need. Nobody gets a wrong byte or an error, the store never takes more than its limit, and all of them end.
func TestLoad(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		procs     string // GOMAXPROCS of the daemon
		processes int
		args      []string
	}{
		{"all cores", "", 200, nil},
		{"one core and no memory", "1", 20, []string{"--memory", "64KiB"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := loadProxy(t)
			m := mountEnv(t, proxy, []string{"GOMAXPROCS=" + test.procs}, append([]string{"--read-only", "--max-size", strconv.Itoa(loadLimit), "--min-free", "0", "--log-level", "error"}, test.args...)...)
			size := m.watchStore()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { m.buildLoad(ctx, proxy) })
			}
			wg.Go(func() {
				for _, err := range readers(ctx, m.dir, scaled(test.processes), 6, "") {
					t.Error(err)
				}
			})
			wg.Wait()
			if got := size(); got > loadLimit {
				t.Errorf("the store took %d bytes, and its limit is %d", got, loadLimit)
			}
			m.noErrors()
			if s := m.status(); s.Store.Evictions == 0 {
				t.Error("nothing was evicted: that is no test")
			}
		})
	}
}

// watchStore measures the store now and again, until the function that it returns is called, which returns the most that it took.
// The daemon stands still meanwhile: a file that is counted must not be evicted, and another one written, before all are.
func (m *mounted) watchStore() (end func() int64) {
	m.t.Helper()
	pid := m.status().PID
	most, stop, done := int64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				m.t.Error(err)
				return
			}
			for !allStopped(pid) {
				time.Sleep(time.Millisecond)
			}
			most = max(most, diskUsage(m.store))
			syscall.Kill(pid, syscall.SIGCONT) // it was there a moment ago
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return most
	}
}

// allStopped reports whether all threads of a process stand still after SIGSTOP, or it is gone. Until they are told, they run on. One
// that waits in a system call and cannot be interrupted may wait for another one, which stands still, and stops after that call.
func allStopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // cannot fail
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if _, state, ok := strings.Cut(string(data), ") "); err == nil && ok && !strings.ContainsAny(state[:1], "TD") {
			return false
		}
	}
	return true
}

// buildLoad builds and runs a program that uses all modules.
func (m *mounted) buildLoad(ctx context.Context, proxy *proxytest.Server) {
	m.t.Helper()
	dir, want := loadProgram(m.t, proxy)
	cmd := exec.CommandContext(ctx, "go", "run", ".")
	cmd.Dir, cmd.Env = dir, append(m.env, "GOFLAGS=-mod=mod")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || string(out) != want {
		m.t.Errorf("go run: %q, %v\n%s", out, err, stderr.Bytes())
	}
}

// noErrors fails the test if the mount has had errors.
func (m *mounted) noErrors() {
	m.t.Helper()
	for _, e := range m.errors() {
		m.t.Errorf("in .modfs/errors: %+v", e)
	}
}

// TestLoadReadWrite has go commands download and build, processes read, files be written and removed, and modules be removed, all
// at once on a mount where clients resolve. What is removed may be missing; what is there is right, and in the end all is well.
func TestLoadReadWrite(t *testing.T) {
	t.Parallel()
	proxy := loadProxy(t)
	m := mount(t, proxy, "--max-size", strconv.Itoa(loadLimit), "--min-free", "0", "--overlay-max", "64MiB")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	stop := make(chan struct{})
	var loops, work sync.WaitGroup
	loop := func(do func(round int)) {
		loops.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				case <-ctx.Done():
					return
				default:
					do(round)
				}
			}
		})
	}
	download := func() error {
		dir, _ := loadProgram(t, proxy)
		cmd := exec.CommandContext(ctx, "go", "mod", "download")
		cmd.Dir, cmd.Env = dir, append(m.env, "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go mod download: %w\n%s", err, out)
		}
		return nil
	}
	if err := download(); err != nil {
		t.Fatal(err)
	}
	loop(func(round int) { // as go clean -modcache does, but for one module
		dir := m.path(loadPath(round%loadModules) + "@v1.0.0")
		chmodTree(dir)
		// Others may be making it anew meanwhile. But what is there without anything in it can be removed.
		if err := os.RemoveAll(dir); err != nil {
			if es, readErr := os.ReadDir(dir); readErr == nil && len(es) == 0 {
				t.Errorf("%v, although it is empty", err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	})
	for w := range 4 {
		loop(func(round int) { m.writeLoad(w, round) })
	}
	for range scaled(8) {
		work.Go(func() { download() }) // it may find what it has seen removed, as on a plain directory
	}
	work.Go(func() {
		for _, err := range readers(ctx, m.dir, scaled(100), 10, "missing") {
			t.Error(err)
		}
	})
	work.Wait()
	close(stop)
	loops.Wait()
	if err := download(); err != nil {
		t.Error(err)
	}
	m.buildLoad(ctx, proxy)
	m.noErrors()
	if got := diskUsage(m.store) - diskUsage(filepath.Join(m.store, "overlay")); got > loadLimit {
		t.Errorf("the store takes %d bytes, and its limit is %d", got, loadLimit)
	}
}

// writeLoad writes a file of its own, renames, reads and removes it.
func (m *mounted) writeLoad(writer, round int) {
	dir := m.path(fmt.Sprintf("own.example/w%d", writer))
	_, content := loadFile(writer, 1+round%(loadFiles-1))
	tmp, name := filepath.Join(dir, "tmp"), filepath.Join(dir, strconv.Itoa(round))
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(tmp, []byte(content), 0o444)
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err == nil {
		var got []byte
		if got, err = os.ReadFile(name); err == nil && string(got) != content {
			err = fmt.Errorf("%s: wrong from byte %d on", name, mismatch(got, content))
		}
	}
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		m.t.Error(err)
	}
}

// chmodTree makes the directories of a tree writable, as far as they are there.
func chmodTree(dir string) {
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o755) // best effort
		}
		return nil
	})
}

// soak is for how long TestSoak goes on. MODFS_NIGHTLY=1 makes it an hour: go test -run TestSoak -timeout 2h ./integration
func soak() time.Duration {
	switch {
	case os.Getenv("MODFS_NIGHTLY") == "1":
		return time.Hour
	case testing.Short():
		return 2 * time.Second
	}
	return 6 * time.Second
}

// TestSoak uses, breaks and scans a mount again and again: neither descriptors nor goroutines, memory, nodes or modules grow with
// time.
func TestSoak(t *testing.T) {
	proxy := loadProxy(t)
	m := mount(t, proxy, "--read-only", "--max-size", strconv.Itoa(loadLimit), "--min-free", "0", "--memory", "16MiB")
	ctx, cancel := context.WithTimeout(t.Context(), soak()+2*patience)
	defer cancel()
	round := 0
	use := func() {
		round++
		for _, err := range readers(ctx, m.dir, 4, 10, "") {
			t.Error(err)
		}
		m.failLoad(proxy, round)
		m.stallLoad(proxy)
		for i := range 200 { // a scanner's guesses
			os.Stat(m.path(fmt.Sprintf("%s@v1.%d.%d", loadPath(i%loadModules), round, i)))
			os.Stat(m.path(fmt.Sprintf("cache/download/example.com/none%d/@v/v1.0.%d.mod", round, i)))
			os.Stat(m.path(fmt.Sprintf("guess%d.example/x%d", round, i)))
		}
		filepath.WalkDir(m.dir, func(string, os.DirEntry, error) error { return nil })
		m.forget()
	}
	use()
	use()
	base := m.settled()
	for end := time.Now().Add(soak()); time.Now().Before(end); {
		use()
	}
	m.eventually("nothing is left over", func() bool {
		m.forget()
		now := m.status()
		ok := now.Process.Goroutines <= base.Process.Goroutines+20 && now.Process.FileDescriptors <= base.Process.FileDescriptors+40 &&
			now.Modules <= base.Modules+10 && now.Memory.System <= base.Memory.System+64<<20
		if os.Geteuid() == 0 {
			ok = ok && now.Nodes <= base.Nodes+100
		}
		if !ok {
			t.Logf("after %d rounds: %+v, %+v, %d nodes, %d modules; before: %+v, %+v, %d nodes, %d modules", round,
				now.Process, now.Memory, now.Nodes, now.Modules, base.Process, base.Memory, base.Nodes, base.Modules)
			time.Sleep(time.Second)
		}
		return ok
	})
}

// forget makes the kernel forget what it knows of files that nobody uses, if we may.
func (m *mounted) forget() {
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0) // best effort: only root can
}

// failLoad has the proxy fail for a while.
func (m *mounted) failLoad(proxy *proxytest.Server, round int) {
	faults := []string{"404", "403", "500", "truncate", "reset", "tamper", "badjson"}
	proxy.SetFault(func(path string) string {
		if strings.Contains(path, "sumdb/") {
			return ""
		}
		return faults[round%len(faults)]
	})
	var wg sync.WaitGroup
	for i := range 6 { // at once: what may be transient is tried again for a while
		wg.Go(func() {
			name, want := loadFile(i, 1)
			if data, err := m.read(loadPath(i) + "@v1.0.0/" + name); err == nil && string(data) != want {
				m.t.Errorf("%s: wrong from byte %d on, with a proxy that fails", name, mismatch(data, want))
			}
			m.read(fmt.Sprintf("cache/download/%s/@v/list", loadPath(i)))
		})
	}
	wg.Wait()
	proxy.SetFault(nil)
}

// stallLoad has readers wait for a proxy that says nothing any more, and kills them.
func (m *mounted) stallLoad(proxy *proxytest.Server) {
	proxy.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "stallbody"
		}
		return ""
	})
	ctx, cancel := context.WithTimeout(m.t.Context(), 300*time.Millisecond)
	defer cancel()
	readers(ctx, m.dir, 4, 10, "")
	proxy.SetFault(nil)
	m.eventually("no request is stalled", func() bool { // a last one may just be arriving
		proxy.Release()
		return proxy.Stalled() == 0
	})
}

// settled is the state of the daemon when no more is going on than there has to be.
func (m *mounted) settled() (s *modfs.Status) {
	m.t.Helper()
	last := -1
	m.eventually("the daemon is at rest", func() bool {
		s = m.status()
		ok := s.Process.Goroutines == last
		last = s.Process.Goroutines
		time.Sleep(100 * time.Millisecond)
		return ok
	})
	return s
}
