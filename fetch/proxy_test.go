package fetch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

func TestPrivateIsSecret(t *testing.T) {
	s := proxytest.New(t)
	c := config(s)
	c.Private = "example.com/a,example.com/Upper"
	cl := newClient(t, c)
	for _, m := range []module.Version{modA, modCase} {
		if _, err := cl.Zip(t.Context(), m, "", newFile(t), fetch.Watch{}); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("Zip(%s): %v", m, err)
		}
		if _, err := cl.ZipHash(t.Context(), m); !errors.Is(err, fetch.ErrNoSum) {
			t.Errorf("ZipHash(%s): %v", m, err)
		}
		if _, err := cl.SumDB(t.Context(), s.SumDBName(), "lookup/example.com/a@v1.0.0"); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("SumDB lookup of a private module: %v", err)
		}
	}
	if r := s.Requests(); len(r) > 0 {
		t.Errorf("private names went out: %q", r)
	}
	// Not covered by the database, but to be had from the proxy.
	c.NoProxy = "none"
	s.ResetRequests()
	if h1, err := newClient(t, c).Zip(t.Context(), modA, "", newFile(t), fetch.Watch{}); err != nil || h1 != s.ZipHash(modA.Path, modA.Version) {
		t.Errorf("Zip with GONOPROXY=none: %s, %v", h1, err)
	}
	if n := s.Count("sumdb/"); n != 0 {
		t.Error("asked the database about a private module")
	}
}

func TestProxyList(t *testing.T) {
	s := proxytest.New(t)
	bad := func(fault string) string { return s.FaultURL(fault) }
	for _, test := range []struct {
		list string
		want error // nil: found
	}{
		{bad("404") + "," + s.URL(), nil},
		{bad("410") + "," + s.URL(), nil},
		{bad("403") + "," + s.URL(), fetch.ErrForbidden},
		{bad("403") + "|" + s.URL(), nil},
		{"http://127.0.0.1:1," + s.URL(), fetch.ErrUnreachable},
		{"http://127.0.0.1:1|" + s.URL(), nil},
		{bad("404") + "|" + bad("403"), fetch.ErrForbidden},
		{bad("403") + "|" + bad("404"), fetch.ErrForbidden},
		{bad("404") + ",off," + s.URL(), fetch.ErrNotFound},
		{bad("404") + ",direct", fetch.ErrNotFound},
		{"off", fetch.ErrNotFound},
		{"", fetch.ErrNotFound},
		{" " + s.URL() + " , ", nil},
	} {
		cl := newClient(t, fetch.Config{Proxy: test.list, SumDB: s.SumDB()})
		_, err := cl.Info(t.Context(), modA)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("GOPROXY=%s: %v; want %v", test.list, err, test.want)
		}
	}
	for _, list := range []string{"ftp://x.example", "https://", "file://host/x", ":", "http://a.example:b/", "word"} {
		if _, err := fetch.New(fetch.Config{Proxy: list}); err == nil {
			t.Errorf("GOPROXY=%s accepted", list)
		}
	}
}

func TestFileProxy(t *testing.T) {
	s := proxytest.New(t)
	dir := t.TempDir()
	at := filepath.Join(dir, "example.com", "a", "@v")
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "v1.0.0.zip"), s.ZipBytes(modA.Path, modA.Version), 0o666); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, fetch.Config{Proxy: "file://" + dir, SumDB: s.SumDB()})
	if h1, err := c.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{}); err != nil || h1 != s.ZipHash(modA.Path, modA.Version) {
		t.Errorf("Zip = %s, %v", h1, err)
	}
	if _, err := c.Info(t.Context(), modA); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("Info: %v", err)
	}
	if n, err := c.ZipSize(t.Context(), modA); err != nil || n != int64(len(s.ZipBytes(modA.Path, modA.Version))) {
		t.Errorf("ZipSize = %d, %v", n, err)
	}
}

