// Package fetch gets module artifacts from Go module proxies and verifies them.
//
// It speaks the GOPROXY protocol (https://go.dev/ref/mod#goproxy-protocol) under the settings of the go command: GOPROXY,
// GONOPROXY, GOPRIVATE, GOSUMDB, GONOSUMDB and GOINSECURE. It knows nothing of caches or mounts: an artifact goes
// into what the caller hands over, and only after it was verified does the call return nil.
//
// What is authority for a hash, in this order: what the caller says (its pin), the checksum database, and for modules
// that the database does not cover, the first download, whose hash is returned to be pinned.
//
// A module that GONOPROXY (by default GOPRIVATE) matches is never asked for at a proxy, and one that GONOSUMDB (by default
// GOPRIVATE) matches never at a checksum database: its very name may be a secret.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"golang.org/x/mod/module"
)

// The kinds of failure that callers tell apart; the text of an error says more. What is none of these is unexpected.
var (
	ErrNotFound    = errors.New("not found")                     // every proxy answered 404 or 410, or none may be asked
	ErrForbidden   = errors.New("access denied")                 // 401 or 403
	ErrOffline     = errors.New("offline")                       // Config.Offline is set
	ErrUnreachable = errors.New("unreachable")                   // refused, no route, no such host
	ErrTimeout     = errors.New("timed out")                     // no answer, or no byte of one, for too long
	ErrMismatch    = errors.New("checksum mismatch")             // of a *MismatchError
	ErrSumDB       = errors.New("checksum database is not sane") // a bad signature, a fork, a tile that does not fit
	ErrInvalid     = errors.New("invalid")                       // the go command would refuse it
	ErrTooLarge    = errors.New("too large")                     // for the go command's limits
	ErrNoSum       = errors.New("not covered by a checksum database")
)

// MismatchError says that content is not what its hash promises. It is an ErrMismatch.
type MismatchError struct {
	Module module.Version
	File   string // "zip" or "go.mod"
	Want   string // the h1 hash that was expected
	Got    string // the h1 hash of what was downloaded
	Source string // who expects it: "pin" or the name of the checksum database
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: %s: checksum mismatch: downloaded %s, %s says %s", e.Module, e.File, e.Got, e.Source, e.Want)
}

// Is makes every MismatchError an ErrMismatch.
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

// Config says where modules come from. The strings are as in `go env`; the zero value asks nobody.
type Config struct {
	Proxy    string // GOPROXY; "" is "off"
	NoProxy  string // GONOPROXY; "" is GOPRIVATE
	SumDB    string // GOSUMDB; "" is "off"
	NoSumDB  string // GONOSUMDB; "" is GOPRIVATE
	Private  string // GOPRIVATE
	Insecure string // GOINSECURE: hosts for which a redirect from https to http is followed

	// Offline sends nothing to anybody. What would have to be asked for is ErrOffline.
	Offline bool

	// Tiles keeps what was verified of the checksum database. Nil keeps it in memory.
	Tiles TileStore

	// Timeout bounds one artifact with all retries; 0 means 30 minutes. IdleTimeout bounds the wait for the next byte of
	// it; 0 means 30 seconds.
	Timeout, IdleTimeout time.Duration

	// Transport sends requests; nil means one of our own.
	Transport http.RoundTripper

	// Log gets what happens; nil discards it.
	Log *slog.Logger

	// UserAgent is sent with each request; "" means "modfs".
	UserAgent string
}

// TileStore keeps files of checksum databases: "NAME/latest", "NAME/tile/…" and "NAME/lookup/…". Its methods may be called
// concurrently. ReadFile's error is io/fs.ErrNotExist if there is no such file.
type TileStore interface {
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte) error
}

// Dst is where a zip is written to and read back from. Reserve announces its size, before the first byte.
type Dst interface {
	io.Writer
	io.ReaderAt
	Truncate(size int64) error
	Reserve(size int64) error
}

// Client gets modules. Its methods may be called concurrently. Module versions are unescaped and canonical, as module.Check
// requires. A context bounds a call; errors wrap one of this package's, where one applies.
type Client struct {
	cfg     Config
	log     *slog.Logger
	proxies []proxy
	http    *http.Client
	db      *database // nil: GOSUMDB is off
}

// New returns a client. The error is about the settings.
func New(c Config) (*Client, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Minute
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 30 * time.Second
	}
	if c.UserAgent == "" {
		c.UserAgent = "modfs"
	}
	if c.Tiles == nil {
		c.Tiles = new(memoryTiles)
	}
	if c.NoProxy == "" {
		c.NoProxy = c.Private
	}
	if c.NoSumDB == "" {
		c.NoSumDB = c.Private
	}
	cl := &Client{cfg: c, log: c.Log}
	var err error
	if cl.proxies, err = parseProxies(c.Proxy); err != nil {
		return nil, err
	}
	cl.http = newHTTPClient(c)
	if cl.db, err = newDatabase(cl); err != nil {
		return nil, err
	}
	return cl, nil
}

// Close closes idle connections. Calls that are under way end with their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// check refuses what is not a module version before it becomes part of a URL.
func check(m module.Version) error {
	if err := module.Check(m.Path, m.Version); err != nil {
		return fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	if module.CanonicalVersion(m.Version) != m.Version {
		return fmt.Errorf("%s: %w: version is not canonical", m, ErrNotFound)
	}
	return nil
}

// Upstream is what a client knows of one of its proxies.
type Upstream struct {
	URL       string    `json:"url"` // without credentials
	Requests  int64     `json:"requests"`
	Failures  int64     `json:"failures"` // requests that ended in neither an answer nor "not found"
	LastError string    `json:"last_error,omitempty"`
	LastTime  time.Time `json:"last_error_time,omitzero"`
}

// Upstreams returns the state of the proxies, in their order.
func (c *Client) Upstreams() []Upstream {
	var us []Upstream
	for _, p := range c.proxies {
		if p.state != nil {
			us = append(us, p.state.snapshot())
		}
	}
	return slices.Clip(us)
}

// bound gives a call the overall deadline.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("%w: not done in %v", ErrTimeout, c.cfg.Timeout))
}
