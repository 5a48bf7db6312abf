package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/module"
)

// upstream is an entry of GOPROXY, or a checksum database that is asked directly.
type upstream struct {
	base     *url.URL // nil for a word
	word     string   // "direct" or "off"; "" with a URL
	fallBack bool     // go on with the next entry after any error, not only after "not found"

	breaker breaker

	received atomic.Int64 // bytes of answers, also of those that are still coming

	mu    sync.Mutex
	stats Upstream
}

func newUpstream(base *url.URL) *upstream {
	return &upstream{base: base, stats: Upstream{URL: redacted(base)}}
}

// shown is where a file comes from, for messages.
func (u *upstream) shown(elem string) string {
	if u.word == "direct" {
		return "version control" // the URL is that of a file of ours
	}
	return redacted(u.url(elem))
}

// redacted returns a URL for messages, which others may read: without what is before the host, for a user name alone is a token
// as often as not, and without the query, in which a redirect may have a signature.
func redacted(u *url.URL) string {
	shown := *u
	if u.User != nil {
		shown.User = url.User("xxxxx")
	}
	shown.RawQuery, shown.ForceQuery, shown.Fragment, shown.RawFragment = "", false, "", ""
	return shown.String()
}

// url returns the URL of a file. elem is slash-separated and not escaped for URLs; it is escaped as the go command does.
func (u *upstream) url(elem string) *url.URL {
	target := *u.base
	target.Path = strings.TrimSuffix(u.base.Path, "/") + "/" + elem
	escElem := strings.ReplaceAll(url.PathEscape(elem), "%2F", "/")
	// Without RawPath, "!" would stay as it is. Both are right; proxies in front of a cache may take them for two files.
	target.RawPath = strings.TrimSuffix(u.base.EscapedPath(), "/") + "/" + escElem
	return &target
}

// note counts one request.
func (u *upstream) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stats.Requests++
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, context.Canceled) {
		return
	}
	if _, ok := errors.AsType[*finalError](err); ok {
		return // not the upstream's fault
	}
	u.stats.Failures++
	u.stats.LastError, u.stats.LastTime = err.Error(), time.Now()
}

func (u *upstream) state() Upstream {
	u.mu.Lock()
	s := u.stats
	u.mu.Unlock()
	s.Bytes = u.received.Load()
	u.breaker.mu.Lock()
	defer u.breaker.mu.Unlock()
	if o := u.breaker.down; o != nil {
		s.DownSince, s.NextTry = o.since, o.next
	}
	return s
}

func (u *upstream) used() bool { return u.state().Requests > 0 }

// parseProxies parses a GOPROXY list as the go command does (cmd/go/internal/modfetch/proxy.go). What follows "off" or
// "direct" has no meaning and is dropped.
func parseProxies(list string) ([]*upstream, error) {
	if list == "" {
		list = "off"
	}
	var proxies []*upstream
	for list != "" {
		item, sep := list, byte(0)
		if i := strings.IndexAny(list, ",|"); i >= 0 {
			item, sep, list = list[:i], list[i], list[i+1:]
		} else {
			list = ""
		}
		// Empty entries are left out, as in GOPROXY=https://a.example,,direct.
		item = strings.TrimSpace(item)
		switch item {
		case "":
			continue
		case "off", "direct":
			return append(proxies, &upstream{word: item}), nil
		}
		base, err := parseProxyURL(item)
		if err != nil {
			return nil, fmt.Errorf("invalid GOPROXY: %w", err)
		}
		u := newUpstream(base)
		u.fallBack = sep == '|'
		proxies = append(proxies, u)
	}
	if len(proxies) == 0 {
		return nil, errors.New("invalid GOPROXY: it is not empty, but names no proxy: use off for none")
	}
	return proxies, nil
}

