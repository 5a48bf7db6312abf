package integration

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"modfs/fetch/proxytest"
)

// TestProxyTimeouts has a proxy send nothing, nothing more, or hardly anything. However busy the machine is, that is too
// slow for these mounts, and what is well comes some time.
func TestProxyTimeouts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		flags  []string
		faults []string
		text   string
	}{
		{"idle", []string{"--idle-timeout", "1s"}, []string{"stall", "stallbody", "trickle"}, "came"},
		{"total", []string{"--timeout", "1s", "--idle-timeout", "1h"}, []string{"stallbody"}, "not done in 1s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newFaulty(t, tt.faults)
			m := mount(t, s.Server, append(tt.flags, "--read-only", "--prefetch", "off")...)
			var wg sync.WaitGroup
			for _, fault := range tt.faults {
				for _, kind := range kinds {
					wg.Go(func() {
						name, want := sample(fault, kind)
						data, err := m.soon(t, name)
						e := m.reason(faultyPath(fault, kind))
						if !errors.Is(err, syscall.ETIMEDOUT) || e.Errno != "ETIMEDOUT" || !strings.Contains(e.Cause, tt.text) {
							t.Errorf("%s: %q, %v; %+v", name, data, err, e)
						}
						s.healed.Store(faultyPath(fault, kind), true)
						m.eventually(name+" is there", func() bool {
							data, err := m.read(name)
							return err == nil && string(data) == want
						})
					})
				}
			}
			wg.Wait()
		})
	}
}

// TestProxyUnreachable has a mount of whose proxies the first is not there: nobody listens, or its name has no address. Once
// it is there, all is well.
func TestProxyUnreachable(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	const name = "example.com/a@v1.0.0/a.go"
	for _, tt := range []struct{ name, proxy, text string }{
		{"refused", "http://" + addr, "connection refused"},
		{"name", "http://proxy.invalid", "proxy.invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mount(t, s, "--read-only", "--proxy", tt.proxy+","+s.URL())
			_, err := m.soon(t, name)
			m.wantErrno(err, syscall.EHOSTUNREACH, tt.text)
			if n := s.Count("/example.com/a/@v/"); n != 0 {
				t.Errorf("the next proxy was asked %d times", n)
			}
			if kept := m.kept(".zip", ".mod", ".info"); len(kept) > 0 {
				t.Errorf("the store has %q", kept)
			}
			if tt.name != "refused" {
				return
			}
			to, _ := url.Parse(s.URL())
			if l, err = net.Listen("tcp", addr); err != nil {
				t.Skip("somebody else has the port now: ", err)
			}
			front := &http.Server{Handler: httputil.NewSingleHostReverseProxy(to)}
			go front.Serve(l)
			defer front.Close()
			m.eventually(name+" can be read, when the proxy is there", func() bool { // it takes until the proxy is tried again
				data, err := m.soon(t, name)
				return err == nil && strings.Contains(string(data), "hello from a")
			})
			s.ResetRequests()
		})
	}
}

// TestProxyCredentials has a proxy with a password redirect to other hosts. The password goes to none of them, and into no
// message; and from https nothing leads to http.
func TestProxyCredentials(t *testing.T) {
	s := proxytest.New(t)
	to, _ := url.Parse(s.URL())
	var mu sync.Mutex
	var seen []string // requests at other hosts
	other := httputil.NewSingleHostReverseProxy(to)
	note := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, fmt.Sprint(r.Host, r.URL, r.Header))
		mu.Unlock()
		other.ServeHTTP(w, r)
	})
	plain, secure := httptest.NewServer(note), httptest.NewTLSServer(note)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case user != "somebody" || password != "secret":
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasPrefix(r.URL.Path, "/example.com/b/"):
			http.Redirect(w, r, plain.URL+r.URL.Path+"?signature=secret", http.StatusFound)
		default:
			http.Redirect(w, r, secure.URL+r.URL.Path, http.StatusFound)
		}
	}))
	t.Cleanup(front.Close)
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", cert)
	m := mount(t, s, "--read-only", "--log-level", "debug", "--proxy", strings.Replace(front.URL, "https://", "https://somebody:secret@", 1))

	if data, err := m.soon(t, "example.com/a@v1.0.0/a.go"); err != nil || !strings.Contains(string(data), "hello from a") {
		t.Errorf("by another host: %q, %v", data, err)
	}
	mu.Lock()
	if text := strings.Join(seen, "\n"); len(seen) == 0 || strings.Contains(text, "Authorization") || strings.Contains(text, "secret") || strings.Contains(text, "somebody") {
		t.Errorf("the other host was sent\n%s", text)
	}
	seen = nil
	mu.Unlock()
	_, err := m.soon(t, "example.com/b@v1.0.0/b.go")
	m.wantErrno(err, syscall.EIO, "redirected from https to http://", "refused")
	mu.Lock()
	if len(seen) > 0 {
		t.Errorf("the host without https was sent\n%s", strings.Join(seen, "\n"))
	}
	mu.Unlock()
	for what, text := range map[string]string{"errors": fmt.Sprint(m.errors()), "status": fmt.Sprintf("%+v", m.status()), "log": m.log()} {
		if strings.Contains(text, "secret") || strings.Contains(text, "somebody") {
			t.Errorf("credentials are in the %s:\n%s", what, text)
		}
	}
}
