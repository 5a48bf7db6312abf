package control

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// webMount is mount with a Web.
func webMount(t *testing.T, s *proxytest.Server, set func(*modfs.Options)) (*modfs.FS, *Web) {
	t.Helper()
	w, err := ListenWeb("0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	f := mount(t, s, func(o *modfs.Options) {
		w.Watch(o)
		if set != nil {
			set(o)
		}
	})
	w.Start(Options{FS: f, Version: "v1.2.3"})
	return f, w
}

// get asks for a path, as host if that is not "".
func (w *Web) get(t *testing.T, path, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(w.URL(), "/")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	return send(t, req)
}

func send(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

// wantStatus asks for a path and checks the status of the answer, which it returns.
func (w *Web) wantStatus(t *testing.T, path string, want int) string {
	t.Helper()
	resp, body := w.get(t, path, "")
	if resp.StatusCode != want {
		t.Errorf("%s: %s, want %d: %s", path, resp.Status, want, body)
	}
	return body
}

func TestWebAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"9090":           "127.0.0.1:9090",
		":9090":          "127.0.0.1:9090",
		"0":              "127.0.0.1:0",
		"localhost:9090": "localhost:9090",
		"0.0.0.0:80":     "0.0.0.0:80",
		"[::1]:80":       "[::1]:80",
		"[::]:080":       "[::]:80",
		"[10.0.0.5]:80":  "10.0.0.5:80",
	} {
		if got, err := webAddr(addr); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", addr, got, err, want)
		}
	}
	for _, addr := range []string{"", ":", "localhost", "127.0.0.1", "::1:80", "1:65536", "x:-1", "a:b:c", "host:http"} {
		if got, err := webAddr(addr); err == nil {
			t.Errorf("%q is taken for %q", addr, got)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := ListenWeb(l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("an address that is taken: %v", err)
	}
	w, err := ListenWeb("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.Loopback() {
		t.Errorf("%s is taken for a loopback address", w.URL())
	}
}

// TestWebAddrOfPod puts both kinds of address into what deploy/kubernetes has a pod listen on.
func TestWebAddrOfPod(t *testing.T) {
	m := regexp.MustCompile(`(?m)^ *- --listen=(.*)$`).FindStringSubmatch(readFile(t, "../../deploy/kubernetes/modfs.yaml"))
	if m == nil || !strings.Contains(m[1], "$(POD_IP)") {
		t.Fatalf("it listens on %q", m)
	}
	for ip, want := range map[string]string{"10.0.0.5": "10.0.0.5:9091", "fd00::5": "[fd00::5]:9091"} {
		addr := strings.ReplaceAll(m[1], "$(POD_IP)", ip)
		if got, err := webAddr(addr); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", addr, got, err, want)
		}
	}
}

func TestWebHealth(t *testing.T) {
	f, w := webMount(t, proxytest.New(t), nil)
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := w.wantStatus(t, path, http.StatusOK); got != "ok\n" {
			t.Errorf("%s: %q", path, got)
		}
	}
	w.Ending()
	w.wantStatus(t, "/healthz", http.StatusOK)
	if got := w.wantStatus(t, "/readyz", http.StatusServiceUnavailable); !strings.Contains(got, "ending") {
		t.Errorf("readyz of a mount that ends: %q", got)
	}
	w.ending.Store(false)
	if err := f.Unmount(); err != nil {
		t.Fatal(err)
	}
	w.wantStatus(t, "/healthz", http.StatusOK)
	if got := w.wantStatus(t, "/readyz", http.StatusServiceUnavailable); !strings.Contains(got, "not mounted") {
		t.Errorf("readyz of what was unmounted: %q", got)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", w.l.Addr().String()); err == nil {
		t.Error("the address of a file system that was closed takes connections")
	}
}

// TestProber has a file system that hangs: all who ask are told, and one goroutine waits.
func TestProber(t *testing.T) {
	p := &prober{running: make(chan struct{})} // as if a probe were under way
	for range 3 {
		if p.ok(nil, time.Millisecond) {
			t.Error("a file system that hangs is well")
		}
	}
	close(p.running)
	if !p.ok(nil, time.Minute) {
		t.Error("one that answers is not")
	}
}

