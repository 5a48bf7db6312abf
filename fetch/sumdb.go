package fetch

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// publicKey is the verifier key of the public checksum database that the go command knows by name
// (cmd/go/internal/modfetch/key.go), without that name: it comes from GOSUMDB. The hash that the key begins with is over
// name and key, so the key is good for no other name.
const publicKey = "033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// toolchain is always checked against the database: no go.sum can list it.
const toolchain = "golang.org/toolchain"

// Limits of the database's files, in bytes.
const maxSumFile = 8 << 20

// database is a checksum database (https://go.dev/ref/mod#checksum-database).
type database struct {
	c      *Client
	name   string
	key    string
	direct *url.URL // where it is by its name
	given  *url.URL // where GOSUMDB says that it is; nil if it says nothing

	mu     sync.Mutex
	client *sumdb.Client // remembers failures for good, and is replaced after one
	ops    *dbOps        // of client
	base   *url.URL      // where it was found; nil before the first question
}

// newDatabase parses GOSUMDB. It is nil for "off".
func newDatabase(c *Client) (*database, error) {
	f := strings.Fields(c.cfg.SumDB)
	if len(f) == 0 || len(f) == 1 && f[0] == "off" {
		return nil, nil
	}
	if len(f) > 2 {
		return nil, fmt.Errorf("GOSUMDB: want a name or key and perhaps a URL, not %d words", len(f))
	}
	key := f[0]
	if !strings.Contains(key, "+") {
		key += "+" + publicKey
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("GOSUMDB: %s: unknown checksum database, or not a key (NAME+HASH+KEY): %v", f[0], err)
	}
	name := v.Name()
	direct, err := url.Parse("https://" + name)
	if err != nil || direct.Host == "" || strings.HasSuffix(name, "/") ||
		*direct != (url.URL{Scheme: "https", Host: direct.Host, Path: direct.Path}) {
		return nil, fmt.Errorf("GOSUMDB: database name %q is not a host with perhaps a path", name)
	}
	d := &database{c: c, name: name, key: key, direct: direct}
	if len(f) == 2 {
		if d.given, err = url.Parse(f[1]); err != nil || d.given.Scheme != "http" && d.given.Scheme != "https" || d.given.Host == "" {
			return nil, errors.New("GOSUMDB: its second word is not an http or https URL")
		}
	}
	return d, nil
}

// sumSource names who vouches for hashes.
func (c *Client) sumSource() string {
	if c.db == nil {
		return "nobody"
	}
	return c.db.name
}

// covered returns nil if the database has to be asked about a module path, else ErrNoSum.
func (c *Client) covered(modPath string) error {
	if modPath == toolchain {
		if c.db == nil && !c.onlyFiles() {
			return fmt.Errorf("%w: toolchains are only accepted with one, and GOSUMDB is off", ErrSumDB)
		}
		if c.db != nil {
			return nil
		}
	}
	switch {
	case c.db == nil:
		return fmt.Errorf("%w: GOSUMDB is off", ErrNoSum)
	case c.cfg.NoSumDB != "" && c.cfg.NoSumDB != "none" && module.MatchPrefixPatterns(c.cfg.NoSumDB, modPath):
		return fmt.Errorf("%w: %s matches GONOSUMDB or GOPRIVATE", ErrNoSum, modPath)
	}
	return nil
}

// onlyFiles reports whether the only proxy is a directory: how a distribution of Go is tested, the go command's one exception
// for toolchains.
func (c *Client) onlyFiles() bool {
	return len(c.proxies) == 1 && c.proxies[0].url != nil && c.proxies[0].url.Scheme == "file"
}

// ZipHash returns the h1 hash that the checksum database has for m's zip. The error is ErrNoSum if the database is not to be
// asked about m, and ErrSumDB if its answer cannot be trusted.
func (c *Client) ZipHash(ctx context.Context, m module.Version) (string, error) {
	return c.sum(ctx, m, m.Version)
}

// ModHash is ZipHash for m's go.mod.
func (c *Client) ModHash(ctx context.Context, m module.Version) (string, error) {
	return c.sum(ctx, m, m.Version+"/go.mod")
}

