package fetch_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// What hangs ends with an error that says why.
func TestTimeouts(t *testing.T) {
	s := proxytest.New(t)
	for _, fault := range []string{"stall", "stallbody"} {
		for _, cfg := range []fetch.Config{
			{IdleTimeout: time.Millisecond}, {Timeout: time.Millisecond},
		} {
			cfg.Proxy, cfg.SumDB = s.FaultURL(fault), "off"
			_, err := newClient(t, cfg).Zip(t.Context(), modA, "", newFile(t), fetch.Watch{})
			if !is(err, fetch.ErrTimeout) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: Zip: %v", fault, err)
			}
		}
	}
	// The next proxy is asked if it may be.
	cfg := quick("https://slow.example|https://proxy.example")
	cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "slow.example" {
			return nil, os.ErrDeadlineExceeded
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(infoA)), ContentLength: -1}, nil
	})
	if _, err := newClient(t, cfg).Info(t.Context(), modA); err != nil {
		t.Errorf("Info: %v", err)
	}
}

// waitStalled waits until n answers hang.
func waitStalled(t *testing.T, s *proxytest.Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); s.Stalled() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d answers hang; want %d", s.Stalled(), n)
		}
	}
}

// A call ends when its context does, with the context's cause, and when the client is closed.
func TestInterrupt(t *testing.T) {
	s := proxytest.New(t)
	cause := errors.New("interrupted")
	calls := map[string]func(ctx context.Context, c *fetch.Client) error{
		"Info": func(ctx context.Context, c *fetch.Client) error { _, err := c.Info(ctx, modA); return err },
		"Mod":  func(ctx context.Context, c *fetch.Client) error { _, _, err := c.Mod(ctx, modA, ""); return err },
		"Zip": func(ctx context.Context, c *fetch.Client) error {
			_, err := c.Zip(ctx, modA, "", newFile(t), fetch.Watch{})
			return err
		},
		"ZipHash": func(ctx context.Context, c *fetch.Client) error { _, err := c.ZipHash(ctx, modA); return err },
		"List":    func(ctx context.Context, c *fetch.Client) error { _, err := c.List(ctx, modA.Path); return err },
		"Latest":  func(ctx context.Context, c *fetch.Client) error { _, err := c.Latest(ctx, modA.Path); return err },
		"lookup": func(ctx context.Context, c *fetch.Client) error {
			_, err := c.SumDB(ctx, s.SumDBName(), "lookup/example.com/a@v1.0.0")
			return err
		},
		"tile": func(ctx context.Context, c *fetch.Client) error {
			_, err := c.SumDB(ctx, s.SumDBName(), "tile/8/0/000.p/1")
			return err
		},
	}
	if _, err := newClient(t, config(s)).ZipHash(t.Context(), modA); err != nil { // so that there is a tile
		t.Fatal(err)
	}
	s.SetFault(func(string) string { return "stall" })
	for name, call := range calls {
		for _, way := range []string{"context", "Close"} {
			cl := newClient(t, config(s))
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error, 1)
			go func() { done <- call(ctx, cl) }()
			waitStalled(t, s, 1)
			want := cause
			if way == "Close" {
				want = context.Canceled
				cl.Close()
			}
			cancel(cause)
			if err := <-done; !errors.Is(err, want) {
				t.Errorf("%s ended by %s: %v", name, way, err)
			}
			cl.Close()
			if _, err := cl.Info(t.Context(), modA); !errors.Is(err, context.Canceled) {
				t.Errorf("Info after Close: %v", err)
			}
			for s.Stalled() > 0 {
				time.Sleep(time.Millisecond) // the server notices in a moment that its client is gone
			}
		}
	}
}

// All proxies have their say in the error, and the class is the go command's choice.
func TestTriedErrors(t *testing.T) {
	s := proxytest.New(t)
	cfg := quick(s.FaultURL("404") + "," + s.FaultURL("403") + "|" + s.FaultURL("410") + ",direct")
	cl := newClient(t, cfg)
	_, err := cl.Info(t.Context(), modA)
	if !is(err, fetch.ErrForbidden) {
		t.Errorf("Info: %v", err)
	}
	for _, part := range []string{"404 Not Found", "403 Forbidden", "410 Gone", "direct", modA.String(), s.URL()} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %q", err, part)
		}
	}
	ups := cl.Upstreams()
	if len(ups) != 3 || ups[0].Requests != 1 || ups[0].Failures != 0 || ups[1].Failures != 1 || !strings.Contains(ups[1].LastError, "403") {
		t.Errorf("Upstreams = %+v", ups)
	}
}

// What an .info file has besides is dropped; what the go command keeps is kept in its order.
func TestInfoForm(t *testing.T) {
	const pseudo = "v0.0.0-20200102030405-abcdefabcdef"
	for _, test := range []struct {
		version, sent, want string // want "": refused
	}{
		{"v1.0.0", infoA, infoA},
		{"v1.0.0", ` { "Time":"2020-01-02T03:04:05+01:00","Version":"v1.0.0", "Name":"x", "Extra":[] } `, `{"Version":"v1.0.0","Time":"2020-01-02T03:04:05+01:00"}`},
		{"v1.0.0", `{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z","Origin":{"Hash":"h","VCS":"git","URL":"https://x.example/a&b","TagSum":"t1:x","TagPrefix":"p","Ref":"refs/tags/v1.0.0","RepoSum":"r1:x"}}`,
			`{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://x.example/a\u0026b","Hash":"h","Ref":"refs/tags/v1.0.0"}}`},
		{pseudo, `{"Version":"` + pseudo + `","Origin":{"Ref":"refs/heads/main","Hash":"h"}}`, `{"Version":"` + pseudo + `","Time":"0001-01-01T00:00:00Z","Origin":{"Hash":"h"}}`},
		{"v1.0.0", `{"Version":"v1.0.1","Time":"2020-01-02T03:04:05Z"}`, ""},
		{"v1.0.0", `{"Version":"v1.0.0","Time":"yesterday"}`, ""},
		{"v1.0.0", `v1.0.0`, ""},
		{"v1.0.0", ``, ""},
	} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, test.sent) })
		got, err := newClient(t, quick(url)).Info(t.Context(), module.Version{Path: modA.Path, Version: test.version})
		if string(got) != test.want || test.want == "" && !is(err, fetch.ErrBadAnswer) {
			t.Errorf("%s\nInfo = %s, %v\nwant   %s", test.sent, got, err, test.want)
		}
	}
}

func TestListForm(t *testing.T) {
	const sent = "v1.0.0\nv1.1.0 2020-01-02T03:04:05Z\r\n\n  v1.2.0 yesterday\nmaster\n<p>\nv0.0.0-20200102030405-abcdefabcdef\nv2\x00\nv1.3.0"
	const want = "v1.0.0\nv1.1.0 2020-01-02T03:04:05Z\nv1.2.0\nv0.0.0-20200102030405-abcdefabcdef\nv1.3.0\n"
	for _, kind := range []string{"text/plain", "text/html"} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			if strings.Contains(r.URL.Path, "/a/") {
				io.WriteString(w, sent)
			}
		})
		cl := newClient(t, quick(url))
		if got, err := cl.List(t.Context(), modA.Path); err != nil || string(got) != want {
			t.Errorf("%s: List = %q, %v; want %q", kind, got, err, want)
		}
		_, err := cl.List(t.Context(), "example.com/b")
		if (kind == "text/html") != (err != nil) {
			t.Errorf("%s: empty list: %v", kind, err)
		}
	}
}
