package fetch

import (
	"context"
	"strings"
	"time"

	"golang.org/x/mod/module"
)

// Request is one request to an upstream that is over, or one look into a seed.
type Request struct {
	Module   module.Version // whom it was about; zero where that is not known, as for the tiles of a checksum database
	Upstream string         // a URL without credentials, "direct" for version control, or "seed NAME"
	File     string         // below that URL, e.g. "example.com/a/@v/v1.0.0.zip"
	Method   string         // of HTTP; "file" for a file URL or a seed, "go" for a run of the go command
	Status   int            // of the answer; 0 if there was none
	Bytes    int64          // of the answer's body, as far as they were read
	Start    time.Time      // when it was sent
	Wait     time.Duration  // from then until the header of the answer, or the error
	Took     time.Duration  // from then until the body was read, or not wanted any more
	Err      error          // redacted; that of a status other than 200 and 206 included
}

// subjectKey is the key of the module.Version that a call is about in its context.
type subjectKey struct{}

func withSubject(ctx context.Context, m module.Version) context.Context {
	return context.WithValue(ctx, subjectKey{}, m)
}

// tell tells Config.OnRequest of a request that has ended. What is missing in r is filled in.
func (c *Client) tell(ctx context.Context, q query, r Request) {
	if c.cfg.OnRequest == nil || q.u.word == "direct" { // what the go command got is a file of ours: its run is the request
		return
	}
	r.Module, _ = ctx.Value(subjectKey{}).(module.Version)
	r.Upstream, r.File, r.Took = q.u.stats.URL, q.elem, time.Since(r.Start)
	if r.Wait == 0 {
		r.Wait = r.Took
	}
	r.Err = c.redact(r.Err)
	c.cfg.OnRequest(r)
}

// tellFile is tell for a file URL.
func (c *Client) tellFile(ctx context.Context, q query, start time.Time, bytes int64, err error) {
	q.u.received.Add(bytes)
	q.u.note(err)
	c.tell(ctx, q, Request{Method: "file", Start: start, Bytes: bytes, Err: err})
}

// tellSeed tells Config.OnRequest of a file that a seed has. With an error it was passed over.
func (c *Client) tellSeed(m module.Version, s *Seed, elem string, start time.Time, bytes int64, err error) {
	if c.cfg.OnRequest == nil {
		return
	}
	took := time.Since(start)
	c.cfg.OnRequest(Request{Module: m, Upstream: "seed " + s.Name, File: elem, Method: "file", Start: start, Bytes: bytes,
		Wait: took, Took: took, Err: c.redact(err)})
}

// tellRun tells Config.OnRequest of a run of the go command for version control.
func (c *Client) tellRun(w wanted, start time.Time, err error) {
	if c.cfg.OnRequest == nil {
		return
	}
	m := module.Version{Path: w.path}
	if w.exact {
		m.Version = w.query
	}
	took := time.Since(start)
	c.cfg.OnRequest(Request{Module: m, Upstream: "direct", File: w.elem, Method: "go", Start: start, Wait: took, Took: took, Err: c.redact(err)})
}

// lookupSubject returns the module version that a file of a checksum database is about; zero for one that is about none.
func lookupSubject(file string) module.Version {
	arg, ok := strings.CutPrefix(file, "lookup/")
	if !ok {
		return module.Version{}
	}
	m, err := parseLookup(arg)
	if err != nil {
		return module.Version{}
	}
	return m
}
