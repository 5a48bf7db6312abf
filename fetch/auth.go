package fetch

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Credentials are had as GOAUTH says (go help goauth; cmd/go/internal/auth), a list of methods: a .netrc file, git's credential
// helpers, and programs. All are asked once before the first request over https, and again, with its URL, when a request
// is refused with a status 4xx: if there is another credential then, the request is sent once more.
//
// A credential is some header fields for all URLs below a prefix. It is sent over https only, to the host of its prefix; a
// redirect to another host carries nothing of it (see checkRedirect). A URL that has a user's name in it gets none.
//
// What differs from the go command is what follows from a life of months: a credential that was answered with 401 is forgotten, and
// all methods are asked as in the beginning; a .netrc file is read again each time; what is the same as before is not sent again; and
// programs are bounded in time, output and number at once.

// Limits of what is known.
const (
	maxAuthMethods = 16
	maxCredentials = 1024     // of a method
	maxAuthHeader  = 64 << 10 // bytes of a credential
)

// auth knows credentials. A nil *auth knows none.
type auth struct {
	c       *Client
	methods []*authMethod // what an earlier one says counts, for the same prefix
	slots   chan struct{} // has room for the programs that may run

	mu      sync.Mutex
	rounds  int           // how often all methods have been asked for what they know
	running chan struct{} // closed at the end of the round that is under way; nil if none is
	old     []string      // secrets of credentials that were forgotten, and may still be in texts
}

// authMethod is an entry of GOAUTH.
type authMethod struct {
	kind  string   // "netrc", "git" or "program"
	words []string // of the command line of a program
	dir   string   // for git

	// guarded by auth.mu
	known map[string]*credential // by prefix, see prefixKey
	err   error                  // of the last time that it was asked without a URL
}

// credential is what a method says for a prefix. It does not change.
type credential struct {
	header http.Header    // empty: nothing from later methods either
	git    *gitCredential // if it is git's
}

// newAuth parses GOAUTH. It returns nil if that is off or empty.
func newAuth(c *Client, setting string) (*auth, error) {
	if setting == "" || strings.TrimSpace(setting) == "off" {
		return nil, nil
	}
	a := &auth{c: c, slots: make(chan struct{}, maxAuthRuns)}
	// Messages do not repeat what may have a token in it.
	for i, item := range strings.Split(setting, ";") {
		words := strings.Fields(item)
		m := new(authMethod)
		var err error
		switch {
		case len(words) == 0:
			return nil, fmt.Errorf("invalid GOAUTH: entry %d is empty", i+1)
		case words[0] == "off":
			return nil, fmt.Errorf("invalid GOAUTH: off must be the only entry")
		case words[0] == "netrc":
			m.kind = "netrc"
		case words[0] == "git":
			if len(words) != 2 || !filepath.IsAbs(words[1]) {
				return nil, fmt.Errorf("invalid GOAUTH: entry %d: git needs the absolute path of a directory to run in", i+1)
			}
			m.kind, m.dir = "git", words[1]
		default:
			m.kind = "program"
			if m.words, err = splitQuoted(item); err != nil {
				return nil, fmt.Errorf("invalid GOAUTH: entry %d: %w", i+1, err)
			}
		}
		a.methods = append(a.methods, m)
	}
	if len(a.methods) > maxAuthMethods {
		return nil, fmt.Errorf("invalid GOAUTH: more than %d entries", maxAuthMethods)
	}
	return a, nil
}

// String is the name of a method in messages: no arguments, among which there may be a token.
func (m *authMethod) String() string {
	if m.kind == "program" {
		return filepath.Base(m.words[0])
	}
	return m.kind
}

// splitQuoted splits a command line at spaces, except between quotes (cmd/internal/quoted).
func splitQuoted(s string) ([]string, error) {
	const space = " \t\n\r"
	var words []string
	for s = strings.TrimLeft(s, space); s != ""; s = strings.TrimLeft(s, space) {
		if quote := s[:1]; quote == `"` || quote == "'" {
			word, rest, ok := strings.Cut(s[1:], quote)
			if !ok {
				return nil, fmt.Errorf("a quote is not closed")
			}
			words, s = append(words, word), rest
			continue
		}
		end := strings.IndexAny(s, space)
		if end < 0 {
			end = len(s)
		}
		words, s = append(words, s[:end]), s[end:]
	}
	if words[0] == "" {
		return nil, fmt.Errorf("no program is named")
	}
	return words, nil
}

