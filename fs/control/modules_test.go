package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	modfs "modfs/fs"
	"modfs/lru"
)

func names(rs []modfs.Resident) (names []string) {
	for _, r := range rs {
		name := r.Module + "@" + r.Version
		if r.Pinned {
			name += " pinned"
		}
		names = append(names, name)
	}
	return names
}

// wantStatus fails unless an error is one of the daemon's with that status.
func wantStatus(t *testing.T, what string, err error, status int, text string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != status || !strings.Contains(e.Message, text) {
		t.Errorf("%s: %v, want %d %s", what, err, status, text)
	}
}

// TestModules lists, pins and evicts through the socket of a mount, and then without a mount.
func TestModules(t *testing.T) {
	s := proxytest.New(t)
	f := mount(t, s, func(o *modfs.Options) { o.Store.MaxSize = 64 << 20 })
	open(t, f, "example.com/a@v1.0.0/a.go")
	open(t, f, "example.com/b@v1.0.0/b.go")
	steerModules(t, client(t, f))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	o := modfs.Options{Store: lru.Config{Dir: f.StoreDir()}, Fetch: fetch.Config{Offline: true, SumDB: "off"}}
	c, err := OpenStore(o, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := OpenStore(o, "test"); err == nil {
		t.Error("a store was opened twice")
	}
	ctx := context.Background()
	if all, err := c.Modules(ctx); err != nil || strings.Join(names(all), ", ") != "example.com/a@v1.0.0 pinned" {
		t.Errorf("%v, %v", names(all), err)
	}
	if _, err := c.Unpin(ctx, []string{"example.com/a@v1.0.0"}); err != nil {
		t.Error(err)
	}
	zero := int64(0)
	if r, err := c.GC(ctx, GC{MaxBytes: &zero}); err != nil || r.Modules != 1 || r.Freed == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = c.Evict(ctx, []string{"example.com/a"})
	wantStatus(t, "evict what is gone", err, http.StatusNotFound, "not in the store")
}

func steerModules(t *testing.T, c *Client) {
	ctx := context.Background()
	if all, err := c.Modules(ctx); err != nil || strings.Join(names(all), ", ") != "example.com/a@v1.0.0, example.com/b@v1.0.0" {
		t.Fatalf("%v, %v", names(all), err)
	}
	if p, err := c.Pin(ctx, []string{"example.com/a@v1.0.0"}); err != nil || p.Modules != 1 || p.Bytes == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	for what, do := range map[string]func() error{
		"404 not in the store": func() error { _, err := c.Evict(ctx, []string{"example.com/none"}); return err },
		"404 not pinned":       func() error { _, err := c.Unpin(ctx, []string{"example.com/b@v1.0.0"}); return err },
		"409 unpin it first": func() error {
			_, err := c.Evict(ctx, []string{"example.com/b", "example.com/a@v1.0.0"})
			return err
		},
		"400 no modules":    func() error { _, err := c.Pin(ctx, nil); return err },
		"400 want MODULE@":  func() error { _, err := c.Pin(ctx, []string{"example.com/b"}); return err },
		"400 malformed":     func() error { _, err := c.Evict(ctx, []string{"../b"}); return err },
		"400 not canonical": func() error { _, err := c.Pin(ctx, []string{"example.com/b@v1.0.0+meta"}); return err },
		"400 max_bytes": func() error {
			n := int64(-1)
			_, err := c.GC(ctx, GC{MaxBytes: &n})
			return err
		},
		"400 unused_seconds": func() error {
			n := 1e300
			_, err := c.GC(ctx, GC{UnusedSeconds: &n})
			return err
		},
		"413 more than": func() error {
			_, err := c.Pin(ctx, []string{strings.Repeat("x", maxBody)})
			return err
		},
	} {
		var status int
		switch what[:3] {
		case "400":
			status = 400
		case "404":
			status = 404
		case "409":
			status = 409
		case "413":
			status = 413
		}
		wantStatus(t, what, do(), status, what[4:])
	}
	if got, err := c.Evict(ctx, []string{"example.com/b"}); err != nil || strings.Join(names(got), ", ") != "example.com/b@v1.0.0" {
		t.Errorf("evicted %v, %v", names(got), err)
	}
}

// TestPinsOverLimit pins more than the limit leaves room for.
func TestPinsOverLimit(t *testing.T) {
	big := proxytest.Module{Path: "example.com/big", Version: "v1.0.0", Files: map[string]string{
		"go.mod": "module example.com/big\n", "data": incompressible(900 << 10),
	}}
	s := proxytest.New(t, big)
	f := mount(t, s, func(o *modfs.Options) { o.Store.MaxSize = 1100 << 10 })
	open(t, f, "example.com/big@v1.0.0/go.mod")
	c := client(t, f)
	_, err := c.Pin(context.Background(), []string{"example.com/big@v1.0.0"})
	wantStatus(t, "pin", err, http.StatusInsufficientStorage, "they would fill the store")
	if all, err := c.Modules(context.Background()); err != nil || len(all) != 1 || all[0].Pinned {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := os.Stat(filepath.Join(f.StoreDir(), "kept")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is noted all the same: %v", err)
	}
}

// incompressible returns n bytes that stay so many in a zip.
func incompressible(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223 // Numerical Recipes
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// TestLocalStream checks that a stream of this process arrives line by line, ends with its error, and can be left.
func TestLocalStream(t *testing.T) {
	s := New(Options{})
	m := s.newMux()
	gone := make(chan struct{})
	m.handle("GET /v1/lines", func(w http.ResponseWriter, r *http.Request) error {
		t := newStream(w)
		t.send(map[string]int{"n": 1})
		t.send(map[string]any{"n": 2, "error": "of this one"})
		return t.end(errors.New("it ended"))
	})
	m.handle("GET /v1/endless", func(w http.ResponseWriter, r *http.Request) error {
		defer close(gone)
		t := newStream(w)
		for t.send(1) == nil {
		}
		<-r.Context().Done()
		return nil
	})
	c := &Client{patience: forLocal, http: &http.Client{Transport: local{m}}}
	var lines []string
	err := c.Stream(context.Background(), "GET", "/v1/lines", nil, func(line json.RawMessage) error {
		lines = append(lines, string(line))
		return nil
	})
	if want := `{"n":1} {"error":"of this one","n":2}`; strings.Join(lines, " ") != want {
		t.Errorf("%s, want %s", lines, want)
	}
	wantStatus(t, "the end", err, http.StatusInternalServerError, "it ended")
	enough := errors.New("enough")
	if err := c.Stream(context.Background(), "GET", "/v1/endless", nil, func(json.RawMessage) error { return enough }); err != enough {
		t.Errorf("%v, want that of the reader", err)
	}
	<-gone
	wantStatus(t, "nothing", c.Get(context.Background(), "/v1/none", new(int)), http.StatusNotFound, "no such thing")
}
