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
	"time"

	"golang.org/x/mod/module"
)

// proxy is one element of GOPROXY.
type proxy struct {
	url        *url.URL // nil for direct and off
	word       string   // "direct" or "off", if url is nil
	onAnyError bool     // what follows is a "|": go on after any error, not only after "not found"
	state      *upstreamState
}

// upstreamState counts what one proxy did.
type upstreamState struct {
	mu sync.Mutex
	Upstream
}

func (s *upstreamState) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Requests++
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, context.Canceled) {
		s.Failures++
		s.LastError, s.LastTime = err.Error(), time.Now()
	}
}

func (s *upstreamState) snapshot() Upstream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Upstream
}

// parseProxies parses GOPROXY (https://go.dev/ref/mod#environment-variables). What follows "direct" or "off" is never
// reached, and dropped.
func parseProxies(list string) ([]proxy, error) {
	var ps []proxy
	for list != "" {
		item, sep := list, byte(0)
		if i := strings.IndexAny(list, ",|"); i >= 0 {
			item, sep, list = list[:i], list[i], list[i+1:]
		} else {
			list = ""
		}
		item = strings.TrimSpace(item)
		switch item {
		case "":
			continue
		case "direct", "off":
			return append(ps, proxy{word: item}), nil
		}
		u, err := parseProxyURL(item)
		if err != nil {
			return nil, err
		}
		ps = append(ps, proxy{url: u, onAnyError: sep == '|', state: &upstreamState{Upstream: Upstream{URL: u.Redacted()}}})
	}
	return ps, nil
}

func parseProxyURL(item string) (*url.URL, error) {
	// A bare host name is https, as for the go command.
	if strings.ContainsAny(item, ".:/") && !strings.Contains(item, ":/") && !filepath.IsAbs(item) && !path.IsAbs(item) {
		item = "https://" + item
	}
	u, err := url.Parse(item)
	if err != nil {
		// The error would show the URL, which may hold a password.
		return nil, errors.New("GOPROXY: an element is not a URL")
	}
	switch {
	case u.Scheme == "file" && (u.Host != "" || u.Path == ""):
		return nil, fmt.Errorf("GOPROXY: %s: a file URL has an absolute path and no host", u.Redacted())
	case u.Scheme == "file":
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("GOPROXY: %s: want https, http or file, or one of direct and off", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("GOPROXY: %s: no host", u.Redacted())
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}

// join returns the URL of a file of the proxy. elem is escaped as paths of modules are, so it has no characters that a URL
// would have to escape, but perhaps "!" and "+", which it need not.
func (p *proxy) join(elem string) *url.URL {
	u := *p.url
	u.Path += "/" + elem
	if u.RawPath != "" {
		u.RawPath += "/" + elem
	}
	return &u
}

// try calls do with each proxy that may be asked about a module path, until one answers.
//
// A proxy that has not got it (404, 410) is followed by the next; so is any other error where the list says "|". Of
// several errors the one that tells most is returned: that of a proxy that might have had it, before that of one that has
// not.
func (c *Client) try(ctx context.Context, modPath string, do func(p *proxy) error) error {
	if c.cfg.NoProxy != "" && c.cfg.NoProxy != "none" && module.MatchPrefixPatterns(c.cfg.NoProxy, modPath) {
		return fmt.Errorf("%w: it is private (GONOPROXY, GOPRIVATE), so no proxy is asked", ErrNotFound)
	}
	if c.cfg.Offline {
		return fmt.Errorf("%w: not in the store", ErrOffline)
	}
	if len(c.proxies) == 0 {
		return fmt.Errorf("%w: GOPROXY names no proxy", ErrNotFound)
	}
	var best error
	for i := range c.proxies {
		p := &c.proxies[i]
		if p.url == nil {
			if best == nil {
				best = fmt.Errorf("%w: GOPROXY=%s", ErrNotFound, p.word)
			}
			break
		}
		err := do(p)
		p.state.add(err)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if best == nil || errors.Is(best, ErrNotFound) {
			best = err
		}
		if !errors.Is(err, ErrNotFound) && !p.onAnyError {
			break
		}
	}
	return best
}

// escaped returns the parts of m as they are in a proxy's URLs.
func escaped(m module.Version) (escPath, escVersion string, err error) {
	if err := check(m); err != nil {
		return "", "", err
	}
	if escPath, err = module.EscapePath(m.Path); err == nil {
		escVersion, err = module.EscapeVersion(m.Version)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %v", m, ErrNotFound, err)
	}
	return escPath, escVersion, err
}
