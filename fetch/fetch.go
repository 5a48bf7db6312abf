// Package fetch brings module versions from module proxies, verified: what it writes or returns without an error is what
// the go command would have accepted, under the same settings.
//
// # Where from
//
// Config.Proxy is a list like GOPROXY (https://go.dev/ref/mod#environment-variables): URLs with the schemes https, http and
// file, and the words "off" and "direct". After an entry that ends in a comma the next one is asked if the answer was 404
// or 410, after one that ends in a bar on any error. Modules that match Config.NoProxy are asked for at no proxy. For them, and
// for "direct", the go command is run, which gets them from version control; without Config.Direct they are not found. No
// address is compiled in.
//
// # What is checked
//
// A zip is inflated once, on all cores, straight from where it was written to: each file against the size and the CRC-32
// that the zip's directory announces, all of them against the h1 hash (golang.org/x/mod/sumdb/dirhash), their names and
// sizes against the rules of golang.org/x/mod/zip. A go.mod file is checked against its own h1 hash. The hash is, in this
// order: the one that the caller gives (the pin: what was served once), the checksum database's, or, for modules that
// Config.NoSumDB or GOSUMDB=off excuses from it, whatever arrives: the caller then pins what is returned. The checksum
// database is asked while the zip is on its way, and a database that cannot be asked refuses the module.
//
// An .info file has no hash. It must be for the version asked for, and is returned as the go command would marshal it.
//
// # What goes wrong
//
// Transient failures (status 429, 500, 502, 503, 504, a broken connection) are tried again a few times, waiting longer each
// time or, up to a minute, as long as the server says, and a zip is continued where it broke off. A refused connection, a
// name without an address and a missing route are an answer at once. What comes too slowly is given up, and what is larger
// than it may be is not read to its end. Each error says what was asked where, without credentials, and wraps one of the errors
// below if it belongs to its class, or the error of Dst or of the context.
//
// A Client may be used concurrently. It keeps connections and the state of the checksum database, but no artifacts: who asks
// twice fetches twice.
package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/module"
)

// Config says where modules come from. Its zero value is a client that finds nothing.
type Config struct {
	Proxy    string // as GOPROXY; "" means off
	NoProxy  string // as GONOPROXY: patterns of modules that no proxy is asked for; "" means Private
	SumDB    string // as GOSUMDB: NAME, NAME+HASH+KEY, each with an optional URL, or off; with "" nothing can be looked up
	NoSumDB  string // as GONOSUMDB: patterns of modules that the database is not asked for; "" means Private
	Private  string // as GOPRIVATE
	Insecure string // as GOINSECURE: patterns of modules that may be fetched without https or a valid certificate by version control
	VCS      string // as GOVCS: which version control systems may be used for what; "" means the go command's default
	Auth     string // as GOAUTH: where credentials for https come from; "" means off

	// ClientCert and ClientKey are PEM files with the certificate, and those that lead to its issuer, and the private key that proxies
	// and the checksum database are shown over https, if they ask. They are read again when they have changed. "" means none;
	// the key may be in the file of the certificate. They are of no use with Transport.
	ClientCert, ClientKey string

	// Direct is a directory for the go command to get modules from version control in. It is the client's own: New and Close
	// remove all that is in it. "" means that there is no version control.
	Direct string

	DirectMax int64 // bytes on disk that Direct may take; 0 means 2 GiB

	// DirectRoom accounts for what Direct takes. nil: there is always room.
	DirectRoom Room

	// Offline refuses, with ErrOffline, whatever Tiles cannot answer.
	Offline bool

	// Seeds are where modules are taken from before a proxy is asked. They stay open as long as the client is.
	Seeds []*Seed

	// SeedsOnly has nothing taken from anywhere else. The checksum database is asked all the same, unless Offline is set.
	SeedsOnly bool

	// Sums are hashes that are known to the user, as in a go.sum: the version of a go.mod file's has the suffix "/go.mod". They
	// count for what comes from seeds: it must not differ, and where the database has no say, they vouch for it.
	Sums map[module.Version]string

	// OnSeed is told of each zip and go.mod file that was taken from a seed, before it is returned; nil: nobody wants to know.
	// It is called concurrently. With an error, the file is not returned, and the error is.
	OnSeed func(Check) error

	// Tiles keeps what was verified of the checksum database. nil keeps it in memory, as long as the client lives.
	Tiles TileStore

	Timeout     time.Duration // bounds a call of Zip, with all tries at all proxies; 0 means 30 minutes
	MetaTimeout time.Duration // bounds any other call, of what is small; 0 means 2 minutes; never more than Timeout
	IdleTimeout time.Duration // bounds the wait for an answer, for each 4 KiB of it, and for a program of Auth; 0 means 30 seconds
	Backoff     time.Duration // the wait after the first transient failure, twice that after the next; 0 means 200 ms
	Tries       int           // how often a request is sent that fails transiently without progress; 0 means 4

	Cores int // how many cores the verification of a zip uses; 0 means GOMAXPROCS

	// Transport sends the requests. nil means one of our own: HTTP/2 where offered, connections kept, and a proxy as
	// http.ProxyFromEnvironment says.
	Transport http.RoundTripper

	// OnRequest is told of each request to an upstream and each file of a seed, when it is over. It is called concurrently, and
	// must not block. Nil: nobody wants to know.
	OnRequest func(Request)

	// OnLookup is told of each lookup in the checksum database that has ended, with its error: how long it took to ask for what was
	// lacking and to verify all of it. It is called concurrently, and must not block. Nil: nobody wants to know.
	OnLookup func(took time.Duration, err error)

	// OnPanic is told of each panic that the client recovered from. Nil: nobody wants to know, and it is logged.
	OnPanic func(what string, v any, stack []byte)

	Log       *slog.Logger // nil discards
	UserAgent string       // "" means "modfs"
}

