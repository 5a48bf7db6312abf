package fetch_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// tiles is a TileStore whose files a test can see and change.
type tiles struct {
	mu    sync.Mutex
	files map[string][]byte
	err   error // of WriteFile
}

func (t *tiles) ReadFile(name string) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	data, ok := t.files[name]
	if !ok {
		return nil, &iofs.PathError{Op: "open", Path: name, Err: iofs.ErrNotExist}
	}
	return bytes.Clone(data), nil
}

func (t *tiles) WriteFile(name string, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	if t.files == nil {
		t.files = make(map[string][]byte)
	}
	t.files[name] = bytes.Clone(data)
	return nil
}

func (t *tiles) snapshot() map[string][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.files)
}

// The database is asked through the first proxy that offers it, and only there; else directly.
func TestSumDBWay(t *testing.T) {
	s := proxytest.New(t)
	h1 := s.ZipHash(modA.Path, modA.Version)
	for _, test := range []struct {
		name, proxy, sumdb string
		want               error
		requests           string // a part of what was asked for; "": nothing
	}{
		{"through the proxy", s.URL(), s.SumDBKey(), nil, "/sumdb/" + s.SumDBName() + "/lookup/example.com/a@v1.0.0"},
		{"through the second proxy", s.FaultURL("nosumdb") + "," + s.URL(), s.SumDBKey(), nil, "/sumdb/" + s.SumDBName() + "/lookup/example.com/a@v1.0.0"},
		{"through the second proxy, the first being down", "http://127.0.0.1:1|" + s.URL(), s.SumDBKey(), nil, "/sumdb/"},
		{"at its URL", s.URL(), s.SumDB(), nil, "/sumdb-direct/lookup/example.com/a@v1.0.0"},
		{"at its URL, without proxies", "off", s.SumDB(), nil, "/sumdb-direct/lookup/example.com/a@v1.0.0"},
		{"proxy down", "http://127.0.0.1:1," + s.URL(), s.SumDBKey(), fetch.ErrUnreachable, ""},
		{"proxy down, and no word that it may be gone round", "http://127.0.0.1:1|off", s.SumDBKey(), fetch.ErrUnreachable, ""},
		{"proxy forbids", s.FaultURL("403") + "," + s.URL(), s.SumDBKey(), fetch.ErrForbidden, "supported"},
	} {
		s.ResetRequests()
		cl := newClient(t, fetch.Config{Proxy: test.proxy, SumDB: test.sumdb})
		got, err := cl.ZipHash(t.Context(), modA)
		if !is(err, test.want) || err == nil && got != h1 {
			t.Errorf("%s: %s, %v; want %v", test.name, got, err, test.want)
		}
		if test.requests == "" && s.Count("") > 0 || test.requests != "" && s.Count(test.requests) == 0 {
			t.Errorf("%s: asked for %q; want %s", test.name, s.Requests(), test.requests)
		}
	}
	// Directly, at https://NAME, where no proxy has it.
	for _, proxy := range []string{"off", "direct", s.FaultURL("nosumdb"), s.FaultURL("nosumdb") + ",direct", s.FaultURL("nosumdb") + ",off",
		"http://127.0.0.1:1|direct", s.FaultURL("403") + "|" + s.FaultURL("nosumdb") + "|direct"} {
		cfg := fetch.Config{Proxy: proxy, SumDB: s.SumDBKey()}
		var hosts sync.Map
		cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			hosts.Store(r.URL.Scheme+"://"+r.URL.Host, true)
			if r.URL.Host == s.SumDBName() {
				r = r.Clone(r.Context())
				r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(s.URL(), "http://")
				r.URL.Path, r.URL.RawPath = "/sumdb-direct"+r.URL.Path, ""
			}
			return http.DefaultTransport.RoundTrip(r)
		})
		cl := newClient(t, cfg)
		if got, err := cl.ZipHash(t.Context(), modA); err != nil || got != h1 {
			t.Errorf("GOPROXY=%s: %s, %v", proxy, got, err)
		}
		if _, ok := hosts.Load("https://" + s.SumDBName()); !ok {
			t.Errorf("GOPROXY=%s: the database was not asked", proxy)
		}
		if ups := cl.Upstreams(); len(ups) == 0 || ups[len(ups)-1].URL != "https://"+s.SumDBName() {
			t.Errorf("GOPROXY=%s: Upstreams = %+v", proxy, ups)
		}
	}
}

