package main

import (
	"maps"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A proxy is a module proxy on loopback (https://go.dev/ref/mod#goproxy-protocol) with a checksum database below
// sumdb/NAME. It serves the files of a cache/download tree. Its methods may be called concurrently.
type proxy struct {
	url   string
	sumDB string // a GOSUMDB value: the database's verifier key, which has its name

	tree    string
	root    *os.Root
	db      http.Handler
	dbPath  string // /sumdb/NAME
	server  *http.Server
	latency atomic.Int64 // nanoseconds, for each request

	mu     sync.Mutex
	counts map[string]int64
}

// startProxy serves tree. The caller closes the proxy.
func startProxy(tree string) (*proxy, error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, err
	}
	db, err := newSumDB(tree, dbPadding)
	if err != nil {
		root.Close()
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		root.Close()
		return nil, err
	}
	p := &proxy{
		url: "http://" + l.Addr().String(), sumDB: db.key, tree: tree, root: root,
		db: db.handler, dbPath: "/sumdb/" + dbName,
		counts: make(map[string]int64),
	}
	p.server = &http.Server{Handler: p}
	go p.server.Serve(l) // until close
	return p, nil
}

// close cuts all connections.
func (p *proxy) close() {
	p.server.Close() // best effort
	p.root.Close()   // best effort
}

// setLatency sets how long each answer waits.
func (p *proxy) setLatency(d time.Duration) { p.latency.Store(int64(d)) }

// snapshot returns the counts of what was asked so far: "requests" in all; those for "zip", "mod", "info", "sumdb" and
// "other" things; "head" and "range" requests; those answered with "not_found".
func (p *proxy) snapshot() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

func (p *proxy) count(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		p.counts[name]++
	}
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.count("requests", kind(r.URL.Path))
	if r.Method == http.MethodHead {
		p.count("head")
	}
	if r.Header.Get("Range") != "" {
		p.count("range")
	}
	if d := time.Duration(p.latency.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	switch rest, ok := strings.CutPrefix(r.URL.Path, p.dbPath); {
	case rest == "/supported" && ok:
		w.WriteHeader(http.StatusOK)
	case ok:
		http.StripPrefix(p.dbPath, p.db).ServeHTTP(w, r)
	default:
		p.file(w, r)
	}
}

// file answers with a file of the tree.
func (p *proxy) file(w http.ResponseWriter, r *http.Request) {
	switch kind(r.URL.Path) {
	case "zip":
		w.Header().Set("Content-Type", "application/zip")
	case "info":
		w.Header().Set("Content-Type", "application/json")
	case "mod", "list":
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	default:
		p.notFound(w, r)
		return
	}
	f, err := p.root.Open(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil {
		p.notFound(w, r)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		p.notFound(w, r)
		return
	}
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

func (p *proxy) notFound(w http.ResponseWriter, r *http.Request) {
	p.count("not_found")
	http.Error(w, "not found: "+r.URL.Path, http.StatusNotFound)
}

// kind says what a URL path asks for.
func kind(urlPath string) string {
	if strings.HasPrefix(urlPath, "/sumdb/") {
		return "sumdb"
	}
	dir, base := path.Split(urlPath)
	if !strings.HasSuffix(dir, "/@v/") {
		return "other"
	}
	switch path.Ext(base) {
	case ".zip", ".mod", ".info":
		return path.Ext(base)[1:]
	}
	if base == "list" {
		return "list"
	}
	return "other"
}

// warm reads all that the proxy serves, so that it answers from memory.
func (p *proxy) warm() error {
	_, err := readTree(p.tree)
	return err
}
