package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

const (
	parallelModules = 30
	largeZip        = "example.com/large/@v/v1.0.0.zip"
	branchInfo      = `{"Version":"v1.1.0","Time":"2020-01-02T03:04:05Z"}`
)

// interopModules are what each proxy is to serve. The last one is none: it makes example.com/b have a branch.
func interopModules() []proxytest.Module {
	mods := proxytest.Modules()
	for i := range parallelModules {
		path := fmt.Sprintf("example.com/Par/m%02d", i)
		mods = append(mods, proxytest.Module{Path: path, Version: "v1.0.0", Files: map[string]string{
			"go.mod": "module " + path + "\n", "p.go": fmt.Sprintf("package p // %d\n", i), "LICENSE": strings.Repeat("Do as you like.\n", 100*i)}})
	}
	return append(mods, proxytest.Module{Path: "example.com/b", Version: "main", Info: branchInfo})
}

// interop is a mount of modules that come through another module proxy.
type interop struct {
	*mounted
	p    *moduleProxy
	s    *proxytest.Server
	mods []proxytest.Module
}

// TestModuleProxies has mounts get their modules from module proxies that others wrote.
func TestModuleProxies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a dozen proxies and mounts; not with -short")
	}
	for _, p := range moduleProxies {
		t.Run(strings.ReplaceAll(p.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			fusetest.Require(t)
			mods := interopModules()
			s := proxytest.New(t, mods...)
			m := p.check(t, s, mods)
			if p.live {
				m.later(t)
				m.down(t)
			}
		})
	}
}

// check mounts what the proxy serves, and compares all of it with what the server has.
func (p *moduleProxy) check(t *testing.T, s *proxytest.Server, mods []proxytest.Module) *interop {
	t.Helper()
	url := p.start(t, s, mods)
	var c *cutter
	if strings.HasPrefix(url, "http:") {
		c = newCutter(t, url, largeZip)
		url = c.url
	}
	sumdb := s.SumDB()
	if p.sumdb {
		sumdb = s.SumDBKey() // then there is no other way to it than the proxy
	}
	m := &interop{mountEnv(t, s, []string{"GOPROXY=" + url, "GOSUMDB=" + sumdb}, "--read-only"), p, s, mods}
	m.parallel(t)
	for _, mod := range mods {
		m.compare(t, mod)
	}
	m.changing(t)
	m.absent(t)
	m.build(t)
	if c != nil {
		m.cutOff(t, c)
	}
	for _, e := range m.errors() {
		t.Errorf("an error: %+v", e)
	}
	return m
}