func TestCovered(t *testing.T) {
	s := proxytest.New(t)
	dir := t.TempDir()
	tool := module.Version{Path: "golang.org/toolchain", Version: "v0.0.1-go1.99.0.linux-amd64"}
	if err := s.Add(proxytest.Toolchain("1.99.0", "linux", "amd64", nil)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		cfg  fetch.Config
		m    module.Version
		want error
	}{
		{fetch.Config{SumDB: s.SumDB()}, modA, nil},
		{fetch.Config{SumDB: s.SumDB(), NoProxy: "*"}, modA, nil},
		{fetch.Config{SumDB: s.SumDB(), NoSumDB: "example.com"}, modA, fetch.ErrNoSum},
		{fetch.Config{SumDB: s.SumDB(), Private: "example.com"}, modA, fetch.ErrNoSum},
		{fetch.Config{SumDB: s.SumDB(), Private: "example.com", NoSumDB: "none"}, modA, nil},
		{fetch.Config{SumDB: "off"}, modA, fetch.ErrNoSum},
		{fetch.Config{SumDB: ""}, modA, fetch.ErrSumDB},
		{fetch.Config{SumDB: "", Private: "example.com"}, modA, fetch.ErrNoSum},
		{fetch.Config{SumDB: s.SumDB()}, tool, nil},
		{fetch.Config{SumDB: s.SumDB(), NoSumDB: "*"}, tool, nil},
		{fetch.Config{SumDB: "off"}, tool, fetch.ErrSumDB},
		{fetch.Config{SumDB: "off", Proxy: "file://" + dir}, tool, fetch.ErrNoSum},
		{fetch.Config{SumDB: "off", Proxy: "file://" + dir + ",off"}, tool, fetch.ErrSumDB},
	} {
		c := newClient(t, test.cfg)
		h1, err := c.ZipHash(t.Context(), test.m)
		if !is(err, test.want) || err == nil && h1 != s.ZipHash(test.m.Path, test.m.Version) {
			t.Errorf("%+v: ZipHash(%s) = %s, %v; want %v", test.cfg, test.m, h1, err, test.want)
		}
		if h1, err := c.ModHash(t.Context(), test.m); !is(err, test.want) || err == nil && h1 != s.ModHash(test.m.Path, test.m.Version) {
			t.Errorf("%+v: ModHash(%s) = %s, %v; want %v", test.cfg, test.m, h1, err, test.want)
		}
	}
}

// What is appended to a record, as a signature of somebody unknown, costs memory for as long as the record is remembered.
func TestSumDBPadded(t *testing.T) {
	s := proxytest.New(t)
	padding := 0
	cfg := fetch.Config{Proxy: s.URL(), SumDB: s.SumDBKey()}
	cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil || !strings.Contains(r.URL.Path, "/lookup/") {
			return resp, err
		}
		signature := "\u2014 x " + base64.StdEncoding.EncodeToString(make([]byte, padding)) + "\n"
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(resp.Body, strings.NewReader(signature)), resp.Body}
		resp.ContentLength = -1
		return resp, nil
	})
	for _, test := range []struct {
		padding int
		want    error
	}{{1 << 10, nil}, {20 << 10, fetch.ErrSumDB}} {
		padding = test.padding
		if _, err := newClient(t, cfg).ZipHash(t.Context(), modA); !is(err, test.want) {
			t.Errorf("%d bytes more: %v; want %v", test.padding, err, test.want)
		}
	}
}

// The go command knows a mirror of its database by the mirror's name. Another database's name has no such meaning.
func TestSumDBMirror(t *testing.T) {
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src/cmd/go/internal/modfetch/key.go"))
	if err != nil {
		t.Skip("no source of the go command here:", err)
	}
	known := regexp.MustCompile(`"(\S+)\.org": +"`).FindSubmatch(source)
	if known == nil {
		t.Fatal("the go command knows no database")
	}
	mirror := string(known[1]) + ".google.cn"
	host := ""
	cfg := fetch.Config{Proxy: "off", SumDB: mirror, Tries: 1}
	cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		host = r.URL.Host
		return nil, errors.New("no network")
	})
	if _, err := newClient(t, cfg).ZipHash(t.Context(), modA); err == nil || host != mirror {
		t.Errorf("asked %q, %v; want %q", host, err, mirror)
	}
}

