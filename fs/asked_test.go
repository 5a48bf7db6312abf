package fs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
)

// prefetched is what a Prefetch told.
type prefetched struct {
	done, kept, failed []string // failed with the reasons
	warnings           []string
	security           int
	progress           int
	sum                PrefetchEvent
}

// prefetch runs Prefetch to its end.
func prefetch(t *testing.T, ctx context.Context, f *FS, o PrefetchOptions, all ...Wanted) (p prefetched) {
	t.Helper()
	f.Prefetch(ctx, all, o, func(e PrefetchEvent) {
		if p.sum.Event != "" {
			t.Errorf("after the summary: %+v", e)
		}
		name := e.Module + "@" + e.Version
		switch e.Event {
		case PrefetchDone:
			if p.done = append(p.done, name); e.Kept {
				p.kept = append(p.kept, name)
			}
		case PrefetchFailed:
			p.failed = append(p.failed, name+": "+e.Reason)
			if e.Security {
				p.security++
			}
		case PrefetchWarning:
			p.warnings = append(p.warnings, e.Message)
		case PrefetchProgress:
			p.progress++
		case PrefetchSummary:
			p.sum = e
		}
	})
	slices.Sort(p.done)
	slices.Sort(p.failed)
	if p.sum.FailedCount != len(p.failed) && !p.sum.Interrupted {
		t.Errorf("%d failed, and it said %d: %q", len(p.failed), p.sum.FailedCount, p.failed)
	}
	return p
}

// want returns what is wanted by names like M@V.
func want(names ...string) (all []Wanted) {
	for _, n := range names {
		path, version, _ := strings.Cut(n, "@")
		all = append(all, Wanted{Path: path, Version: version})
	}
	return all
}

func TestPrefetchAsked(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, nil)
	all := want("example.com/a@v1.0.0", "example.com/b@v1", "example.com/Upper/Case@latest", "example.com/a@v1.0.0", "example.com/b@v1.0.0")
	all[0].Sum, all[0].ModSum = s.ZipHash("example.com/a", "v1.0.0"), s.ModHash("example.com/a", "v1.0.0")
	all[4].ModOnly = true
	p := prefetch(t, t.Context(), f, PrefetchOptions{}, all...)
	if want := []string{"example.com/Upper/Case@v1.0.0-RC.1", "example.com/a@v1.0.0", "example.com/b@v1.0.0", "example.com/b@v1.1.0"}; !slices.Equal(p.done, want) {
		t.Errorf("done %q, want %q; %q", p.done, want, p.failed)
	}
	if p.sum.Modules != 4 || p.sum.Fetched != 4 || p.sum.Mods != 1 || p.sum.Bytes == 0 || p.sum.Interrupted {
		t.Errorf("%+v", p.sum)
	}
	for _, key := range []string{"a/@v/v1.0.0.zip", "a/@v/v1.0.0.info", "a/@v/v1.0.0.mod", "b/@v/v1.1.0.zip", "b/@v/v1.0.0.mod", "b/@v/v1.0.0.info"} {
		if _, err := f.store.Stat(downloadDir + "/example.com/" + key); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.store.Stat(downloadDir + "/example.com/b/@v/v1.0.0.zip"); err == nil {
		t.Error("the archive of b@v1.0.0 was not wanted")
	}
	s.ResetRequests()
	p = prefetch(t, t.Context(), f, PrefetchOptions{Jobs: 1}, want("example.com/a@v1.0.0", "example.com/b@v1.1.0")...)
	if len(p.kept) != 2 || p.sum.KeptCount != 2 || p.sum.Fetched != 0 || p.sum.Bytes != 0 {
		t.Errorf("again: %+v", p)
	}
	wantAsked(t, s)
}

