package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// tree makes a module cache's cache/download of what url serves of modA.
func tree(t *testing.T, url string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, ext := range []string{".info", ".mod", ".zip"} {
		elem := "example.com/a/@v/v1.0.0" + ext
		write(t, filepath.Join(dir, "cache/download", elem), proxytest.Get(t, url+"/"+elem))
	}
	return dir
}

func openSeed(t *testing.T, dir string) *fetch.Seed {
	t.Helper()
	s, err := fetch.OpenSeed(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// logged is a log that can be read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// checks are what Config.OnSeed was told.
type checks struct {
	mu   sync.Mutex
	list []fetch.Check
}

func (c *checks) add(check fetch.Check) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, check)
	return nil
}

// What cannot be noted is not served, whatever the proxies have.
func TestSeedNotNoted(t *testing.T) {
	dir := tree(t, proxytest.New(t).URL())
	full := errors.New("disk full")
	c := newClient(t, fetch.Config{SumDB: "off", Offline: true, Seeds: []*fetch.Seed{openSeed(t, dir)}, OnSeed: func(fetch.Check) error { return full }})
	if _, _, err := c.Mod(t.Context(), modA, ""); !errors.Is(err, full) {
		t.Errorf("Mod: %v, want %v", err, full)
	}
}

// get asks a client for all of modA.
func get(t *testing.T, c *fetch.Client) error {
	_, ierr := c.Info(t.Context(), modA)
	_, _, merr := c.Mod(t.Context(), modA, "")
	_, zerr := c.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{File: func(string, []byte, int64) {}, Again: func() {}})
	return errors.Join(ierr, merr, zerr)
}

// A module cache and a proxy's tree are seeds: no proxy is asked, and the checksum database vouches.
func TestSeed(t *testing.T) {
	s := proxytest.New(t)
	dir := tree(t, s.URL())
	for name, dir := range map[string]string{"module cache": dir, "proxy's tree": filepath.Join(dir, "cache/download")} {
		t.Run(name, func(t *testing.T) {
			s.ResetRequests()
			var told checks
			cfg := config(s)
			cfg.Seeds, cfg.OnSeed = []*fetch.Seed{openSeed(t, dir)}, told.add
			if err := get(t, newClient(t, cfg)); err != nil {
				t.Error(err)
			}
			if n := s.Count("/@v/"); n > 0 {
				t.Errorf("%d requests to the proxy", n)
			}
			if len(told.list) != 2 || !strings.HasPrefix(told.list[0].Source, "checksum database ") || told.list[1].Source == "" {
				t.Errorf("told %+v, want what the database says of two files", told.list)
			}
		})
	}
}