// Credentials are not sent to a database in clear text.
func TestSumDBClearText(t *testing.T) {
	s := proxytest.New(t)
	_, err := fetch.New(fetch.Config{SumDB: s.SumDBKey() + " http://someone:hunter22@127.0.0.1:1/"})
	if err == nil || !strings.Contains(err.Error(), "clear text") || strings.Contains(err.Error(), "hunter22") {
		t.Error(err)
	}
}

// A module that the database should vouch for and does not is refused, with the reason, though the proxy has it.
func TestSumDBStrict(t *testing.T) {
	s := proxytest.New(t)
	for _, test := range []struct {
		name  string
		sumdb string
		fault string // of the database
		want  error
	}{
		{"down", s.SumDBKey() + " http://127.0.0.1:1", "", fetch.ErrUnreachable},
		{"forbidden", s.SumDB(), "403", fetch.ErrForbidden},
		{"unknown there", s.SumDB(), "404", fetch.ErrUnknown},
		{"nonsense", s.SumDB(), "html", fetch.ErrSumDB},
		{"other hashes", s.SumDB(), "sumdbwrong", fetch.ErrMismatch},
		{"not set", "", "", fetch.ErrSumDB},
	} {
		s.SetFault(func(path string) string {
			if strings.HasPrefix(path, "/sumdb") {
				return test.fault
			}
			return ""
		})
		cl := newClient(t, fetch.Config{Proxy: s.URL(), SumDB: test.sumdb})
		if _, err := cl.Zip(t.Context(), modLarge, "", newFile(t), fetch.Watch{}); !is(err, test.want) {
			t.Errorf("%s: Zip: %v; want %v", test.name, err, test.want)
		}
		if _, _, err := cl.Mod(t.Context(), modA, ""); !is(err, test.want) {
			t.Errorf("%s: Mod: %v; want %v", test.name, err, test.want)
		}
		// What the proxy does not have is not there, whatever is wrong with the database.
		if _, err := cl.Zip(t.Context(), module.Version{Path: "example.com/nope", Version: "v1.0.0"}, "", newFile(t), fetch.Watch{}); !is(err, fetch.ErrNotFound) {
			t.Errorf("%s: Zip of what is not there: %v", test.name, err)
		}
		// A pin needs no database.
		if _, err := cl.Zip(t.Context(), modA, s.ZipHash(modA.Path, modA.Version), newFile(t), fetch.Watch{}); err != nil {
			t.Errorf("%s: pinned: %v", test.name, err)
		}
	}
}

// What the database does not have costs one question, as often as it is asked for, and nothing of what is known of the database.
func TestSumDBMissing(t *testing.T) {
	s := proxytest.New(t)
	cl := newClient(t, fetch.Config{Proxy: s.URL(), SumDB: s.SumDBKey()})
	none := func(i int) module.Version {
		return module.Version{Path: fmt.Sprintf("example.com/none%d", i), Version: "v1.0.0"}
	}
	for range 2 {
		for i := range 5 {
			if _, err := cl.ZipHash(t.Context(), none(i)); !is(err, fetch.ErrUnknown) {
				t.Fatalf("%s: %v", none(i), err)
			}
		}
		if _, err := cl.ZipHash(t.Context(), modA); err != nil {
			t.Fatal(err)
		}
	}
	for what, want := range map[string]int{"/supported": 1, "/lookup/example.com/none": 10, "/lookup/example.com/a@": 1} {
		if n := s.Count(what); n != want {
			t.Errorf("%d requests of %s, want %d: %q", n, what, want, s.Requests())
		}
	}
	m := none(0)
	if err := s.Add(proxytest.Module{Path: m.Path, Version: m.Version}); err != nil {
		t.Fatal(err)
	}
	if h1, err := cl.ZipHash(t.Context(), m); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
		t.Errorf("once it is there: %s, %v", h1, err)
	}
}

