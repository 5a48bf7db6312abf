package fetch_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

func TestRoute(t *testing.T) {
	s := proxytest.New(t)
	private, noproxy := "corp.example/*,*.internal.example", "corp.example/*,example.com/a"
	hops := []fetch.Hop{{URL: "https://xxxxx@proxy.example/go", FallBack: true}, {URL: "https://second.example"}, {URL: "direct"}}
	c := newClient(t, fetch.Config{Proxy: "https://gopher:secret@proxy.example/go|https://second.example,direct,https://never.example",
		SumDB: s.SumDB(), Private: private, NoProxy: noproxy})
	for _, test := range []struct {
		path string
		want fetch.Route
	}{
		{"example.com/b", fetch.Route{Proxies: hops, SumDB: s.SumDBName()}},
		{"example.com/a", fetch.Route{Proxies: hops, SumDB: s.SumDBName(), Private: &fetch.Match{Setting: "GONOPROXY", Pattern: "example.com/a"}}},
		{"corp.example/x/y", fetch.Route{Proxies: hops, Private: &fetch.Match{Setting: "GONOPROXY", Pattern: "corp.example/*"},
			NoSum: &fetch.Match{Setting: "GOPRIVATE", Pattern: "corp.example/*"}}},
		{"git.internal.example/x", fetch.Route{Proxies: hops, NoSum: &fetch.Match{Setting: "GOPRIVATE", Pattern: "*.internal.example"}}},
	} {
		if got := c.Route(test.path); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v\nwant %+v", test.path, got, test.want)
		}
	}
	// As go env gives it, GONOPROXY is GOPRIVATE unless it is set.
	c = newClient(t, fetch.Config{Proxy: "off", SumDB: "off", Private: private, NoProxy: private})
	if got := c.Route("corp.example/x").Private; got == nil || got.Setting != "GOPRIVATE" {
		t.Errorf("%+v, want GOPRIVATE to be the reason", got)
	}
	c = newClient(t, fetch.Config{Proxy: "off", SumDB: "off", Private: "golang.org/toolchain", Offline: true})
	got := c.Route("golang.org/toolchain")
	if got.NoSum != nil || got.Private == nil || !got.Offline || got.SumDB != "" {
		t.Errorf("a toolchain: %+v, want it to be checked whatever the settings say", got)
	}
}

func TestRecord(t *testing.T) {
	s := proxytest.New(t)
	store := new(tiles)
	c := newClient(t, fetch.Config{Proxy: s.URL(), SumDB: s.SumDB(), Tiles: store, NoSumDB: "example.com/b"})
	if _, err := c.Record(modA); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("before it was asked: %v", err)
	}
	for _, m := range []module.Version{modA, modMany, modCase} {
		if _, err := c.ZipHash(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		s.ResetRequests()
		r, err := c.Record(m)
		if err != nil {
			t.Fatal(err)
		}
		if r.Database != s.SumDBName() || r.ZipHash != s.ZipHash(m.Path, m.Version) || r.ModHash != s.ModHash(m.Path, m.Version) ||
			r.ID < 0 || r.TreeSize <= r.ID || r.TreeHash == "" || !r.Proven {
			t.Errorf("%s: %+v, want it proven", m, r)
		}
		if got := s.Requests(); len(got) > 0 {
			t.Errorf("%s: somebody was asked: %q", m, got)
		}
	}
	if _, err := c.Record(module.Version{Path: "example.com/b", Version: "v1.0.0"}); !errors.Is(err, fetch.ErrNoSum) {
		t.Errorf("a module that is not covered: %v", err)
	}
	// Without the tiles nothing can be proven, and what is there does not say the contrary.
	full := store.snapshot()
	for name := range full {
		if strings.Contains(name, "/tile/") {
			delete(store.files, name)
		}
	}
	if r, err := c.Record(modA); err != nil || r.Proven || r.TreeSize == 0 {
		t.Errorf("without tiles: %+v, %v", r, err)
	}
	// A record that was changed is not in the tree.
	store.files = full
	name := s.SumDBName() + "/lookup/example.com/a@v1.0.0"
	full[name] = []byte(strings.Replace(string(full[name]), "example.com/a v1.0.0 h1:", "example.com/a v1.0.0 h1:x", 1))
	if r, err := c.Record(modA); !errors.Is(err, fetch.ErrSumDB) {
		t.Errorf("a record that was changed: %+v, %v", r, err)
	}
}