// TileStore keeps small named files: "NAME/latest", "NAME/lookup/M@V" and "NAME/tile/…", where NAME is a checksum
// database's. Its methods may be called concurrently. ReadFile's error, whatever it is, means that there is no such file.
// WriteFile replaces the file atomically.
type TileStore interface {
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte) error
}

// Room is told, several times a second while Config.Direct changes, how many bytes that has and how many it may have until the
// next time. The error is that there is no room for those; for fewer than before there is.
type Room interface {
	Resize(ctx context.Context, want, have int64) error
}

// Dst takes a zip. It is empty at first; Write appends, and what was written can be read at once. Reserve announces how
// many bytes it will have in all. Truncate, to zero, starts over. Errors of Dst are returned wrapped, and end the fetch.
// ReadAt may be called concurrently.
type Dst interface {
	io.Writer
	io.ReaderAt
	Truncate(size int64) error
	Reserve(size int64) error
}

// Client fetches and verifies. Make one with New, and Close it.
type Client struct {
	cfg     Config
	log     *slog.Logger
	proxies []*upstream
	noProxy string // the patterns in force
	noSum   string
	db      *database // nil with GOSUMDB=off
	direct  *direct   // nil without Config.Direct
	auth    *auth     // nil without credentials
	http    *http.Client
	idle    interface{ CloseIdleConnections() } // our own transport, else nil
	ctx     context.Context                     // the client's life
	cancel  context.CancelCauseFunc

	settings []string                         // secrets in them
	secrets  atomic.Pointer[strings.Replacer] // hides those, and what auth knows

	mu     sync.Mutex
	alone  *Client // see sumFromSeeds; nil until there is need for it
	closed bool
	calls  sync.WaitGroup // Add only with mu held and closed false
}

// errClosed is the cause of what Close interrupts.
var errClosed = fmt.Errorf("client is closed: %w", context.Canceled)