// prefixKey returns what credentials for a URL, or of a machine, are known by.
func prefixKey(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "https://"), "/") }

// takes reports whether requests for u get credentials.
func (a *auth) takes(u *url.URL) bool { return a != nil && u.Scheme == "https" && u.User == nil }

// grant is what a request was sent with.
type grant struct {
	cred  *credential // nil: none
	round int         // in which that was known
}

func (g grant) header() http.Header {
	if g.cred == nil {
		return nil
	}
	return g.cred.header
}

// first returns the credential for a request of u.
func (a *auth) first(ctx context.Context, u *url.URL) (grant, error) {
	if !a.takes(u) {
		return grant{}, nil
	}
	if err := a.round(ctx, 0); err != nil {
		return grant{}, err
	}
	return a.lookup(u), nil
}

// again returns another credential for a request of u than the one that was refused, if there is one. The errors are those of methods
// that could not say.
func (a *auth) again(ctx context.Context, u *url.URL, was grant, refusal *statusError) (g grant, ok bool, errs []error) {
	if refusal.code == http.StatusUnauthorized && was.cred != nil && !refusal.elsewhere {
		a.forget(ctx, was.cred)
		if err := a.round(ctx, was.round); err != nil {
			return grant{}, false, []error{err}
		}
	}
	for _, m := range a.methods {
		err := a.ask(ctx, m, u.String(), refusal)
		if err == nil {
			a.mu.Lock()
			err = m.err
			a.mu.Unlock()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("GOAUTH: %v: %w", m, err))
		}
	}
	g = a.lookup(u)
	return g, len(g.header()) > 0 && !sameHeader(g.header(), was.header()), errs
}

// lookup returns what is known for u: of the longest prefix, and of the first method that has that.
func (a *auth) lookup(u *url.URL) grant {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := prefixKey(u.String()); ; {
		for _, m := range a.methods {
			if cred := m.known[key]; cred != nil && len(cred.header) > 0 {
				return grant{cred, a.rounds}
			} else if cred != nil {
				break
			}
		}
		slash := strings.LastIndexByte(key, '/')
		if slash < 0 {
			return grant{nil, a.rounds}
		}
		key = key[:slash]
	}
}

// round waits until all methods have been asked for what they know more often than after times.
func (a *auth) round(ctx context.Context, after int) error {
	a.mu.Lock()
	if a.rounds > after {
		a.mu.Unlock()
		return nil
	}
	done := a.running
	if done == nil {
		if err := a.c.hold(); err != nil {
			a.mu.Unlock()
			return err
		}
		done = make(chan struct{})
		a.running = done
		go a.askAll(done)
	}
	a.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// askAll asks all methods for what they know, for all who wait: not in the context of a call.
func (a *auth) askAll(done chan struct{}) {
	defer a.c.calls.Done()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.rounds++
		a.running = nil
		close(done)
	}()
	var err error // a panic is logged
	defer a.c.recovered("credentials", &err)
	for _, m := range a.methods {
		err := a.ask(a.c.ctx, m, "", nil)
		a.mu.Lock()
		m.err = err
		a.mu.Unlock()
	}
}

// ask asks a method for what it knows or, with the URL of a request that was refused, for that.
func (a *auth) ask(ctx context.Context, m *authMethod, url string, refusal *statusError) (err error) {
	start := time.Now()
	var found map[string]*credential
	switch m.kind {
	case "netrc":
		var headers map[string]http.Header
		headers, err = readNetrc()
		found = credentials(headers)
	case "git":
		if url != "" { // git cannot say what it knows
			found, err = a.askGit(ctx, m, url)
		}
	default:
		var headers map[string]http.Header
		headers, err = a.askProgram(ctx, m, url, refusal)
		found = credentials(headers)
	}
	if err != nil {
		err = a.c.redact(err)
		a.c.log.Debug("credentials not had", "from", m.String(), "err", err, "dur", time.Since(start))
		return err
	}
	if len(found) > maxCredentials {
		return fmt.Errorf("%w: more than %d credentials", ErrTooLarge, maxCredentials)
	}
	a.keep(m, found, m.kind == "netrc")
	return nil
}