func (c *Client) sum(ctx context.Context, m module.Version, version string) (string, error) {
	if err := check(m); err != nil {
		return "", err
	}
	if err := c.covered(m.Path); err != nil {
		return "", err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	lines, err := c.db.lookup(ctx, m.Path, version)
	if err != nil {
		return "", fmt.Errorf("%s: checksum database %s: %w", m, c.db.name, err)
	}
	for _, line := range lines {
		if f := strings.Fields(line); len(f) == 3 && f[0] == m.Path && f[1] == version && strings.HasPrefix(f[2], "h1:") {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("%s: checksum database %s: %w: its record has no h1 hash for %s", m, c.db.name, ErrSumDB, version)
}

// lookup returns the verified go.sum lines for a module. The sumdb.Client knows no contexts; ctx bounds the waiting, and the
// requests have deadlines of their own.
func (d *database) lookup(ctx context.Context, modPath, version string) ([]string, error) {
	client, ops := d.current()
	type result struct {
		lines []string
		err   error
	}
	ch := make(chan result, 1)
	go func() {
		lines, err := client.Lookup(modPath, version)
		if err != nil {
			d.replace(client)
			err = ops.explain(err)
		}
		ch <- result{lines, err}
	}()
	select {
	case r := <-ch:
		return r.lines, r.err
	case <-ctx.Done():
		return nil, classify(ctx, context.Cause(ctx))
	}
}

func (d *database) current() (*sumdb.Client, *dbOps) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == nil {
		d.ops = &dbOps{d: d}
		d.client = sumdb.NewClient(d.ops)
	}
	return d.client, d.ops
}

// replace makes the next question begin anew, after one that failed.
func (d *database) replace(failed *sumdb.Client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == failed {
		d.client = nil
	}
}

// locate finds out once where to ask the database: at the URL in GOSUMDB, else through the first proxy that says that it
// supports that, else by its name. A proxy that supports it is the only way then; one that fails otherwise than with "not
// found" makes the database unavailable (https://go.dev/design/25530-sumdb#proxying-a-checksum-database).
func (d *database) locate(ctx context.Context) (*url.URL, error) {
	d.mu.Lock()
	base := d.base
	d.mu.Unlock()
	if base != nil {
		return base, nil
	}
	if base = d.given; base == nil {
		for i := range d.c.proxies {
			p := &d.c.proxies[i]
			if p.url == nil {
				break
			}
			_, err := d.c.get(ctx, p.join("sumdb/"+d.name+"/supported"), maxSumFile)
			if err == nil {
				base = p.join("sumdb/" + d.name)
				break
			}
			if !errors.Is(err, ErrNotFound) && !p.onAnyError {
				return nil, err
			}
		}
	}
	if base == nil {
		base = d.direct
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base = base
	return base, nil
}

// read asks the database for a file of its protocol; file begins with a slash.
func (d *database) read(ctx context.Context, file string) ([]byte, error) {
	if d.c.cfg.Offline {
		return nil, ErrOffline
	}
	base, err := d.locate(ctx)
	if err != nil {
		return nil, err
	}
	u := *base
	u.Path += file
	if u.RawPath != "" {
		u.RawPath += file
	}
	return d.c.get(ctx, &u, maxSumFile)
}

// dbOps is what a sumdb.Client does its I/O through.
type dbOps struct {
	d *database

	mu       sync.Mutex
	security string           // what SecurityError was told
	failures map[string]error // of ReadRemote: the sumdb.Client passes on only their texts
}

// ReadRemote implements sumdb.ClientOps.
func (o *dbOps) ReadRemote(path string) ([]byte, error) {
	ctx, cancel := o.d.c.bound(context.Background())
	defer cancel()
	data, err := o.d.read(ctx, path)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failures == nil {
			o.failures = make(map[string]error)
		}
		o.failures[path] = err
	}
	return data, err
}

// explain returns the error of a Lookup with what it lost on its way: the kind of failure.
func (o *dbOps) explain(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.security != "" {
		return fmt.Errorf("%w: %s", ErrSumDB, o.security)
	}
	if errors.Is(err, sumdb.ErrSecurity) {
		return fmt.Errorf("%w: %v", ErrSumDB, err)
	}
	for _, failure := range o.failures {
		if strings.Contains(err.Error(), failure.Error()) {
			return failure
		}
	}
	// Neither an attack nor a failed request: an answer that makes no sense.
	return fmt.Errorf("%w: %v", ErrSumDB, err)
}

// ReadConfig implements sumdb.ClientOps: "key" and "NAME/latest".
func (o *dbOps) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(o.d.key), nil
	}
	data, err := o.d.c.cfg.Tiles.ReadFile(file)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil // the first contact
	}
	return data, err
}

