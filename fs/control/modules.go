package control

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"golang.org/x/mod/module"

	modfs "modfs/fs"
)

// Modules is the answer to GET /v1/modules, and to POST /v1/evict: there what was evicted.
type Modules struct {
	Modules []modfs.Resident `json:"modules"`
}

// Named is the body of POST /v1/evict, /v1/pin and /v1/unpin: module versions as path@version; to evict, a path alone is all of its
// versions.
type Named struct {
	Modules []string `json:"modules"`
}

// Pins is the answer to POST /v1/pin and /v1/unpin: what is pinned now.
type Pins struct {
	Modules int   `json:"modules"`
	Bytes   int64 `json:"bytes"` // on disk, of the archives that are there
}

// GC is the body of POST /v1/gc. The answer is a modfs.GCResult.
type GC struct {
	MaxBytes      *int64   `json:"max_bytes,omitempty"`      // evict until the store takes no more
	UnusedSeconds *float64 `json:"unused_seconds,omitempty"` // evict what was unused for longer
}

func (s *Server) registerModules(m *mux) { m.handle("GET /v1/modules", s.modules) }

func (s *Server) registerEviction(m *mux) {
	m.handle("POST /v1/evict", s.evict)
	m.handle("POST /v1/pin", func(w http.ResponseWriter, r *http.Request) error { return s.pin(w, r, s.fs.Pin) })
	m.handle("POST /v1/unpin", func(w http.ResponseWriter, r *http.Request) error { return s.pin(w, r, s.fs.Unpin) })
	m.handle("POST /v1/gc", s.gc)
}

func (s *Server) modules(w http.ResponseWriter, r *http.Request) error {
	return answer(w, Modules{s.fs.Residents()})
}

func (s *Server) evict(w http.ResponseWriter, r *http.Request) error {
	ms, err := named(r, true)
	if err != nil {
		return err
	}
	evicted, err := s.fs.Evict(ms)
	if err != nil {
		return steeringError(err)
	}
	return answer(w, Modules{evicted})
}

func (s *Server) pin(w http.ResponseWriter, r *http.Request, do func([]module.Version) error) error {
	ms, err := named(r, false)
	if err != nil {
		return err
	}
	if err := do(ms); err != nil {
		return steeringError(err)
	}
	var p Pins
	for _, m := range s.fs.Residents() {
		if m.Pinned {
			p.Modules++
			p.Bytes += m.Disk
		}
	}
	return answer(w, p)
}

func (s *Server) gc(w http.ResponseWriter, r *http.Request) error {
	var in GC
	if err := decode(r, &in); err != nil {
		return err
	}
	var o modfs.GCOptions
	if in.MaxBytes != nil && *in.MaxBytes < 0 {
		return errorf(http.StatusBadRequest, "max_bytes is %d: want 0 or more", *in.MaxBytes)
	}
	o.MaxSize = in.MaxBytes
	if u := in.UnusedSeconds; u != nil {
		if !(*u >= 0 && *u < math.MaxInt64/float64(time.Second)) {
			return errorf(http.StatusBadRequest, "unused_seconds is %v: want 0 or more, and less than 292 years", *u)
		}
		o.Before = time.Now().Add(-time.Duration(*u * float64(time.Second)))
	}
	return answer(w, s.fs.GC(o))
}

// named returns the module versions that a request names.
func named(r *http.Request, paths bool) ([]module.Version, error) {
	var in Named
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if len(in.Modules) == 0 {
		return nil, errorf(http.StatusBadRequest, "no modules are named")
	}
	var ms []module.Version
	for _, name := range in.Modules {
		m, err := parseModule(name, paths)
		if err != nil {
			return nil, errorf(http.StatusBadRequest, "%q: %v", name, err)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// parseModule parses path@version or, if that may be, a path alone.
func parseModule(name string, path bool) (module.Version, error) {
	p, v, ok := strings.Cut(name, "@")
	if !ok && path {
		return module.Version{Path: p}, module.CheckPath(p)
	}
	if !ok {
		return module.Version{}, errors.New("want MODULE@VERSION")
	}
	if err := module.Check(p, v); err != nil {
		return module.Version{}, err
	}
	if module.CanonicalVersion(v) != v {
		return module.Version{}, errors.New("the version is not canonical, such as v1.2.3: 'go list -m' tells which it is")
	}
	return module.Version{Path: p, Version: v}, nil
}

// steeringError gives an error its status.
func steeringError(err error) error {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, modfs.ErrNotResident), errors.Is(err, modfs.ErrNotPinned):
		status = http.StatusNotFound
	case errors.Is(err, modfs.ErrPinned):
		status = http.StatusConflict
	case errors.Is(err, modfs.ErrPinsTooLarge):
		status = http.StatusInsufficientStorage
	}
	return errorf(status, "%v", err)
}

// Modules returns what the store has and what is pinned, ordered by path and version.
func (c *Client) Modules(ctx context.Context) ([]modfs.Resident, error) {
	var out Modules
	err := c.Get(ctx, "/v1/modules", &out)
	return out.Modules, err
}

// Evict drops the content of module versions, path@version or all of a path, and returns what that was.
func (c *Client) Evict(ctx context.Context, modules []string) ([]modfs.Resident, error) {
	var out Modules
	err := c.Post(ctx, "/v1/evict", Named{modules}, &out)
	return out.Modules, err
}

// Pin spares module versions from eviction, and returns all that is pinned.
func (c *Client) Pin(ctx context.Context, modules []string) (Pins, error) {
	var out Pins
	err := c.Post(ctx, "/v1/pin", Named{modules}, &out)
	return out, err
}

// Unpin ends that, and returns what is still pinned.
func (c *Client) Unpin(ctx context.Context, modules []string) (Pins, error) {
	var out Pins
	err := c.Post(ctx, "/v1/unpin", Named{modules}, &out)
	return out, err
}

// GC removes what is not needed, and evicts what o says.
func (c *Client) GC(ctx context.Context, o GC) (modfs.GCResult, error) {
	var out modfs.GCResult
	err := c.Post(ctx, "/v1/gc", o, &out)
	return out, err
}
