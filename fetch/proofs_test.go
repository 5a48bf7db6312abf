package fetch_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// bySum is a seed that has but files of the checksum database.
func bySum(files map[string][]byte) *fetch.Seed {
	return &fetch.Seed{Name: "files", Sum: func(name string) ([]byte, error) {
		if data, ok := files[name]; ok {
			return data, nil
		}
		return nil, fs.ErrNotExist
	}}
}

// What Proofs returns is enough to check each of the modules without a network, under one tree head, and each file of it is
// needed: the key does it, and nothing else.
func TestProofs(t *testing.T) {
	s := proxytest.New(t)
	var ms []module.Version
	for _, m := range proxytest.Modules() {
		ms = append(ms, module.Version{Path: m.Path, Version: m.Version})
	}
	// Each lookup makes the tree grow, so that records come with different heads, as those do that proxies keep.
	cfg := config(s)
	c := newClient(t, cfg)
	files, failed, err := c.Proofs(t.Context(), ms)
	if err != nil || len(failed) > 0 {
		t.Fatal(err, failed)
	}
	offline := func(key string, files map[string][]byte) *fetch.Client {
		return newClient(t, fetch.Config{SumDB: key, Offline: true, Seeds: []*fetch.Seed{bySum(files)}})
	}
	cl := offline(s.SumDBKey(), files)
	for _, m := range ms {
		if h1, err := cl.ZipHash(t.Context(), m); err != nil || h1 != s.ZipHash(m.Path, m.Version) {
			t.Errorf("ZipHash(%s) = %s, %v", m, h1, err)
		}
		if h1, err := cl.ModHash(t.Context(), m); err != nil || h1 != s.ModHash(m.Path, m.Version) {
			t.Errorf("ModHash(%s) = %s, %v", m, h1, err)
		}
	}
	head := files[s.SumDBName()+"/latest"]
	for name, data := range files {
		if strings.Contains(name, "/lookup/") && !strings.HasSuffix(string(data), string(head)) {
			t.Errorf("%s has another tree head:\n%s", name, data)
		}
	}
	for name := range files {
		if strings.HasSuffix(name, "/latest") {
			continue // it is the head of each record, too
		}
		less := make(map[string][]byte)
		for n, data := range files {
			if n != name {
				less[n] = data
			}
		}
		cl := offline(s.SumDBKey(), less)
		missing := 0
		for _, m := range ms {
			if _, err := cl.ZipHash(t.Context(), m); errors.Is(err, fetch.ErrOffline) {
				missing++
			} else if err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
		if missing == 0 {
			t.Errorf("%s is not needed", name)
		}
	}
	if _, err := offline(proxytest.New(t).SumDBKey(), files).ZipHash(t.Context(), modA); !errors.Is(err, fetch.ErrSumDB) {
		t.Errorf("with another key: %v, want ErrSumDB", err)
	}
	// Again, and from what was stored, it is the same.
	again, failed, err := c.Proofs(t.Context(), ms)
	if err != nil || len(failed) > 0 || len(again) != len(files) {
		t.Errorf("again: %d files instead of %d, %v, %v", len(again), len(files), failed, err)
	}
	for name, data := range again {
		if string(files[name]) != string(data) {
			t.Errorf("%s is another one now", name)
		}
	}
}

// A record that is forged, of any of the modules, is refused; so is one that was moved to another module.
func TestForgedProofs(t *testing.T) {
	s := proxytest.New(t)
	ms := []module.Version{modA, modMany}
	files, _, err := newClient(t, config(s)).Proofs(t.Context(), ms)
	if err != nil {
		t.Fatal(err)
	}
	a := s.SumDBName() + "/lookup/example.com/a@v1.0.0"
	many := s.SumDBName() + "/lookup/example.com/many@v1.0.0"
	for name, forged := range map[string]string{
		"hash":   strings.Replace(string(files[a]), "h1:", "h1:A", 1),
		"number": "1" + string(files[a]),
		"moved":  strings.ReplaceAll(string(files[many]), "example.com/many", "example.com/a"),
		"empty":  "\n",
	} {
		bad := make(map[string][]byte)
		for n, data := range files {
			bad[n] = data
		}
		bad[a] = []byte(forged)
		c := newClient(t, fetch.Config{SumDB: s.SumDBKey(), Offline: true, Seeds: []*fetch.Seed{bySum(bad)}})
		if h1, err := c.ZipHash(t.Context(), modA); err == nil {
			t.Errorf("%s: ZipHash = %s, want an error", name, h1)
		}
	}
}

// Modules that the database does not cover have no proof, and need none; of others it is said why there is none.
func TestNoProofs(t *testing.T) {
	s := proxytest.New(t)
	cfg := config(s)
	cfg.NoSumDB = "example.com/many"
	gone := module.Version{Path: "example.com/gone", Version: "v1.0.0"}
	files, failed, err := newClient(t, cfg).Proofs(t.Context(), []module.Version{modA, modMany, gone})
	if err != nil || len(failed) != 1 || failed[gone] == nil || len(files) == 0 {
		t.Errorf("%d files, failed %v, %v", len(files), failed, err)
	}
	for name := range files {
		if strings.Contains(name, "many") {
			t.Errorf("%s is there", name)
		}
	}
	cfg.SumDB = "off"
	if files, failed, err := newClient(t, cfg).Proofs(t.Context(), []module.Version{modA}); len(files)+len(failed) > 0 || err != nil {
		t.Errorf("without a database: %v, %v, %v", files, failed, err)
	}
}
