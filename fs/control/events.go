package control

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	modfs "modfs/fs"
)

// registerEvents is for who may steer: what other users do is in the stream.
func (s *Server) registerEvents(m *mux) {
	m.handle("GET /v1/events", s.events)
	m.handle("POST /v1/events", func(w http.ResponseWriter, r *http.Request) error {
		s.fs.Mark(r.URL.Query().Get("mark"))
		return answer(w, struct{}{})
	})
}

// activityOpen is the first line of a stream: it says that it has begun.
const activityOpen modfs.ActivityKind = "listening"

// events streams what happens from now on, a modfs.Activity a line, until the client or the daemon ends it. A client that is too slow
// is told how many passed it by, and one that does not read at all is cut off. With recheck, the kernel forgets of what it is sure, so
// that its next users are seen.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	l := s.fs.Listen()
	defer l.Close()
	out := newStream(w)
	a := modfs.Activity{Time: time.Now(), Kind: activityOpen}
	if r.URL.Query().Has("recheck") {
		s.fs.Recheck()
	}
	for {
		if out.send(a) != nil {
			return nil // it is gone
		}
		var err error
		if a, err = l.Next(r.Context()); err != nil {
			return nil
		}
	}
}

// Mark puts a mark into the stream of events.
func (c *Client) Mark(ctx context.Context, text string) error {
	return c.Post(ctx, "/v1/events?"+url.Values{"mark": {text}}.Encode(), nil, new(struct{}))
}

// Events calls each with all that happens in the daemon, one at a time, from when begun is called until ctx ends or each returns an
// error, which is then the error. With recheck, users of modules that the kernel knows already are seen, too.
func (c *Client) Events(ctx context.Context, recheck bool, begun func(), each func(modfs.Activity) error) error {
	path := "/v1/events"
	if recheck {
		path += "?recheck"
	}
	return c.Stream(ctx, http.MethodGet, path, nil, func(line json.RawMessage) error {
		var a modfs.Activity
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		if a.Kind == activityOpen {
			begun()
			return nil
		}
		return each(a)
	})
}
