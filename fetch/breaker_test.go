package fetch_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/note"

	"modfs/fetch"
)

// network is a transport whose connections are made as a test says. Dials are counted.
type network struct {
	*http.Transport
	dials atomic.Int32
	dial  atomic.Pointer[func(ctx context.Context) error] // nil: they succeed
}

func newNetwork(t *testing.T) *network {
	n := new(network)
	n.Transport = &http.Transport{DialContext: func(ctx context.Context, netw, addr string) (net.Conn, error) {
		n.dials.Add(1)
		if f := n.dial.Load(); f != nil {
			if err := (*f)(ctx); err != nil {
				return nil, &net.OpError{Op: "dial", Net: netw, Err: err}
			}
		}
		return new(net.Dialer).DialContext(ctx, netw, addr)
	}}
	t.Cleanup(n.CloseIdleConnections)
	return n
}

func (n *network) set(f func(ctx context.Context) error) {
	if f == nil {
		n.dial.Store(nil)
	} else {
		n.dial.Store(&f)
	}
}

// lateDial is the error of a connection that could not be made in time.
type lateDial struct{}

func (lateDial) Error() string   { return "i/o timeout" }
func (lateDial) Timeout() bool   { return true }
func (lateDial) Temporary() bool { return true }

func refuse(context.Context) error { return syscall.ECONNREFUSED }

// anyInfo answers each .info.
func anyInfo(w http.ResponseWriter, r *http.Request) {
	_, name, ok := strings.Cut(r.URL.Path, "/@v/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	fmt.Fprintf(w, `{"Version":%q,"Time":"2020-01-02T03:04:05Z"}`, strings.TrimSuffix(name, ".info"))
}

func nth(i int) module.Version {
	return module.Version{Path: fmt.Sprintf("example.com/m%d", i), Version: "v1.0.0"}
}

func settle(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// When one connection could not be made in time, nobody else waits for that: not who is waiting, nor who comes later. When
// the network is back, that is found out without anybody waiting for it.
func TestOneDeadline(t *testing.T) {
	n := newNetwork(t)
	cfg := quick(serve(t, anyInfo))
	cfg.Transport, cfg.IdleTimeout = n, time.Hour
	c := newClient(t, cfg)
	var first atomic.Bool
	release := make(chan struct{})
	n.set(func(ctx context.Context) error {
		if first.CompareAndSwap(false, true) {
			<-release
			return lateDial{}
		}
		<-ctx.Done() // for ever, as far as the network is concerned
		return ctx.Err()
	})
	const readers = 40
	errs := make(chan error, readers)
	for i := range readers {
		go func() {
			_, err := c.Info(t.Context(), nth(i))
			errs <- err
		}()
	}
	settle(t, "all are waiting for a connection", func() bool { return n.dials.Load() == readers })
	close(release)
	late := 0
	for range readers {
		select {
		case err := <-errs:
			if errors.Is(err, fetch.ErrTimeout) {
				late++
			}
			if !errors.Is(err, fetch.ErrUnreachable) && !errors.Is(err, fetch.ErrTimeout) {
				t.Errorf("error %v, want ErrUnreachable or, once, ErrTimeout", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("somebody still waits for a connection of his own")
		}
	}
	if late > 1 {
		t.Errorf("%d waited to the end", late)
	}
	_, err := c.Info(t.Context(), modA)
	if !errors.Is(err, fetch.ErrUnreachable) || !strings.Contains(fmt.Sprint(err), "unreachable since ") || !strings.Contains(fmt.Sprint(err), "next try in ") {
		t.Errorf("error %v, want one that says since when and what next", err)
	}
	if u := c.Upstreams()[0]; u.DownSince.IsZero() || u.NextTry.IsZero() {
		t.Errorf("state %+v does not say that it is down", u)
	}
	n.set(nil)
	settle(t, "it works again", func() bool { _, err := c.Info(t.Context(), modA); return err == nil })
	if u := c.Upstreams()[0]; !u.DownSince.IsZero() {
		t.Errorf("state %+v, want one that is not down", u)
	}
}

// While an upstream is down it is tried in the background only.
func TestDownIsNotAsked(t *testing.T) {
	n := newNetwork(t)
	cfg := quick(serve(t, anyInfo))
	cfg.Transport = n
	c := newClient(t, cfg)
	n.set(refuse)
	for i := range 1000 {
		if _, err := c.Info(t.Context(), nth(i)); !errors.Is(err, fetch.ErrUnreachable) {
			t.Fatal(err)
		}
	}
	// The first one, and as many as doubling from 100 ms leaves room for in the time that this may have taken.
	if got := n.dials.Load(); got > 20 {
		t.Errorf("%d connections were tried for 1000 requests", got)
	}
}

// A proxy that refuses one connection is not down for longer than a moment.
func TestFlapping(t *testing.T) {
	n := newNetwork(t)
	cfg := quick(serve(t, anyInfo))
	cfg.Transport = n
	c := newClient(t, cfg)
	for range 3 {
		var once sync.Once
		n.set(func(context.Context) (err error) {
			once.Do(func() { err = syscall.ECONNREFUSED })
			return err
		})
		n.CloseIdleConnections()
		start := time.Now()
		if _, err := c.Info(t.Context(), modA); !errors.Is(err, fetch.ErrUnreachable) {
			t.Fatal(err)
		}
		settle(t, "it works again", func() bool { _, err := c.Info(t.Context(), modA); return err == nil })
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("one refused connection cost %v", d)
		}
	}
}

// What a server that can be reached says or does about one file keeps nobody from another one.
func TestOneFileOnly(t *testing.T) {
	dead := "http://" + closedAddr(t)
	for name, bad := range map[string]http.HandlerFunc{
		"404":   func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"500":   func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"503":   func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
		"reset": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"stall": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		},
		"redirect to a dead host": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, dead+r.URL.Path, http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := quick(serve(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/bad/") {
					bad(w, r)
				} else {
					anyInfo(w, r)
				}
			}))
			cfg.IdleTimeout = time.Second
			if name == "stall" {
				cfg.IdleTimeout = 100 * time.Millisecond
			}
			c := newClient(t, cfg)
			for i := range 3 {
				if _, err := c.Info(t.Context(), module.Version{Path: "example.com/bad/m", Version: "v1.0.0"}); err == nil {
					t.Fatal("no error")
				}
				if u := c.Upstreams()[0]; !u.DownSince.IsZero() {
					t.Errorf("state %+v: down because of one file", u)
				}
				if name == "stall" {
					continue // the good ones may take longer than that, on a busy machine
				}
				if _, err := c.Info(t.Context(), nth(i)); err != nil {
					t.Errorf("another file: %v", err)
				}
			}
		})
	}
}

