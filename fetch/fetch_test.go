package fetch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// file is a Dst on disk, as the store's temporary files are.
type file struct {
	*os.File
	reserved int64
}

func newFile(t testing.TB) *file {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "zip"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &file{File: f}
}

func (f *file) Truncate(size int64) error {
	if err := f.File.Truncate(size); err != nil {
		return err
	}
	_, err := f.Seek(size, 0)
	return err
}

func (f *file) Reserve(size int64) error {
	f.reserved = size
	return nil
}

func config(s *proxytest.Server) fetch.Config {
	return fetch.Config{Proxy: s.URL(), SumDB: s.SumDB()}
}

func newClient(t testing.TB, c fetch.Config) *fetch.Client {
	t.Helper()
	cl, err := fetch.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

var (
	modA     = module.Version{Path: "example.com/a", Version: "v1.0.0"}
	modMany  = module.Version{Path: "example.com/many", Version: "v1.0.0"}
	modLarge = module.Version{Path: "example.com/large", Version: "v1.0.0"}
	modCase  = module.Version{Path: "example.com/Upper/Case", Version: "v1.0.0-RC.1"}
)

func TestArtifacts(t *testing.T) {
	s := proxytest.New(t)
	c := newClient(t, config(s))
	ctx := t.Context()
	for _, m := range proxytest.Modules() {
		mv := module.Version{Path: m.Path, Version: m.Version}
		info, err := c.Info(ctx, mv)
		if err != nil || !strings.HasPrefix(string(info), `{"Version":"`+m.Version+`","Time":"`) {
			t.Errorf("Info(%s) = %s, %v", mv, info, err)
		}
		data, h1, err := c.Mod(ctx, mv, "")
		if err != nil || h1 != s.ModHash(m.Path, m.Version) || len(data) == 0 {
			t.Errorf("Mod(%s) = %q, %s, %v", mv, data, h1, err)
		}
		dst := newFile(t)
		h1, err = c.Zip(ctx, mv, "", dst, fetch.Watch{})
		if err != nil || h1 != s.ZipHash(m.Path, m.Version) {
			t.Errorf("Zip(%s) = %s, %v; want %s", mv, h1, err, s.ZipHash(m.Path, m.Version))
			continue
		}
		got, _ := os.ReadFile(dst.Name())
		if string(got) != string(s.ZipBytes(m.Path, m.Version)) {
			t.Errorf("Zip(%s) wrote other bytes", mv)
		}
		if size, err := c.ZipSize(ctx, mv); err != nil || size != int64(len(got)) || dst.reserved != size {
			t.Errorf("ZipSize(%s) = %d, %v; reserved %d; want %d", mv, size, err, dst.reserved, len(got))
		}
		if h1, err := c.ZipHash(ctx, mv); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
			t.Errorf("ZipHash(%s) = %s, %v", mv, h1, err)
		}
	}
	if list, err := c.List(ctx, "example.com/b"); err != nil || string(list) != "v1.0.0\nv1.1.0\n" {
		t.Errorf("List = %q, %v", list, err)
	}
	if latest, err := c.Latest(ctx, "example.com/b"); err != nil || !strings.HasPrefix(string(latest), `{"Version":"v1.1.0"`) {
		t.Errorf("Latest = %s, %v", latest, err)
	}
}

func TestZipKeeps(t *testing.T) {
	s := proxytest.New(t)
	c := newClient(t, config(s))
	got := make(chan string, 1000)
	if _, err := c.Zip(t.Context(), modMany, "", newFile(t), fetch.Watch{File: func(name string, data []byte, _ int64) { got <- name + "\x00" + string(data) }}); err != nil {
		t.Fatal(err)
	}
	close(got)
	want := make(map[string]string)
	for _, m := range proxytest.Modules() {
		if m.Path == modMany.Path {
			for name, data := range m.Files {
				want[name] = data
			}
		}
	}
	n := 0
	for kv := range got {
		name, data, _ := strings.Cut(kv, "\x00")
		if w, ok := want[name]; ok && w != data {
			t.Errorf("%s: kept other bytes", name)
		}
		n++
	}
	if n < len(want) {
		t.Errorf("kept %d files of %d", n, len(want))
	}
}

