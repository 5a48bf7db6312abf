package fetch_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	"modfs/fetch/vcstest"
)

// outcome is what became of a download.
type outcome string

const (
	found    outcome = "found"
	notFound outcome = "not found"
	other    outcome = "another error"
)

// goDownload is `go mod download` in the environment of this process, with an empty module cache.
func goDownload(t *testing.T, m module.Version) (outcome, string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "mod", "download", "-json", m.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMODCACHE="+filepath.Join(dir, "mod"), "GOPATH="+dir, "GOFLAGS=-modcacherw")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return found, ""
	}
	var a struct{ Error string }
	json.Unmarshal(out, &a) // where it is no JSON, the text is the error
	text := a.Error + string(out)
	if regexp.MustCompile(`404 Not Found|410 Gone|disabled by GOPROXY=off|unknown revision|no such file|not found`).MatchString(text) {
		return notFound, text
	}
	return other, text
}

// clientDownload is the same by a client with the same settings.
func clientDownload(t *testing.T, m module.Version) (outcome, string) {
	t.Helper()
	cfg, err := fetch.Settings(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Direct, cfg.Backoff = filepath.Join(t.TempDir(), "direct"), time.Millisecond
	c, err := fetch.New(cfg)
	if err != nil {
		return other, err.Error()
	}
	defer c.Close()
	_, err = c.Info(t.Context(), m)
	if err == nil {
		_, _, err = c.Mod(t.Context(), m, "")
	}
	if err == nil {
		_, err = c.Zip(t.Context(), m, "", newFile(t), fetch.Watch{})
	}
	switch {
	case err == nil:
		return found, ""
	case errors.Is(err, fetch.ErrNotFound):
		return notFound, err.Error()
	}
	return other, err.Error()
}

// moduleRequests are the requests for files of a module, without repetitions: whoever tries again asks for the same.
func moduleRequests(s *proxytest.Server, m module.Version) []string {
	var all []string
	for _, r := range s.Requests() {
		if strings.Contains(r, m.Path) && (strings.Contains(r, "/@v/") || strings.Contains(r, "/lookup/")) {
			all = append(all, r)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The rules of GOPROXY and its companions (https://go.dev/ref/mod#environment-variables), by what the go command does with the same
// settings: what becomes of a download, and which server is asked for which files of the module.
func TestGoProxyRules(t *testing.T) {
	if testing.Short() {
		t.Skip("runs two go commands for each rule")
	}
	git := vcstest.New(t)
	r := git.Repo("lib", map[string]string{"go.mod": "module vanity.test/lib\n", "lib.go": "package lib\n"}, "v1.0.0")
	git.Import("vanity.test/lib", "git "+r.URL())
	p := git.Repo("plain", map[string]string{"go.mod": "module plain.test/lib\n", "lib.go": "package lib\n"}, "v1.0.0")
	git.Import("plain.test/lib", "git "+p.URL())
	useGit(t, git)
	lib := proxytest.Module{Path: "vanity.test/lib", Version: "v1.0.0", Files: map[string]string{"go.mod": "module vanity.test/lib\n", "x.go": "package lib // from a proxy\n"}}
	a := proxytest.New(t, append(proxytest.Modules(), lib)...)
	b := proxytest.New(t, append(proxytest.Modules(), lib)...)
	none := proxytest.New(t, proxytest.Module{Path: "example.com/none", Version: "v1.0.0"})
	files := t.TempDir()
	at := filepath.Join(files, "full", "example.com", "a", "@v")
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"v1.0.0.zip": a.ZipBytes(modA.Path, modA.Version), "v1.0.0.info": []byte(`{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z"}`), "v1.0.0.mod": []byte("module example.com/a\n\ngo 1.21\n"),
	} {
		if err := os.WriteFile(filepath.Join(at, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	modLib := module.Version{Path: lib.Path, Version: lib.Version}
	modPlain := module.Version{Path: "plain.test/lib", Version: "v1.0.0"}
	urls := strings.NewReplacer(
		"A404", a.FaultURL("404"), "A410", a.FaultURL("410"), "A403", a.FaultURL("403"), "A500", a.FaultURL("500"),
		"FULL", "file://"+files+"/full", "EMPTY", "file://"+files+"/empty", "DOWN", "http://127.0.0.1:1", "NONE", none.URL(), "A", a.URL(), "B", b.URL())
	type env map[string]string
	off, db := "off", a.SumDB()
	for _, test := range []struct {
		proxy string
		sumdb string
		m     module.Version
		env   env
		want  outcome
	}{
		// One proxy, and the database.
		{"A", db, modA, nil, found},
		{"A", a.SumDBKey(), modA, nil, found}, // which the proxy relays
		{"NONE", off, modA, nil, notFound},
		{"A404", off, modA, nil, notFound},
		{"A410", off, modA, nil, notFound},
		{"A403", off, modA, nil, other},
		{"A500", off, modA, nil, other},
		{"DOWN", off, modA, nil, other},
		// After a comma the next one is asked after 404 and 410, after a bar after any error.
		{"NONE,B", off, modA, nil, found},
		{"A404,B", off, modA, nil, found},
		{"A410,B", off, modA, nil, found},
		{"A403,B", off, modA, nil, other},
		{"A500,B", off, modA, nil, other},
		{"DOWN,B", off, modA, nil, other},
		{"A404|B", off, modA, nil, found},
		{"A403|B", off, modA, nil, found},
		{"A500|B", off, modA, nil, found},
		{"DOWN|B", off, modA, nil, found},
		{"DOWN|NONE", off, modA, nil, other},
		{"NONE,A403", off, modA, nil, other},
		{"A,DOWN", off, modA, nil, found},
		// Words, and what follows them.
		{"off", off, modA, nil, notFound},
		{"off,B", off, modA, nil, notFound},
		{"NONE,off,B", off, modA, nil, notFound},
		{"direct", off, modLib, nil, found},
		{"direct,B", off, module.Version{Path: "vanity.test/none", Version: "v1.0.0"}, nil, notFound},
		{"NONE,direct", off, modLib, nil, found},
		{"A403,direct", off, modLib, nil, other},
		{"A403|direct", off, modLib, nil, found},
		{"DOWN|direct", off, modLib, nil, found},
		{"A,direct", off, modLib, nil, found}, // the proxy's
		// Directories.
		{"FULL", off, modA, nil, found},
		{"EMPTY", off, modA, nil, notFound},
		{"EMPTY,B", off, modA, nil, found},
		{"FULL,B", off, modCase, nil, found},
		// Empty entries, and blanks.
		{",,A,,", off, modA, nil, found},
		{" NONE , A ", off, modA, nil, found},
		{",", off, modA, nil, other},
		{"ftp://a.example", off, modA, nil, other},
		// Modules for which no proxy is asked, or no database.
		{"A", off, modLib, env{"GONOPROXY": "vanity.test"}, found},
		{"off", off, modLib, env{"GONOPROXY": "vanity.test/l*"}, found},
		{"A", db, modLib, env{"GOPRIVATE": "*.test"}, found},
		{"A", db, modLib, env{"GOPRIVATE": "*.test", "GONOPROXY": "none"}, found},
		{"A", db, modLib, env{"GOPRIVATE": "other.test,vanity.test/lib/sub"}, found},
		{"A", db, modLib, env{"GONOSUMDB": "vanity.test/lib"}, found},
		{"A", db, modA, env{"GONOSUMDB": "none", "GOPRIVATE": "example.com", "GONOPROXY": "none"}, found},
		{"A", db, modA, env{"GOPRIVATE": "none"}, found},
		{"A", db, modLib, env{"GONOPROXY": "vanity.test"}, other}, // the database knows what the proxy has, which is not what git has
		{"A", db, modLib, env{"GOPRIVATE": "vanity.test", "GONOSUMDB": "none"}, other},
		// Version control systems, and protocols.
		{"direct", off, modLib, env{"GOVCS": "*:off"}, other},
		{"direct", off, modLib, env{"GOVCS": "public:off"}, other},
		{"direct", off, modLib, env{"GOVCS": "public:off", "GOPRIVATE": "vanity.test"}, found},
		{"direct", off, modLib, env{"GOVCS": "vanity.test:git,public:off"}, found},
		{"direct", off, modPlain, nil, other},
		{"direct", off, modPlain, env{"GOINSECURE": "plain.test"}, found},
		{"direct", off, modPlain, env{"GOINSECURE": "none"}, other},
	} {
		name := test.proxy
		for k, v := range test.env {
			name += " " + k + "=" + v
		}
		t.Run(name, func(t *testing.T) {
			for _, k := range []string{"GONOPROXY", "GOPRIVATE", "GONOSUMDB", "GOINSECURE", "GOVCS"} {
				t.Setenv(k, test.env[k])
			}
			t.Setenv("GOPROXY", urls.Replace(test.proxy))
			t.Setenv("GOSUMDB", test.sumdb)
			t.Setenv("GOTOOLCHAIN", "local")
			type result struct {
				o        outcome
				text     string
				requests map[string][]string
			}
			do := func(download func(*testing.T, module.Version) (outcome, string)) result {
				servers := map[string]*proxytest.Server{"A": a, "B": b, "NONE": none}
				for _, s := range servers {
					s.ResetRequests()
				}
				git.ResetRequests()
				r := result{requests: make(map[string][]string)}
				r.o, r.text = download(t, test.m)
				for name, s := range servers {
					r.requests[name] = moduleRequests(s, test.m)
				}
				if git.Count("") > 0 {
					r.requests["git"] = []string{"asked"} // what is asked for there is the go command's business in both cases
				}
				return r
			}
			want, got := do(goDownload), do(clientDownload)
			if want.o != test.want || got.o != test.want {
				t.Errorf("the go command: %s %s\nwe: %s %s\nwant %s", want.o, want.text, got.o, got.text, test.want)
			}
			for _, name := range []string{"A", "B", "NONE", "git"} {
				if !slices.Equal(want.requests[name], got.requests[name]) {
					t.Errorf("%s: the go command asks it for\n%q\nand we for\n%q", name, want.requests[name], got.requests[name])
				}
			}
		})
	}
}