// New returns a client. It makes no request. The error says which setting is wrong.
func New(cfg Config) (*Client, error) {
	cfg.Timeout = orDefault(cfg.Timeout, 30*time.Minute)
	cfg.MetaTimeout = min(orDefault(cfg.MetaTimeout, 2*time.Minute), cfg.Timeout)
	cfg.IdleTimeout = orDefault(cfg.IdleTimeout, 30*time.Second)
	cfg.Backoff = orDefault(cfg.Backoff, 200*time.Millisecond)
	cfg.Tries = orDefault(cfg.Tries, 4)
	cfg.Cores = orDefault(cfg.Cores, runtime.GOMAXPROCS(0))
	cfg.UserAgent = orDefault(cfg.UserAgent, "modfs")
	if cfg.Tiles == nil {
		cfg.Tiles = new(memoryTiles)
	}
	c := &Client{
		cfg:     cfg,
		log:     cfg.Log,
		noProxy: orDefault(cfg.NoProxy, cfg.Private),
		noSum:   orDefault(cfg.NoSumDB, cfg.Private),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.proxies, err = parseProxies(cfg.Proxy); err != nil {
		return nil, err
	}
	if c.db, err = newDatabase(c, cfg.SumDB); err != nil {
		return nil, err
	}
	if c.auth, err = newAuth(c, cfg.Auth); err != nil {
		return nil, err
	}
	c.learnSecrets()
	c.http = &http.Client{Transport: cfg.Transport, CheckRedirect: c.checkRedirect}
	if cfg.Transport == nil {
		if err := c.useTransport(); err != nil {
			return nil, err
		}
	}
	if cfg.Direct != "" {
		if c.direct, err = newDirect(c); err != nil {
			return nil, err
		}
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c, nil
}

// Limits are for how long a call may take: of Zip, and any other, for which a repository may have to be cloned first.
func (c *Client) Limits() (zip, other time.Duration) {
	if c.direct != nil && c.noProxy != "" {
		return c.cfg.Timeout, c.cfg.Timeout
	}
	return c.cfg.Timeout, c.cfg.MetaTimeout
}

// orDefault returns v, or def if v is zero.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Close interrupts all calls and waits until they have returned. Later calls fail.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	alone := c.alone
	c.mu.Unlock()
	c.cancel(errClosed)
	if alone != nil {
		alone.Close()
	}
	c.calls.Wait()
	if c.direct != nil {
		c.direct.close()
	}
	if c.idle != nil {
		c.idle.CloseIdleConnections()
	}
}

// hold keeps Close waiting until c.calls.Done is called. It returns an error if the client is closed.
func (c *Client) hold() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	c.calls.Add(1)
	return nil
}