func TestPrefetchAskedFails(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, func(o *Options) { o.HidePrivate, o.Fetch.Private = true, "example.com/two/*" })
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, "many/@v/v1.0.0.zip") {
			return "tamper"
		}
		return ""
	})
	all := want("example.com/a@v1.0.0", "example.com/none@v1.0.0", "example.com/a@v1.5.0", "example.com/many@v1.0.0", "example.com/two/v2@v2.1.0",
		"BAD PATH@v1.0.0", "example.com/a@", "example.com/a@upgrade", "example.com/b@v1.0.0", "example.com/a@>v1.0.0", "example.com/inc@v2.0.0+incompatible", "example.com/nested@v1.0.0")
	all[8].Sum, all[10].ModSum, all[11].Sum = testHash('A'), testHash('B'), "h1:short"
	p := prefetch(t, t.Context(), f, PrefetchOptions{}, all...)
	if !slices.Equal(p.done, []string{"example.com/a@v1.0.0"}) {
		t.Errorf("done %q", p.done)
	}
	reasons := map[string]string{
		"example.com/none@v1.0.0": "not found", "example.com/a@v1.5.0": "not found", "example.com/many@v1.0.0": "hash mismatch",
		"example.com/two/v2@v2.1.0": "private modules are not on this mount", "BAD PATH@v1.0.0": "malformed module path",
		"example.com/a@": `"" is no version`, "example.com/a@upgrade": "depends on what a project requires",
		"example.com/b@v1.0.0": "differs from your go.sum", "example.com/a@>v1.0.0": "no version of 1 that are listed",
		"example.com/inc@v2.0.0+incompatible": "differs from your go.sum", "example.com/nested@v1.0.0": "no hash of a go.sum",
	}
	if len(p.failed) != len(reasons) {
		t.Errorf("failed %q", p.failed)
	}
	for name, reason := range reasons {
		if !slices.ContainsFunc(p.failed, func(s string) bool { return strings.HasPrefix(s, name+": ") && strings.Contains(s, reason) }) {
			t.Errorf("%s did not fail because of %q: %q", name, reason, p.failed)
		}
	}
	// What the proxy sent is for the daemon's log as well; what a user's go.sum says is not.
	if got := f.stats.insecure.Load(); p.security != 3 || got != 1 {
		t.Errorf("%d security errors, of which %d are the daemon's", p.security, got)
	}
}

// What does not fit is an error, told before with numbers, and takes nothing from what was fetched before it.
func TestPrefetchAskedTooMuch(t *testing.T) {
	s := proxytest.New(t, noise("example.com/old", 1, 75<<10), noise("example.com/m1", 1, 116<<10), noise("example.com/m2", 1, 116<<10), noise("example.com/m3", 1, 116<<10), noise("example.com/huge", 1, 1<<20))
	f := unmounted(t, s, func(o *Options) { o.Store.MaxSize = 384 << 10 })
	prefetch(t, t.Context(), f, PrefetchOptions{}, want("example.com/old@v1.0.0")...)
	p := prefetch(t, t.Context(), f, PrefetchOptions{Jobs: 1}, want("example.com/m1@v1.0.0", "example.com/m2@v1.0.0", "example.com/m3@v1.0.0", "example.com/huge@v1.0.0")...)
	// How many fit depends on what directories take.
	if len(p.done) == 0 || len(p.failed) < 2 || len(p.done)+len(p.failed) != 4 || !strings.Contains(p.failed[0], "too large for the store") || !strings.Contains(p.failed[1], ": no space in the store") || !strings.Contains(p.failed[1], "raise --max-size") {
		t.Errorf("done %q, failed %q", p.done, p.failed)
	}
	if len(p.warnings) != 2 || !strings.Contains(p.warnings[0], "huge@v1.0.0 has 773 KiB, and the store's limit is 384 KiB") || !strings.Contains(p.warnings[1], "the 4 modules have 1.0 MiB together") {
		t.Errorf("%q", p.warnings)
	}
	for _, name := range p.done {
		path, _, _ := strings.Cut(name, "@")
		if _, err := f.store.Stat(zipKey(module.Version{Path: path, Version: "v1.0.0"})); err != nil {
			t.Errorf("%s was evicted: %v", name, err)
		}
	}
	// Room was made by what is older than the prefetch.
	if _, err := f.store.Stat(zipKey(module.Version{Path: "example.com/old", Version: "v1.0.0"})); err == nil {
		t.Error("what nobody used since stayed")
	}
}

// stallZips has downloads of archives stall, but not the questions for their size, which come first.
func stallZips(s *proxytest.Server, paths ...string) {
	var mu sync.Mutex
	seen := make(map[string]bool)
	s.SetFault(func(path string) string {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range paths {
			if path == "/"+p+"/@v/v1.0.0.zip" {
				if seen[p] {
					return "stallbody"
				}
				seen[p] = true
			}
		}
		return ""
	})
}

// What was prefetched to be pinned is, unless that is too much.
func TestPrefetchAskedPinned(t *testing.T) {
	s := proxytest.New(t, publish("example.com/a", "v1.0.0"), noise("example.com/m", 1, 330<<10))
	f := unmounted(t, s, func(o *Options) { o.Store.MaxSize = 800 << 10 })
	p := prefetch(t, t.Context(), f, PrefetchOptions{Pin: true}, want("example.com/a@v1.0.0", "example.com/none@v1.0.0")...)
	if p.sum.Pinned != 1 || !slices.Equal(f.kept.all(), []module.Version{moduleA}) {
		t.Errorf("%+v, pinned %v", p.sum, f.kept.all())
	}
	f.opts.Store.MaxSize = 300 << 10 // so that there is room for it, and not to pin it
	p = prefetch(t, t.Context(), f, PrefetchOptions{Pin: true}, want("example.com/m@v1.0.0")...)
	if p.sum.Pinned != 0 || len(p.done) != 1 || len(p.failed) != 1 || !strings.Contains(p.failed[0], "not pinned: they would fill the store") || len(f.kept.all()) != 1 {
		t.Errorf("%+v, pinned %v", p, f.kept.all())
	}
}

