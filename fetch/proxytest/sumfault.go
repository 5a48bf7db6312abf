package proxytest

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
)

// sumOps is a checksum database that remembers how it began.
type sumOps struct {
	*sumdb.TestServer

	mu    sync.Mutex
	first []byte // the signed head of the tree that had one record
}

// Lookup implements sumdb.ServerOps.
func (o *sumOps) Lookup(ctx context.Context, m module.Version) (int64, error) {
	o.mu.Lock() // for all of it: the tree must not get a second record before its head is taken
	defer o.mu.Unlock()
	id, err := o.TestServer.Lookup(ctx, m)
	if err == nil && o.first == nil {
		o.first, err = o.TestServer.Signed(ctx)
	}
	return id, err
}

// treeHead is how a signed tree head begins.
const treeHead = "go.sum database tree\n"

// misbehaveSum answers as the database does, with one of the faults that change its answers.
func (s *Server) misbehaveSum(w http.ResponseWriter, r *http.Request, name string) {
	tile := strings.Contains(r.URL.Path, "/tile/")
	if tile && name == "sumdbnotiles" {
		http.Error(w, "fault "+name, http.StatusNotFound)
		return
	}
	rec := httptest.NewRecorder()
	s.plain(rec, r, false, false)
	body := rec.Body.Bytes()
	head := bytes.Index(body, []byte(treeHead)) // behind the record, or of latest
	switch {
	case rec.Code != http.StatusOK:
	case tile && name == "sumdbtiles":
		body[len(body)/2] ^= 1
	case head >= 0 && name == "sumdbstale":
		s.rightOps.mu.Lock()
		body = append(body[:head:head], s.rightOps.first...)
		s.rightOps.mu.Unlock()
	case head >= 0 && name == "sumdblong":
		body = append(body, bytes.Repeat([]byte("nonsense\n"), 12<<10/9)...)
	case head >= 0 && name == "sumdbsig":
		// The signature is base64 at the end of the last line, with one "=" of padding or none before the line's end. Its middle
		// is that of the signature, not the hash of the key.
		line := body[bytes.LastIndexByte(bytes.TrimSuffix(body, []byte("\n")), ' ')+1:]
		if c := &line[len(line)/2]; *c == 'A' {
			*c = 'B'
		} else {
			*c = 'A'
		}
	}
	maps.Copy(w.Header(), rec.Header())
	w.Header().Del("Content-Length")
	w.WriteHeader(rec.Code)
	w.Write(body) // the client's loss
}