func credentials(headers map[string]http.Header) map[string]*credential {
	creds := make(map[string]*credential, len(headers))
	for key, header := range headers {
		creds[key] = &credential{header: header}
	}
	return creds
}

// keep makes what a method has said known: besides what it said before or, with all set, instead of it.
func (a *auth) keep(m *authMethod, found map[string]*credential, all bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// What is the same stays the same, so that nothing is learned from it and who was refused with it notices.
	known := make(map[string]*credential, len(found))
	changed := false
	for key, cred := range found {
		if before := m.known[key]; before != nil && sameHeader(before.header, cred.header) {
			cred = before
		} else {
			changed = true
		}
		known[key] = cred
	}
	for key, cred := range m.known {
		switch {
		case known[key] == cred:
		case known[key] == nil && !all && len(known) < maxCredentials:
			known[key] = cred
		default:
			a.retire(cred)
			changed = true
		}
	}
	m.known = known
	if changed {
		a.c.hide(a.secrets())
	}
}

// forget makes a credential unknown that a server has refused.
func (a *auth) forget(ctx context.Context, cred *credential) {
	a.mu.Lock()
	found := false
	for _, m := range a.methods {
		maps.DeleteFunc(m.known, func(_ string, c *credential) bool {
			found = found || c == cred
			return c == cred
		})
	}
	if found {
		a.retire(cred)
	}
	a.mu.Unlock()
	if found && cred.git != nil {
		a.tellGit(ctx, "reject", cred)
	}
}

// confirm has git's helpers told of a credential that a server has accepted.
func (a *auth) confirm(cred *credential) {
	if a == nil || cred == nil || cred.git == nil || a.c.hold() != nil {
		return
	}
	go func() {
		defer a.c.calls.Done()
		var err error // a panic is logged
		defer a.c.recovered("credentials", &err)
		a.tellGit(a.c.ctx, "approve", cred)
	}()
}

// maxOldSecrets is how many secrets are remembered that are of no use any more.
const maxOldSecrets = 512

// retire remembers what must not be in texts. a.mu is held.
func (a *auth) retire(cred *credential) {
	a.old = append(a.old, secretsIn(cred.header)...)
	if more := len(a.old) - maxOldSecrets; more > 0 {
		a.old = slices.Delete(a.old, 0, more)
	}
}

// secrets returns all that must not be in texts. a.mu is held.
func (a *auth) secrets() []string {
	all := slices.Clone(a.old)
	for _, m := range a.methods {
		for _, cred := range m.known {
			all = append(all, secretsIn(cred.header)...)
		}
	}
	return all
}

func sameHeader(a, b http.Header) bool {
	return maps.EqualFunc(a, b, func(x, y []string) bool { return slices.Equal(x, y) })
}

// ours are the fields of a request that no credential and no redirect changes.
var ours = []string{"Range", "If-Range", "Accept-Encoding"}

// addCredential adds the fields of a credential to a request's.
func addCredential(to, header http.Header) {
	for name, values := range header {
		if !slices.Contains(ours, name) {
			to[name] = slices.Clone(values)
		}
	}
}

// dropCredentials removes from a redirected request whatever may be a credential: all fields but those that it needs, whatever
// their names are. net/http would keep all but the best known ones, and those on the way to a subdomain.
func (c *Client) dropCredentials(req *http.Request) {
	maps.DeleteFunc(req.Header, func(name string, _ []string) bool { return !slices.Contains(ours, name) })
	req.Header.Set("User-Agent", c.cfg.UserAgent)
}

// sameOrigin reports whether a request for u may have what one for v had.
func sameOrigin(u, v *url.URL) bool {
	return u.Scheme == v.Scheme && strings.EqualFold(u.Hostname(), v.Hostname()) && port(u) == port(v)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