// Whatever is wrong with a seed, the proxy's module is what is had, and the log says why.
func TestBadSeed(t *testing.T) {
	s := proxytest.New(t)
	zip := "cache/download/example.com/a/@v/v1.0.0.zip"
	mod := strings.TrimSuffix(zip, "zip") + "mod"
	info := strings.TrimSuffix(zip, "zip") + "info"
	replace := func(name string, with func(t *testing.T, p string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			p := filepath.Join(dir, name)
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			with(t, p)
		}
	}
	half := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			p := filepath.Join(dir, name)
			fi, err := os.Stat(p)
			if err == nil {
				err = os.Truncate(p, fi.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(t *testing.T, dir string) {
		p := filepath.Join(dir, zip)
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		write(t, p, data)
	}
	outside := filepath.Join(tree(t, s.URL()), zip)
	fifo := func(t *testing.T, p string) {
		if err := syscall.Mkfifo(p, 0o666); err != nil {
			t.Skip(err)
		}
	}
	symlink := func(to string) func(*testing.T, string) {
		return func(t *testing.T, p string) {
			if err := os.Symlink(to, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	sparse := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, p string) {
			write(t, p, nil)
			if err := os.Truncate(p, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"half a zip":           half(zip),
		"empty zip":            replace(zip, sparse(0)),
		"flipped bit":          flip,
		"half a go.mod":        half(mod),
		"half an .info":        half(info),
		"info of another":      replace(info, func(t *testing.T, p string) { write(t, p, []byte(`{"Version":"v1.0.1"}`)) }),
		"fifo":                 replace(zip, fifo),
		"fifo of go.mod":       replace(mod, fifo),
		"directory":            replace(zip, func(t *testing.T, p string) { write(t, p+"/x", nil) }),
		"link out":             replace(zip, symlink(outside)),
		"link out, relatively": replace(zip, symlink("../../../../../../../../../../../.."+outside)),
		"link to /dev/zero":    replace(mod, symlink("/dev/zero")),
		"endless link":         replace(zip, symlink("v1.0.0.zip")),
		"huge zip":             replace(zip, sparse(1<<40)),
		"huge go.mod":          replace(mod, sparse(1<<40)),
		"huge .info":           replace(info, sparse(1<<40)),
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, s.URL())
			spoil(t, dir)
			s.ResetRequests()
			log := new(logged)
			cfg := config(s)
			cfg.Seeds, cfg.Log = []*fetch.Seed{openSeed(t, dir)}, slog.New(slog.NewTextHandler(log, nil))
			if err := get(t, newClient(t, cfg)); err != nil {
				t.Error(err)
			}
			if n := s.Count("example.com/a/@v/v1.0.0"); n != 1 { // what is good is taken from the seed
				t.Errorf("%d requests to the proxy, want 1: %q", n, s.Requests())
			}
			if !strings.Contains(log.String(), "passed over") {
				t.Errorf("the log does not say that a file was passed over:\n%s", log)
			}
		})
	}
}

// A whole module that is not the one that the database knows is passed over, and what was said of its files is taken back.
func TestForgedSeed(t *testing.T) {
	s := proxytest.New(t)
	dir := tree(t, s.FaultURL("tamper"))
	cfg := config(s)
	cfg.Seeds = []*fetch.Seed{openSeed(t, dir)}
	c := newClient(t, cfg)
	data, h1, err := c.Mod(t.Context(), modA, "")
	if err != nil || h1 != s.ModHash(modA.Path, modA.Version) {
		t.Errorf("Mod = %s, %s, %v", data, h1, err)
	}
	var mu sync.Mutex
	files, again := 0, 0
	dst := newFile(t)
	h1, err = c.Zip(t.Context(), modA, "", dst, fetch.Watch{
		File:  func(string, []byte, int64) { mu.Lock(); files++; mu.Unlock() },
		Again: func() { mu.Lock(); files, again = 0, again+1; mu.Unlock() },
	})
	if err != nil || h1 != s.ZipHash(modA.Path, modA.Version) || again != 1 || files == 0 {
		t.Errorf("Zip = %s, %v; told of %d files, again %d times", h1, err, files, again)
	}
	// Who cannot forget is told of the right one only.
	told := make(map[string]string)
	_, err = c.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{File: func(name string, head []byte, _ int64) {
		mu.Lock()
		defer mu.Unlock()
		if old, ok := told[name]; ok {
			t.Errorf("told twice of %s: %q, %q", name, old, head)
		}
		told[name] = string(head)
	}})
	if err != nil || len(told) == 0 {
		t.Errorf("told of %d files, %v", len(told), err)
	}
	got, err := os.ReadFile(dst.Name())
	if want := proxytest.Get(t, s.URL()+"/example.com/a/@v/v1.0.0.zip"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the destination has not the proxy's zip: %v", err)
	}
	// With a pin, too.
	if _, err := c.Zip(t.Context(), modA, s.ZipHash(modA.Path, modA.Version), newFile(t), fetch.Watch{}); err != nil {
		t.Error(err)
	}
	// If the proxy is no help, the error says what is wrong with the seed.
	cfg.Proxy = s.FaultURL("404")
	_, err = newClient(t, cfg).Zip(t.Context(), modA, "", newFile(t), fetch.Watch{})
	if !errors.Is(err, fetch.ErrNotFound) || !strings.Contains(fmt.Sprint(err), "hash mismatch") {
		t.Errorf("error %v, want ErrNotFound and the seed's mismatch", err)
	}
}

// A database that cannot be asked refuses what a seed has, unless the user said that there is no network.
func TestSeedWithoutDatabase(t *testing.T) {
	s := proxytest.New(t)
	dir := tree(t, s.URL())
	key := s.SumDBKey()
	for _, test := range []struct {
		name    string
		offline bool
		noSum   string
		sums    map[module.Version]string
		want    error
		source  string
		defer_  bool
	}{
		{name: "down", want: fetch.ErrUnreachable},
		{name: "offline", offline: true, defer_: true},
		{name: "not covered", noSum: "example.com"},
		{name: "offline, not covered", offline: true, noSum: "example.com"},
		{name: "offline, go.sum", offline: true, source: "go.sum", sums: map[module.Version]string{
			modA: s.ZipHash(modA.Path, modA.Version), {Path: modA.Path, Version: "v1.0.0/go.mod"}: s.ModHash(modA.Path, modA.Version),
		}},
		{name: "offline, other go.sum", offline: true, want: fetch.ErrOffline, sums: map[module.Version]string{
			modA: hashOfNothing, {Path: modA.Path, Version: "v1.0.0/go.mod"}: hashOfNothing,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told checks
			c := newClient(t, fetch.Config{
				Proxy: "http://" + closedAddr(t), SumDB: key + " http://" + closedAddr(t), NoSumDB: test.noSum, Offline: test.offline,
				Seeds: []*fetch.Seed{openSeed(t, dir)}, OnSeed: told.add, Sums: test.sums,
			})
			if err := get(t, c); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			for _, got := range told.list {
				if got.Source != test.source || got.Deferred != test.defer_ {
					t.Errorf("told %+v, want source %q, deferred %v", got, test.source, test.defer_)
				}
			}
			if n := len(told.list); test.want == nil && n != 2 {
				t.Errorf("told of %d files", n)
			}
		})
	}
}

// Offline, what a seed has of the checksum database proves what else it has. A forged record does not, nor one of another key.
func TestSeedProves(t *testing.T) {
	s := proxytest.New(t)
	dir := tree(t, s.URL())
	tiles := new(recordedTiles)
	cfg := config(s)
	cfg.Tiles = tiles
	if err := get(t, newClient(t, cfg)); err != nil {
		t.Fatal(err)
	}
	for name, data := range tiles.files {
		write(t, filepath.Join(dir, "cache/download/sumdb", name), data)
	}
	other := proxytest.New(t)
	lookup := filepath.Join(dir, "cache/download/sumdb", s.SumDBName(), "lookup/example.com/a@v1.0.0")
	for _, test := range []struct {
		name   string
		key    string
		record func(string) string
		proven bool
	}{
		{"proven", s.SumDBKey(), nil, true},
		{"another key", other.SumDBKey(), nil, false},
		{"forged record", s.SumDBKey(), func(s string) string { return strings.Replace(s, "h1:", "h1:A", 1) }, false},
		{"nonsense", s.SumDBKey(), func(string) string { return "nonsense" }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.record != nil {
				old, err := os.ReadFile(lookup)
				if err != nil {
					t.Fatal(err)
				}
				write(t, lookup, []byte(test.record(string(old))))
				defer write(t, lookup, old)
			}
			var told checks
			c := newClient(t, fetch.Config{SumDB: test.key, Offline: true, Seeds: []*fetch.Seed{openSeed(t, dir)}, OnSeed: told.add})
			if err := get(t, c); err != nil {
				if test.proven || !errors.Is(err, fetch.ErrOffline) {
					t.Fatal(err)
				}
			} else if !test.proven {
				t.Error("no error")
			}
			for _, got := range told.list {
				if got.Deferred {
					t.Errorf("told %+v, want it proven or refused", got)
				}
			}
		})
	}
}

