package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	modfs "modfs/fs"
)

// PrefetchRequest is the body of POST /v1/prefetch. The answer is a modfs.PrefetchEvent a line; the last one is the summary. To go
// away is to interrupt it.
type PrefetchRequest struct {
	Modules []modfs.Wanted `json:"modules"`
	modfs.PrefetchOptions
}

func (s *Server) registerPrefetch(m *mux) { m.handle("POST /v1/prefetch", s.prefetch) }

func (s *Server) prefetch(w http.ResponseWriter, r *http.Request) error {
	var req PrefetchRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	switch {
	case len(req.Modules) == 0:
		return errorf(http.StatusBadRequest, "no modules are named")
	case len(req.Modules) > modfs.MaxWanted:
		return errorf(http.StatusRequestEntityTooLarge, "%d modules are named, and %d may be", len(req.Modules), modfs.MaxWanted)
	case req.Jobs < 0 || req.Jobs > modfs.MaxPrefetchJobs:
		return errorf(http.StatusBadRequest, "%d jobs: want 1 to %d, or 0 for the default", req.Jobs, modfs.MaxPrefetchJobs)
	}
	ctx, gone := context.WithCancel(r.Context())
	defer gone()
	t := newStream(w)
	s.fs.Prefetch(ctx, req.Modules, req.PrefetchOptions, func(e modfs.PrefetchEvent) {
		if t.send(e) != nil {
			gone()
		}
	})
	return t.end(nil)
}

// Prefetch has the daemon fetch modules, and tells report what becomes of them. It returns after the summary was reported, or with an
// error.
func (c *Client) Prefetch(ctx context.Context, req PrefetchRequest, report func(modfs.PrefetchEvent)) error {
	whole := false
	err := c.Stream(ctx, http.MethodPost, "/v1/prefetch", req, func(line json.RawMessage) error {
		var e modfs.PrefetchEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		whole = whole || e.Event == modfs.PrefetchSummary
		report(e)
		return nil
	})
	if err == nil && !whole || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("its daemon ended before all was done")
	}
	return err
}