// A database that shows two histories is caught, also by a client that was started anew.
func TestSumDBFork(t *testing.T) {
	s := proxytest.New(t)
	store := new(tiles)
	cfg := config(s)
	cfg.Tiles = store
	first := newClient(t, cfg)
	for _, m := range []module.Version{modA, modMany} {
		if _, err := first.ZipHash(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	s.SetFault(func(string) string { return "sumdbwrong" })
	for name, cl := range map[string]*fetch.Client{"same": first, "new": newClient(t, cfg)} {
		_, err := cl.ZipHash(t.Context(), modLarge)
		if !is(err, fetch.ErrSumDB) {
			t.Errorf("%s client: %v", name, err)
		}
		if strings.ContainsAny(fmt.Sprint(err), "\n\t") {
			t.Errorf("%s client: more than one line: %q", name, err)
		}
	}
	// And it is well again when the database is.
	s.SetFault(nil)
	if h1, err := first.ZipHash(t.Context(), modLarge); err != nil || h1 != s.ZipHash(modLarge.Path, modLarge.Version) {
		t.Errorf("ZipHash = %s, %v", h1, err)
	}
}

// Another key signs for nothing.
func TestSumDBOtherKey(t *testing.T) {
	s, other := proxytest.New(t), proxytest.New(t)
	cfg := config(s)
	_, url, _ := strings.Cut(s.SumDB(), " ")
	cfg.SumDB = other.SumDBKey() + " " + url
	if _, err := newClient(t, cfg).ZipHash(t.Context(), modA); !is(err, fetch.ErrSumDB) {
		t.Errorf("ZipHash: %v", err)
	}
}

// What is stored saves requests, also without a network. What is damaged there is asked for again.
func TestSumDBStore(t *testing.T) {
	s := proxytest.New(t)
	cfg := config(s)
	store := new(tiles)
	cfg.Tiles = store
	c := newClient(t, cfg)
	for _, m := range []module.Version{modA, modMany, modLarge} {
		if _, err := c.ZipHash(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	good := store.snapshot()
	offline := cfg
	offline.Offline = true
	s.ResetRequests()
	cl := newClient(t, offline)
	for _, m := range []module.Version{modA, modMany, modLarge} {
		if h1, err := cl.ZipHash(t.Context(), m); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
			t.Errorf("offline: ZipHash(%s) = %s, %v", m, h1, err)
		}
	}
	if _, err := cl.ZipHash(t.Context(), modCase); !is(err, fetch.ErrOffline) {
		t.Errorf("offline: ZipHash of what is not stored: %v", err)
	}
	if r := s.Requests(); len(r) > 0 {
		t.Errorf("sent %q", r)
	}
	for name := range good {
		for what, damage := range map[string]func(data []byte) []byte{
			"flipped": func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
			"short":   func(data []byte) []byte { return data[:len(data)/2] },
			"empty":   func(data []byte) []byte { return nil },
		} {
			broken := &tiles{files: maps.Clone(good)}
			broken.files[name] = damage(bytes.Clone(good[name]))
			cfg.Tiles = broken
			cl := newClient(t, cfg)
			for _, m := range []module.Version{modA, modMany, modLarge} {
				if h1, err := cl.ZipHash(t.Context(), m); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
					t.Errorf("%s %s: ZipHash(%s) = %s, %v", name, what, m, h1, err)
				}
			}
		}
	}
}

// A store that is full costs requests, and nothing else.
func TestSumDBStoreFull(t *testing.T) {
	s := proxytest.New(t)
	cfg := config(s)
	cfg.Tiles = &tiles{err: errors.New("disk full")}
	c := newClient(t, cfg)
	for _, m := range []module.Version{modA, modMany, modA} {
		if h1, err := c.ZipHash(t.Context(), m); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
			t.Errorf("ZipHash(%s) = %s, %v", m, h1, err)
		}
	}
	if data, err := c.SumDB(t.Context(), s.SumDBName(), "lookup/example.com/a@v1.0.0"); err != nil || len(data) == 0 {
		t.Errorf("SumDB: %q, %v", data, err)
	}
}

// Many lookups at once share what they ask for.
func TestSumDBConcurrent(t *testing.T) {
	s := proxytest.New(t)
	c := newClient(t, config(s))
	var wg sync.WaitGroup
	for range 20 {
		for _, m := range proxytest.Modules() {
			wg.Go(func() {
				if h1, err := c.ZipHash(t.Context(), module.Version{Path: m.Path, Version: m.Version}); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
					t.Errorf("ZipHash(%s) = %s, %v", m, h1, err)
				}
			})
		}
	}
	wg.Wait()
	if n, most := s.Count("/lookup/"), len(proxytest.Modules()); n != most {
		t.Errorf("%d lookups for %d modules", n, most)
	}
}

