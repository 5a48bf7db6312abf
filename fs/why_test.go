package fs

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// whyCase is a path, and what is to be said of it after prepare.
type whyCase struct {
	name    string
	set     func(*proxytest.Server, *Options)
	prepare func(t *testing.T, s *proxytest.Server, dir string, f *FS)
	path    string

	state        AnswerState
	errno, class string
	cause        string // a part of it
	kind         string
	check        func(t *testing.T, w *Why)

	asked *Answer // what Ask says, where that differs; only State, Errno and Class count
}

const fileA = "example.com/a@v1.0.0/a.go"

// fail has each read of fileA fail with an errno because of a fault of the proxy.
func failing(fault string, want syscall.Errno) func(*testing.T, *proxytest.Server, string, *FS) {
	return func(t *testing.T, s *proxytest.Server, dir string, _ *FS) {
		s.SetFault(func(string) string { return fault })
		readErr(t, dir, fileA, want)
	}
}

func resident(t *testing.T, _ *proxytest.Server, dir string, _ *FS) { readFile(t, in(dir, fileA)) }

func quick(_ *proxytest.Server, o *Options) { o.Fetch.Tries = 1 }

func readWrite(_ *proxytest.Server, o *Options) { o.ReadOnly = false }

func clients(_ *proxytest.Server, o *Options) { o.ReadOnly, o.ResolveClient = false, true }

var answerThere = &Answer{State: AnswerThere}

