package fs

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// publish makes a module of one file.
func publish(path, version string) proxytest.Module {
	return proxytest.Module{Path: path, Version: version, Files: map[string]string{"go.mod": "module " + path + "\n", "x.go": "package x // " + version + "\n"}}
}

// The list is upstream's, and has what was fetched and is no longer there, but no pseudo-versions. Without upstream it is what was
// known last.
func TestListMerged(t *testing.T) {
	const list, pseudo = "cache/download/example.com/m/@v/list", "v1.0.1-0.20200102030405-0123456789ab"
	all := []proxytest.Module{publish("example.com/m", "v1.0.0"), publish("example.com/m", "v1.1.0"), publish("example.com/m", pseudo)}
	first := proxytest.New(t, all...)
	o := testOptions(t, first, func(o *Options) { o.Fetch.SumDB = "off" })
	serve := func(proxy string, offline bool, use func(dir string)) {
		t.Helper()
		o.Fetch.Proxy, o.Fetch.Offline = proxy, offline
		dir := t.TempDir()
		f, err := Mount(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer shut(t, f)
		use(dir)
	}
	fusetest.Require(t)
	serve(first.URL(), false, func(dir string) {
		for _, v := range []string{"v1.0.0", pseudo} {
			readFile(t, in(dir, "cache/download/example.com/m/@v/"+v+".mod"))
		}
		if got := readFile(t, in(dir, list)); got != "v1.0.0\nv1.1.0\n" {
			t.Errorf("list %q", got)
		}
	})
	// v1.0.0 was taken away, v1.2.0 came.
	second := proxytest.New(t, publish("example.com/m", "v1.1.0"), publish("example.com/m", "v1.2.0"))
	serve(second.URL(), false, func(dir string) {
		if got := readFile(t, in(dir, list)); got != "v1.1.0\nv1.2.0\nv1.0.0\n" {
			t.Errorf("list %q, want upstream's and what the store has", got)
		}
	})
	serve("http://127.0.0.1:1", false, func(dir string) {
		if got := readFile(t, in(dir, list)); got != "v1.1.0\nv1.2.0\nv1.0.0\n" {
			t.Errorf("without upstream: list %q", got)
		}
	})
	// The whole module was taken away.
	third := proxytest.New(t, publish("example.com/other", "v1.0.0"))
	serve(third.URL(), false, func(dir string) {
		if got := readFile(t, in(dir, list)); got != "v1.0.0\n" {
			t.Errorf("of a module that has gone: list %q", got)
		}
		readErr(t, dir, "cache/download/example.com/never/@v/list", syscall.ENOENT)
	})
	// The list was never asked for, or is lost.
	if err := os.Remove(o.Store.Dir + "/" + list); err != nil {
		t.Fatal(err)
	}
	serve("off", true, func(dir string) {
		if got := readFile(t, in(dir, list)); got != "v1.0.0\n" {
			t.Errorf("offline: list %q", got)
		}
		readErr(t, dir, "cache/download/example.com/never/@v/list", syscall.EHOSTUNREACH)
	})
}

// What a revision stands for is asked of upstream, and for a while of nobody; without upstream it is what it stood for last.
func TestRevisions(t *testing.T) {
	const pseudo = "v1.0.1-0.20200102030405-0123456789ab"
	branch, wrong := publish("example.com/m", "Main"), publish("example.com/m", "wrong")
	branch.Info = `{"Version":"` + pseudo + `","Time":"2020-01-02T03:04:05Z"}`
	wrong.Info = `{"Version":"v2.0.0","Time":"2020-01-02T03:04:05Z"}` // example.com/m has no such version
	s := proxytest.New(t, branch, wrong, publish("example.com/m", "v1.0.0"))
	const query = "cache/download/example.com/m/@v/!main.info"
	dir, f := mountTest(t, s, func(o *Options) { o.Fetch.SumDB = "off" })
	for range 2 {
		if got := readFile(t, in(dir, query)); !strings.Contains(got, pseudo) {
			t.Errorf("%s", got)
		}
	}
	wantAsked(t, s, "GET /example.com/m/@v/!main.info")
	if _, err := os.Stat(in(dir, "cache/download/example.com/m/@v/wrong.info")); err == nil {
		t.Error("a version that the module cannot have was taken")
	}
	if _, err := os.Stat(in(dir, "example.com/m@Main")); err == nil {
		t.Error("a branch is a version")
	}
	readErr(t, dir, "cache/download/example.com/m/@v/nobranch.info", syscall.ENOENT)
	o := f.opts
	shut(t, f)
	s.ResetRequests()
	o.Fetch.Offline = true
	again := t.TempDir()
	f, err := Mount(again, o)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, f)
	if got := readFile(t, in(again, query)); !strings.Contains(got, pseudo) {
		t.Errorf("offline: %s", got)
	}
	readErr(t, again, "cache/download/example.com/m/@v/never.info", syscall.EHOSTUNREACH)
	wantAsked(t, s)
}

// A private module is asked for where it comes from. That this cannot be reached is not that there is none.
func TestPrivateUnreachable(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	s := proxytest.New(t)
	dir, _ := mountTest(t, s, func(o *Options) { o.Fetch.Private = "example.com/a" })
	readErr(t, dir, "example.com/a@v1.0.0/a.go", syscall.EHOSTUNREACH)
	if e := events(t, dir); len(e) != 1 || !strings.Contains(e[0].Cause, "direct: ") {
		t.Errorf("events %+v", e)
	}
	wantAsked(t, s)
	// Where clients resolve, they ask by themselves, and we ask nobody.
	dir, f := mountTest(t, s, func(o *Options) { o.Fetch.Private, o.ReadOnly, o.ResolveClient = "example.com/a", false, true })
	if err := os.MkdirAll(in(dir, "cache/download/example.com/a/@v"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in(dir, "cache/download/example.com/a/@v/v1.0.0.mod"), []byte("module example.com/a\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	readErr(t, dir, "example.com/a@v1.0.0/a.go", syscall.ENOENT)
	for _, u := range f.client.Upstreams() {
		if u.URL == "direct" {
			t.Errorf("asked: %+v", u)
		}
	}
}