// A client of ours, as a proxy for the database, satisfies another client, and a go command, which verify everything.
func TestSumDBServes(t *testing.T) {
	s := proxytest.New(t)
	cfg := config(s)
	front := newClient(t, cfg)
	// The front's tree grows before and after others see it: it must then serve parts of wider tiles.
	dir := t.TempDir()
	mirror := func(rest string) {
		data, err := front.SumDB(t.Context(), s.SumDBName(), rest)
		if err != nil {
			t.Fatalf("SumDB(%s): %v", rest, err)
		}
		name := filepath.Join(dir, "sumdb", s.SumDBName(), filepath.FromSlash(rest))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	mirror("supported")
	mirror("lookup/example.com/a@v1.0.0")
	mirror("lookup/example.com/!upper/!case@v1.0.0-!r!c.1")
	mirror("lookup/example.com/inc@v2.0.0+incompatible")
	mirror("latest")
	s.ResetRequests()
	for w := 1; w <= 3; w++ {
		mirror(fmt.Sprintf("tile/8/0/000.p/%d", w))
	}
	if n := s.Count("tile/"); n > 0 {
		t.Errorf("%d tiles were asked for that are known", n)
	}
	back := newClient(t, fetch.Config{Proxy: "file://" + dir, SumDB: s.SumDBKey()})
	for _, m := range []module.Version{modA, modCase, {Path: "example.com/inc", Version: "v2.0.0+incompatible"}} {
		if h1, err := back.ZipHash(t.Context(), m); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
			t.Errorf("ZipHash(%s) = %s, %v", m, h1, err)
		}
	}
	// What it does not know itself it passes on.
	if data, err := front.SumDB(t.Context(), s.SumDBName(), "tile/8/data/000.p/1"); err != nil || !bytes.Contains(data, []byte("h1:")) {
		t.Errorf("data tile = %q, %v", data, err)
	}
	fresh := newClient(t, cfg)
	if data, err := fresh.SumDB(t.Context(), s.SumDBName(), "latest"); err != nil || !bytes.HasPrefix(data, []byte("go.sum database tree\n")) {
		t.Errorf("latest = %q, %v", data, err)
	}
}

// Names of private modules reach neither database nor log of a proxy, and toolchains are never private.
func TestSumDBServesNoSecrets(t *testing.T) {
	s := proxytest.New(t)
	if err := s.Add(proxytest.Toolchain("1.99.0", "linux", "amd64", nil)); err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []fetch.Config{{NoSumDB: "*"}, {NoProxy: "*"}, {Private: "*"}} {
		s.ResetRequests()
		cfg.Proxy, cfg.SumDB = s.URL(), s.SumDB()
		cl := newClient(t, cfg)
		if _, err := cl.SumDB(t.Context(), s.SumDBName(), "lookup/example.com/a@v1.0.0"); !is(err, fetch.ErrNotFound) {
			t.Errorf("%+v: SumDB: %v", cfg, err)
		}
		if r := s.Requests(); len(r) > 0 {
			t.Errorf("%+v: sent %q", cfg, r)
		}
		if _, err := cl.SumDB(t.Context(), s.SumDBName(), "lookup/golang.org/toolchain@v0.0.1-go1.99.0.linux-amd64"); err != nil {
			t.Errorf("%+v: SumDB of a toolchain: %v", cfg, err)
		}
	}
	if _, err := newClient(t, fetch.Config{Proxy: s.URL(), SumDB: "off"}).SumDB(t.Context(), s.SumDBName(), "supported"); !is(err, fetch.ErrNotFound) {
		t.Errorf("GOSUMDB=off: SumDB: %v", err)
	}
}
