package fetch_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
)

// realClient returns a client with the user's settings. The test is skipped where they lead nowhere.
func realClient(t *testing.T, tiles fetch.TileStore) (*fetch.Client, fetch.Config) {
	t.Helper()
	if testing.Short() {
		t.Skip("uses the real module proxy")
	}
	cfg, err := fetch.Settings(t.Context(), nil)
	if err != nil {
		t.Skipf("no settings: %v", err)
	}
	cfg.Tiles, cfg.IdleTimeout = tiles, 20*time.Second
	return newClient(t, cfg), cfg
}

// skipUnreachable skips the test if err says no more than that there is no proxy to test with.
func skipUnreachable(t *testing.T, err error) {
	t.Helper()
	for _, class := range []error{fetch.ErrUnreachable, fetch.ErrTimeout, fetch.ErrForbidden} {
		if errors.Is(err, class) {
			t.Skipf("the module proxy cannot be used: %v", err)
		}
	}
	if errors.Is(err, fetch.ErrNotFound) && (strings.Contains(err.Error(), "GOPROXY=off") || strings.Contains(err.Error(), "direct")) {
		t.Skipf("no module proxy is set: %v", err)
	}
	if errors.Is(err, fetch.ErrNoSum) {
		t.Skipf("no checksum database is set: %v", err)
	}
}

// Modules that everybody has, from the proxy that the user has.
func TestRealProxy(t *testing.T) {
	store := new(tiles)
	c, cfg := realClient(t, store)
	for _, m := range []module.Version{
		{Path: "golang.org/x/mod", Version: "v0.20.0"},
		{Path: "github.com/BurntSushi/toml", Version: "v1.4.0"},
		{Path: "gopkg.in/yaml.v3", Version: "v3.0.1"},
	} {
		info, err := c.Info(t.Context(), m)
		skipUnreachable(t, err)
		if err != nil || !strings.Contains(string(info), `"Version":"`+m.Version+`"`) {
			t.Fatalf("Info(%s) = %s, %v", m, info, err)
		}
		want, err := c.ZipHash(t.Context(), m)
		skipUnreachable(t, err)
		if err != nil {
			t.Fatal(err)
		}
		dst := newFile(t)
		h1, err := c.Zip(t.Context(), m, "", dst, fetch.Watch{})
		if err != nil || h1 != want {
			t.Fatalf("Zip(%s) = %s, %v; want %s", m, h1, err, want)
		}
		if ref, err := dirhash.HashZip(dst.Name(), dirhash.Hash1); err != nil || ref != h1 {
			t.Errorf("dirhash of %s: %s, %v; want %s", m, ref, err, h1)
		}
		if _, err := modzip.CheckZip(m, dst.Name()); err != nil {
			t.Errorf("CheckZip of %s: %v", m, err)
		}
		fi, err := os.Stat(dst.Name())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := c.ZipSize(t.Context(), m); err != nil || n != fi.Size() || dst.reserved != n {
			t.Errorf("ZipSize(%s) = %d, %v; got %d bytes, %d were announced", m, n, err, fi.Size(), dst.reserved)
		}
		if _, _, err := c.Mod(t.Context(), m, ""); err != nil {
			t.Errorf("Mod(%s): %v", m, err)
		}
	}
	if list, err := c.List(t.Context(), "golang.org/x/mod"); err != nil || !strings.Contains(string(list), "v0.20.0\n") {
		t.Errorf("List = %q, %v", list, err)
	}
	if latest, err := c.Latest(t.Context(), "golang.org/x/mod"); err != nil && !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("Latest = %q, %v", latest, err)
	}
	if _, err := c.Info(t.Context(), module.Version{Path: "golang.org/x/mod", Version: "v0.20.999"}); !errors.Is(err, fetch.ErrNotFound) && !errors.Is(err, fetch.ErrForbidden) {
		t.Errorf("Info of what is not there: %v", err)
	}
	// What was verified is enough for another client without a network.
	cfg.Offline = true
	if _, err := newClient(t, cfg).ZipHash(t.Context(), module.Version{Path: "golang.org/x/mod", Version: "v0.20.0"}); err != nil {
		t.Errorf("offline: ZipHash: %v", err)
	}
}
