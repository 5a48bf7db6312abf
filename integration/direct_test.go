package integration

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
	"modfs/fetch/vcstest"
)

// useGit makes the daemons and go commands that are started from now on ask s only.
func useGit(t *testing.T, s *vcstest.Server) {
	t.Helper()
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
}

// privateModule makes a repository with a module that no proxy has, vanity.test/lib, and a program that uses it and one that the
// proxy has.
func privateModule(t *testing.T) (s *vcstest.Server, lib *vcstest.Repo, prog string) {
	t.Helper()
	s = vcstest.New(t)
	lib = s.Repo("lib", map[string]string{
		"go.mod": "module vanity.test/lib\n\ngo 1.21\n",
		"lib.go": "package lib\n\nfunc Lib() string { return \"lib v1.0.0\" }\n",
	}, "v1.0.0")
	s.Import("vanity.test/lib", "git "+lib.URL())
	useGit(t, s)
	prog = t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.com/prog\n\ngo 1.21\n\nrequire (\n\texample.com/b v1.1.0\n\tvanity.test/lib v1.0.0\n)\n",
		"prog.go": "package main\n\nimport (\n\t\"example.com/b\"\n\t\"vanity.test/lib\"\n)\n\nfunc main() { println(b.Hello(), lib.Lib()) }\n",
	} {
		if err := os.WriteFile(filepath.Join(prog, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return s, lib, prog
}

// directRuns returns how often the daemon ran the go command.
func (m *mounted) directRuns() int64 {
	m.t.Helper()
	for _, u := range m.status().Upstreams {
		if u.URL == "direct" {
			return u.Requests
		}
	}
	return 0
}

// goRun runs a go command that must succeed.
func (m *mounted) goRun(dir string, env []string, args ...string) string {
	m.t.Helper()
	cmd := m.goCommand(dir, args...)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("go %s: %v\n%s\n%s", strings.Join(args, " "), err, out, m.log())
	}
	return string(out)
}

// Where the daemon resolves it gets a private module from version control, once, and no proxy and no database hears of it.
func TestDirectReadOnly(t *testing.T) {
	s, lib, prog := privateModule(t)
	proxy := proxytest.New(t)
	m := mount(t, proxy, "--read-only", "--private", "vanity.test")
	env := []string{"GOPROXY=off", "GONOSUMDB=vanity.test", "GOFLAGS=-mod=mod"}
	m.goRun(prog, env, "build", "-o", "prog", ".")
	if n := m.directRuns(); n != 1 {
		t.Errorf("the go command ran %d times, want once", n)
	}
	if n := proxy.Count("vanity.test"); n > 0 {
		t.Errorf("a private name went out: %q", proxy.Requests())
	}
	// Like any other, it is there without a network.
	s.Fail(func(*http.Request) int { return http.StatusBadGateway })
	m.goRun(prog, env, "build", "-o", "prog", ".")
	s.Fail(nil)

	// Its tag moves. What was served once is what is served for ever, so without the zip there is an error, which says why.
	m.modfs("unmount", m.dir)
	zips := m.kept("lib/@v/v1.0.0.zip")
	if len(zips) != 1 {
		t.Fatalf("kept %q, want the zip", zips)
	}
	if err := os.Remove(filepath.Join(m.store, zips[0])); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.store, "spool")); err != nil {
		t.Fatal(err)
	}
	lib.Commit(map[string]string{"lib.go": "package lib\n\nfunc Lib() string { return \"moved\" }\n"}, "v1.0.0")
	m.start()
	_, err := m.read("vanity.test/lib@v1.0.0/lib.go")
	m.wantErrno(err, syscall.EBADMSG, "hash mismatch", "got h1:", "want h1:", "(pin)")
	// And it moves back.
	lib.Git("tag", "-f", "v1.0.0", "HEAD~")
	m.modfs("unmount", m.dir) // the daemon may still have the clone, in which the tag has moved
	m.start()
	if data, err := m.read("vanity.test/lib@v1.0.0/lib.go"); err != nil || !strings.Contains(string(data), "lib v1.0.0") {
		t.Errorf("with the right tag: %q, %v", data, err)
	}
	if left := m.kept("/HEAD"); len(left) == 0 {
		t.Error("the clone is not below the store's directory")
	}
	m.modfs("unmount", m.dir)
	if _, err := os.Stat(filepath.Join(m.store, "direct")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("clones after the daemon has left: %v", err)
	}
}

