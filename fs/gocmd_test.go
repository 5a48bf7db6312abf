package fs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"modfs/fetch/proxytest"
)

// goCmd runs the go command with the mount as its module cache.
type goCmd struct {
	*rwMount
	tool string
	work string
	env  []string
}

func newGoCmd(t *testing.T, m *rwMount) *goCmd {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command")
	}
	g := &goCmd{rwMount: m, tool: tool, work: t.TempDir()}
	modcache := m.dir
	if m.opts.Pkg {
		modcache = m.path("mod")
	}
	g.env = append(os.Environ(), m.server.Env()...)
	g.env = append(g.env, "GOENV=off", "GOWORK=off", "CGO_ENABLED=0", "GOPATH="+t.TempDir(), "GOCACHE="+testGoCache(t), "GOMODCACHE="+modcache)
	g.file("go.mod", "module example.com/main\n\ngo 1.21\n\nrequire example.com/b v1.0.0\n")
	g.file("main.go", "package main\n\nimport \"example.com/b\"\n\nfunc main() { println(b.Hello()) }\n")
	g.file("main_test.go", "package main\n\nimport \"testing\"\n\nfunc TestMain(t *testing.T) {}\n")
	return g
}

// testGoCache is the build cache of whoever runs the tests: only modules are what they are about, and to compile the standard
// library for them takes long.
func testGoCache(t *testing.T) string {
	t.Helper()
	dir, err := goCache()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var goCache = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	return strings.TrimSpace(string(out)), err
})

func (g *goCmd) file(name, data string) {
	g.tb.Helper()
	g.ok(os.WriteFile(filepath.Join(g.work, name), []byte(data), 0o666))
}

// run runs the go command, which must succeed, and returns its output.
func (g *goCmd) run(args ...string) string {
	g.tb.Helper()
	out, err := g.try(args...)
	if err != nil {
		g.tb.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (g *goCmd) try(args ...string) (string, error) {
	cmd := exec.Command(g.tool, args...)
	cmd.Dir, cmd.Env = g.work, g.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// own returns which archives and directories of modules clients have in the overlay: what the go command did by itself.
func (g *goCmd) own() []string {
	var own []string
	root := filepath.Join(g.store.Dir(), overlayDir)
	filepath.Walk(root, func(p string, fi os.FileInfo, err error) error {
		rel, _ := filepath.Rel(root, p)
		if err == nil && !strings.Contains(rel, "sumdb/") && (strings.HasSuffix(p, ".zip") || strings.Contains(fi.Name(), "@v") && fi.Name() != "@v") {
			own = append(own, rel)
		}
		return nil
	})
	return own
}

func eachResolve(t *testing.T, test func(t *testing.T, g *goCmd)) {
	for name, set := range map[string]func(*Options){
		"client":     clientResolves,
		"daemon":     nil,
		"client pkg": func(o *Options) { o.ResolveClient, o.Pkg = true, true },
	} {
		t.Run(name, func(t *testing.T) { test(t, newGoCmd(t, mountRW(t, nil, set))) })
	}
}

func TestGoCommand(t *testing.T) {
	eachResolve(t, func(t *testing.T, g *goCmd) {
		g.run("mod", "tidy")
		g.run("build", "-o", os.DevNull, ".")
		g.run("vet", ".")
		g.run("test", ".")
		if out := g.run("mod", "verify"); !strings.Contains(out, "all modules verified") {
			t.Error(out)
		}
		if own := g.own(); len(own) > 0 {
			t.Errorf("the go command downloaded by itself: %q", own)
		}
		if out := g.run("get", "example.com/b@v1.1.0"); !strings.Contains(out, "upgraded example.com/b v1.0.0 => v1.1.0") {
			t.Error(out)
		}
		g.run("mod", "tidy")
		g.run("mod", "download", "-x")
		g.run("mod", "vendor")
		if data, err := os.ReadFile(filepath.Join(g.work, "vendor/example.com/a/a.go")); err != nil || string(data) != module1(t, "example.com/a@v1.0.0").Files["a.go"] {
			t.Errorf("vendored: %q, %v", data, err)
		}
		g.ok(os.RemoveAll(filepath.Join(g.work, "vendor")))
		g.run("list", "-m", "-versions", "example.com/b")
		g.run("mod", "download", "-json", "example.com/nested@v1.0.0")
		if own := g.own(); len(own) > 0 {
			t.Errorf("the go command downloaded by itself: %q", own)
		}
		for _, zip := range []string{"a/@v/v1.0.0", "b/@v/v1.0.0", "b/@v/v1.1.0", "nested/@v/v1.0.0"} {
			if n := g.server.Count("GET /example.com/" + zip + ".zip"); n != 1 {
				t.Errorf("%s.zip was fetched %d times", zip, n)
			}
		}
	})
}

// TestGoClean empties the cache, and fills it again.
func TestGoClean(t *testing.T) {
	eachResolve(t, func(t *testing.T, g *goCmd) {
		for range 2 {
			g.run("mod", "tidy")
			g.run("build", "-o", os.DevNull, ".")
			out, err := g.try("clean", "-modcache")
			if g.opts.Pkg && err != nil || !g.opts.Pkg && !strings.Contains(out, "busy") {
				t.Errorf("%v: %s", err, out)
			}
			g.names("")
			if left := g.stored(); len(left) > 0 {
				t.Errorf("store has %q", left)
			}
			g.used(0)
		}
		g.run("build", "-o", os.DevNull, ".") // with a complete go.sum and an empty cache
	})
}

// TestGoDownloadsItself has modules that the daemon's upstream does not have.
func TestGoDownloadsItself(t *testing.T) {
	with, without := proxytest.New(t), proxytest.New(t, proxytest.Module{Path: "example.com/none", Version: "v1.0.0"})
	for _, modcacherw := range []string{"", "-modcacherw"} {
		m := mountRW(t, without, clientResolves)
		m.server = with
		g := newGoCmd(t, m)
		g.env = append(g.env, "GOFLAGS="+modcacherw)
		g.run("mod", "tidy")
		g.run("build", "-o", os.DevNull, ".")
		g.run("mod", "verify")
		if own := g.own(); len(own) < 4 {
			t.Errorf("it has only %q", own)
		}
		g.wantTree(module1(t, "example.com/a@v1.0.0"), "example.com/a@v1.0.0")
		fi, err := os.Stat(g.path("example.com/a@v1.0.0"))
		if want := map[string]os.FileMode{"": 0o555, "-modcacherw": 0o755}[modcacherw]; err != nil || fi.Mode().Perm() != want {
			t.Errorf("%v, %v, want %v", fi.Mode(), err, want)
		}
		g.remount()
		g.run("mod", "verify")
		g.run("build", "-o", os.DevNull, ".")
		g.try("clean", "-modcache")
		g.names("")
		g.used(0)
	}
}

// TestGoTwice runs go commands at the same time, from nothing each time.
func TestGoTwice(t *testing.T) {
	eachResolve(t, func(t *testing.T, g *goCmd) {
		g.run("mod", "tidy")
		commands := [][]string{
			{"build", "-o", os.DevNull, "."}, {"mod", "download"}, {"mod", "verify"}, {"list", "-deps", "."}, {"mod", "download", "-json"},
		}
		for range 2 {
			var wg sync.WaitGroup
			for _, args := range commands {
				wg.Go(func() {
					if out, err := g.try(args...); err != nil {
						t.Errorf("go %q: %v\n%s", args, err, out)
					}
				})
			}
			wg.Wait()
			g.run("mod", "verify")
			g.clean()

		}
	})
}
