package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"modfs/fetch/proxytest"
)

// readErr reads a file of the mount, which must fail with an errno.
func readErr(t *testing.T, dir, p string, want syscall.Errno) {
	t.Helper()
	data, err := os.ReadFile(in(dir, p))
	if !errors.Is(err, want) {
		t.Errorf("%s: %q, %v, want %v", p, data, err, want)
	}
}

// wantNothingStored checks that neither the module's archive nor anything made of it is in the store.
func wantNothingStored(t *testing.T, f *FS) {
	t.Helper()
	// What is on its way, as the .info that is asked for besides, may take its time.
	eventually(t, "nothing is on its way to the store", func() bool {
		names, err := os.ReadDir(filepath.Join(f.store.Dir(), "tmp"))
		return err == nil && len(names) == 0
	})
	err := filepath.WalkDir(f.store.Dir(), func(p string, d iofs.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.store.Dir(), p)
		if errors.Is(err, iofs.ErrNotExist) {
			return nil // it was in tmp
		}
		if err == nil && !d.IsDir() && (strings.HasSuffix(p, ".zip") || strings.HasPrefix(rel, "index")) {
			t.Errorf("the store has %s", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if h1 := f.pins.zip(moduleA); h1 != "" {
		t.Errorf("pinned: %s", h1)
	}
}

// TestTamperedZip has a proxy send what the checksum database does not vouch for, and then come to reason.
func TestTamperedZip(t *testing.T) {
	s := proxytest.New(t)
	told := make(chan Event, 100)
	dir, f := mountTest(t, s, func(o *Options) { o.OnError = func(e Event) { told <- e } })
	s.SetFault(func(string) string { return "tamper" })
	for range 3 {
		readErr(t, dir, "example.com/a@v1.0.0/a.go", syscall.EBADMSG)
	}
	_, err := os.ReadDir(in(dir, "example.com/a@v1.0.0"))
	wantErr(t, err, syscall.EBADMSG)
	readErr(t, dir, zipKey(moduleA), syscall.EBADMSG)
	wantNothingStored(t, f)

	es := events(t, dir)
	if len(es) == 0 {
		t.Fatal("no errors are told")
	}
	e, right := es[0], s.ZipHash(moduleA.Path, moduleA.Version)
	if e.Module != moduleA.Path || e.Version != moduleA.Version || e.Errno != "EBADMSG" || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	if strings.Count(e.Cause, "h1:") != 2 || !strings.Contains(e.Cause, right) {
		t.Errorf("%q: want the hash %s, and the wrong one", e.Cause, right)
	}
	if e.Repeats == 0 {
		t.Errorf("%+v: the same error is not counted as the same", e)
	}
	if got := <-told; got.Cause != e.Cause {
		t.Errorf("OnError was told %+v, not %+v", got, e)
	}

	s.SetFault(nil)
	wantTree(t, s, dir, module1(t, "example.com/a@v1.0.0"))
	if got := readFile(t, in(dir, zipHashKey(moduleA))); got != right {
		t.Errorf(".ziphash %q, want %q", got, right)
	}
}

func TestTamperedMod(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	s.SetFault(func(string) string { return "tamper" })
	readErr(t, dir, modKey(moduleA), syscall.EBADMSG)
	if _, err := f.store.Stat(modKey(moduleA)); err == nil || f.pins.mod(moduleA) != "" {
		t.Error("it was stored")
	}
	if es := events(t, dir); len(es) != 1 || strings.Count(es[0].Cause, "h1:") != 2 {
		t.Errorf("%+v", es)
	}
	s.SetFault(nil)
	if got, want := readFile(t, in(dir, modKey(moduleA))), module1(t, "example.com/a@v1.0.0").Mod; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestPinned has a proxy change its mind about a version that no checksum database knows.
func TestPinned(t *testing.T) {
	s := proxytest.New(t)
	noSum := func(o *Options) { noMemory(o); o.Fetch.SumDB = "off" }
	dir, f := mountTest(t, s, noSum)
	m := module1(t, "example.com/a@v1.0.0")
	wantTree(t, s, dir, m)
	first := readFile(t, in(dir, zipHashKey(moduleA)))
	shut(t, f)
	s.SetFault(func(string) string { return "tamper" })
	dir, f = mountTest(t, s, func(o *Options) { noSum(o); sameStore(f)(o) })
	f.store.Evict(0)
	readErr(t, dir, "example.com/a@v1.0.0/a.go", syscall.EBADMSG)
	if got := readFile(t, in(dir, zipHashKey(moduleA))); got != first || got != s.ZipHash(m.Path, m.Version) {
		t.Errorf("the hash is now %q, was %q", got, first)
	}
	if es := events(t, dir); len(es) != 1 || !strings.Contains(es[0].Cause, "pin") {
		t.Errorf("%+v, want the pin in it", es)
	}
	s.SetFault(nil)
	wantTree(t, s, dir, m)
}

// TestErrors has upstream fail in many ways.
func TestErrors(t *testing.T) {
	const file, mod = "example.com/a@v1.0.0/a.go", "cache/download/example.com/a/@v/v1.0.0.mod"
	for _, tt := range []struct {
		name, path string
		fault      string // of zips and .mod files, or of all
		all        bool
		set        func(*Options)
		want       syscall.Errno
		event      bool
	}{
		{name: "forbidden zip", path: file, fault: "403", want: syscall.EACCES, event: true},
		{name: "forbidden info", path: "example.com/a@v1.0.0", fault: "403", all: true, want: syscall.EACCES, event: true},
		{name: "forbidden mod", path: mod, fault: "403", want: syscall.EACCES, event: true},
		{name: "zip not found", path: file, fault: "404", want: syscall.ENOENT},
		{name: "mod gone", path: mod, fault: "410", want: syscall.ENOENT},
		{name: "page for zip", path: file, fault: "html", want: syscall.EIO, event: true},
		{name: "page for info", path: "example.com/a@v1.0.0", fault: "html", all: true, want: syscall.EIO, event: true},
		{name: "bad info", path: "cache/download/example.com/a/@v/v1.0.0.info", fault: "badjson", all: true, want: syscall.EIO, event: true},
		{name: "wrong database", path: file, fault: "sumdbwrong", all: true, want: syscall.EBADMSG, event: true},
		{name: "offline", path: "example.com/a@v1.0.0", set: func(o *Options) { o.Fetch.Offline = true }, want: syscall.EHOSTUNREACH, event: true},
		{name: "off", path: "example.com/a@v1.0.0", set: func(o *Options) { o.Fetch.Proxy = "off" }, want: syscall.ENOENT},
		{
			name: "stalled", path: file, fault: "stall", want: syscall.ETIMEDOUT, event: true,
			// Whatever times out first, it is a time-out.
			set: func(o *Options) { o.Fetch.IdleTimeout = 100 * time.Millisecond },
		},
		{
			name: "too large", path: "example.com/noise@v1.0.0/go.mod", want: syscall.EFBIG, event: true,
			set: func(o *Options) { o.Store.MaxSize = 256 << 10 },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t, append(proxytest.Modules(), noise("example.com/noise", 1, 512<<10))...)
			dir, f := mountTest(t, s, tt.set)
			s.SetFault(func(path string) string {
				if tt.all || strings.HasSuffix(path, ".zip") || strings.HasSuffix(path, ".mod") {
					return tt.fault
				}
				return ""
			})
			readErr(t, dir, tt.path, tt.want)
			wantNothingStored(t, f)
			if n := len(events(t, dir)); (n > 0) != tt.event {
				t.Errorf("%d errors told: %+v", n, events(t, dir))
			}
		})
	}
}

// TestProxyDown reads from a mount whose proxy is no longer there: what the store has stays.
func TestProxyDown(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	list := readFile(t, in(dir, "cache/download/example.com/b/@v/list"))
	readFile(t, in(dir, "example.com/b@v1.0.0/b.go"))
	m := module1(t, "example.com/b@v1.0.0")
	s.Close()
	for _, p := range []string{"example.com/a@v1.0.0", "example.com/a@v1.0.0/a.go", modKey(moduleA), zipHashKey(moduleA), listKey("example.com/a")} {
		readErr(t, dir, p, syscall.EHOSTUNREACH)
	}
	for name, want := range m.Files {
		if got := readFile(t, in(dir, m.String()+"/"+name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	shut(t, f)
	// The last answer outlives the daemon that got it.
	dir, _ = mountTest(t, s, sameStore(f))
	if got := readFile(t, in(dir, "cache/download/example.com/b/@v/list")); got != list || list != "v1.0.0\nv1.1.0\n" {
		t.Errorf("list is %q, was %q", got, list)
	}
}

// TestErrorLog checks that the first error is not pushed out by what follows from it.
func TestErrorLog(t *testing.T) {
	l := errorLog{max: 3}
	for i, e := range []struct {
		cause string
		isNew bool
	}{{"a", true}, {"a", false}, {"b", true}, {"a", true}, {"a", false}, {"a", false}, {"<c>", true}} {
		if got := l.add(Event{Cause: e.cause, Op: "zip", Errno: "EIO"}); got != e.isNew {
			t.Errorf("add %d: new %v, want %v", i, got, e.isNew)
		}
	}
	const zero = `{"time":"0001-01-01T00:00:00Z","op":"zip","cause":`
	want := zero + `"b","errno":"EIO"}` + "\n" + zero + `"a","errno":"EIO","repeats":2}` + "\n" + zero + `"<c>","errno":"EIO"}` + "\n"
	if got := string(l.lines()); got != want || l.count() != 7 {
		t.Errorf("%d errors:\n%swant 7:\n%s", l.count(), got, want)
	}
}

// TestQuiet checks which failures are no news.
func TestQuiet(t *testing.T) {
	f := unmounted(t, proxytest.New(t), func(o *Options) { o.OnError = func(e Event) { t.Errorf("told: %+v", e) } })
	for err, want := range map[error]fuse.Status{errInterrupted: fuse.EINTR, errNotOffered: fuse.ENOENT, context.Canceled: fuse.Status(syscall.ESHUTDOWN)} {
		if got := f.fail("zip", moduleA, err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	if n := f.errors.count(); n != 0 {
		t.Errorf("%d errors", n)
	}
}

// TestNoLength checks that an archive whose size the proxy does not announce is shown with the right one all the same.
func TestNoLength(t *testing.T) {
	s := proxytest.New(t)
	s.SetFault(func(string) string { return "nolength" })
	dir, _ := mountTest(t, s, nil)
	if got := readFile(t, in(dir, zipKey(moduleA))); got != string(s.ZipBytes(moduleA.Path, moduleA.Version)) {
		t.Errorf("%d bytes", len(got))
	}
}

func TestCutSumDB(t *testing.T) {
	for rest, want := range map[string]struct {
		name, file string
		dir        bool
	}{
		"":                                   {"", "", true},
		"sum.example":                        {"sum.example", "", true},
		"sum.example/db":                     {"sum.example/db", "", true},
		"sum.example/supported":              {"sum.example", "supported", false},
		"sum.example/db/latest":              {"sum.example/db", "latest", false},
		"sum.example/db/lookup":              {"sum.example/db", "lookup", true},
		"sum.example/lookup/tile.com/a@v1":   {"sum.example", "lookup/tile.com/a@v1", false},
		"sum.example/db/tile/8/0/x001/067":   {"sum.example/db", "tile/8/0/x001/067", false},
		"sum.example/db/tile/8/0/x001":       {"sum.example/db", "tile/8/0/x001", true},
		"sum.example/db/tile/8/1/000.p/249":  {"sum.example/db", "tile/8/1/000.p/249", false},
		"sum.example/db/lookup/latest.com/a": {"sum.example/db", "lookup/latest.com/a", true},
	} {
		if name, file := cutSumDB(rest); name != want.name || file != want.file || sumdbIsDir(rest) != want.dir {
			t.Errorf("%q: %q, %q, directory %v", rest, name, file, sumdbIsDir(rest))
		}
	}
}
