package control

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// streamPatience is for how long a client may not read what it is sent, before that ends.
const streamPatience = 30 * time.Second

// stream answers with JSON values, one a line, as they come. It may be used concurrently.
type stream struct {
	mu   sync.Mutex
	w    http.ResponseWriter
	ctl  *http.ResponseController
	err  error
	sent bool
}

// newStream begins an answer that is a stream. Its handler returns what end
// returns.
func newStream(w http.ResponseWriter) *stream {
	return &stream{w: w, ctl: http.NewResponseController(w)}
}

// send sends one value. The error is that the client is gone, or does not read.
func (t *stream) send(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	if !t.sent {
		t.sent = true
		h := t.w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	t.ctl.SetWriteDeadline(time.Now().Add(streamPatience)) // best effort: not in tests without a connection
	if _, t.err = t.w.Write(append(data, '\n')); t.err == nil {
		t.err = t.ctl.Flush()
	}
	return t.err
}

// end returns what a handler is to return for err: before anything was sent the error, for a fitting status; afterwards nil, as the
// error is sent as the last line.
func (t *stream) end(err error) error {
	t.mu.Lock()
	sent := t.sent
	t.mu.Unlock()
	if err == nil || !sent {
		return err
	}
	t.send(Error{Message: err.Error()}) // best effort: the client may be what failed
	return nil
}