// recordedTiles is a fetch.TileStore.
type recordedTiles struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (r *recordedTiles) ReadFile(name string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if data, ok := r.files[name]; ok {
		return data, nil
	}
	return nil, os.ErrNotExist
}

func (r *recordedTiles) WriteFile(name string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = make(map[string][]byte)
	}
	r.files[name] = bytes.Clone(data)
	return nil
}

// Private modules come from a seed although no proxy may be asked for them, and a list does offline.
func TestSeedPrivate(t *testing.T) {
	s := proxytest.New(t)
	dir := tree(t, s.URL())
	write(t, filepath.Join(dir, "cache/download/example.com/a/@v/list"), []byte("v1.0.0\nnonsense\nv0.9.0\n"))
	cfg := config(s)
	cfg.Private, cfg.Seeds = "example.com/*", []*fetch.Seed{openSeed(t, dir)}
	s.ResetRequests()
	c := newClient(t, cfg)
	if err := get(t, c); err != nil {
		t.Error(err)
	}
	if got := s.Requests(); len(got) > 0 {
		t.Errorf("requests %q", got)
	}
	if list, err := c.List(t.Context(), modA.Path); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("List = %q, %v: online it is the proxies' to say", list, err)
	}
	cfg.Private, cfg.Offline = "", true
	list, err := newClient(t, cfg).List(t.Context(), modA.Path)
	if err != nil || !slices.Equal(strings.Fields(string(list)), []string{"v0.9.0", "v1.0.0"}) {
		t.Errorf("List = %q, %v", list, err)
	}
}

// The first seed that has a good file is it; with SeedsOnly nobody else is.
func TestSeedsInTurn(t *testing.T) {
	s := proxytest.New(t)
	bad, good := tree(t, s.FaultURL("tamper")), tree(t, s.URL())
	cfg := config(s)
	cfg.SeedsOnly = true
	cfg.Seeds = []*fetch.Seed{openSeed(t, t.TempDir()), openSeed(t, bad), openSeed(t, good)}
	if err := get(t, newClient(t, cfg)); err != nil {
		t.Error(err)
	}
	cfg.Seeds = cfg.Seeds[:2]
	s.ResetRequests()
	c := newClient(t, cfg)
	_, err := c.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{})
	if _, ok := errors.AsType[*fetch.MismatchError](err); !ok {
		t.Errorf("error %v, want a MismatchError", err)
	}
	if _, err := c.Info(t.Context(), nth(1)); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if n := s.Count("/@v/"); n > 0 {
		t.Errorf("%d requests to the proxy", n)
	}
}

// What the destination says is no fault of the seed.
func TestSeedDst(t *testing.T) {
	s := proxytest.New(t)
	cfg := config(s)
	cfg.Seeds = []*fetch.Seed{openSeed(t, tree(t, s.URL()))}
	c := newClient(t, cfg)
	full := errors.New("full")
	s.ResetRequests()
	for _, dst := range []*discard{{reserve: full}, {write: full}} {
		if _, err := c.Zip(t.Context(), modA, "", dst, fetch.Watch{}); !errors.Is(err, full) {
			t.Errorf("error %v, want dst's", err)
		}
	}
	if n := s.Count(".zip"); n > 0 {
		t.Errorf("%d requests to the proxy", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := c.Zip(ctx, modA, "", newFile(t), fetch.Watch{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}
