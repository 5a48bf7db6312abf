// Package control is how a mount is looked at and steered while it is served: HTTP with JSON on a unix socket, for the user whose
// daemon it is and for root. docs/control.md is its reference.
//
// [Server] answers for a file system, and [Listen] makes the socket, which MOUNT/.modfs/ctl links to. [Client] is what commands
// use; it never touches the mount, which may hang.
//
// Each feature has a file of its own here, with a method that registers its handlers, and a line in Server.register. What
// everybody may see is [Web]'s.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	modfs "modfs/fs"
)

// Options says what a Server answers for.
type Options struct {
	FS      *modfs.FS    // required
	Version string       // of this program, told to clients
	Log     *slog.Logger // nil discards
}

// Server answers requests about a file system. Its methods may be called concurrently.
type Server struct {
	fs      *modfs.FS
	version string
	log     *slog.Logger

	http *http.Server

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup // requests; only added to while !closed
}

// What a request may take.
const (
	maxBody       = 4 << 20 // bytes
	maxHeader     = 64 << 10
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// New returns a server. Close it before its file system.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{fs: o.FS, version: o.Version, log: o.Log}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// register registers what there is, each feature in a line.
func (s *Server) register(m *mux) {
	s.registerStatus(m)
	s.registerModules(m)
	s.registerWhy(m)
	s.registerEvents(m)
	s.registerPrefetch(m)
	s.registerEviction(m)
	s.registerStacks(m)
}

// Handler answers everything, to whom may steer the daemon: its user and root, as the kernel tells who they are.
func (s *Server) Handler() http.Handler {
	m := s.newMux()
	s.register(m)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := mayCommand(r.Context()); err != nil {
			s.fail(w, r, err)
			return
		}
		m.ServeHTTP(w, r)
	})
}

// Serve answers what comes from l, until Close. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the connections, and with them the contexts of all requests, and returns when those have ended. It may be called more
// than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.http.Close()
	s.running.Wait()
	return err
}

// begin announces a request, so that Close waits for it. It ends with s.running.Done.
func (s *Server) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errorf(http.StatusServiceUnavailable, "the daemon is ending")
	}
	s.running.Add(1)
	return nil
}

// Start answers requests about a mounted file system on a socket of its own, which MOUNT/.modfs/ctl links to, until the file system
// closes. The returned error is the socket's; nothing else of the file system depends on it.
func Start(o Options) error {
	socket, err := Listen(o.FS.StoreDir())
	if err != nil {
		return err
	}
	s := New(o)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(socket); err != nil {
			s.log.Error("control socket closed", "err", err)
		}
	}()
	o.FS.SetControl(socket.Path)
	o.FS.OnClose(func() {
		o.FS.SetControl("")
		s.Close()      // best effort: all that is left is to be removed
		socket.Close() // the same
		<-ended
	})
	return nil
}

// Error is an error that a client is told as it is.
type Error struct {
	Status  int    `json:"-"` // of HTTP
	Message string `json:"error"`
}

func (e *Error) Error() string { return e.Message }

// errorf returns an *Error.
func errorf(status int, format string, args ...any) error {
	return &Error{status, fmt.Sprintf(format, args...)}
}

// handler answers a request. What it writes nothing for, because of an error, is answered with that: its status and message where
// it is an *Error, otherwise 500.
type handler func(w http.ResponseWriter, r *http.Request) error

// mux is a http.ServeMux whose errors are JSON, too.
type mux struct {
	s *Server
	m *http.ServeMux
}

func (s *Server) newMux() *mux { return &mux{s, http.NewServeMux()} }

// handle registers h for a pattern of http.ServeMux, with a method.
func (m *mux) handle(pattern string, h handler) {
	m.m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := m.s.begin(); err != nil {
			m.s.fail(w, r, err)
			return
		}
		defer m.s.running.Done()
		defer m.s.recovered(w, r)
		if r.Body != nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		if err := h(w, r); err != nil {
			m.s.fail(w, r, err)
		}
	})
}

func (m *mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := m.m.Handler(r)
	if pattern != "" {
		m.m.ServeHTTP(w, r)
		return
	}
	var refused refusal
	h.ServeHTTP(&refused, r)
	switch refused.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", refused.Header().Get("Allow"))
		m.s.fail(w, r, errorf(refused.status, "%s %s: only %s", r.Method, r.URL.Path, refused.Header().Get("Allow")))
	case http.StatusNotFound:
		m.s.fail(w, r, errorf(refused.status, "%s: there is no such thing; this is version 1, of modfs %s", r.URL.Path, m.s.version))
	default: // a redirection to a clean path
		h.ServeHTTP(w, r)
	}
}

// refusal keeps what http.ServeMux says to a request that nobody handles.
type refusal struct {
	header http.Header
	status int
}

func (w *refusal) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}
func (w *refusal) WriteHeader(status int)         { w.status = status }
func (w *refusal) Write(data []byte) (int, error) { return len(data), nil }

// recovered makes a panic of a handler an error of its request, and of no other.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil || v == http.ErrAbortHandler {
		return
	}
	s.log.Error("panic", "in", r.Method+" "+r.URL.Path, "err", v, "stack", string(debug.Stack()))
	s.fail(w, r, fmt.Errorf("panic: %v", v)) // too late if it has answered already: then the answer ends here
}

// fail answers a request with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{http.StatusInternalServerError, err.Error()}
		s.log.Warn("control request failed", "request", r.Method+" "+r.URL.Path, "err", err)
	}
	writeJSON(w, e.Status, e)
}

// writeJSON answers with v. What keeps it from arriving is the client's business.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(data, '\n'))
}

// answer answers with v and 200.
func answer(w http.ResponseWriter, v any) error {
	writeJSON(w, http.StatusOK, v)
	return nil
}

// decode reads the JSON object of a request into v. No body is an empty object. A field that v does not have is an error: what it
// asks for would not be done.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == io.EOF {
		return nil
	}
	if err == nil && dec.Decode(new(json.RawMessage)) != io.EOF {
		err = errors.New("more than one JSON value")
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errorf(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return errorf(http.StatusBadRequest, "the request is not what it has to be: %v", err)
	}
	return nil
}