// parallel reads many modules at once that nobody has asked for.
func (m *interop) parallel(t *testing.T) {
	var wg sync.WaitGroup
	for _, mod := range m.mods {
		if strings.Contains(mod.Path, "/Par/") {
			wg.Go(func() {
				path, version := escaped(t, mod)
				for name, want := range mod.Files {
					if got, err := m.read(path + "@" + version + "/" + name); err != nil || string(got) != want {
						t.Errorf("%s: %s: %.50q, %v", mod, name, got, err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// compare reads all there is of a module.
func (m *interop) compare(t *testing.T, mod proxytest.Module) {
	if module.CanonicalVersion(mod.Version) != mod.Version {
		return
	}
	path, version := escaped(t, mod)
	at := "cache/download/" + path + "/@v/" + version
	fi, err := os.Stat(m.path(at + ".zip")) // before anything is known of it, for some of them
	if err != nil {
		t.Error(err)
		return
	}
	zip, err := m.read(at + ".zip")
	if err != nil || int64(len(zip)) != fi.Size() {
		t.Errorf("%s: zip of %d bytes, %v; its size was said to be %d", mod, len(zip), err, fi.Size())
	}
	if h1, err := dirhash.HashZip(m.path(at+".zip"), dirhash.Hash1); err != nil || h1 != m.s.ZipHash(mod.Path, mod.Version) {
		t.Errorf("%s: zip: %s, %v", mod, h1, err)
	}
	if h1, err := m.read(at + ".ziphash"); err != nil || string(h1) != m.s.ZipHash(mod.Path, mod.Version) {
		t.Errorf("%s: ziphash: %q, %v", mod, h1, err)
	}
	if got, err := m.read(at + ".mod"); err != nil || string(got) != string(proxytest.Get(t, m.s.URL()+"/"+path+"/@v/"+version+".mod")) {
		t.Errorf("%s: go.mod: %q, %v", mod, got, err)
	}
	var info struct{ Version, Time string }
	data, err := m.read(at + ".info")
	if err == nil {
		err = json.Unmarshal(data, &info)
	}
	if err != nil || info.Version != mod.Version || info.Time != "2020-01-02T03:04:05Z" {
		t.Errorf("%s: info: %s, %v", mod, data, err)
	}
	dir, names := m.path(path+"@"+version), 0
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		names++
		rel, _ := filepath.Rel(dir, p)
		got, err := os.ReadFile(p)
		if want, ok := mod.Files[filepath.ToSlash(rel)]; !ok || string(got) != want {
			t.Errorf("%s: %s: %.50q, %v", mod, rel, got, err)
		}
		return err
	})
	if err != nil || names != len(mod.Files) {
		t.Errorf("%s: %d files, want %d; %v", mod, names, len(mod.Files), err)
	}
}

// changing reads what proxies are asked for again and again.
func (m *interop) changing(t *testing.T) {
	at := "cache/download/example.com/b/"
	if got, err := m.read(at + "@v/list"); err != nil || string(got) != "v1.0.0\nv1.1.0\n" {
		t.Errorf("list: %q, %v", got, err)
	}
	for name, has := range map[string]bool{"@latest": m.p.latest, "@v/main.info": m.p.queries} {
		got, err := m.read(at + name)
		switch {
		case has && (err != nil || !strings.HasPrefix(string(got), `{"Version":"v1.1.0"`)):
			t.Errorf("%s: %q, %v", name, got, err)
		case !has && !errors.Is(err, syscall.ENOENT):
			t.Errorf("%s: %q, %v; want ENOENT", name, got, err)
		}
	}
}

// absent looks for what there is not. That is no error.
func (m *interop) absent(t *testing.T) {
	for _, name := range []string{
		"example.com/a@v1.9.9/a.go", "cache/download/example.com/a/@v/v1.9.9.info", "cache/download/example.com/a/@v/v1.9.9.mod",
		"cache/download/example.com/a/@v/v1.9.9.zip", "cache/download/example.com/a/@v/nobranch.info", "example.com/nosuch@v1.0.0/a.go",
		"cache/download/example.com/nosuch/@v/list", "cache/download/example.com/nosuch/@latest", "example.com/!no!such@v1.0.0",
	} {
		if got, err := m.read(name); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s: %.50q, %v; want ENOENT", name, got, err)
		}
	}
}

// build has the go command use the mount, and the proxy as it is.
func (m *interop) build(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "go.mod"), []byte("module example.com/prog\n\ngo 1.21\n\nrequire example.com/b v1.1.0\n"))
	writeFile(t, filepath.Join(dir, "prog.go"), []byte("package main\n\nimport \"example.com/b\"\n\nfunc main() { println(b.Hello()) }\n"))
	env := []string{"GOFLAGS=-mod=mod"}
	m.goRun(dir, env, "build", "-o", "prog", ".")
	if got := m.goRun(dir, env, "list", "-m", "-f", "{{.Version}}", "example.com/b"); strings.TrimSpace(got) != "v1.1.0" {
		t.Errorf("go list: %s", got)
	}
}

// cutOff looks at how the download went that was cut off.
func (m *interop) cutOff(t *testing.T, c *cutter) {
	var gets []string
	for _, a := range c.log() {
		if strings.HasPrefix(a, "GET") && !strings.HasPrefix(a, `GET "bytes=0-0"`) { // that is for the size
			gets = append(gets, a)
		}
	}
	resumed := len(gets) == 2 && strings.Contains(gets[1], "bytes=") && strings.Contains(gets[1], ": 206,")
	if len(gets) != 2 || m.p.resumes != "perhaps" && resumed != (m.p.resumes == "always") {
		t.Errorf("download that was cut off: %q; continued: want %s", c.log(), m.p.resumes)
	}
}

// later has a version come that was not there before.
func (m *interop) later(t *testing.T) {
	mod := proxytest.Module{Path: "example.com/a", Version: "v1.9.9", Files: map[string]string{"go.mod": "module example.com/a\n", "a.go": "package a\n"}}
	if err := m.s.Add(mod); err != nil {
		t.Fatal(err)
	}
	m.eventually("the new version is there", func() bool {
		got, err := m.read(mod.String() + "/a.go")
		return err == nil && string(got) == mod.Files["a.go"]
	})
}

// down has the proxy's own upstream fail.
func (m *interop) down(t *testing.T) {
	const name = "example.com/late@v1.0.0/f.go"
	mod := proxytest.Module{Path: "example.com/late", Version: "v1.0.0", Files: map[string]string{"go.mod": "module example.com/late\n", "f.go": "package f\n"}}
	if err := m.s.Add(mod); err != nil {
		t.Fatal(err)
	}
	m.s.SetFault(func(path string) string {
		if strings.Contains(path, "example.com/late/") {
			return "503"
		}
		return ""
	})
	if got, err := m.soon(t, name); !errors.Is(err, m.p.down) {
		t.Errorf("%s, while the proxy has no upstream: %q, %v; want %v", name, got, err, m.p.down)
	}
	// What was fetched does not depend on it.
	if got, err := m.soon(t, "example.com/a@v1.0.0/a.go"); err != nil {
		t.Errorf("a.go: %q, %v", got, err)
	}
	m.s.SetFault(nil)
	m.eventually("the module is there", func() bool {
		got, err := m.read(name)
		return err == nil && string(got) == "package f\n"
	})
}

// TestMountAsUpstream has a mount, and what was exported from its store, be a module proxy for others.
func TestMountAsUpstream(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a dozen proxies and mounts; not with -short")
	}
	fusetest.Require(t)
	mods := interopModules()
	s := proxytest.New(t, mods...)
	first := mount(t, s, "--read-only")
	warm := &interop{mounted: first, p: &moduleProxy{name: "modfs"}, s: s, mods: mods}
	for _, mod := range mods {
		warm.compare(t, mod)
	}
	tree := filepath.Join(t.TempDir(), "tree")
	if out, err := first.modfs("export", "--store", first.store, tree); err != nil {
		t.Fatalf("export: %v\n%s", err, out)
	}
	for _, p := range []moduleProxy{
		{name: "file of mount", latest: true, queries: true, sumdb: true, start: func(*testing.T, *proxytest.Server, []proxytest.Module) string {
			return "file://" + first.path("cache/download")
		}},
		{name: "http of mount", latest: true, queries: true, sumdb: true, resumes: "always", start: func(t *testing.T, _ *proxytest.Server, _ []proxytest.Module) string {
			return serveFiles(t, first.path("cache/download"))
		}},
		{name: "file of export", sumdb: true, start: func(*testing.T, *proxytest.Server, []proxytest.Module) string { return "file://" + tree }},
		{name: "http of export", sumdb: true, resumes: "always", start: func(t *testing.T, _ *proxytest.Server, _ []proxytest.Module) string {
			return serveFiles(t, aged(t, tree))
		}},
	} {
		t.Run(strings.ReplaceAll(p.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			p.check(t, s, mods)
		})
	}
	// The other way round: what others wrote has the mount as its upstream.
	for name, upstream := range map[string]string{"file": "file://" + first.path("cache/download"), "http": serveFiles(t, first.path("cache/download"))} {
		t.Run("goproxy-"+name, func(t *testing.T) {
			t.Parallel()
			downloadAll(t, s, goproxyOf(t, s, upstream), mods)
		})
		t.Run("go-"+name, func(t *testing.T) {
			t.Parallel()
			downloadAll(t, s, upstream, mods)
		})
	}
}

// downloadAll has the go command download modules from a proxy, and that one's checksum database, into a module cache of its own.
func downloadAll(t *testing.T, s *proxytest.Server, url string, mods []proxytest.Module) {
	t.Helper()
	got := goTreeOf(t, append(s.Env(), "GOPROXY="+url, "GOSUMDB="+s.SumDBKey()), mods)
	for _, mod := range mods {
		if module.CanonicalVersion(mod.Version) != mod.Version {
			continue
		}
		path, version := escaped(t, mod)
		h1, err := os.ReadFile(filepath.Join(got, filepath.FromSlash(path), "@v", version+".ziphash"))
		if err != nil || string(h1) != s.ZipHash(mod.Path, mod.Version) {
			t.Errorf("%s: %s, %v", mod, h1, err)
		}
	}
}

// TestProxyReplaced has another implementation take the place of a proxy, behind the same URL: the same modules, in other zips with
// the same hash. Then one with other content.
func TestProxyReplaced(t *testing.T) {
	t.Parallel()
	var mods []proxytest.Module
	for _, name := range []string{"example.com/replaced/one", "example.com/replaced/two"} {
		mods = append(mods, proxytest.Module{Path: name, Version: "v1.0.0", Files: map[string]string{
			"go.mod": "module " + name + "\n", "f.go": "package f // " + name + "\n", "text": strings.Repeat(name, 1000)}})
	}
	s := proxytest.New(t, mods...)
	other := startGoproxytest(t, s, mods)
	for name, urls := range map[string][2]string{"larger": {other, s.URL()}, "smaller": {s.URL(), other}} {
		t.Run(name, func(t *testing.T) {
			var to atomic.Pointer[url.URL]
			use := func(addr string) {
				u, err := url.Parse(addr)
				if err != nil {
					t.Fatal(err)
				}
				to.Store(u)
			}
			front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to.Load()) }})
			t.Cleanup(front.Close)
			use(urls[0])
			p := &moduleProxy{name: name}
			m := &interop{mountEnv(t, s, []string{"GOPROXY=" + front.URL, "GOSUMDB=off"}, "--read-only"), p, s, mods}
			for _, mod := range mods {
				m.compare(t, mod)
			}
			m.unmount(t)
			before := m.forgetZips(t)
			use(urls[1])
			m.start()
			m.compareAnew(t)
			m.unmount(t)
			after := m.forgetZips(t)
			if len(before) != 2 || len(after) != 2 || (after[0] > before[0]) != (name == "larger") {
				t.Errorf("the zips have %d bytes, then %d", before, after)
			}
			m.start()
			// The pins are all that knows what was served.
			use(s.FaultURL("tamper"))
			_, err := m.soon(t, zipOf(t, mods[0]))
			m.wantErrno(err, syscall.EBADMSG, "hash mismatch", "pin")
			use(urls[0])
			m.compareAnew(t)
		})
	}
}