var whyCases = []whyCase{
	{name: "resident", prepare: resident, path: fileA, state: AnswerThere, kind: "file", cause: "the store has it", check: wantResident},
	{name: "not fetched", path: fileA, state: AnswerFetch, cause: "not fetched yet; these would be asked, in this order: http://", asked: answerThere},
	{name: "evicted", path: fileA, state: AnswerFetch, cause: "evicted at", asked: answerThere, prepare: func(t *testing.T, s *proxytest.Server, dir string, f *FS) {
		resident(t, s, dir, f)
		f.store.Evict(0)
	}, check: func(t *testing.T, w *Why) {
		if z := w.stored("zip"); !z.Missing || z.Evicted.IsZero() || w.Pins["zip"] == "" || w.stored("index").Missing {
			t.Errorf("%+v: want its zip evicted, its pin and index kept", w.Store)
		}
	}},
	{name: "no such file", prepare: resident, path: "example.com/a@v1.0.0/nix.go", state: AnswerError, errno: "ENOENT", class: "no_such_file"},
	{name: "404", prepare: failing("404", syscall.ENOENT), path: fileA, state: AnswerError, errno: "ENOENT", class: "not_found", cause: "404 Not Found"},
	{name: "403", prepare: failing("403", syscall.EACCES), path: fileA, state: AnswerError, errno: "EACCES", class: "forbidden", cause: "403 Forbidden",
		check: func(t *testing.T, w *Why) {
			if i := requestFor(w, ".info"); i < 0 || w.Steps[i].Status != 403 || w.Steps[i].Class != "forbidden" {
				t.Errorf("%+v: want the request that was refused", w.Steps)
			}
		}},
	{name: "500", set: quick, prepare: failing("500", syscall.EIO), path: fileA, state: AnswerError, errno: "EIO", class: "upstream", cause: "500 Internal Server Error"},
	{name: "html", prepare: failing("html", syscall.EIO), path: fileA, state: AnswerError, errno: "EIO", class: "bad_answer", cause: "HTML page"},
	{name: "wrong hash", prepare: failing("tamper", syscall.EBADMSG), path: fileA, state: AnswerError, errno: "EBADMSG", class: "mismatch", cause: "got h1:",
		check: func(t *testing.T, w *Why) {
			if w.Record == nil || !strings.Contains(w.Answer.Cause, w.Record.ZipHash) {
				t.Errorf("%+v: want the hash that the checksum database says", w.Record)
			}
		}},
	{name: "not in the checksum database", prepare: func(t *testing.T, s *proxytest.Server, dir string, _ *FS) {
		s.SetFault(func(path string) string {
			if strings.Contains(path, "/lookup/") {
				return "404"
			}
			return ""
		})
		readErr(t, dir, fileA, syscall.EIO)
	}, path: fileA, state: AnswerError, errno: "EIO", class: "not_in_sumdb", cause: "is the module private?"},
	{name: "down", set: func(_ *proxytest.Server, o *Options) { o.Fetch.Proxy = "http://127.0.0.1:1" }, path: fileA, state: AnswerError, errno: "EHOSTUNREACH", class: "unreachable",
		prepare: func(t *testing.T, _ *proxytest.Server, dir string, _ *FS) {
			readErr(t, dir, fileA, syscall.EHOSTUNREACH)
		}},
	{name: "hidden", set: func(_ *proxytest.Server, o *Options) {
		o.HidePrivate, o.Fetch.Private = true, "other.example,example.com/*"
	}, path: fileA, state: AnswerError, errno: "ENOENT", class: "hidden", cause: "GOPRIVATE=example.com/*"},
	{name: "off", set: func(_ *proxytest.Server, o *Options) { o.Fetch.Proxy = "off" }, path: fileA, state: AnswerError, errno: "ENOENT", class: "off",
		asked: &Answer{State: AnswerError, Errno: "ENOENT", Class: "not_found"}},
	{name: "offline", set: func(_ *proxytest.Server, o *Options) { o.Fetch.Offline = true }, path: fileA, state: AnswerError, errno: "EHOSTUNREACH", class: "offline"},
	{name: "not a module", path: "vendor/x.go", state: AnswerError, errno: "ENOENT", class: "name", kind: "none"},
	{name: "no dot", path: "nodot/a@v1.0.0", state: AnswerError, errno: "ENOENT", class: "name", cause: "missing dot"},
	{name: "capitals", path: "github.com/BurntSushi/toml@v1.0.0", state: AnswerError, errno: "ENOENT", class: "name", cause: "github.com/!burnt!sushi"},
	{name: "branch", path: "example.com/a@main", state: AnswerError, errno: "ENOENT", class: "name", cause: "cache/download/example.com/a/@v/main.info"},
	{name: "prefix", path: "example.com", state: AnswerThere, kind: "prefix"},
	{name: "root", path: "", state: AnswerThere, kind: "root"},
	{name: "lock", path: "cache/download/example.com/a/@v/v1.0.0.lock", state: AnswerError, errno: "ENOENT", class: "own", kind: "own"},
	{name: "status", path: ".modfs/status.json", state: AnswerThere, kind: "control"},
	{name: "list", path: "cache/download/example.com/a/@v/list", state: AnswerFetch, kind: "list", asked: answerThere},
	{name: "mod", path: modKey(moduleA), state: AnswerFetch, kind: "mod", asked: answerThere},
	{name: "ziphash", path: zipHashKey(moduleA), state: AnswerFetch, kind: "ziphash", asked: answerThere},
	{name: "sumdb", path: "cache/download/sumdb/sum.example/lookup/example.com/a@v1.0.0", state: AnswerFetch, kind: "sumdb", asked: answerThere},
	{name: "overlay", set: readWrite, path: "mine", state: AnswerThere, cause: "writable layer", kind: "none",
		prepare: func(t *testing.T, _ *proxytest.Server, dir string, _ *FS) {
			if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("mine"), 0o666); err != nil {
				t.Fatal(err)
			}
		}, check: func(t *testing.T, w *Why) {
			if w.Overlay == nil || w.Overlay.Size != 4 || w.Overlay.Dir {
				t.Errorf("%+v, want 4 bytes", w.Overlay)
			}
		}},
	{name: "overlay's lock", set: readWrite, path: "cache/download/example.com/a/@v/v1.0.0.lock", state: AnswerThere, cause: "writable layer",
		prepare: func(t *testing.T, _ *proxytest.Server, dir string, _ *FS) {
			name := filepath.Join(dir, "cache/download/example.com/a/@v/v1.0.0.lock")
			if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}},
	{name: "not offered", set: clients, path: fileA, state: AnswerError, errno: "ENOENT", class: "not_offered", cause: "clients resolve", asked: answerThere},
	{name: "removed", set: clients, path: "example.com/a@v1.0.0", state: AnswerError, errno: "ENOENT", class: "removed",
		prepare: func(t *testing.T, _ *proxytest.Server, _ string, f *FS) {
			f.removals.add(inMod("example.com/a@v1.0.0"))
		}},
	{name: "damaged", prepare: func(t *testing.T, s *proxytest.Server, dir string, f *FS) {
		resident(t, s, dir, f)
		f.damaged(zipKey(moduleA), os.ErrInvalid)
		s.SetFault(func(string) string { return "403" })
	}, path: fileA, state: AnswerFetch, cause: "the store's zip is damaged", asked: answerThere},
}

