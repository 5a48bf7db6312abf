package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"

	modfs "modfs/fs"
)

// OpenStore returns a client for a store that is not mounted, which it opens: the same requests are answered by this process. The error
// is a *lru.LockedError if the store is mounted. Close the client.
func OpenStore(o modfs.Options, version string) (*Client, error) {
	d, err := modfs.OpenDepot(o)
	if err != nil {
		return nil, err
	}
	s := New(Options{FS: d.FS(), Version: version, Log: o.Log})
	return &Client{
		Hello:    Hello{API: 1, Version: version, PID: os.Getpid()},
		patience: forLocal,
		http:     &http.Client{Transport: local{s.Handler()}},
		closers:  []func(){func() { s.Close() }, func() { d.Close() }}, // best effort: all is on disk
	}, nil
}

// local has a handler of this process answer requests.
type local struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (l local) RoundTrip(r *http.Request) (*http.Response, error) {
	body, out := io.Pipe()
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), peerKey{}, peer{uid: uint32(os.Geteuid())}))
	w := &localWriter{out: out, header: make(http.Header), begun: make(chan struct{})}
	in := r.Clone(ctx)
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer cancel()
		l.h.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK) // if it has not been written
		out.Close()
	}()
	select {
	case <-w.begun:
	case <-r.Context().Done():
		cancel()
		body.Close()
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Header: w.sent, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
		Body: &localBody{body, cancel},
	}, nil
}

// localBody ends the request when it is closed.
type localBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *localBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// localWriter is the http.ResponseWriter of a local request.
type localWriter struct {
	out    *io.PipeWriter
	header http.Header

	once   sync.Once
	begun  chan struct{} // closed when what follows is set
	status int
	sent   http.Header
}

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

func (w *localWriter) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	n, err := w.out.Write(data)
	if errors.Is(err, io.ErrClosedPipe) {
		err = http.ErrAbortHandler
	}
	return n, err
}

// Flush implements http.Flusher: nothing is buffered.
func (w *localWriter) Flush() {}