// compareAnew is compare, for all modules, when their zips are other ones than those that were indexed. Who had the size of the first
// one, and now reads that file, gets an error: anything else would be a part of a zip. Who opens it again gets it.
func (m *interop) compareAnew(t *testing.T) {
	t.Helper()
	for _, mod := range m.mods {
		if got, err := m.read(mod.String() + "/f.go"); err != nil || string(got) != mod.Files["f.go"] { // by the old index
			t.Errorf("%s: f.go: %q, %v", mod, got, err)
		}
		_, err := m.read(zipOf(t, mod))
		if err != nil {
			m.wantErrno(err, syscall.EIO, "upstream announced a zip of ")
			m.eventually("the kernel has forgotten the old size", func() bool { _, err := m.read(zipOf(t, mod)); return err == nil })
		}
		m.compare(t, mod)
	}
}

// zipOf returns the name of a module's zip in a mount.
func zipOf(t *testing.T, mod proxytest.Module) string {
	path, version := escaped(t, mod)
	return "cache/download/" + path + "/@v/" + version + ".zip"
}

// forgetZips removes the zips from the store, and returns how large they were.
func (m *interop) forgetZips(t *testing.T) (sizes []int64) {
	t.Helper()
	for _, name := range m.kept(".zip") {
		fi, err := os.Stat(filepath.Join(m.store, name))
		if err == nil {
			err = os.Remove(filepath.Join(m.store, name))
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, fi.Size())
	}
	return sizes
}

// unmount unmounts, so that neither kernel nor daemon remember anything.
func (m *interop) unmount(t *testing.T) {
	t.Helper()
	if out, err := m.modfs("unmount", m.dir); err != nil {
		t.Fatalf("unmount: %v\n%s", err, out)
	}
}
