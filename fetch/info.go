package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"
)

// Limits of answers that are not zips, in bytes. The go command has none but for go.mod files.
const (
	maxInfo = 1 << 20
	maxList = 8 << 20 // half a million versions
)

// revInfo and origin are what the go command marshals as an .info file (RevInfo in cmd/go/internal/modfetch/repo.go,
// Origin in codehost/codehost.go): its fields in its order. It rewrites .info files that look different at every read.
type revInfo struct {
	Version string
	Time    time.Time
	Origin  *origin `json:",omitempty"`
}

type origin struct {
	VCS       string `json:",omitempty"`
	URL       string `json:",omitempty"`
	Subdir    string `json:",omitempty"`
	Hash      string `json:",omitempty"`
	TagPrefix string `json:",omitempty"`
	TagSum    string `json:",omitempty"`
	Ref       string `json:",omitempty"`
	RepoSum   string `json:",omitempty"`
}

// parseInfo returns an .info file as the go command would marshal it. With want, it must be that of version want.
func parseInfo(a answer, want string) ([]byte, error) {
	var info revInfo
	if err := json.Unmarshal(a.data, &info); err != nil {
		return nil, fmt.Errorf("%w: not an .info file: %v%s", ErrBadAnswer, firstLine(err), a.page())
	}
	// The go command refuses it too (modfetch's proxyRepo.Stat): a version is not to be replaced by another.
	if want != "" && info.Version != want {
		return nil, fmt.Errorf("%w: it is that of version %q", ErrBadAnswer, excerpt(info.Version))
	}
	if !semver.IsValid(info.Version) {
		return nil, fmt.Errorf("%w: %q is no version", ErrBadAnswer, excerpt(info.Version))
	}
	if o := info.Origin; o != nil && want != "" {
		// As modfetch.writeDiskStat: what says whether a query has a new answer means nothing for one version.
		o.TagPrefix, o.TagSum, o.RepoSum = "", "", ""
		if module.IsPseudoVersion(want) {
			o.Ref = ""
		}
	}
	// It is another text than was sent, and can be longer: the limit is on that, too, or nobody could read it from a store.
	data, err := json.Marshal(info)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %v", ErrBadAnswer, firstLine(err))
	case len(data) > maxInfo:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxInfo)
	}
	return data, nil
}

// page explains nonsense that is said to be HTML.
func (a answer) page() string {
	if !a.html {
		return ""
	}
	return " (the answer is an HTML page: does the network want a login?)"
}

// small asks the proxies for a file and parses the answer. An answer that cannot be parsed is an error of that proxy.
func (c *Client) small(ctx context.Context, modPath, elem string, limit int64, parse func(a answer) ([]byte, error)) (data []byte, err error) {
	err = c.try(ctx, modPath, elem, func(u *upstream) error {
		q := query{u, elem}
		a, err := c.get(ctx, q, limit)
		if err != nil {
			return err
		}
		if data, err = parse(a); err != nil {
			return fmt.Errorf("%s: %w", u.shown(elem), err)
		}
		return nil
	})
	return data, err
}

// info is Info.
func (c *Client) info(ctx context.Context, m module.Version) ([]byte, error) {
	elem, err := file(m, ".info")
	if err != nil {
		return nil, err
	}
	return c.small(ctx, m.Path, elem, maxInfo, func(a answer) ([]byte, error) { return parseInfo(a, m.Version) })
}

