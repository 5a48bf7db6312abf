package control

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/mod/module"

	modfs "modfs/fs"
)

// registerWhy is for who may steer: names of private modules are in the answers, and to ask may fetch.
func (s *Server) registerWhy(m *mux) {
	m.handle("GET /v1/why", func(w http.ResponseWriter, r *http.Request) error {
		p, err := s.whyPath(r.URL.Query())
		if err != nil {
			return err
		}
		return answer(w, s.fs.Why(p))
	})
	m.handle("POST /v1/why", func(w http.ResponseWriter, r *http.Request) error {
		p, err := s.whyPath(r.URL.Query())
		if err != nil {
			return err
		}
		return answer(w, s.fs.Ask(r.Context(), p))
	})
}

// maxPath bounds what is asked about, in bytes: Linux's limit of a path.
const maxPath = 4096

// whyPath returns the path below the mountpoint that is asked about: "path", or that of "module", as M@V.
func (s *Server) whyPath(q url.Values) (string, error) {
	p, of := q.Get("path"), q.Get("module")
	switch {
	case q.Has("path") == q.Has("module"):
		return "", errorf(http.StatusBadRequest, "give either a path below the mountpoint, or a module as MODULE@VERSION")
	case len(p) > maxPath || len(of) > maxPath:
		return "", errorf(http.StatusBadRequest, "it has more than %d bytes", maxPath)
	case q.Has("path"):
		return strings.Trim(p, "/"), nil
	}
	path, version, ok := strings.Cut(of, "@")
	if !ok || version == "" {
		return "", errorf(http.StatusBadRequest, "%q has no version: give MODULE@VERSION", of)
	}
	p, err := s.fs.PathOf(module.Version{Path: path, Version: version})
	if err != nil {
		return "", errorf(http.StatusBadRequest, "%s: no module path: %v", path, err)
	}
	return p, nil
}

// Why returns what is known of a path below the mountpoint or, with module, of M@V. With ask it is tried now, for as long as ctx says.
func (c *Client) Why(ctx context.Context, what string, module, ask bool) (*modfs.Why, error) {
	key := "path"
	if module {
		key = "module"
	}
	at := "/v1/why?" + url.Values{key: {what}}.Encode()
	w := new(modfs.Why)
	if ask {
		return w, c.Post(ctx, at, nil, w)
	}
	return w, c.Get(ctx, at, w)
}