// Who is interrupted leaves nothing behind, but for what somebody else waits for.
func TestPrefetchAskedInterrupted(t *testing.T) {
	s := proxytest.New(t, publish("example.com/a", "v1.0.0"), noise("example.com/large", 1, 64<<10), noise("example.com/many", 2, 64<<10))
	f := unmounted(t, s, nil)
	stallZips(s, "example.com/large", "example.com/many")
	ctx, cancel := context.WithCancel(t.Context())
	var p prefetched
	var group sync.WaitGroup
	group.Go(func() {
		p = prefetch(t, ctx, f, PrefetchOptions{}, want("example.com/a@v1.0.0", "example.com/large@v1.0.0", "example.com/many@v1.0.0")...)
	})
	eventually(t, "two downloads stall", func() bool { return s.Stalled() == 2 })
	eventually(t, "the other one is there", func() bool { _, err := f.store.Stat(zipKey(moduleA)); return err == nil })
	many := f.modules.intern(module.Version{Path: "example.com/many", Version: "v1.0.0"})
	opened := make(chan error, 1)
	go func() {
		z, err := f.openZip(t.Context(), many)
		if err == nil {
			f.zips.put(z)
		}
		opened <- err
	}()
	eventually(t, "it is waited for", func() bool { return f.turns.wanted(many) })
	cancel()
	group.Wait()
	if !p.sum.Interrupted || len(p.failed) > 0 || p.sum.Modules != 3 {
		t.Errorf("%+v", p)
	}
	eventually(t, "one download is left", func() bool {
		names, err := os.ReadDir(filepath.Join(f.store.Dir(), "tmp"))
		return err == nil && len(names) == 1
	})
	s.Release()
	if err := <-opened; err != nil {
		t.Error(err)
	}
	if n := s.Count("GET /example.com/many/@v/v1.0.0.zip"); n != 1 {
		t.Errorf("what somebody waits for was downloaded %d times", n)
	}
}

// Whoever joins a download that is given up at that moment begins anew.
func TestPrefetchAskedAbandoned(t *testing.T) {
	s := proxytest.New(t, publish("example.com/a", "v1.0.0"), noise("example.com/large", 1, 64<<10), noise("example.com/many", 2, 64<<10))
	f := unmounted(t, s, nil)
	stallZips(s, "example.com/large")
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan prefetched), make(chan prefetched)
	go func() { first <- prefetch(t, ctx, f, PrefetchOptions{}, want("example.com/large@v1.0.0")...) }()
	eventually(t, "it stalls", func() bool { return s.Stalled() == 1 })
	go func() { second <- prefetch(t, t.Context(), f, PrefetchOptions{}, want("example.com/large@v1.0.0")...) }()
	large := f.modules.intern(module.Version{Path: "example.com/large", Version: "v1.0.0"})
	eventually(t, "both have asked", func() bool {
		f.turns.mu.Lock()
		defer f.turns.mu.Unlock()
		return f.turns.asked[large] == 2
	})
	cancel()
	if p := <-first; !p.sum.Interrupted {
		t.Errorf("%+v", p)
	}
	s.SetFault(nil)
	s.Release()
	if p := <-second; len(p.done) != 1 || p.sum.Interrupted {
		t.Errorf("%+v", p)
	}
	if len(f.turns.asked) > 0 {
		t.Errorf("%d are still asked for", len(f.turns.asked))
	}
}

// What a client removed from a read-write mount is back when a user asks for it.
func TestPrefetchAskedRemoved(t *testing.T) {
	asRoot(t)
	m := mountRW(t, proxytest.New(t), clientResolves)
	prefetch(t, t.Context(), m.FS, PrefetchOptions{}, want("example.com/a@v1.0.0")...)
	m.there(true, moduleDir(moduleA))
	m.ok(os.RemoveAll(m.path(moduleDir(moduleA))))
	m.there(false, moduleDir(moduleA))
	if p := prefetch(t, t.Context(), m.FS, PrefetchOptions{}, want("example.com/a@v1.0.0")...); len(p.done) != 1 {
		t.Errorf("%+v", p)
	}
	eventually(t, "it is there", func() bool { _, err := os.Stat(m.path(moduleDir(moduleA))); return err == nil })
}