func wantResident(t *testing.T, w *Why) {
	z := w.stored("zip")
	if z.Missing || z.Size == 0 || z.Used.IsZero() || z.Damaged != "" {
		t.Errorf("%+v", z)
	}
	if w.Record == nil || w.Record.ZipHash != w.Pins["zip"] || !w.Record.Proven || w.Record.TreeSize == 0 {
		t.Errorf("record %+v, pins %v: want both to say the same", w.Record, w.Pins)
	}
	if w.Route == nil || len(w.Route.Proxies) != 1 || len(w.Upstreams) == 0 {
		t.Errorf("route %+v, upstreams %+v", w.Route, w.Upstreams)
	}
	if requestFor(w, ".zip") < 0 || requestFor(w, "lookup/example.com/a@v1.0.0") < 0 {
		t.Errorf("%+v: want the requests for zip and record", w.Steps)
	}
	verified := 0
	for _, s := range w.Steps {
		if s.Module != moduleA.Path || s.Version != moduleA.Version || s.Time.IsZero() {
			t.Errorf("step %+v", s)
		}
		if s.Kind == ActivityVerified && s.File == "zip" && s.H1 == w.Pins["zip"] {
			verified++
		}
	}
	if verified != 1 {
		t.Errorf("%+v: want the zip verified", w.Steps)
	}
}

// requestFor returns the index of the step that is the request for a file.
func requestFor(w *Why, suffix string) int {
	for i, s := range w.Steps {
		if s.Kind == ActivityRequest && strings.HasSuffix(s.File, suffix) {
			return i
		}
	}
	return -1
}

func TestWhy(t *testing.T) {
	for _, test := range whyCases {
		t.Run(test.name, func(t *testing.T) {
			s := proxytest.New(t)
			dir, f := mountTest(t, s, func(o *Options) {
				if test.set != nil {
					test.set(s, o)
				}
			})
			if test.prepare != nil {
				test.prepare(t, s, dir, f)
			}
			s.ResetRequests()
			misses, errors := f.stats.misses.Load(), f.errors.count()
			w := f.Why(test.path)
			if a := w.Answer; a.State != test.state || a.Errno != test.errno || a.Class != test.class || !strings.Contains(a.Cause, test.cause) {
				t.Errorf("%+v", a)
			}
			if (w.Answer.State == AnswerError) != (len(w.Answer.Advice) > 0 && w.Answer.Message != "") {
				t.Errorf("%+v: an error, and nothing else, has advice and the system's text", w.Answer)
			}
			if test.kind != "" && w.Kind != test.kind || w.Means == "" || w.Mountpoint != dir || w.Path != test.path || w.Asked {
				t.Errorf("%+v", w)
			}
			if test.check != nil {
				test.check(t, w)
			}
			if n := len(s.Requests()); n > 0 || f.stats.misses.Load() != misses || f.errors.count() != errors {
				t.Errorf("a question made %d requests, or an error", n)
			}
			data, err := json.Marshal(w)
			var back Why
			if err == nil {
				err = json.Unmarshal(data, &back)
			}
			if err != nil || back.Answer.Cause != w.Answer.Cause || len(back.Steps) != len(w.Steps) {
				t.Errorf("JSON: %v", err)
			}

			want := Answer{State: test.state, Errno: test.errno, Class: test.class}
			if test.asked != nil {
				want = *test.asked
			}
			a := f.Ask(t.Context(), test.path).Answer
			if a.State != want.State || a.Errno != want.Errno || a.Class != want.Class {
				t.Errorf("asked: %+v, want %+v", a, want)
			}
		})
	}
}

