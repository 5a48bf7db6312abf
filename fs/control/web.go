package control

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	modfs "modfs/fs"
)

// Web is what a mount shows over TCP to whoever can reach the address: a page, metrics, and whether it is well. It changes nothing and
// tells nothing that is for the daemon's user only. docs/monitoring.md is its reference.
//
// On a loopback address, requests whose Host is another name are refused: else a page of any web site could have its own name stand
// for this address, and read what is here from the browser of whoever visits it (DNS rebinding). On any address, requests that a
// browser sends for the page of another site are refused.
type Web struct {
	l        net.Listener
	loopback bool
	metrics  *metrics
	history  history

	fs      *modfs.FS
	version string
	log     *slog.Logger
	http    *http.Server
	ending  atomic.Bool
	closed  chan struct{} // by Close; ends streams
	once    sync.Once
	work    sync.WaitGroup
	streams chan struct{} // one element for each stream that is open
	probe   prober
}

// What a client of Web may take.
const (
	maxWebConns    = 64
	maxStreams     = 16
	maxWebHeader   = 16 << 10 // bytes
	webReadTimeout = 10 * time.Second
	webPatience    = 30 * time.Second // for an answer to be read
	webIdleTimeout = time.Minute
)

// ListenWeb makes the listener of a Web. addr is HOST:PORT or [HOST]:PORT; without a HOST, or as a PORT alone, it is a port of
// 127.0.0.1. All addresses of this machine are 0.0.0.0 or [::]. Port 0 is any that is free. Close it, or have Start do so. The
// error is a *net.AddrError if addr is none.
func ListenWeb(addr string) (*Web, error) {
	full, err := webAddr(addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", full)
	if err != nil {
		if e, ok := errors.AsType[*net.OpError](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("listen on %s: %w", full, err)
	}
	w := &Web{l: l, metrics: newMetrics(), closed: make(chan struct{}), streams: make(chan struct{}, maxStreams)}
	if at, err := netip.ParseAddrPort(l.Addr().String()); err == nil {
		w.loopback = at.Addr().Unmap().IsLoopback()
	}
	return w, nil
}

// webAddr returns the full form of an address.
func webAddr(addr string) (string, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", &net.AddrError{Err: "want [HOST:]PORT, with an IPv6 HOST in brackets", Addr: addr}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", &net.AddrError{Err: "want a number up to 65535 for a port", Addr: addr}
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// URL is where the page is.
func (w *Web) URL() string { return "http://" + w.l.Addr().String() + "/" }

// Loopback reports whether only this machine can reach it.
func (w *Web) Loopback() bool { return w.loopback }

// Watch has a mount that is about to be made tell what it does. It replaces Measure, Fetch.OnRequest and Fetch.OnLookup.
func (w *Web) Watch(o *modfs.Options) { w.metrics.watch(o) }

// Start answers requests about a mounted file system until it closes.
func (w *Web) Start(o Options) {
	w.fs, w.version, w.log = o.FS, o.Version, o.Log
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.metrics.serve(o.FS, o.Version)
	w.http = &http.Server{
		Handler:           w.handler(),
		ReadHeaderTimeout: webReadTimeout,
		IdleTimeout:       webIdleTimeout,
		MaxHeaderBytes:    maxWebHeader,
		ErrorLog:          slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	w.work.Go(func() { w.history.fill(w.fs, w.closed) })
	w.work.Go(func() {
		if err := w.http.Serve(limitConns(w.l, maxWebConns)); !errors.Is(err, http.ErrServerClosed) {
			w.log.Error("web page closed", "err", err)
		}
	})
	o.FS.OnClose(w.Close)
}

// Ending says that the mount is about to end: it is not ready for anything new.
func (w *Web) Ending() {
	if w != nil {
		w.ending.Store(true)
	}
}

// Close ends all connections. It may be called more than once, and of a nil Web.
func (w *Web) Close() {
	if w == nil {
		return
	}
	w.once.Do(func() {
		close(w.closed)
		if w.http == nil {
			w.l.Close()
			return
		}
		w.http.Close() // best effort: it closes the listener as well
		w.work.Wait()
	})
}

// handler answers all requests.
func (w *Web) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", w.page)
	m.HandleFunc("GET /web/{name}", w.asset)
	m.HandleFunc("GET /api/modules", w.modules)
	m.HandleFunc("GET /api/live", w.live)
	m.HandleFunc("GET /healthz", w.healthz)
	m.HandleFunc("GET /readyz", w.readyz)
	m.Handle("GET /metrics", w.metrics.handler())
	if w.loopback {
		// It shows nothing of modules, but a profile takes time from all, so it is for who is on this machine. The command line is
		// left out: an upstream's credentials may be in it.
		m.HandleFunc("GET /debug/pprof/", bounded(pprof.Index))
		m.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
		m.HandleFunc("GET /debug/pprof/profile", bounded(pprof.Profile))
		m.HandleFunc("GET /debug/pprof/trace", bounded(pprof.Trace))
		m.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	}
	return w.guard(m)
}

// contentPolicy lets the page load what is here, and nothing else; what it shows is text, so no script is made of it.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard refuses what is not for us, and says for all answers what browsers may make of them.
func (w *Web) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if w.loopback && !loopbackHost(r.Host) {
			http.Error(rw, "this address is to be called localhost or by its number, not "+strconv.Quote(r.Host), http.StatusMisdirectedRequest)
			return
		}
		if foreign(r) {
			http.Error(rw, "asked for by the page of another site: enter this address yourself", http.StatusForbidden)
			return
		}
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				w.log.Error("panic", "in", r.Method+" "+r.URL.Path, "err", v)
				http.Error(rw, "a mistake of modfs: its log has more", http.StatusInternalServerError)
			}
		}()
		ctl := http.NewResponseController(rw)
		ctl.SetWriteDeadline(time.Now().Add(webPatience)) // best effort: not in tests without a connection
		if r.ContentLength != 0 {
			// Nothing here takes one, and a slow one would keep the connection: there is no deadline for reading after the header,
			// which would end streams as well.
			ctl.SetReadDeadline(time.Now()) // best effort
			h.Set("Connection", "close")
			http.Error(rw, "a request with a body: there is nothing to be sent here", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// foreign reports whether a browser asks for the page of another site: another port of this machine is one, too. Such a page could
// not read the answer, but have profiles taken. To lead to our page is all that it may. Who is no browser does not say, nor does a
// browser of what it reaches over plain HTTP on another machine (https://www.w3.org/TR/fetch-metadata/).
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// maxProfile is how long a profile may take, in seconds; defaultProfile, how long one takes at most that is not told.
const (
	maxProfile     = 300
	defaultProfile = 30
)

// bounded has a handler of profiles take no longer than that, and gives it the time: it sleeps for so many seconds, and writes then.
func bounded(h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		n := 0.0
		if s := r.FormValue("seconds"); s != "" { // what the handlers ask
			var err error
			// Those who want an integer take what is none for the default.
			if n, err = strconv.ParseFloat(s, 64); err != nil || math.IsNaN(n) || n > maxProfile {
				http.Error(rw, fmt.Sprintf("seconds: want a number of at most %d", maxProfile), http.StatusBadRequest)
				return
			}
		}
		patience := webPatience + time.Duration(max(n, defaultProfile)*float64(time.Second))
		http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(patience)) // best effort: not in tests without a connection
		h(rw, r)
	}
}

// loopbackHost reports whether a Host header names this machine: its loopback addresses, or what browsers take for them
// (RFC 6761, 6.3).
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// limitConns is l with at most n connections at a time: others wait until one is closed.
func limitConns(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, free: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	free   chan struct{} // one element for each connection
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, done: sync.OnceFunc(func() { <-l.free })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	done func()
}

func (c *limitedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
