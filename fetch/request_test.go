package fetch_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// requests collects what Config.OnRequest is told.
type requests struct {
	mu  sync.Mutex
	all []fetch.Request
}

func (r *requests) add(q fetch.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, q)
}

// of returns those for a file.
func (r *requests) of(suffix string) []fetch.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var of []fetch.Request
	for _, q := range r.all {
		if strings.HasSuffix(q.File, suffix) {
			of = append(of, q)
		}
	}
	return of
}

func TestOnRequest(t *testing.T) {
	s := proxytest.New(t)
	told := new(requests)
	c := newClient(t, fetch.Config{Proxy: s.FaultURL("404") + "," + s.URL(), SumDB: s.SumDB(), OnRequest: told.add})
	before := time.Now()
	if _, err := c.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{}); err != nil {
		t.Fatal(err)
	}
	zips := told.of("example.com/a/@v/v1.0.0.zip")
	if len(zips) != 2 {
		t.Fatalf("%d requests for the zip, want one to each proxy: %+v", len(zips), zips)
	}
	first, second := zips[0], zips[1]
	if first.Upstream != s.FaultURL("404") || first.Status != http.StatusNotFound || first.Module != modA || !errors.Is(first.Err, fetch.ErrNotFound) {
		t.Errorf("first proxy: %+v", first)
	}
	size := int64(len(s.ZipBytes(modA.Path, modA.Version)))
	if second.Upstream != s.URL() || second.Status != http.StatusOK || second.Method != http.MethodGet || second.Bytes != size ||
		second.Module != modA || second.Err != nil || second.Start.Before(before) || second.Wait <= 0 || second.Took < second.Wait {
		t.Errorf("second proxy: %+v, want 200 and %d bytes", second, size)
	}
	lookups := told.of("lookup/example.com/a@v1.0.0")
	if len(lookups) != 1 || lookups[0].Module != modA || lookups[0].Status != http.StatusOK {
		t.Errorf("lookups: %+v, want one, of the module", lookups)
	}
	tiles := 0
	for _, q := range told.of("") {
		if strings.Contains(q.File, "tile/") {
			tiles++
			if q.Module != (module.Version{}) {
				t.Errorf("a tile is told to be about a module: %+v", q)
			}
		}
	}
	if tiles == 0 {
		t.Error("no tile is told of")
	}

	// What is not sent, because nobody could be reached, is told as well.
	told = new(requests)
	c = newClient(t, fetch.Config{Proxy: "http://127.0.0.1:1", SumDB: "off", OnRequest: told.add})
	for range 2 {
		c.Info(t.Context(), modA)
	}
	infos := told.of(".info")
	if len(infos) != 2 || infos[0].Status != 0 || !errors.Is(infos[1].Err, fetch.ErrUnreachable) {
		t.Errorf("a proxy that is down: %+v", infos)
	}

	// A directory as proxy, and as seed.
	told = new(requests)
	dir := tree(t, s.URL())
	c = newClient(t, fetch.Config{Proxy: "file://" + dir + "/cache/download", SumDB: "off", OnRequest: told.add})
	c.Info(t.Context(), modA)
	if got := told.of(".info"); len(got) != 1 || got[0].Method != "file" || got[0].Err != nil || got[0].Bytes == 0 || got[0].Module != modA {
		t.Errorf("a file URL: %+v", got)
	}
	told = new(requests)
	seed, err := fetch.OpenSeed(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer seed.Close()
	c = newClient(t, fetch.Config{Proxy: s.URL(), SumDB: s.SumDB(), Seeds: []*fetch.Seed{seed}, OnRequest: told.add})
	c.Info(t.Context(), modA)
	if got := told.of(".info"); len(got) != 1 || got[0].Upstream != "seed "+dir || got[0].Err != nil || got[0].Module != modA {
		t.Errorf("a seed: %+v", got)
	}
}

// What is told has no credentials in it, whatever the server says.
func TestOnRequestRedacts(t *testing.T) {
	const secret = "hunter2secret"
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		http.Error(w, "no entry for "+user+":"+password, http.StatusForbidden)
	}))
	defer ts.Close()
	told := new(requests)
	proxy := strings.Replace(ts.URL, "https://", "https://gopher:"+secret+"@", 1)
	c := newClient(t, fetch.Config{Proxy: proxy, SumDB: "off", Transport: ts.Client().Transport, OnRequest: told.add})
	if _, err := c.Info(t.Context(), modA); !errors.Is(err, fetch.ErrForbidden) {
		t.Fatal(err)
	}
	all := told.of("")
	if len(all) != 1 || all[0].Status != http.StatusForbidden || !strings.Contains(all[0].Err.Error(), "no entry") {
		t.Fatalf("%+v", all)
	}
	if text := all[0].Upstream + all[0].Err.Error(); strings.Contains(text, secret) {
		t.Errorf("the password is told: %s", text)
	}
}
