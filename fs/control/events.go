package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	modfs "modfs/fs"
)

// registerEvents is for who may steer: what other users do is in the stream.
func (s *Server) registerEvents(m *mux) {
	m.handle("GET /v1/events", s.events)
}

// activityOpen is the first line of a stream: it says that it has begun.
const activityOpen modfs.ActivityKind = "listening"

// events streams what happens from now on, a modfs.Activity a line, until the client or the daemon ends it. A client that is too slow
// is told how many passed it by, and one that does not read at all is cut off.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	l := s.fs.Listen()
	defer l.Close()
	out := newStream(w)
	a := modfs.Activity{Time: time.Now(), Kind: activityOpen}
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

// Events calls each with all that happens in the daemon, one at a time, from when begun is called until ctx ends or each returns an
// error, which is then the error.
func (c *Client) Events(ctx context.Context, begun func(), each func(modfs.Activity) error) error {
	return c.Stream(ctx, http.MethodGet, "/v1/events", nil, func(line json.RawMessage) error {
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