// On the default mount the go command clones by itself, as in a plain directory, and the daemon does not do it again.
func TestDirectDefault(t *testing.T) {
	s, _, prog := privateModule(t)
	proxy := proxytest.New(t)
	env := []string{"GOPRIVATE=vanity.test", "GOFLAGS=-mod=mod"}

	plain := mount(t, proxy, "--private", "vanity.test")
	dir := t.TempDir()
	plain.goRun(prog, append(env, "GOMODCACHE="+dir, "GOFLAGS=-mod=mod -modcacherw"), "build", "-o", "prog", ".")
	want := s.Count("")
	if err := os.Remove(filepath.Join(prog, "go.sum")); err != nil {
		t.Fatal(err)
	}
	s.ResetRequests()

	plain.goRun(prog, env, "build", "-o", "prog", ".")
	if got := s.Count(""); got != want {
		t.Errorf("%d requests to the host of the repository, and %d with a plain directory:\n%s", got, want, strings.Join(s.Requests(), "\n"))
	}
	if n := plain.directRuns(); n != 0 {
		t.Errorf("the daemon ran the go command %d times", n)
	}
	s.Fail(func(*http.Request) int { return http.StatusBadGateway })
	plain.goRun(prog, env, "build", "-o", "prog", ".") // it is kept
}

// A daemon that is killed while git works for it leaves clones; the next one removes them, and gets the module.
func TestDirectKilled(t *testing.T) {
	s, _, _ := privateModule(t)
	s.Stall(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/git-upload-pack") })
	m := mount(t, proxytest.New(t), "--read-only", "--proxy", "direct", "--sumdb", "off")
	failed := make(chan error, 1)
	go func() {
		_, err := m.read("vanity.test/lib@v1.0.0/lib.go")
		failed <- err
	}()
	m.eventually("git hangs", func() bool { return s.Waiting() > 0 })
	old, err := os.ReadDir(filepath.Join(m.store, "direct"))
	if err != nil || len(old) == 0 {
		t.Fatalf("clones: %v, %v", old, err)
	}
	m.kill()
	if err := <-failed; err == nil {
		t.Error("read what hangs, of a daemon that was killed")
	}
	s.Stall(nil)
	s.Release()
	m.start()
	if data, err := m.read("vanity.test/lib@v1.0.0/lib.go"); err != nil {
		t.Errorf("after the next start: %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(m.store, "direct", old[0].Name())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the killed daemon left: %v", err)
	}
}

// A repository that needs credentials is refused at once; one that hangs is given up when the daemon is told to leave, and leaves
// no process behind.
func TestDirectFaults(t *testing.T) {
	s, _, _ := privateModule(t)
	s.Private("lib")
	hangs := s.Repo("hangs", map[string]string{"go.mod": "module vanity.test/hangs\n"}, "v1.0.0")
	s.Import("vanity.test/hangs", "git "+hangs.URL())
	s.Stall(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/hangs") })
	m := mount(t, proxytest.New(t), "--read-only", "--proxy", "direct", "--sumdb", "off")
	_, err := m.read("vanity.test/lib@v1.0.0/lib.go")
	m.wantErrno(err, syscall.EACCES, "could not read Username")
	_, err = m.read("vanity.test/nothing@v1.0.0/lib.go")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a module that is nowhere: %v", err)
	}

	failed := make(chan error, 1)
	go func() {
		_, err := m.read("vanity.test/hangs@v1.0.0/go.mod")
		failed <- err
	}()
	m.eventually("git hangs", func() bool { return s.Waiting() > 0 })
	pid := m.status().PID
	for told := false; !told || syscall.Kill(pid, 0) == nil; told = true {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && err != syscall.ESRCH { // the second one ends it at once
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := <-failed; err == nil {
		t.Error("read what hangs")
	}
	m.eventually("no process is left", func() bool { return len(processesWith(t, "GOMODCACHE="+m.store)) == 0 })
}

// processesWith returns the processes whose environment contains text.
func processesWith(t *testing.T, text string) (names []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if env, err := os.ReadFile(name); err == nil && strings.Contains(string(env), text) { // it may have gone
			names = append(names, name)
		}
	}
	return names
}