// begin starts a call: the context that it returns ends with the caller's, the client, or after limit. done ends it.
func (c *Client) begin(ctx context.Context, limit time.Duration) (_ context.Context, done func(), err error) {
	if err := c.hold(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	ctx, end := context.WithTimeoutCause(ctx, limit, lateError(limit))
	return ctx, func() {
		end()
		stop()
		cancel(nil)
		c.calls.Done()
	}, nil
}

// lateError is the error of a call that took too long.
func lateError(limit time.Duration) error { return fmt.Errorf("%w: not done in %v", ErrTimeout, limit) }

// Info returns m's .info file, as the go command would write it: {"Version":…,"Time":…,"Origin":…}, at most about 1 MiB.
//
// m is unescaped and canonical, as module.Check requires. The error wraps ErrNotFound if every proxy answered 404 or 410,
// or none may be asked.
func (c *Client) Info(ctx context.Context, m module.Version) ([]byte, error) {
	return call(c, ctx, m, "info", c.seededInfo)
}

// Mod returns m's go.mod file, of at most modzip.MaxGoMod bytes, and its h1 hash, as in the "/go.mod" line of a go.sum.
// The hash equals want or, where want is empty, the checksum database's, if that covers m. If not, the error wraps
// ErrMismatch.
func (c *Client) Mod(ctx context.Context, m module.Version, want string) (data []byte, h1 string, err error) {
	data, err = call(c, ctx, m, "go.mod", func(ctx context.Context, m module.Version) (data []byte, err error) {
		data, h1, err = c.seededMod(ctx, m, want)
		return data, err
	})
	return data, h1, err
}

// Watch is how the caller of Zip takes part in the verification. Its functions are called concurrently, and may be nil.
type Watch struct {
	// File is told of each file in the zip: its name below M@V, its size in bytes, and how its inflated content begins, which
	// is all of it up to 1 MiB. The content must not be retained. What it is told means nothing unless Zip returns nil.
	File func(name string, head []byte, size int64)

	// Sum is told the SHA-256 of the content of each file, the one that went into the hash of the zip. It means as much.
	Sum func(name string, sum [sha256.Size]byte)

	// Again is called when what File was told turned out to be about a zip that is not used: another one comes. If it is nil,
	// File is told nothing of zips that may not be used, those of Config.Seeds.
	Again func()

	// Turn is called when the zip is downloaded, and then before each file is verified. It may wait, as long as the context
	// lasts, to let the verification of other zips go first, and returns how many cores to use from now on: not less than
	// before; 0 means all.
	Turn func(ctx context.Context) (cores int)

	panicked func(what string, v any) error // the client's
}

// Zip writes the verified zip of m to dst and returns its h1 hash.
//
// The bytes are checked before Zip returns nil: they follow the rules of modzip.CheckZip (at most 500 MiB packed, and as
// much unpacked), and their hash (dirhash.HashZip) equals want or, where want is empty, the checksum database's, if that
// covers m. If it does not, they are what the proxy sent, and it is up to the caller to give their hash as want from
// then on.
//
// The error wraps ErrNotFound if every proxy answered 404 or 410, ErrMismatch if the hash differs (it is then a
// *MismatchError with both), ErrInvalid if the go command would refuse the zip, ErrBadAnswer if it is none that can be read,
// and dst's error if dst failed. Whatever dst then holds is to be thrown away.
func (c *Client) Zip(ctx context.Context, m module.Version, want string, dst Dst, w Watch) (h1 string, err error) {
	return callFor(c, ctx, c.cfg.Timeout, m, "zip", func(ctx context.Context, m module.Version) (string, error) {
		return c.seededZip(ctx, m, want, dst, w)
	})
}

// ZipSize returns the size of m's zip in bytes, as the proxy announces it: a promise, not verified; -1 if it announces none.
func (c *Client) ZipSize(ctx context.Context, m module.Version) (int64, error) {
	return call(c, ctx, m, "size of zip", c.seededSize)
}

// ZipHash returns the h1 hash of m's zip from the checksum database. The error wraps ErrNoSum if that does not cover m.
func (c *Client) ZipHash(ctx context.Context, m module.Version) (h1 string, err error) {
	return call(c, ctx, m, "hash of zip", func(ctx context.Context, m module.Version) (string, error) {
		return c.seededSum(ctx, m, "")
	})
}

// ModHash returns the h1 hash of m's go.mod file from the checksum database. The error wraps ErrNoSum if that does not
// cover m.
func (c *Client) ModHash(ctx context.Context, m module.Version) (h1 string, err error) {
	return call(c, ctx, m, "hash of go.mod", func(ctx context.Context, m module.Version) (string, error) {
		return c.seededSum(ctx, m, "/go.mod")
	})
}

// List returns the versions that the module's @v/list gives: one a line, those that are versions. It may be empty, and it
// is not verified.
func (c *Client) List(ctx context.Context, path string) ([]byte, error) {
	return call(c, ctx, module.Version{Path: path}, "list", c.seededList)
}

// Latest returns the module's @latest, as an .info file of any version. It is not verified. Few proxies have it for every
// module: the go command then uses the list.
func (c *Client) Latest(ctx context.Context, path string) ([]byte, error) {
	return call(c, ctx, module.Version{Path: path}, "latest", c.latest)
}

// Query returns the .info file of the version that a revision stands for: a branch, a tag, or the hash of a commit, as a proxy's
// @v/REVISION.info. It is not verified, and may be another one the next time. The error wraps ErrNotFound for what can be no
// revision.
func (c *Client) Query(ctx context.Context, path, revision string) ([]byte, error) {
	return call(c, ctx, module.Version{Path: path}, "revision "+revision, func(ctx context.Context, m module.Version) ([]byte, error) {
		return c.query(ctx, m.Path, revision)
	})
}

// SumDB serves the checksum database NAME as a proxy does (https://go.dev/design/25530-sumdb#proxying-a-checksum-database):
// rest is "supported", "latest", "lookup/M@V" or "tile/…", with M and V escaped. The error wraps ErrNotFound for any other
// database than Config.SumDB and for modules whose names must not reach it.
//
// Lookups are verified, and so are the tiles that the client has met itself; for others and "latest" what the database says
// is passed on, which whoever asked will verify.
func (c *Client) SumDB(ctx context.Context, name, rest string) ([]byte, error) {
	ctx, done, err := c.begin(ctx, c.cfg.MetaTimeout)
	if err != nil {
		return nil, fmt.Errorf("checksum database %s: %s: %w", name, rest, err)
	}
	defer done()
	data, err := c.serveSumDB(ctx, name, rest)
	if err != nil {
		return nil, fmt.Errorf("checksum database %s: %s: %w", name, rest, err)
	}
	return data, nil
}

// Upstream is the state of a proxy, or of a checksum database that is asked directly.
type Upstream struct {
	URL       string    `json:"url"` // without credentials
	Requests  int64     `json:"requests"`
	Bytes     int64     `json:"bytes"`    // received, as the bodies of answers
	Failures  int64     `json:"failures"` // requests with another answer than 2xx, 404 and 410, or none
	LastError string    `json:"last_error,omitempty"`
	LastTime  time.Time `json:"last_error_time,omitzero"`

	// While no connection can be made: since when, and when it is tried again. Requests fail at once meanwhile.
	DownSince time.Time `json:"unreachable_since,omitzero"`
	NextTry   time.Time `json:"next_try,omitzero"`
}

// Upstreams returns the state of all that is asked, in the order of the settings.
func (c *Client) Upstreams() []Upstream {
	var list []Upstream
	for _, u := range c.proxies {
		if u.base != nil {
			list = append(list, u.state())
		}
	}
	if c.direct != nil && c.direct.stats.used() {
		list = append(list, c.direct.stats.state())
	}
	if c.db != nil && (c.db.direct.used() || c.db.explicit) {
		list = append(list, c.db.direct.state())
	}
	return list
}

// call runs work as one call about something small of m, and says in its error what was wanted of which module.
func call[T any](c *Client, ctx context.Context, m module.Version, what string,
	work func(context.Context, module.Version) (T, error)) (T, error) {
	limit := c.cfg.MetaTimeout
	if c.direct != nil && module.MatchPrefixPatterns(c.noProxy, m.Path) {
		limit = c.cfg.Timeout // a clone comes first
	}
	return callFor(c, ctx, limit, m, what, work)
}

// callFor is call for work that may take up to limit.
func callFor[T any](c *Client, ctx context.Context, limit time.Duration, m module.Version, what string,
	work func(context.Context, module.Version) (T, error)) (T, error) {
	var none T
	subject := m.Path
	if m.Version != "" {
		subject = m.String()
	}
	fail := func(err error) (T, error) {
		// A mismatch says all of that itself, and is to be found by type.
		if _, ok := errors.AsType[*MismatchError](err); ok {
			return none, err
		}
		return none, c.redact(fmt.Errorf("%s: %s: %w", subject, what, err)) // an answer may be quoted in it
	}
	if err := checkModule(m); err != nil {
		return fail(err)
	}
	ctx, done, err := c.begin(ctx, limit)
	if err != nil {
		return fail(err)
	}
	defer done()
	v, err := work(withSubject(ctx, m), m)
	if err != nil {
		return fail(err)
	}
	return v, nil
}

// checkModule refuses what no proxy can have: names, and versions unless empty, that the go command would not ask for.
func checkModule(m module.Version) error {
	err := module.CheckPath(m.Path)
	if m.Version != "" && err == nil {
		err = module.Check(m.Path, m.Version)
		if err == nil && module.CanonicalVersion(m.Version) != m.Version {
			err = errors.New("version is not canonical")
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	return nil
}