// TestWebHost has requests come under names that a stranger may have stand for a loopback address.
func TestWebHost(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	port := w.l.Addr().String()[strings.LastIndexByte(w.l.Addr().String(), ':'):]
	for host, want := range map[string]int{
		"":                       http.StatusOK,
		"localhost" + port:       http.StatusOK,
		"LocalHost":              http.StatusOK,
		"modfs.localhost" + port: http.StatusOK,
		"127.0.0.2" + port:       http.StatusOK,
		"[::1]" + port:           http.StatusOK,
		"evil.example":           http.StatusMisdirectedRequest,
		"evil.example" + port:    http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example": http.StatusMisdirectedRequest,
		"localhost.evil.example": http.StatusMisdirectedRequest,
		"192.0.2.1":              http.StatusMisdirectedRequest,
		"0.0.0.0" + port:         http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/metrics", "/debug/pprof/", "/healthz"} {
			resp, body := w.get(t, path, host)
			if resp.StatusCode != want {
				t.Errorf("Host %q, %s: %s, want %d", host, path, resp.Status, want)
			}
			if want != http.StatusOK && strings.Contains(body, "modfs_") {
				t.Errorf("Host %q, %s: metrics are shown", host, path)
			}
		}
	}
}

// TestWebAnywhere has a mount listen on all addresses: it has other names there, and no profiles.
func TestWebAnywhere(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	w.loopback = false // as if it were
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/debug/pprof/": http.StatusNotFound, "/debug/pprof/heap": http.StatusNotFound} {
		rec := httptest.NewRecorder()
		req, _ := http.NewRequest(http.MethodGet, path, nil)
		req.Host = "build7.example"
		w.handler().ServeHTTP(rec, req)
		if rec.Code != want {
			t.Errorf("%s: %d, want %d", path, rec.Code, want)
		}
	}
}

// TestWebReadsOnly makes sure that there is nothing to be done to a mount from here.
func TestWebReadsOnly(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	for _, path := range []string{"/", "/metrics", "/healthz", "/v1/status", "/v1/evict", "/v1/gc", "/v1/prefetch"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			req, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(w.URL(), "/")+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, _ := send(t, req); resp.StatusCode != http.StatusMethodNotAllowed && resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
		}
	}
	for _, path := range []string{"/v1/status", "/v1/why?path=x", "/v1/events", "/v1/stacks"} {
		w.wantStatus(t, path, http.StatusNotFound) // which are for the daemon's user
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL(), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, _ := send(t, req); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a request with a body: %s", resp.Status)
	}
}

func TestWebHeaders(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	for _, path := range []string{"/metrics", "/healthz", "/nothing"} {
		resp, _ := w.get(t, path, "")
		csp := resp.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, resp.Header)
		}
	}
}

func TestWebProfiles(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	w.wantStatus(t, "/debug/pprof/", http.StatusOK)
	if body := w.wantStatus(t, "/debug/pprof/goroutine?debug=1", http.StatusOK); !strings.Contains(body, "goroutine profile") {
		t.Errorf("goroutines: %.100q", body)
	}
	w.wantStatus(t, "/debug/pprof/cmdline", http.StatusNotFound)
	for path, refused := range map[string]bool{
		"profile?seconds=300":                  false,
		"profile?seconds=301":                  true,
		"profile?seconds=1000000":              true,
		"profile?seconds=1000000&seconds=1":    true,
		"profile?seconds=99999999999999999999": true,
		"profile?seconds=long":                 true,
		"trace?seconds=0.01":                   false,
		"trace?seconds=300.5":                  true,
		"trace?seconds=1e6":                    true,
		"trace?seconds=Inf":                    true,
		"trace?seconds=NaN":                    true,
		"heap?seconds=300":                     false,
		"heap?seconds=301":                     true,
	} {
		rec := w.ask(t, "/debug/pprof/"+path, nil)
		if said := strings.Contains(rec.Body.String(), "at most 300"); (rec.Code == http.StatusBadRequest) != refused || said != refused {
			t.Errorf("%s: %d %.100q, refused should be %v", path, rec.Code, rec.Body, refused)
		}
	}
}

