// Package proxytest serves a module proxy and its checksum database on loopback, for tests.
//
// The proxy speaks the GOPROXY protocol (https://go.dev/ref/mod#goproxy-protocol) for modules made from txtar archives
// and relays the database below sumdb/NAME/, as real proxies do. The database is signed with a key made anew for each
// Server, so a client verifies it exactly as it would the real one. A Server counts what it is asked, and misbehaves on
// request: see FaultURL and SetFault.
package proxytest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

const (
	sumDBName = "sum.example"
	// directPath is where the database answers when it is asked without the proxy.
	directPath = "/sumdb-direct"
)

// A Server is a module proxy with a checksum database. Its methods may be called concurrently.
type Server struct {
	RequestLog // each like "GET /example.com/a/@v/list", without the prefix of FaultURL

	ts           *httptest.Server
	key          string        // the database's verifier key
	right, wrong *sumdb.Server // wrong signs other hashes with the same key
	rightOps     *sumOps
	done         chan struct{} // closed by Close
	closeOnce    sync.Once

	// mu is never held while a response is written.
	mu      sync.Mutex
	entries map[string]map[string]*entry // by escaped path, then escaped version
	fault   func(path string) string
	seen    map[string]bool // paths 503once has failed
	release chan struct{}   // closed, and replaced, by Release
	stalled int
}

// entry is a served module; its zips are made when first asked for.
type entry struct {
	Module
	good, bad func() ([]byte, error)
}

// Start returns a running server of mods, of none if there are none. The caller closes it. It fails for a path or
// version that cannot be escaped, for lack of randomness, and panics as httptest does if it cannot listen.
func Start(mods ...Module) (*Server, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, sumDBName)
	if err != nil {
		return nil, fmt.Errorf("%s: key: %w", sumDBName, err)
	}
	s := &Server{
		key:     vkey,
		done:    make(chan struct{}),
		entries: make(map[string]map[string]*entry),
		seen:    make(map[string]bool),
		release: make(chan struct{}),
	}
	s.rightOps = &sumOps{TestServer: sumdb.NewTestServer(skey, func(path, version string) ([]byte, error) {
		return s.sumLines(path, version, Module.complete)
	})}
	s.right = sumdb.NewServer(s.rightOps)
	s.wrong = sumdb.NewServer(sumdb.NewTestServer(skey, func(path, version string) ([]byte, error) {
		return s.sumLines(path, version, Module.tampered)
	}))
	if err := s.Add(mods...); err != nil {
		return nil, err
	}
	s.ts = httptest.NewServer(http.HandlerFunc(s.serve))
	return s, nil
}

