package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

// knownKey is the hash and key of the one checksum database that the go command knows by its name alone
// (cmd/go/internal/modfetch/key.go). The hash is over name and key, so with any other name this is no valid verifier key:
// the name need not be compiled in.
const knownKey = "033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// toolchain is the one module that no go.sum lists, which is why the go command has it checked whatever the settings say.
const toolchain = "golang.org/toolchain"

const (
	// maxSum bounds a file of a checksum database, in bytes: tiles of data have some 60 KiB, and those of hashes with a height that is
	// not ours may be larger.
	maxSum = 4 << 20

	// maxRecord bounds what a session remembers of one file, in bytes: records and tree heads have less than 1 KiB, full tiles of
	// height 8 have 8 KiB. To each record its sender can append, as signatures that nobody knows.
	maxRecord = 16 << 10

	// maxProof bounds, in bytes, what an error shows of a database that misbehaves: two tree heads and the proof that they
	// contradict each other take less than 4 KiB, but whoever sends a head can append to it.
	maxProof = 8 << 10

	// findAgain is after how long what a database does not have makes us look whether it is still where it was found.
	findAgain = time.Second
)

// database is a checksum database (https://go.dev/ref/mod#checksum-database).
type database struct {
	c         *Client
	name      string
	key       string
	verifiers note.Verifiers
	direct    *upstream // at the URL in GOSUMDB, else at https://NAME
	explicit  bool      // there is a URL in GOSUMDB: proxies are not asked for the database

	mu      sync.Mutex
	session *session
	via     *query    // where the database was found: a proxy and the path below it, or direct; nil: not found yet
	found   time.Time // when that was

	// headMu is held while the head is read from and written to the store, or an older one could replace a newer one there.
	headMu sync.Mutex
	latest []byte // the newest tree head; it outlives sessions, and stores that fail
}

// newDatabase parses GOSUMDB as the go command does (cmd/go/internal/modfetch/sumdb.go). It returns nil if that is off or
// empty.
func newDatabase(c *Client, setting string) (*database, error) {
	words := strings.Fields(setting)
	switch {
	case len(words) == 0, len(words) == 1 && words[0] == "off":
		return nil, nil
	case len(words) > 2:
		return nil, errors.New("invalid GOSUMDB: want the database's name or key, and perhaps its URL")
	}
	// The go command knows one mirror by its name alone. As the key is bound to the name, no other setting is taken for that.
	if name, ok := strings.CutSuffix(setting, ".google.cn"); ok {
		if _, err := note.NewVerifier(name + ".org+" + knownKey); err == nil {
			words = []string{name + ".org", "https://" + setting}
		}
	}
	d := &database{c: c, key: words[0], explicit: len(words) == 2}
	if !strings.Contains(d.key, "+") {
		d.key += "+" + knownKey
	}
	verifier, err := note.NewVerifier(d.key)
	if err != nil {
		return nil, fmt.Errorf("invalid GOSUMDB: no key is known for %q: write it as NAME+HASH+KEY (%v)", redactText(words[0]), err)
	}
	d.name, d.verifiers = verifier.Name(), note.VerifierList(verifier)
	base, err := url.Parse("https://" + d.name)
	if err != nil || base.Host == "" || strings.HasSuffix(d.name, "/") || path.Clean("/"+d.name) != "/"+d.name ||
		*base != (url.URL{Scheme: "https", Host: base.Host, Path: base.Path}) {
		return nil, fmt.Errorf("invalid GOSUMDB: the name %q is not HOST or HOST/PATH", redactText(d.name))
	}
	if d.explicit {
		base, err = url.Parse(words[1])
		if err != nil || base.Scheme != "https" && base.Scheme != "http" && base.Scheme != "file" {
			return nil, errors.New("invalid GOSUMDB: its second word is not a URL with https or http")
		}
		if base.Scheme == "http" && base.User != nil {
			return nil, fmt.Errorf("invalid GOSUMDB: %s: credentials would be sent in clear text: use https", redacted(base))
		}
	}
	d.direct = newUpstream(base)
	return d, nil
}

// sumSource says who knows hashes, for messages.
func (c *Client) sumSource() string {
	if c.db == nil {
		return "checksum database"
	}
	return "checksum database " + c.db.name
}

// covered returns nil if a module's hashes are to be looked up in the database, ErrNoSum if not, and another error if they
// should be but cannot.
func (c *Client) covered(modPath string) error {
	empty := strings.TrimSpace(c.cfg.SumDB) == ""
	switch {
	case modPath == toolchain && !c.onlyFiles():
		if c.db == nil {
			return fmt.Errorf("%w: a toolchain must be checked against one, but GOSUMDB is off", ErrSumDB)
		}
		return nil
	case module.MatchPrefixPatterns(c.noSum, modPath):
		return fmt.Errorf("%w: it matches GONOSUMDB or GOPRIVATE", ErrNoSum)
	case empty:
		return fmt.Errorf("%w: GOSUMDB is empty: name a database, or say off", ErrSumDB)
	case c.db == nil:
		return fmt.Errorf("%w: GOSUMDB is off", ErrNoSum)
	}
	return nil
}

