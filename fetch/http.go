package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/mod/module"
)

// Limits of one exchange.
const (
	maxRedirects = 10
	maxTries     = 5
	maxRetryWait = 20 * time.Second // also of what a Retry-After asks for
	maxExcerpt   = 200              // bytes of an error's body that go into our error
)

// newHTTPClient returns the client that all requests go through: connections are reused, by HTTP/2 where the server has it.
func newHTTPClient(c Config) *http.Client {
	rt := c.Transport
	if rt == nil {
		rt = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           128,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    15 * time.Second,
			ResponseHeaderTimeout:  c.IdleTimeout,
			DisableCompression:     true, // zips are packed, and a packed .mod could unpack to anything
			MaxResponseHeaderBytes: 1 << 20,
		}
	}
	return &http.Client{Transport: rt, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		return checkRedirect(req, via, c.Insecure)
	}}
}

// checkRedirect lets a redirect lead to another place of the web, but not out of it, from https to http, or in circles.
// Credentials are in the URL of a proxy; net/http does not carry them to another host.
func checkRedirect(req *http.Request, via []*http.Request, insecure string) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("%d redirects", len(via))
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("redirect to scheme %q refused", req.URL.Scheme)
	case from.Scheme == "https" && req.URL.Scheme == "http" && !module.MatchPrefixPatterns(insecure, req.URL.Host):
		return fmt.Errorf("redirect from https to http (host %s) refused", req.URL.Host)
	}
	return nil
}

// statusError is an answer that is not the artifact.
type statusError struct {
	code    int
	status  string
	excerpt string
	wait    time.Duration // what Retry-After asks for
}

func (e *statusError) Error() string {
	if e.excerpt == "" {
		return e.status
	}
	return e.status + ": " + e.excerpt
}

// Is says what kind of failure a status is.
func (e *statusError) Is(target error) bool {
	switch e.code {
	case http.StatusNotFound, http.StatusGone:
		return target == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return target == ErrTimeout
	}
	return false
}

// transient reports whether the same request may succeed in a moment.
func (e *statusError) transient() bool {
	switch e.code {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout:
		return true
	}
	return false
}

// errCut is a body that ended before it was whole.
var errCut = errors.New("connection closed before the end of the answer")

// classify makes an error of the network one of this package's, so that errors.Is works on it.
func classify(ctx context.Context, err error) error {
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
			return fmt.Errorf("%w: %v", cause, err)
		}
		return fmt.Errorf("%w: %v", ctx.Err(), err)
	case errors.Is(err, ErrTimeout), errors.Is(err, errCut):
		return err
	case errors.As(err, &dns) && !dns.IsTimeout,
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN), errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: %v", ErrUnreachable, err)
	case errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("%w: %v", ErrTimeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: %v", errCut, err)
	}
	return err
}

// retry calls do until it succeeds, its error is not of the kind that goes away, or it was tried often enough. A server that
// does not answer at all is not asked again: whoever waits should learn it at once.
func (c *Client) retry(ctx context.Context, what string, do func() error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval = 200 * time.Millisecond
	wait.MaxInterval = maxRetryWait
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := do()
		var status *statusError
		switch {
		case err == nil:
			return struct{}{}, nil
		case errors.As(err, &status) && status.transient():
			if status.wait > 0 {
				return struct{}{}, &retryAfter{backoff.RetryAfterError{Duration: min(status.wait, maxRetryWait)}, err}
			}
			return struct{}{}, err
		case errors.Is(err, errCut):
			return struct{}{}, err
		}
		return struct{}{}, backoff.Permanent(err)
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(maxTries), backoff.WithNotify(func(err error, d time.Duration) {
		c.log.Warn("trying again", "what", what, "err", err, "dur", d)
	}))
	var after *retryAfter
	if errors.As(err, &after) {
		err = after.err
	}
	if err != nil && ctx.Err() != nil {
		err = classify(ctx, err)
	}
	return err
}

// retryAfter makes backoff wait for as long as a server asked, without losing the error.
type retryAfter struct {
	backoff.RetryAfterError
	err error
}

func (e *retryAfter) Error() string   { return e.err.Error() }
func (e *retryAfter) Unwrap() []error { return []error{&e.RetryAfterError, e.err} }

// get returns the body of a small artifact, at most max bytes.
func (c *Client) get(ctx context.Context, u *url.URL, max int64) ([]byte, error) {
	if u.Scheme == "file" {
		return getFile(u, max)
	}
	var body []byte
	err := c.retry(ctx, u.Redacted(), func() error {
		resp, done, err := c.do(ctx, http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		defer done()
		body, err = io.ReadAll(io.LimitReader(resp.Body, max+1))
		if err == nil && int64(len(body)) > max {
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, max)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return body, nil
}

func getFile(u *url.URL, max int64) ([]byte, error) {
	f, err := openFile(u)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(body)) > max {
		err = fmt.Errorf("%s: %w: more than %d bytes", u.Redacted(), ErrTooLarge, max)
	}
	return body, err
}

// openFile opens a file of a GOPROXY=file:// tree.
func openFile(u *url.URL) (*os.File, error) {
	f, err := os.Open(filepath.FromSlash(u.Path))
	switch {
	case errors.Is(err, iofs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s: %w", u.Redacted(), ErrNotFound)
	case errors.Is(err, iofs.ErrPermission):
		return nil, fmt.Errorf("%w: %v", ErrForbidden, err)
	case err != nil:
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s: %w: not a regular file", u.Redacted(), ErrNotFound)
	}
	return f, nil
}

// do sends one request and returns the answer if it is 200 or 206. The caller reads the body, which fails with ErrTimeout
// when no byte comes for too long, and calls done.
func (c *Client) do(ctx context.Context, method string, u *url.URL, header http.Header) (*http.Response, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	idle := time.AfterFunc(c.cfg.IdleTimeout, func() {
		cancel(fmt.Errorf("%w: nothing came for %v", ErrTimeout, c.cfg.IdleTimeout))
	})
	stop := func() {
		idle.Stop()
		cancel(nil)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		stop()
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err // the URL goes before it, without its password
		}
		err = classify(ctx, err)
		stop()
		return nil, nil, err
	}
	resp.Body = &idleReader{ReadCloser: resp.Body, ctx: ctx, timer: idle, idle: c.cfg.IdleTimeout}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, func() { resp.Body.Close(); stop() }, nil
	}
	defer stop()
	defer resp.Body.Close()
	e := &statusError{code: resp.StatusCode, status: resp.Status, wait: retryWait(resp.Header.Get("Retry-After"))}
	if body, _ := io.ReadAll(io.LimitReader(resp.Body, maxExcerpt)); strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		e.excerpt = printable(string(body))
	}
	return nil, nil, e
}

// retryWait parses a Retry-After header in seconds; its other form, a date, is ignored.
func retryWait(s string) time.Duration {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryWait)
}

// printable makes what a server wrote safe to show in a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// idleReader is a body that must keep coming.
type idleReader struct {
	io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	idle  time.Duration
}

func (r *idleReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 {
		r.timer.Reset(r.idle)
	}
	if err != nil && err != io.EOF {
		err = classify(r.ctx, err)
	}
	return n, err
}