// New is Start for tests: it serves Modules() if there are no mods, fails tb on errors, and closes the server when tb ends.
func New(tb testing.TB, mods ...Module) *Server {
	tb.Helper()
	if len(mods) == 0 {
		mods = Modules()
	}
	s, err := Start(mods...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Close cuts all connections, ends stalled responses, and stops the server. Calling it again does nothing.
func (s *Server) Close() {
	s.closeOnce.Do(func() {
		close(s.done)
		// A client that does not read would otherwise keep its handler, and so Close, waiting.
		s.ts.CloseClientConnections()
		s.ts.Close()
	})
}

// URL returns the proxy's address, without a slash at the end: a GOPROXY value.
func (s *Server) URL() string { return s.ts.URL }

// SumDB returns a GOSUMDB value: the database's key and the address where it answers without the proxy. The go command
// does not ask the proxy for the database then; with SumDBKey it does.
func (s *Server) SumDB() string { return s.key + " " + s.ts.URL + directPath }

// SumDBKey returns the database's verifier key, NAME+HASH+KEY: a GOSUMDB value with which the database is reached through
// the proxy, and at https://NAME, which does not exist, if the proxy does not relay it.
func (s *Server) SumDBKey() string { return s.key }

// SumDBName returns the database's name, the NAME of sumdb/NAME/ below URL.
func (s *Server) SumDBName() string { return sumDBName }

// Env returns the environment variables, KEY=value, that make the go command use this server for everything and no
// setting of the user's.
func (s *Server) Env() []string {
	return []string{
		"GOPROXY=" + s.URL(), "GOSUMDB=" + s.SumDB(),
		"GONOSUMDB=", "GOPRIVATE=", "GONOPROXY=", "GOFLAGS=", "GOTOOLCHAIN=local",
	}
}

// Add adds modules, or replaces those of the same path and version. The database does not forget: a module replaced
// after it was looked up keeps its old hashes there. A module whose path or version cannot be escaped is an error; the
// modules before it are then added.
func (s *Server) Add(mods ...Module) error {
	for _, m := range mods {
		m = m.complete()
		path, version, err := m.escaped()
		if err != nil {
			return err
		}
		e := &entry{Module: m, good: sync.OnceValues(m.zip)}
		e.bad = sync.OnceValues(func() ([]byte, error) { return m.tampered().zip() })
		s.mu.Lock()
		if s.entries[path] == nil {
			s.entries[path] = make(map[string]*entry)
		}
		s.entries[path][version] = e
		s.mu.Unlock()
	}
	return nil
}

// ZipBytes returns the zip of a module the server has, nil if it does not. Path and version are unescaped here and in
// ZipHash and ModHash.
func (s *Server) ZipBytes(path, version string) []byte {
	e := s.find(path, version)
	if e == nil {
		return nil
	}
	data, err := e.good()
	if err != nil {
		return nil
	}
	return slices.Clone(data)
}

// ZipHash returns the h1 hash of a module's zip as go.sum has it, "" if the server does not have the module.
func (s *Server) ZipHash(path, version string) string {
	return s.hash(path, version, Module.zipHash)
}

// ModHash returns the h1 hash of a module's .mod as go.sum has it, "" if the server does not have the module.
func (s *Server) ModHash(path, version string) string {
	return s.hash(path, version, Module.modHash)
}

func (s *Server) hash(path, version string, of func(Module) (string, error)) string {
	e := s.find(path, version)
	if e == nil {
		return ""
	}
	h, err := of(e.Module)
	if err != nil {
		return ""
	}
	return h
}

// find returns the entry of an unescaped path and version, or nil.
func (s *Server) find(path, version string) *entry {
	escPath, escVersion, err := Module{Path: path, Version: version}.escaped()
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[escPath][escVersion]
}

// sumLines is the database's source of records. The error for a module that is not there must satisfy os.IsNotExist,
// which does not unwrap: sumdb.Server answers 404 only then.
func (s *Server) sumLines(path, version string, change func(Module) Module) ([]byte, error) {
	e := s.find(path, version)
	if e == nil {
		return nil, &fs.PathError{Op: "lookup", Path: path + "@" + version, Err: fs.ErrNotExist}
	}
	return change(e.Module).sumLines()
}

// plain answers a request as a good proxy does, except for tampered modules or a database of wrong hashes if asked.
func (s *Server) plain(w http.ResponseWriter, r *http.Request, tamper, wrongSums bool) {
	db := s.right
	if wrongSums {
		db = s.wrong
	}
	path := r.URL.Path
	switch relay := "/sumdb/" + sumDBName; {
	case path == relay+"/supported":
		w.WriteHeader(http.StatusOK)
		return
	case strings.HasPrefix(path, relay+"/"):
		http.StripPrefix(relay, guard(db)).ServeHTTP(w, r)
		return
	case strings.HasPrefix(path, directPath+"/"):
		http.StripPrefix(directPath, guard(db)).ServeHTTP(w, r)
		return
	}
	data, kind, err := s.file(strings.TrimPrefix(path, "/"), tamper)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if data == nil {
		http.Error(w, "not found: "+path, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
	http.ServeContent(w, r, "", fixedTime, bytes.NewReader(data))
}

// guard answers 404 for a tile beyond the tree, for which sumdb.TestServer panics with an index out of range.
func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "not found: beyond the tree", http.StatusNotFound)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// file returns the proxy file named by an escaped path such as "example.com/!a/@v/v1.0.0.zip", nil if there is none.
func (s *Server) file(name string, tamper bool) (data []byte, kind string, err error) {
	const text, js = "text/plain; charset=UTF-8", "application/json"
	if path, ok := strings.CutSuffix(name, "/@latest"); ok {
		if e := s.latest(path); e != nil {
			return []byte(e.Info), js, nil
		}
		return nil, "", nil
	}
	path, rest, ok := strings.Cut(name, "/@v/")
	if !ok {
		return nil, "", nil
	}
	if rest == "list" {
		return s.list(path), text, nil
	}
	dot := strings.LastIndexByte(rest, '.')
	if dot < 0 {
		return nil, "", nil
	}
	s.mu.Lock()
	e := s.entries[path][rest[:dot]]
	s.mu.Unlock()
	if e == nil {
		return nil, "", nil
	}
	m, z := e.Module, e.good
	if tamper {
		m, z = m.tampered(), e.bad
	}
	switch rest[dot:] {
	case ".info":
		return []byte(m.Info), js, nil
	case ".mod":
		return []byte(m.Mod), text, nil
	case ".zip":
		data, err := z()
		return data, "application/zip", err
	}
	return nil, "", nil
}

// versions returns the versions of an escaped path, ascending.
func (s *Server) versions(path string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var vs []string
	for _, e := range s.entries[path] {
		vs = append(vs, e.Version)
	}
	semver.Sort(vs)
	return vs
}

// list returns the @v/list of an escaped path: empty if it has pseudo-versions only, nil if it is unknown.
func (s *Server) list(path string) []byte {
	vs := s.versions(path)
	if vs == nil {
		return nil
	}
	list := []byte{}
	for _, v := range vs {
		if !module.IsPseudoVersion(v) {
			list = append(list, v+"\n"...)
		}
	}
	return list
}

// latest returns what the go command means by latest: the highest release, else the highest pre-release, else the
// highest pseudo-version.
func (s *Server) latest(path string) *entry {
	rank := func(v string) int {
		switch {
		case module.IsPseudoVersion(v):
			return 0
		case semver.Prerelease(v) != "":
			return 1
		}
		return 2
	}
	vs := s.versions(path)
	slices.SortStableFunc(vs, func(a, b string) int { return rank(a) - rank(b) })
	if len(vs) == 0 {
		return nil
	}
	esc, err := module.EscapeVersion(vs[len(vs)-1])
	if err != nil {
		return nil // Add escaped it already
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[path][esc]
}