// latest is Latest. The answer may be for any version, and need not be in the list.
func (c *Client) latest(ctx context.Context, m module.Version) ([]byte, error) {
	escPath, err := module.EscapePath(m.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return c.small(ctx, m.Path, escPath+"/@latest", maxInfo, func(a answer) ([]byte, error) { return parseInfo(a, "") })
}

// query is Query. What is asked for is a name in a repository and not in this world, so all that is known of the answer is that it
// is a version of the module.
func (c *Client) query(ctx context.Context, path, query string) ([]byte, error) {
	elem, err := file(module.Version{Path: path, Version: query}, ".info")
	if err != nil {
		return nil, err
	}
	return c.small(ctx, path, elem, maxInfo, func(a answer) ([]byte, error) {
		data, err := parseInfo(a, "")
		if err != nil {
			return nil, err
		}
		var info revInfo
		if err := json.Unmarshal(data, &info); err != nil {
			return nil, err
		}
		if err := module.Check(path, info.Version); err != nil || module.CanonicalVersion(info.Version) != info.Version {
			return nil, fmt.Errorf("%w: %q is not a version of %s", ErrBadAnswer, info.Version, path)
		}
		return data, nil
	})
}

// list is List.
func (c *Client) list(ctx context.Context, m module.Version) ([]byte, error) {
	escPath, err := module.EscapePath(m.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return c.small(ctx, m.Path, escPath+"/@v/list", maxList, parseList)
}

// parseList keeps the lines of a list that begin with a version that can be asked for. A time may follow it (modfetch's
// proxyRepo.latestFromList).
func parseList(a answer) ([]byte, error) {
	list := make([]byte, 0, min(len(a.data)+1, 1<<16))
	other := ""
	for line := range strings.Lines(string(a.data)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if module.CanonicalVersion(f[0]) != f[0] {
			other = f[0]
			continue
		}
		list = append(list, f[0]...)
		if len(f) > 1 {
			if _, err := time.Parse(time.RFC3339, f[1]); err == nil {
				list = append(append(list, ' '), f[1]...)
			}
		}
		list = append(list, '\n')
	}
	// An empty list is one of a module without tagged versions. What is not empty and names none is no list.
	if len(list) == 0 && (a.html || other != "") {
		return nil, fmt.Errorf("%w: not a list of versions: %q%s", ErrBadAnswer, excerpt(other), a.page())
	}
	return list, nil
}

// hashMod returns the h1 hash of a go.mod file.
func hashMod(data []byte) (string, error) {
	return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

// mod is Mod. Unlike a zip, a go.mod file comes at once, so nothing is gained by ending early when the lookup fails.
func (c *Client) mod(ctx context.Context, m module.Version, want string) (data []byte, h1 string, err error) {
	elem, err := file(m, ".mod")
	if err != nil {
		return nil, "", err
	}
	sum := c.expect(ctx, m, "/go.mod", want)
	defer sum.stop()
	from := ""
	data, err = c.small(ctx, m.Path, elem, modzip.MaxGoMod, func(a answer) ([]byte, error) {
		from = a.from
		if a.html && modfile.ModulePath(a.data) == "" {
			return nil, fmt.Errorf("%w: not a go.mod file%s", ErrBadAnswer, a.page()) // which tells more than its hash
		}
		return a.data, nil
	})
	if err != nil {
		return nil, "", err
	}
	if h1, err = hashMod(data); err != nil {
		return nil, "", err
	}
	want, source, err := sum.wait(ctx)
	switch {
	case err != nil:
		return nil, "", err
	case h1 == want: // never with an empty want
		return data, h1, nil
	case want != "":
		return nil, "", &MismatchError{Module: m, File: "go.mod", Want: want, Got: h1, From: from, Source: source}
	}
	// Nobody vouches for it, so it must at least look like a go.mod file.
	if _, err := modfile.ParseLax("go.mod", data, nil); err != nil {
		return nil, "", fmt.Errorf("%s: %w: %v", from, ErrBadAnswer, firstLine(err))
	}
	return data, h1, nil
}

// firstLine keeps an error that quotes a whole file short.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return excerpt(line)
}

// expected is the hash that an artifact must have, which may be being looked up.
type expected struct {
	done   chan struct{} // closed when the rest is known
	stop   context.CancelFunc
	h1     string // "" if nobody knows
	source string
	err    error
}

// expect starts to find out the hash that a file of m must have: want, or what the checksum database says. Its user calls
// stop in the end.
func (c *Client) expect(ctx context.Context, m module.Version, suffix, want string) *expected {
	ctx, stop := context.WithCancel(ctx)
	e := &expected{done: make(chan struct{}), stop: stop, h1: want, source: "pin"}
	if want != "" {
		close(e.done)
		return e
	}
	// That nobody may be asked for a private module is then the whole answer.
	if c.cfg.Offline || c.direct == nil && module.MatchPrefixPatterns(c.noProxy, m.Path) {
		close(e.done)
		return e
	}
	e.source = c.sumSource()
	// Our caller is a call, so Close is not waiting yet.
	c.calls.Go(func() {
		defer close(e.done)
		defer c.recovered("checksum database", &e.err)
		e.h1, e.err = c.sum(ctx, m, suffix)
		if errors.Is(e.err, ErrNoSum) {
			e.err = nil
		}
	})
	return e
}

// failed returns the error of a lookup that is over and has failed.
func (e *expected) failed() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

// wait returns the expected hash, "" if there is none, and who says so.
func (e *expected) wait(ctx context.Context) (h1, source string, err error) {
	select {
	case <-e.done:
		return e.h1, e.source, e.err
	case <-ctx.Done():
		return "", "", context.Cause(ctx)
	}
}

// sum returns what the checksum database says of m's zip, or of its go.mod with the suffix "/go.mod".
func (c *Client) sum(ctx context.Context, m module.Version, suffix string) (string, error) {
	if err := c.covered(m.Path); err != nil {
		return "", err
	}
	version := m.Version + suffix
	lines, err := c.db.lookup(ctx, m, version)
	if errors.Is(err, ErrNotFound) {
		// The proxy may well have the module. That nobody vouches for it is something else than that there is none.
		return "", fmt.Errorf("%s: %w (is the module private? see GOPRIVATE): %v", c.sumSource(), ErrUnknown, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.sumSource(), err)
	}
	prefix := m.Path + " " + version + " h1:"
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, prefix) })
	// The go command says "checksum missing from sumdb response", and refuses.
	if i < 0 {
		return "", fmt.Errorf("%s: %w: it has a record without a hash of %s", c.sumSource(), ErrSumDB, version)
	}
	return strings.TrimPrefix(lines[i], prefix[:len(prefix)-len("h1:")]), nil
}
