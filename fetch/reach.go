package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/note"
)

// Reached is how an upstream answered when it was asked whether it is there.
type Reached struct {
	Upstream string        // a URL without credentials, or "checksum database NAME"
	SumDB    bool          // it is the checksum database
	Err      error         // redacted; nil: it is there, and lets us in
	Took     time.Duration // until the answer, or the error
	Date     time.Time     // when it answered, by its own clock (RFC 9110, 6.6.1), also where a cache answered for it; zero: it did not say
	Asked    time.Time     // the same by ours, halfway between question and answer
}

// reachModule is the module whose list of versions a proxy is asked for, to see whether it is there: every public proxy has it,
// and that another one does not is an answer as well.
const reachModule = "golang.org/x/mod"

// Reach asks each proxy of the settings and the checksum database for something small, once, all at the same time, and returns what
// came of it, in the order of the settings. It does not go from one proxy to the next: each is asked.
func (c *Client) Reach(ctx context.Context) []Reached {
	var all []Reached
	var asks []func(*Reached) error
	ctx, done, err := c.begin(ctx, c.cfg.MetaTimeout)
	if err == nil {
		defer done()
	}
	for _, u := range c.proxies {
		if u.base != nil {
			all = append(all, Reached{Upstream: redacted(u.base)})
			asks = append(asks, func(r *Reached) error { return c.reach(ctx, u, r) })
		}
	}
	if c.db != nil {
		all = append(all, Reached{Upstream: c.sumSource(), SumDB: true})
		asks = append(asks, func(*Reached) error {
			data, err := c.db.read(ctx, "latest", maxRecord)
			if err != nil {
				return err
			}
			if _, err := note.Open(data, c.db.verifiers); err != nil {
				return fmt.Errorf("%w: latest: %v", ErrSumDB, err)
			}
			return nil
		})
	}
	var wg sync.WaitGroup
	for i, ask := range asks {
		r := &all[i]
		if r.Err = err; err == nil && c.cfg.Offline {
			r.Err = errOffline
		}
		if r.Err != nil {
			continue
		}
		wg.Go(func() {
			defer c.recovered("reach", &r.Err)
			start := time.Now()
			r.Err = c.redact(ask(r))
			r.Took = time.Since(start)
		})
	}
	wg.Wait()
	return all
}

// reach asks one proxy.
func (c *Client) reach(ctx context.Context, u *upstream, r *Reached) error {
	if u.base.Scheme == "file" {
		dir := filepath.FromSlash(u.base.Path)
		if fi, err := os.Stat(dir); err != nil {
			return err
		} else if !fi.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		return nil
	}
	q := query{u: u, elem: reachModule + "/@v/list"}
	if module.MatchPrefixPatterns(c.noProxy, reachModule) {
		q.elem = "" // no name of a module may reach it
	}
	start := time.Now()
	dated := func(h http.Header) {
		var err error
		if r.Date, err = http.ParseTime(h.Get("Date")); err != nil {
			return
		}
		// What a cache gives back was said a while ago (RFC 9111, 5.1).
		if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
			r.Date = r.Date.Add(time.Duration(age) * time.Second)
		}
		r.Asked = start.Add(time.Since(start) / 2)
	}
	err := c.exchange(ctx, http.MethodGet, q, nil, func(resp *http.Response) error {
		dated(resp.Header)
		page := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
		if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxDrain)); err != nil {
			return err
		}
		if page && q.elem != "" {
			return fmt.Errorf("%w: a web page, as of a login", ErrBadAnswer)
		}
		return nil
	})
	if e, ok := errors.AsType[*statusError](err); ok && e.header != nil {
		dated(e.header)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