func parseProxyURL(item string) (*url.URL, error) {
	// Words without dots and slashes are reserved. What looks like a host name is https.
	if strings.ContainsAny(item, ".:/") && !strings.Contains(item, ":/") && !filepath.IsAbs(item) && !path.IsAbs(item) {
		item = "https://" + item
	}
	base, err := url.Parse(item)
	if err != nil {
		return nil, errors.New("an entry is not a URL") // the error itself would repeat it, with its password
	}
	shown := redacted(base)
	if strings.Contains(item, "@") {
		shown = "an entry with credentials" // that have been taken for a scheme or a path, if anything is missing
	}
	switch {
	case base.Scheme == "file":
		if *base != (url.URL{Scheme: "file", Path: base.Path, RawPath: base.RawPath}) || !path.IsAbs(base.Path) {
			return nil, fmt.Errorf("%s: a file URL is file:// and an absolute path", shown)
		}
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("%s: want a URL with https, http or file, or one of the words direct and off", shown)
	// The go command has no check for these two: it would fail later, or ask for something else.
	case base.Hostname() == "":
		return nil, fmt.Errorf("%s: no host", shown)
	case base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("%s: a proxy's URL has no query and no fragment", shown)
	case base.Scheme == "http" && base.User != nil:
		// The go command would refuse each request.
		return nil, fmt.Errorf("%s: refusing to send credentials without https", shown)
	}
	return base, nil
}

// finalError is an error that another proxy cannot mend: dst's, for example.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// triedError is what several proxies said. It is an error of the class of the most telling one.
type triedError struct {
	best error
	all  []error
}

func (e *triedError) Error() string {
	texts := make([]string, len(e.all))
	for i, err := range e.all {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e *triedError) Unwrap() error { return e.best }

// try calls ask with one proxy after the other, as the list says, until one has a file, elem below a proxy's URL, of a module. For
// version control it is called with what is like a proxy. Private modules are asked for at no proxy.
func (c *Client) try(ctx context.Context, modPath, elem string, ask func(u *upstream) error) error {
	private := module.MatchPrefixPatterns(c.noProxy, modPath)
	switch {
	case private && c.direct == nil:
		return fmt.Errorf("%w: private: it matches GONOPROXY or GOPRIVATE, so no proxy is asked, and version control is not to be asked here", ErrNotFound)
	case c.cfg.Offline:
		return errOffline
	case private:
		return c.direct.ask(ctx, modPath, elem, ask)
	}
	first := true
	return tryAll(ctx, c.proxies, func(u *upstream) error {
		defer func() { first = false }()
		switch {
		case u.word == "off":
			return fmt.Errorf("%w: disabled by GOPROXY=off", ErrNotFound)
		case u.word == "direct" && c.direct == nil:
			return fmt.Errorf("%w: direct: version control is not to be asked here", ErrNotFound)
		case u.word == "direct":
			err := c.direct.ask(ctx, modPath, elem, ask)
			if errors.Is(err, errNoGo) && !first {
				err = fmt.Errorf("%w: %v", ErrNotFound, err) // then what the proxies said is all there is to know
			}
			return err
		}
		return ask(u)
	})
}

// tryAll is the order of a GOPROXY list (https://go.dev/ref/mod#goproxy-protocol). As in the go command, the last error
// that is not "not found" decides what all of them amount to. Unlike there, a "not found" of "direct" is no exception: a proxy
// that was down must not look like a module that does not exist, even if its repository has gone.
func tryAll(ctx context.Context, list []*upstream, ask func(u *upstream) error) error {
	tried := new(triedError)
	for _, u := range list {
		err := ask(u)
		if err == nil {
			return nil
		}
		// With the context gone the next proxy could not be asked either, and its error would hide why.
		if _, final := errors.AsType[*finalError](err); final || ctx.Err() != nil {
			return err
		}
		tried.all = append(tried.all, err)
		missing := errors.Is(err, ErrNotFound)
		if tried.best == nil || errors.Is(tried.best, ErrNotFound) || !missing {
			tried.best = err
		}
		if !missing && !u.fallBack {
			break
		}
	}
	if len(tried.all) == 1 {
		return tried.best
	}
	return tried
}

// file returns the name of a file of m below a proxy's URL (https://go.dev/ref/mod#goproxy-protocol).
func file(m module.Version, ext string) (string, error) {
	escPath, err := module.EscapePath(m.Path)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	escVersion, err := module.EscapeVersion(m.Version)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return escPath + "/@v/" + escVersion + ext, nil
}