func TestNotModules(t *testing.T) {
	s := proxytest.New(t)
	c := newClient(t, config(s))
	for _, m := range []module.Version{
		{Path: "example.com/a", Version: "v9.9.9"},
		{Path: "example.com/nope", Version: "v1.0.0"},
	} {
		if _, err := c.Info(t.Context(), m); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("Info(%s): %v", m, err)
		}
		if _, err := c.Zip(t.Context(), m, "", newFile(t), fetch.Watch{}); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("Zip(%s): %v", m, err)
		}
	}
	c.Close() // a lookup may still be under way for a zip that was not found
	c = newClient(t, config(s))
	s.ResetRequests()
	for _, m := range []module.Version{
		{Path: "../etc", Version: "v1.0.0"}, {Path: "example.com/a", Version: "master"}, {Path: "example.com/a", Version: "v1"},
		{Path: "nodot/a", Version: "v1.0.0"}, {Path: "example.com/a", Version: "v2.0.0"}, {},
	} {
		if _, err := c.Info(t.Context(), m); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("Info(%v): %v", m, err)
		}
	}
	if r := s.Requests(); len(r) > 0 {
		t.Errorf("asked for what cannot be: %q", r)
	}
}

func TestPinIsAuthority(t *testing.T) {
	s := proxytest.New(t)
	c := newClient(t, config(s))
	want := s.ZipHash(modA.Path, modA.Version)
	s.ResetRequests()
	if _, err := c.Zip(t.Context(), modA, want, newFile(t), fetch.Watch{}); err != nil {
		t.Error(err)
	}
	if n := s.Count("sumdb/"); n != 0 {
		t.Errorf("asked the database %d times although there is a pin", n)
	}
	var mm *fetch.MismatchError
	_, err := c.Zip(t.Context(), modA, s.ZipHash(modMany.Path, modMany.Version), newFile(t), fetch.Watch{})
	if !errors.As(err, &mm) || mm.Got != want || mm.Source != "pin" || !errors.Is(err, fetch.ErrMismatch) {
		t.Errorf("Zip with another pin: %v", err)
	}
	if _, _, err := c.Mod(t.Context(), modA, s.ModHash(modMany.Path, modMany.Version)); !errors.Is(err, fetch.ErrMismatch) {
		t.Errorf("Mod with another pin: %v", err)
	}
}

// The database is believed after a failure is over: its client remembers failures, so it must be replaced.
func TestSumDBRecovers(t *testing.T) {
	s := proxytest.New(t)
	var down atomic.Bool
	down.Store(true)
	s.SetFault(func(path string) string {
		if down.Load() && strings.Contains(path, "lookup/") {
			return "403"
		}
		return ""
	})
	c := newClient(t, config(s))
	if _, err := c.ZipHash(t.Context(), modA); !errors.Is(err, fetch.ErrForbidden) {
		t.Errorf("ZipHash: %v", err)
	}
	down.Store(false)
	if h1, err := c.ZipHash(t.Context(), modA); err != nil || h1 != s.ZipHash(modA.Path, modA.Version) {
		t.Errorf("ZipHash = %s, %v", h1, err)
	}
}

func TestSumDBFiles(t *testing.T) {
	s := proxytest.New(t)
	c := newClient(t, config(s))
	name := s.SumDBName()
	if _, err := c.SumDB(t.Context(), name, "supported"); err != nil {
		t.Error(err)
	}
	if data, err := c.SumDB(t.Context(), name, "lookup/example.com/a@v1.0.0"); err != nil || !strings.Contains(string(data), s.ZipHash(modA.Path, modA.Version)) {
		t.Errorf("lookup = %q, %v", data, err)
	}
	if data, err := c.SumDB(t.Context(), name, "latest"); err != nil || !strings.HasPrefix(string(data), "go.sum database tree\n") {
		t.Errorf("latest = %q, %v", data, err)
	}
	for _, bad := range []string{"", "x", "lookup/x", "lookup/../../x@v1.0.0", "tile/../x", "tile/8/0/../../x", "lookup/example.com/a@master"} {
		if _, err := c.SumDB(t.Context(), name, bad); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("SumDB(%q): %v", bad, err)
		}
	}
	if _, err := c.SumDB(t.Context(), "other.example", "latest"); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("other database: %v", err)
	}
}

// What one pass over a zip finds is what dirhash and modzip find in two.
func TestVerifyAgrees(t *testing.T) {
	s := proxytest.New(t)
	for _, m := range proxytest.Modules() {
		name := filepath.Join(t.TempDir(), "zip")
		if err := os.WriteFile(name, s.ZipBytes(m.Path, m.Version), 0o666); err != nil {
			t.Fatal(err)
		}
		want, err := dirhash.HashZip(name, dirhash.Hash1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := modzip.CheckZip(module.Version{Path: m.Path, Version: m.Version}, name); err != nil {
			t.Fatal(err)
		}
		if want != s.ZipHash(m.Path, m.Version) {
			t.Errorf("%s: proxytest says %s, dirhash %s", m.Path, s.ZipHash(m.Path, m.Version), want)
		}
	}
}