// Each fault of a proxy ends in the right kind of error, and never in an artifact.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		fault string
		want  error // of Zip; nil: it succeeds in spite of the fault
	}{
		{"404", fetch.ErrNotFound},
		{"410", fetch.ErrNotFound},
		{"403", fetch.ErrForbidden},
		{"503once", nil},
		{"norange", nil},
		{"slow", nil},
		{"redirect", nil},
		{"nosumdb", nil},
		{"html", fetch.ErrBadAnswer},
		{"tamper", fetch.ErrMismatch},
		{"stallbody", fetch.ErrTimeout},
		{"stall", fetch.ErrTimeout},
		{"sumdbwrong", fetch.ErrMismatch},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t)
			c := config(s)
			c.Proxy = s.FaultURL(test.fault)
			if strings.Contains(test.fault, "sumdb") {
				c.SumDB = strings.Fields(c.SumDB)[0] // through the proxy
				if test.fault == "nosumdb" {
					c.SumDB = s.SumDB()
				}
			}
			c.IdleTimeout = 30 * time.Second
			if test.want == fetch.ErrTimeout {
				c.IdleTimeout = 50 * time.Millisecond
			}
			_, err := newClient(t, c).Zip(t.Context(), modMany, "", newFile(t), fetch.Watch{})
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("Zip: %v; want %v", err, test.want)
			}
		})
	}
}

func TestInfoFaults(t *testing.T) {
	for fault, want := range map[string]error{"html": fetch.ErrBadAnswer, "badjson": fetch.ErrBadAnswer, "hugeinfo": fetch.ErrTooLarge} {
		s := proxytest.New(t)
		c := config(s)
		c.Proxy = s.FaultURL(fault)
		if _, err := newClient(t, c).Info(t.Context(), modA); !errors.Is(err, want) {
			t.Errorf("%s: Info: %v; want %v", fault, err, want)
		}
	}
	s := proxytest.New(t)
	c := config(s)
	c.Proxy = s.FaultURL("tamper")
	if _, _, err := newClient(t, c).Mod(t.Context(), modA, ""); !errors.Is(err, fetch.ErrMismatch) {
		t.Errorf("tampered .mod: %v", err)
	}
}

// A download that is cut off goes on where it was.
func TestResume(t *testing.T) {
	s := proxytest.New(t)
	var cuts atomic.Int32
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") && cuts.Add(1) <= 2 {
			return "truncate"
		}
		return ""
	})
	h1, err := newClient(t, config(s)).Zip(t.Context(), modLarge, "", newFile(t), fetch.Watch{})
	if err != nil || h1 != s.ZipHash(modLarge.Path, modLarge.Version) {
		t.Errorf("Zip = %s, %v", h1, err)
	}
}

func TestCancel(t *testing.T) {
	s := proxytest.New(t)
	c := config(s)
	c.Proxy = s.FaultURL("stallbody")
	ctx, cancel := context.WithCancel(t.Context())
	cl := newClient(t, c)
	done := make(chan error)
	go func() {
		_, err := cl.Zip(ctx, modA, s.ZipHash(modA.Path, modA.Version), newFile(t), fetch.Watch{})
		done <- err
	}()
	for s.Count(".zip") == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Zip: %v", err)
	}
}

func TestOffline(t *testing.T) {
	s := proxytest.New(t)
	c := config(s)
	c.Offline = true
	cl := newClient(t, c)
	if _, err := cl.Info(t.Context(), modA); !errors.Is(err, fetch.ErrOffline) {
		t.Errorf("Info: %v", err)
	}
	if _, err := cl.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{}); !errors.Is(err, fetch.ErrOffline) {
		t.Errorf("Zip: %v", err)
	}
	if _, err := cl.ZipHash(t.Context(), modA); !errors.Is(err, fetch.ErrOffline) {
		t.Errorf("ZipHash: %v", err)
	}
	if r := s.Requests(); len(r) > 0 {
		t.Errorf("sent %q", r)
	}
}