// WriteConfig implements sumdb.ClientOps.
func (o *dbOps) WriteConfig(file string, old, new []byte) error {
	// Clients of one process replace each other after failures, so two may want to write at once.
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	now, err := o.d.c.cfg.Tiles.ReadFile(file)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if string(now) != string(old) {
		return sumdb.ErrWriteConflict
	}
	return o.d.c.cfg.Tiles.WriteFile(file, new)
}

// ReadCache implements sumdb.ClientOps.
func (o *dbOps) ReadCache(file string) ([]byte, error) { return o.d.c.cfg.Tiles.ReadFile(file) }

// WriteCache implements sumdb.ClientOps.
func (o *dbOps) WriteCache(file string, data []byte) {
	if err := o.d.c.cfg.Tiles.WriteFile(file, data); err != nil {
		o.d.c.log.Warn("checksum database file not kept", "file", file, "err", err)
	}
}

// Log implements sumdb.ClientOps.
func (o *dbOps) Log(msg string) { o.d.c.log.Debug("checksum database", "msg", msg) }

// SecurityError implements sumdb.ClientOps.
func (o *dbOps) SecurityError(msg string) {
	o.mu.Lock()
	o.security = printable(msg)
	o.mu.Unlock()
	o.d.c.log.Error("checksum database", "database", o.d.name, "msg", msg)
}

// SumDB returns a file of the configured checksum database, named as a proxy names it: "supported", "latest", "lookup/M@V" or
// "tile/…" (https://go.dev/ref/mod#checksum-database). Of what was verified it is the kept copy. A lookup of a module that
// the database is not to be asked about is ErrNotFound.
func (c *Client) SumDB(ctx context.Context, name, rest string) ([]byte, error) {
	if c.db == nil || name != c.db.name {
		return nil, fmt.Errorf("%w: not the configured checksum database", ErrNotFound)
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	verb, arg, _ := strings.Cut(rest, "/")
	switch {
	case rest == "supported":
		return nil, nil
	case rest == "latest":
		return c.db.read(ctx, "/latest")
	case verb == "lookup":
		m, err := parseLookup(arg)
		if err != nil {
			return nil, err
		}
		if err := c.covered(m.Path); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
		}
	default:
		if _, err := tlog.ParseTilePath(rest); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
		}
	}
	if data, err := c.cfg.Tiles.ReadFile(name + "/" + rest); err == nil {
		return data, nil
	}
	return c.db.read(ctx, "/"+rest)
}

// parseLookup parses the escaped "M@V" of a lookup.
func parseLookup(arg string) (m module.Version, err error) {
	escPath, escVersion, ok := strings.Cut(arg, "@")
	if !ok {
		return m, ErrNotFound
	}
	if m.Path, err = module.UnescapePath(escPath); err == nil {
		m.Version, err = module.UnescapeVersion(escVersion)
	}
	if err == nil {
		err = check(m)
	}
	if err != nil {
		return m, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return m, nil
}

// memoryTiles is a TileStore for clients that were given none.
type memoryTiles struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (t *memoryTiles) ReadFile(name string) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	data, ok := t.files[name]
	if !ok {
		return nil, iofs.ErrNotExist
	}
	return data, nil
}

func (t *memoryTiles) WriteFile(name string, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.files == nil {
		t.files = make(map[string][]byte)
	}
	t.files[name] = data
	return nil
}