// closedAddr is an address at which nobody listens.
func closedAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// When the network goes, connections that are kept from before look alive. The first one that gives no answer is enough to
// find that out.
func TestDeadConnections(t *testing.T) {
	var stall atomic.Bool
	n := newNetwork(t)
	cfg := quick(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if stall.Load() {
			<-r.Context().Done()
			return
		}
		anyInfo(w, r)
	}))
	cfg.IdleTimeout = 2 * time.Second
	cfg.Transport = n
	c := newClient(t, cfg)
	if _, err := c.Info(t.Context(), modA); err != nil {
		t.Fatal(err)
	}
	stall.Store(true)
	n.set(refuse)
	if _, err := c.Info(t.Context(), modA); !errors.Is(err, fetch.ErrTimeout) {
		t.Fatalf("error %v, want ErrTimeout", err)
	}
	settle(t, "that is found out", func() bool { return !c.Upstreams()[0].DownSince.IsZero() })
}

// A client that is closed while an upstream is down tries it no more.
func TestCloseWhileDown(t *testing.T) {
	n := newNetwork(t)
	c := newClient(t, fetch.Config{Proxy: "http://" + closedAddr(t), SumDB: "off", Transport: n})
	if _, err := c.Info(t.Context(), modA); !errors.Is(err, fetch.ErrUnreachable) {
		t.Fatal(err)
	}
	c.Close()
	before := n.dials.Load()
	time.Sleep(300 * time.Millisecond) // longer than until the next try
	if got := n.dials.Load(); got != before {
		t.Errorf("%d connections were tried after Close", got-before)
	}
}

// Offline no connection is made, whatever is wanted, and the error says what to do.
func TestOfflineConnectsNowhere(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(anyInfo))
	defer s.Close()
	_, key, err := note.GenerateKey(rand.Reader, "sum.example")
	if err != nil {
		t.Fatal(err)
	}
	cfg := fetch.Config{Proxy: s.URL + "," + s.URL + "|direct", SumDB: key + " " + s.URL, Offline: true}
	cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("request for %s", r.URL)
		return nil, &url.Error{Op: "Get", URL: r.URL.String(), Err: errors.New("there is no network")}
	})
	c := newClient(t, cfg)
	ctx := t.Context()
	for what, ask := range map[string]func() error{
		"Info":     func() error { _, err := c.Info(ctx, modA); return err },
		"Mod":      func() error { _, _, err := c.Mod(ctx, modA, ""); return err },
		"Zip":      func() error { _, err := c.Zip(ctx, modA, "", newFile(t), fetch.Watch{}); return err },
		"ZipSize":  func() error { _, err := c.ZipSize(ctx, modA); return err },
		"ZipHash":  func() error { _, err := c.ZipHash(ctx, modA); return err },
		"ModHash":  func() error { _, err := c.ModHash(ctx, modA); return err },
		"List":     func() error { _, err := c.List(ctx, modA.Path); return err },
		"Latest":   func() error { _, err := c.Latest(ctx, modA.Path); return err },
		"latest":   func() error { _, err := c.SumDB(ctx, "sum.example", "latest"); return err },
		"lookup":   func() error { _, err := c.SumDB(ctx, "sum.example", "lookup/example.com/a@v1.0.0"); return err },
		"tile":     func() error { _, err := c.SumDB(ctx, "sum.example", "tile/8/0/000"); return err },
		"zip, pin": func() error { _, err := c.Zip(ctx, modA, hashOfNothing, newFile(t), fetch.Watch{}); return err },
	} {
		err := ask()
		if !errors.Is(err, fetch.ErrOffline) || !strings.Contains(fmt.Sprint(err), "modfs import") {
			t.Errorf("%s: error %v, want ErrOffline and what to do", what, err)
		}
	}
	for _, u := range c.Upstreams() {
		if u.Requests > 0 {
			t.Errorf("requests were made: %+v", u)
		}
	}
}

const hashOfNothing = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