// A daemon that ends does not wait for a prefetch.
func TestPrefetchAskedClosed(t *testing.T) {
	s := proxytest.New(t)
	stallZips(s, "example.com/a")
	f := unmounted(t, s, nil)
	done := make(chan prefetched)
	go func() { done <- prefetch(t, t.Context(), f, PrefetchOptions{}, want("example.com/a@v1.0.0")...) }()
	eventually(t, "it stalls", func() bool { return s.Stalled() > 0 })
	f.close()
	if p := <-done; !p.sum.Interrupted {
		t.Errorf("%+v", p)
	}
}

func TestResolveQuery(t *testing.T) {
	const pseudo = "v1.9.1-0.20200102030405-0123456789ab"
	branch := publish("example.com/m", "Main")
	branch.Info = `{"Version":"` + pseudo + `","Time":"2020-01-02T03:04:05Z"}`
	last := publish("example.com/m", "v1.11.0-rc.1")
	last.Files["go.mod"] += "\ngo 1.21\n" // or it could be what the go command makes up
	retracting := publish("example.com/r", "v1.3.0")
	retracting.Files["go.mod"] += "retract [v1.2.0, v1.3.0]\n"
	legacy := proxytest.Module{Path: "example.com/old", Version: "v1.0.0", Files: map[string]string{"x.go": "package x\n"}}
	s := proxytest.New(t, branch, publish("example.com/m", "v1.0.0"), publish("example.com/m", "v1.2.0"), publish("example.com/m", "v1.10.0"),
		last, publish("example.com/m", "v2.0.0+incompatible"),
		publish("example.com/r", "v1.1.0"), publish("example.com/r", "v1.2.0"), retracting,
		legacy, proxytest.Module{Path: "example.com/old", Version: "v2.0.0+incompatible", Files: legacy.Files},
		publish("example.com/pre", "v0.1.0-beta"), publish("example.com/pseudo", "v0.0.0-20200102030405-abcdefabcdef"))
	f := unmounted(t, s, func(o *Options) { o.Fetch.SumDB = "off" })
	for _, c := range []struct{ query, want string }{
		{"example.com/m@v1.2.0", "v1.2.0"},
		{"example.com/m@v9.9.9", ""}, // no version of that path
		{"example.com/m@v1.9.9", "v1.9.9"},
		{"example.com/m@latest", "v1.10.0"},
		{"example.com/m@v1", "v1.10.0"},
		{"example.com/m@v1.2", "v1.2.0"},
		{"example.com/m@v1.11", "v1.11.0-rc.1"},
		{"example.com/m@v3", ""},
		{"example.com/m@<v1.10.0", "v1.2.0"},
		{"example.com/m@<=v1.10.0", "v1.10.0"},
		{"example.com/m@>v1.0.0", "v1.2.0"},
		{"example.com/m@>=v1.0.0", "v1.0.0"},
		{"example.com/m@<v1.0.0", ""},
		{"example.com/m@<nonsense", ""},
		{"example.com/m@Main", pseudo},
		{"example.com/m@other", ""},
		{"example.com/m@../x", ""},
		{"example.com/m@none", ""},
		{"example.com/m@patch", ""},
		{"example.com/r@latest", "v1.1.0"},
		{"example.com/old@latest", "v2.0.0+incompatible"},
		{"example.com/pre@latest", "v0.1.0-beta"},
		{"example.com/pseudo@latest", "v0.0.0-20200102030405-abcdefabcdef"},
		{"example.com/none@latest", ""},
		{"bad path@latest", ""},
	} {
		path, query, _ := strings.Cut(c.query, "@")
		got, err := f.resolveQuery(t.Context(), path, query)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s is %q, %v; want %q", c.query, got, err, c.want)
		}
	}
}

// What a user asked for does not wait for a quiet moment, but for what somebody waits for.
func TestTurnsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := turnLog{t: turns{cores: 3}}
		a, b, now := newTurnMod("a"), newTurnMod("b"), newTurnMod("now")
		doneA, doneB := l.t.ask(a), l.t.ask(b)
		for _, md := range []*mod{a, b} { // both at a time, on all cores
			if cores := l.t.verify(t.Context(), md); cores != 0 {
				t.Errorf("%d cores, want all", cores)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer l.t.want(now)()
			l.verify(now, 2)
		})
		synctest.Wait()
		start := time.Now()
		wg.Go(func() { l.verify(a, 1) })
		wg.Wait()
		if want := []string{"now", "now", "a"}; !slices.Equal(l.at, want) {
			t.Errorf("%q, want %q", l.at, want)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("took %v, want no pause", got)
		}
		l.t.verified(b)
		doneA()
		doneB()
		if len(l.t.verifying) > 0 || len(l.t.asked) > 0 {
			t.Errorf("%+v", &l.t)
		}
	})
}
