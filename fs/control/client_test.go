package control

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestHangs has a daemon that hangs when it has begun with something: who waits for that is told, and not before it hangs.
func TestHangs(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	var hangs, asked atomic.Bool
	free := make(chan struct{})
	answers := atomic.Int64{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/" && !hangs.Load() {
			json.NewEncoder(w).Encode(Hello{})
			answers.Add(1)
			return
		}
		if r.URL.Path == "/v1/stream" {
			w.Write([]byte("{}\n"))
			w.(http.Flusher).Flush()
		}
		asked.Store(true)
		<-free
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(free) })
	c := newClient(l.Addr().String(), time.Second)
	t.Cleanup(c.Close)
	for name, do := range map[string]func() error{
		"post": func() error { return c.Post(t.Context(), "/v1/post", nil, new(any)) },
		"stream": func() error {
			return c.Stream(t.Context(), "POST", "/v1/stream", nil, func(json.RawMessage) error { return nil })
		},
	} {
		hangs.Store(false)
		asked.Store(false)
		answers.Store(0)
		done := make(chan error, 1)
		go func() { done <- do() }()
		for !asked.Load() || answers.Load() < 1 {
			select {
			case err := <-done:
				t.Fatalf("%s: %v, while others are answered", name, err)
			case <-time.After(time.Millisecond):
			}
		}
		hangs.Store(true)
		select {
		case err := <-done:
			if !errors.Is(err, ErrHangs) {
				t.Errorf("%s: %v, want %v", name, err, ErrHangs)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: no end", name)
		}
	}
}