// onlyFiles reports whether the only proxy is a directory, the go command's exception for testing new toolchains.
func (c *Client) onlyFiles() bool {
	return len(c.proxies) == 1 && c.proxies[0].base != nil && c.proxies[0].base.Scheme == "file"
}

// lookup returns the verified go.sum lines of a module. ctx bounds only the waiting: what is under way helps others, too.
func (d *database) lookup(ctx context.Context, m module.Version, version string) ([]string, error) {
	if err := d.c.hold(); err != nil {
		return nil, err
	}
	type result struct {
		lines []string
		err   error
	}
	ch := make(chan result, 1)
	go func() {
		defer d.c.calls.Done()
		var r result
		defer func() { ch <- r }()
		defer d.c.recovered("checksum database", &r.err)
		start := time.Now()
		r.lines, r.err = d.ask(m.Path, version)
		if d.c.cfg.OnLookup != nil {
			d.c.cfg.OnLookup(time.Since(start), r.err)
		}
	}()
	select {
	case r := <-ch:
		return r.lines, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ask is lookup without a context, which sumdb.Client does not know.
func (d *database) ask(modPath, version string) ([]string, error) {
	record := modPath + "@" + strings.TrimSuffix(version, "/go.mod")
	s := d.current(record)
	returned := false
	defer func() {
		if !returned {
			d.drop(s) // it panicked, and may have left its locks
		}
	}()
	lines, err := s.client.Lookup(modPath, version)
	returned = true
	if err == nil {
		s.keep()
		// A sumdb.Client remembers all that it ever read. What it verified is in the store, so a new one costs little.
		if s.lookups.Add(1) >= maxLookups {
			d.drop(s)
		}
		return lines, nil
	}
	// Others that share the session get the same error, and drop it, too.
	err, again := s.explain(err)
	if errors.Is(err, ErrNotFound) && s.lookups.Add(1) < maxLookups {
		s.forget(record)
		return nil, err
	}
	d.drop(s)
	if !again {
		return nil, err
	}
	// Nothing was wrong with the network and nobody was caught lying, but something does not fit. If that is a file of
	// ours, it is still the same next time: so do without.
	d.c.log.Error("checksum database does not add up; asking again without stored files", "database", d.name, "err", err)
	s = d.open(true)
	lines, err2 := s.client.Lookup(modPath, version)
	if err2 != nil {
		err, _ = s.explain(err2)
		return nil, err
	}
	s.keep()
	return lines, nil
}

// current returns the session that lookups share, one that can look up record.
func (d *database) current(record string) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == nil || d.session.forgot(record) {
		d.session = d.open(false)
	}
	return d.session
}

// drop makes the next lookup begin a new session. A sumdb.Client remembers its failures for good.
func (d *database) drop(s *session) {
	s.mu.Lock()
	s.dropped, s.pending = true, nil
	s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == s {
		d.session = nil
	}
}

// open starts a session. distrust makes it do without stored files; it overwrites them with what it verified.
func (d *database) open(distrust bool) *session {
	s := &session{d: d, distrust: distrust}
	s.client = sumdb.NewClient(s)
	return s
}

// read gets a file of at most limit bytes from the database, by way of a proxy that offers that, else directly.
func (d *database) read(ctx context.Context, elem string, limit int64) ([]byte, error) {
	if d.c.cfg.Offline {
		return d.c.seedSum(d.name + "/" + elem)
	}
	via, err := d.find(ctx)
	if err != nil {
		return nil, err
	}
	// The session's own cache makes sure that each file is asked for once.
	ctx = withSubject(ctx, lookupSubject(elem))
	via.elem += elem
	a, err := d.c.get(ctx, via, limit)
	if err == nil && a.html {
		err = fmt.Errorf("%s: %w%s", redacted(via.u.url(via.elem)), ErrBadAnswer, a.page())
	}
	if err != nil {
		// A proxy that did not offer the database for a moment must not keep us from it for as long as we live. But most of what is
		// not found is not there.
		d.mu.Lock()
		if !errors.Is(err, ErrNotFound) || time.Since(d.found) >= findAgain {
			d.via = nil
		}
		d.mu.Unlock()
	}
	return a.data, err
}

// find returns where the database is to be had. A proxy that offers it is the only way to it then. If none does, it is
// asked directly; if one that might cannot be asked, the database is out of reach
// (https://go.dev/design/25530-sumdb#proxying-a-checksum-database).
func (d *database) find(ctx context.Context) (query, error) {
	d.mu.Lock()
	via := d.via
	d.mu.Unlock()
	if via != nil {
		return *via, nil
	}
	q := query{u: d.direct}
	if !d.explicit {
		below := "sumdb/" + d.name + "/"
		direct := false // whatever the proxies before that word said, as for the go command
		err := tryAll(ctx, d.c.proxies, func(u *upstream) error {
			if u.base == nil { // the end of the list
				direct = u.word == "direct"
				return ErrNotFound
			}
			_, err := d.c.get(ctx, query{u: u, elem: below + "supported"}, maxRecord)
			if err == nil {
				q = query{u: u, elem: below}
			}
			return err
		})
		if err != nil && !errors.Is(err, ErrNotFound) && !direct {
			return query{}, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.via, d.found = &q, time.Now()
	return q, nil
}