// ask asks for a path as somebody who has left by then: what takes time ends at once.
func (w *Web) ask(t *testing.T, path string, header map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL()+path[1:], nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	rec := httptest.NewRecorder()
	w.handler().ServeHTTP(rec, req)
	return rec
}

// TestWebSites has pages of other origins ask, which a browser says in headers of its own.
func TestWebSites(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	paths := []string{"/", "/?q=x", "/web/app.js", "/api/modules", "/api/live", "/metrics", "/healthz", "/debug/pprof/", "/debug/pprof/profile?seconds=300"}
	for _, c := range []struct {
		site, mode, dest string
		answered         string // the paths that are, or "all"
	}{
		{"", "", "", "all"},                     // curl, Prometheus
		{"none", "navigate", "document", "all"}, // typed in
		{"same-origin", "cors", "empty", "all"}, // the page
		{"same-origin", "no-cors", "script", "all"},
		{"same-origin", "navigate", "document", "all"},
		{"cross-site", "no-cors", "image", ""},
		{"cross-site", "cors", "empty", ""},
		{"same-site", "no-cors", "script", ""}, // another port of this machine
		{"same-site", "cors", "empty", ""},
		{"cross-site", "navigate", "iframe", ""},
		{"cross-site", "navigate", "document", "/ /?q=x"}, // a link
		{"same-site", "navigate", "document", "/ /?q=x"},
	} {
		for _, path := range paths {
			refused := c.answered != "all" && !slices.Contains(strings.Fields(c.answered), path)
			header := map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode, "Sec-Fetch-Dest": c.dest}
			maps.DeleteFunc(header, func(_, v string) bool { return v == "" })
			if rec := w.ask(t, path, header); (rec.Code == http.StatusForbidden) != refused {
				t.Errorf("%v: %s: %d, refused should be %v", header, path, rec.Code, refused)
			}
		}
	}
}

// TestWebLimits has more connections than are taken, and headers that are too large.
func TestWebLimits(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL()+"healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxWebHeader))
	// The connection is closed before all of it is read, so the answer may get lost.
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a large header: %s", resp.Status)
		}
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	few := limitConns(l, 2)
	accepted := make(chan net.Conn, 3)
	go func() {
		defer close(accepted)
		for {
			c, err := few.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	<-accepted
	select {
	case <-accepted:
		t.Error("a third connection is taken")
	case <-time.After(50 * time.Millisecond): // it is waiting for ever
	}
	first.Close()
	first.Close() // which counts once
	<-accepted
	few.Close()
	if _, ok := <-accepted; ok {
		t.Error("a connection is taken after the end")
	}
}

func TestHistory(t *testing.T) {
	var h history
	if got := h.since(0); len(got) != 0 {
		t.Errorf("%v", got)
	}
	const n = maxSamples + 10
	for i := range n {
		h.add(sample{Time: int64(i + 1)})
	}
	all := h.since(0)
	if len(all) != maxSamples || all[0].Time != 11 || all[maxSamples-1].Time != n ||
		!slices.IsSortedFunc(all, func(a, b sample) int { return int(a.Time - b.Time) }) {
		t.Errorf("%d samples from %d to %d", len(all), all[0].Time, all[len(all)-1].Time)
	}
	if got := h.since(n - 2); len(got) != 2 {
		t.Errorf("%d samples are younger than the last but two", len(got))
	}
}

// readModule reads something in a module.
func readModule(t *testing.T, f *modfs.FS, p string) {
	t.Helper()
	if _, err := os.ReadFile(filepath.Join(f.Mountpoint(), filepath.FromSlash(p))); err != nil {
		t.Fatal(err)
	}
}