// What is asked for is what happens: the second answer knows what the first one found out.
func TestAsk(t *testing.T) {
	s := proxytest.New(t)
	_, f := mountTest(t, s, nil)
	if w := f.Ask(t.Context(), fileA); !w.Asked || w.Answer.State != AnswerThere || w.stored("zip").Missing {
		t.Errorf("%+v", w)
	}
	w := f.Ask(t.Context(), modKey(moduleA))
	if i := slices.IndexFunc(w.Steps, func(a Activity) bool { return a.Kind == ActivityVerified && a.File == "mod" }); i < 0 ||
		w.Steps[i].H1 != s.ModHash(moduleA.Path, moduleA.Version) || w.Steps[i].H1 != w.Pins["mod"] {
		t.Errorf("%+v: want the go.mod verified", w.Steps)
	}
	s.SetFault(func(string) string { return "403" })
	if w := f.Ask(t.Context(), "example.com/b@v1.0.0"); !w.Asked || w.Answer.Errno != "EACCES" || requestFor(w, ".info") < 0 {
		t.Errorf("%+v", w)
	}
	if w := f.Why("example.com/b@v1.0.0"); w.Answer.Errno != "EACCES" || !strings.Contains(w.Answer.Cause, "the last time") {
		t.Errorf("%+v", w.Answer)
	}
	if n := f.errors.count(); n != 0 {
		t.Errorf("%d errors, though no client had one", n)
	}
	// Nobody waits for longer than he wants to.
	s.SetFault(func(string) string { return "stall" })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for s.Stalled() == 0 && t.Context().Err() == nil {
		}
		cancel()
	}()
	if w := f.Ask(ctx, "example.com/many@v1.0.0"); w.Answer.State != AnswerError {
		t.Errorf("%+v", w.Answer)
	}
}

func TestPathOf(t *testing.T) {
	f := new(FS)
	for _, test := range []struct {
		m    module.Version
		want string
	}{
		{module.Version{Path: "github.com/BurntSushi/toml", Version: "v1.0.0-RC.1"}, "github.com/!burnt!sushi/toml@v1.0.0-!r!c.1"},
		{module.Version{Path: "example.com/a", Version: "latest"}, "cache/download/example.com/a/@latest"},
		{module.Version{Path: "example.com/a", Version: "main"}, "cache/download/example.com/a/@v/main.info"},
	} {
		if got, err := f.PathOf(test.m); got != test.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", test.m, got, err, test.want)
		}
	}
	if got, err := f.PathOf(module.Version{Path: "nodot", Version: "v1.0.0"}); err == nil {
		t.Errorf("of no module path: %q", got)
	}
	f.opts.Pkg = true
	if got, _ := f.PathOf(moduleA); got != "mod/example.com/a@v1.0.0" || f.whyPath(got) != got {
		t.Errorf("%q", got)
	}
}

// Each class of errors has advice and a line in the documentation, and each kind of paths a name.
func TestAdviceComplete(t *testing.T) {
	for _, c := range classes {
		if len(advice[c.name]) == 0 {
			t.Errorf("no advice for %q", c.name)
		}
		if got := class(c.is[0]); got != c.name {
			t.Errorf("the class of %v is %q, want %q", c.is[0], got, c.name)
		}
	}
	for k := KindNone; k <= KindPkg; k++ {
		if kinds[k].name == "" || kinds[k].means == "" {
			t.Errorf("kind %d has no name or meaning", k)
		}
	}
	if !reflect.DeepEqual(advice["upstream"], func() []string { a := Answer{State: AnswerError, Class: "?"}; a.advise(); return a.Advice }()) {
		t.Error("an unknown class has no advice")
	}
	doc, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range advice {
		if !strings.Contains(string(doc), "\n| `"+name+"` |") {
			t.Errorf("docs/troubleshooting.md has no line for %q", name)
		}
	}
	reference, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	errnos := regexp.MustCompile("`E[A-Z]{2,}`").FindAllString(string(reference), -1)
	if len(errnos) < 12 {
		t.Errorf("only these errnos in docs/reference.md: %v", errnos)
	}
	for _, no := range errnos {
		if !strings.Contains(string(doc), no) {
			t.Errorf("docs/troubleshooting.md does not say what to do about %s", no)
		}
	}
	if class(nil) != "" || class(fetch.ErrForbidden) != "forbidden" {
		t.Error("classes")
	}
}
