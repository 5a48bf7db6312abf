package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"modfs/fetch"
)

// quick are settings with which retries do not slow a test down.
func quick(proxy string) fetch.Config {
	return fetch.Config{Proxy: proxy, SumDB: "off", Backoff: time.Microsecond}
}

// serve starts a server for one handler.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// roundTripper is an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// discard is a Dst that may fail.
type discard struct {
	size                     int64
	write, reserve, truncate error
}

func (d *discard) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	return len(p), d.write
}
func (d *discard) ReadAt(p []byte, off int64) (int, error) { return 0, io.EOF }
func (d *discard) Reserve(int64) error                     { return d.reserve }
func (d *discard) Truncate(int64) error                    { d.size = 0; return d.truncate }

const infoA = `{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z"}`

// Statuses that pass are tried again, others are an answer.
func TestRetry(t *testing.T) {
	for _, test := range []struct {
		status   int
		failures int32 // before it is well
		want     error // nil: it succeeds
		requests int32
	}{
		{500, 1, nil, 2},
		{502, 2, nil, 3},
		{503, 3, nil, 4},
		{504, 1, nil, 2},
		{429, 1, nil, 2},
		{503, 4, errAny, 4},
		{501, 1, errAny, 1},
		{400, 1, errAny, 1},
		{401, 1, fetch.ErrForbidden, 1},
		{403, 1, fetch.ErrForbidden, 1},
		{404, 1, fetch.ErrNotFound, 1},
		{410, 1, fetch.ErrNotFound, 1},
	} {
		var n atomic.Int32
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) <= test.failures {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "no\x1b[31m \x00way\n", test.status)
				return
			}
			io.WriteString(w, infoA)
		})
		_, err := newClient(t, quick(url)).Info(t.Context(), modA)
		if !is(err, test.want) || n.Load() != test.requests {
			t.Errorf("%d times %d: %v after %d requests; want %v after %d", test.failures, test.status, err, n.Load(), test.want, test.requests)
		}
		if err != nil && (!strings.Contains(err.Error(), url) || !strings.HasSuffix(err.Error(), http.StatusText(test.status)+": no[31m way")) {
			t.Errorf("error %q does not say it all", err)
		}
	}
}

// errAny stands for an error of no class.
var errAny = errors.New("any")

// is reports whether err is of class want, of none of them (errAny), or nil.
func is(err, want error) bool {
	if want != errAny {
		return errors.Is(err, want) && (err == nil) == (want == nil)
	}
	return err != nil && !slices.ContainsFunc([]error{
		fetch.ErrNotFound, fetch.ErrForbidden, fetch.ErrOffline, fetch.ErrUnreachable, fetch.ErrTimeout, fetch.ErrMismatch,
		fetch.ErrSumDB, fetch.ErrInvalid, fetch.ErrTooLarge, fetch.ErrNoSum, fetch.ErrBadAnswer, fetch.ErrUnknown,
	}, func(class error) bool { return errors.Is(err, class) })
}

// A wait that the server asks for ends when nobody waits any more.
func TestRetryAfter(t *testing.T) {
	var n atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.Header().Set("Retry-After", "59")
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	})
	_, err := newClient(t, quick(url)).Info(ctx, modA)
	if !errors.Is(err, context.Canceled) || n.Load() != 1 {
		t.Errorf("Info: %v after %d requests", err, n.Load())
	}
}

// What cannot be reached is not tried again.
func TestUnreachable(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, cause := range []error{
		refused,
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)},
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EPERM)},
		&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}},
		&net.OpError{Op: "dial", Err: &net.DNSError{Err: "timeout", IsTimeout: true}},
	} {
		n := 0
		cfg := quick("https://proxy.example")
		cfg.Transport = roundTripper(func(*http.Request) (*http.Response, error) { n++; return nil, cause })
		if _, err := newClient(t, cfg).Info(t.Context(), modA); !is(err, fetch.ErrUnreachable) || n != 1 {
			t.Errorf("%v: %v after %d requests", cause, err, n)
		}
	}
	// And for real: a port that was just closed.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := newClient(t, quick("http://"+l.Addr().String())).Info(t.Context(), modA); !is(err, fetch.ErrUnreachable) {
		t.Errorf("Info: %v", err)
	}
	cfg := quick("https://proxy.example")
	cfg.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	})
	if _, err := newClient(t, cfg).Info(t.Context(), modA); !is(err, fetch.ErrTimeout) {
		t.Errorf("slow dial: %v", err)
	}
}

// Connections that break are replaced.
func TestBroken(t *testing.T) {
	for _, cause := range []error{
		io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
		errors.New("http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=\"\""),
	} {
		n := 0
		cfg := quick("https://proxy.example")
		cfg.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
			if n++; n < 4 {
				return nil, cause
			}
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(infoA)), ContentLength: -1}, nil
		})
		if _, err := newClient(t, cfg).Info(t.Context(), modA); err != nil {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestRedirects(t *testing.T) {
	var mu sync.Mutex
	var auth []string
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		auth = append(auth, r.Header.Get("Authorization"))
		io.WriteString(w, infoA)
	})
	target := ""
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		auth = append(auth, r.Header.Get("Authorization"))
		to := target
		mu.Unlock()
		if to == "" {
			to = r.URL.Path + "x" // for ever
		}
		if to == r.URL.Path {
			io.WriteString(w, infoA)
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	}))
	t.Cleanup(secure.Close)
	for _, test := range []struct {
		target, insecure, want string // want: in the error
		auth                   []bool
	}{
		{target: plain, want: "redirected from https to " + plain, auth: []bool{true}},
		{target: plain, insecure: "other.example", want: "redirected from https to " + plain, auth: []bool{true}},
		{target: plain, insecure: "example.com/*", want: "redirected from https to " + plain, auth: []bool{true}},
		{target: "ftp://x.example/", want: "want https or http", auth: []bool{true}},
		{target: "", want: "stopped after 10 redirects"},
		{target: "/elsewhere", auth: []bool{true, true}},
	} {
		mu.Lock()
		target, auth = test.target, nil
		mu.Unlock()
		cfg := quick(strings.Replace(secure.URL, "https://", "https://user:secret@", 1))
		cfg.Transport, cfg.Insecure = secure.Client().Transport, test.insecure
		cl := newClient(t, cfg)
		_, err := cl.Info(t.Context(), modA)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("to %s: %v; want %q", test.target, err, test.want)
		}
		if text := fmt.Sprint(err, cl.Upstreams()); strings.Contains(text, "secret") {
			t.Errorf("to %s: the password is in %s", test.target, text)
		}
		mu.Lock()
		for i, want := range test.auth {
			if i >= len(auth) || (auth[i] != "") != want {
				t.Errorf("to %s: Authorization %q; want %v", test.target, auth, test.auth)
			}
		}
		mu.Unlock()
	}
}
