package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"
)

// Limits of one exchange.
const (
	maxRedirects   = 10          // as net/http's default, and the go command's
	maxRetryAfter  = time.Minute // who wants us to wait longer is not asked again
	maxBackoff     = 10 * time.Second
	minProgress    = 4 << 10         // bytes of a body that must come in each Config.IdleTimeout, or its end
	maxExcerptWait = 2 * time.Second // the same for what is said besides a status: that is known
	maxExcerpt     = 300             // bytes of a refusal that its error shows
	maxDrain       = 64 << 10        // bytes of a refusal that are read so that its connection can be used again
)

// newTransport returns a transport that keeps connections: a build asks one proxy for hundreds of files at once.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: tunnelled,
		DialContext:            (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true, // a DialContext of one's own would turn it off
		MaxIdleConns:           128,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    15 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		// A connection that died without a word is found out by pings, not by the next request's deadline.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// tunnelled returns the error of a web proxy that does not let us through. Of its answer, net/http would keep the words of the status.
func tunnelled(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &tunnelError{proxy: redacted(proxy), code: resp.StatusCode, status: excerpt(resp.Status)}
}

// tunnelError is the answer of a web proxy to CONNECT. It is no statusError: the credentials of an upstream would not help.
type tunnelError struct {
	proxy  string
	code   int
	status string // "407 Proxy Authentication Required"
}

func (e *tunnelError) Error() string { return "web proxy " + e.proxy + ": " + e.status }

// Is tells a refusal from a web proxy in trouble.
func (e *tunnelError) Is(target error) bool { return target == ErrForbidden && refused(e.code) }

// refused reports whether a status says that we lack credentials, or may not whatever they are.
func refused(code int) bool {
	return code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusProxyAuthRequired
}

// checkRedirect lets a redirect lead anywhere but out of the web, or from https to http, or round and round. No credentials
// are carried elsewhere: neither those in the URL of a proxy, which is net/http's doing, nor others.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return fmt.Errorf("redirected to %s: want https or http", excerpt(redacted(req.URL)))
	case from.Scheme == "https" && req.URL.Scheme != "https": // GOINSECURE is about "direct" only
		return fmt.Errorf("redirected from https to %s: refused", excerpt(redacted(req.URL)))
	}
	if !sameOrigin(req.URL, via[0].URL) || slices.ContainsFunc(via, func(r *http.Request) bool { return !sameOrigin(r.URL, via[0].URL) }) {
		c.dropCredentials(req)
	}
	return nil
}

// errBroken is the class of a connection that broke. The same request may succeed on another one.
var errBroken = errors.New("connection broke")

// statusError is an answer other than 200 and 206.
type statusError struct {
	code    int
	status  string        // "404 Not Found"
	excerpt string        // of the body, if that is plain text
	after   time.Duration // what Retry-After says, negative if nothing

	// for programs that know credentials
	proto, fullStatus string
	header            http.Header
	elsewhere         bool   // a redirect led to another server, which has answered
	auth              string // why there are no other credentials
}

func (e *statusError) Error() string {
	text := e.status
	if e.after > maxRetryAfter {
		text += fmt.Sprintf(" (to be asked again in %v)", e.after)
	}
	if e.excerpt != "" {
		text += ": " + e.excerpt
	}
	if e.auth != "" {
		text += " (" + e.auth + ")"
	}
	return text
}

// Is gives statuses their class. Those of servers in trouble have none: nothing follows from them.
func (e *statusError) Is(target error) bool {
	if target == ErrNotFound {
		return e.code == http.StatusNotFound || e.code == http.StatusGone
	}
	return target == ErrForbidden && refused(e.code)
}

// transient reports whether the same request may succeed in a moment.
func (e *statusError) transient() bool {
	if e.after > maxRetryAfter {
		return false
	}
	switch e.code {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// mayLackCredentials reports whether the request may succeed with other credentials: after any 4xx, for the go command, but for those
// that say something else for sure.
func (e *statusError) mayLackCredentials() bool {
	switch e.code {
	case http.StatusRequestTimeout, http.StatusRequestedRangeNotSatisfiable, http.StatusTooManyRequests:
		return false
	}
	return e.code >= 400 && e.code < 500
}

// newStatusError reads what a server has to say about its refusal.
func newStatusError(resp *http.Response) *statusError {
	e := &statusError{code: resp.StatusCode, status: excerpt(resp.Status), after: retryAfter(resp.Header.Get("Retry-After")),
		proto: resp.Proto, fullStatus: resp.Status, header: resp.Header}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxExcerpt)) // best effort
	if kind := resp.Header.Get("Content-Type"); kind == "" || strings.HasPrefix(kind, "text/plain") {
		e.excerpt = printable(string(text))
	}
	io.CopyN(io.Discard, resp.Body, maxDrain) // best effort
	return e
}

// retryAfter parses a Retry-After header: seconds or a date (RFC 9110, 10.2.3). It returns -1 for anything else.
func retryAfter(s string) time.Duration {
	const most = math.MaxInt64 / time.Second
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, _ := strconv.ParseUint(s, 10, 64) // if it is too large, the largest there is
		return time.Duration(min(n, uint64(most))) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0).Round(time.Second)
	}
	return -1
}

// printable makes what a server said fit for one line of a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// excerpt returns the beginning of what a server said, printable.
func excerpt(s string) string { return printable(s[:min(len(s), maxExcerpt)]) }

// query is one file at one upstream.
type query struct {
	u    *upstream
	elem string // below the upstream's URL
}

// exchange sends one request, and once more if there are other credentials than those with which it was refused. It calls use with
// the answer, if that is 200 or 206. Reading its body fails with ErrTimeout when it comes too slowly.
func (c *Client) exchange(ctx context.Context, method string, q query, header http.Header, use func(*http.Response) error) (err error) {
	defer func() {
		err = c.redact(err)
		q.u.note(err)
	}()
	target := q.u.url(q.elem)
	with, err := c.auth.first(ctx, target)
	if err != nil {
		return err
	}
	err = c.request(ctx, method, q, header, with, use)
	refusal, ok := errors.AsType[*statusError](err)
	if !ok || !refusal.mayLackCredentials() || !c.auth.takes(target) {
		return err
	}
	with, ok, errs := c.auth.again(ctx, target, with, refusal)
	if !ok {
		refusal.blame(errs)
		return err
	}
	q.u.note(nil)
	accepted := false
	err = c.request(ctx, method, q, header, with, func(resp *http.Response) error {
		accepted = true
		return use(resp)
	})
	if accepted {
		c.auth.confirm(with.cred)
	} else if refusal, ok := errors.AsType[*statusError](err); ok {
		refusal.blame(errs)
	}
	return err
}

// blame adds to a refusal why there were no other credentials.
func (e *statusError) blame(errs []error) {
	if err := errors.Join(errs...); err != nil {
		e.auth = printable(err.Error())
	}
}

// request is exchange with one request.
func (c *Client) request(ctx context.Context, method string, q query, header http.Header, with grant, use func(*http.Response) error) (err error) {
	told := Request{Method: method, Start: time.Now()}
	defer func(ctx context.Context) {
		told.Err = err
		c.tell(ctx, q, told)
	}(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, try, err := q.u.breaker.begin(ctx, cancel)
	if err != nil {
		return err
	}
	// The timer runs while we wait for the network, and not while dst takes its time.
	idle := c.cfg.IdleTimeout
	in := &body{ctx: ctx, window: idle, received: &q.u.received}
	defer func() { told.Bytes = in.total }()
	in.timer = time.AfterFunc(idle, func() { cancel(lateBody(in.got.Load(), idle)) })
	defer in.timer.Stop()
	req, err := http.NewRequestWithContext(ctx, method, q.u.url(q.elem).String(), nil)
	if err != nil {
		c.ended(ctx, q.u, try, err)
		return err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	addCredential(req.Header, with.header())
	// From here to the end of Do the timer covers dialing, TLS, redirects and the wait for the header.
	start := time.Now()
	resp, err := c.http.Do(req)
	in.timer.Stop()
	told.Wait = time.Since(told.Start)
	c.ended(ctx, q.u, try, err)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // our caller says the URL
		}
		// What is no HTTP is quoted in full.
		if err = networkError(ctx, err); len(err.Error()) > 4*maxExcerpt {
			err = fmt.Errorf("%w: %s", ErrBadAnswer, excerpt(err.Error()))
		}
		return err
	}
	c.log.Debug("answer", "method", method, "url", redacted(req.URL), "status", resp.StatusCode, "dur", time.Since(start))
	told.Status = resp.StatusCode
	in.ReadCloser, resp.Body = resp.Body, in
	defer in.Close()
	// A part is good only for whom asked for one.
	if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusPartialContent || header.Get("Range") == "") {
		in.window = min(in.window, maxExcerptWait)
		e := newStatusError(resp)
		e.elsewhere = resp.Request != nil && !sameOrigin(resp.Request.URL, req.URL)
		return e
	}
	return use(resp)
}

// networkError gives an error of the network its class.
func networkError(ctx context.Context, err error) error {
	err = classify(ctx, err)
	if ctx.Err() == nil && broken(err) {
		return fmt.Errorf("%w: %v", errBroken, err)
	}
	return err
}

// body is a body that must keep coming: minProgress bytes, or its end, in each window of waiting for it. A single byte now and
// then could keep a reader for as long as the whole fetch may take. The time between reads is not the network's, so it does
// not count; and what is shorter than minProgress, as the end of each body is at some point, has a whole window to itself.
type body struct {
	io.ReadCloser
	ctx    context.Context // of the request
	window time.Duration
	timer  *time.Timer // ends the request

	received *atomic.Int64 // the upstream's: counts bytes as they come

	total  int64         // bytes read in all
	waited time.Duration // in this window
	got    atomic.Int64  // bytes in this window; the timer reads it
}

func (b *body) Read(p []byte) (int, error) {
	start := time.Now()
	b.timer.Reset(b.window - b.waited)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.waited += time.Since(start)
	b.total += int64(n)
	b.received.Add(int64(n))
	if b.got.Add(int64(n)) >= minProgress {
		b.waited = 0
		b.got.Store(0)
	}
	if err != nil && err != io.EOF {
		err = networkError(b.ctx, err)
	}
	return n, err
}

// lateBody is the error of an answer that comes too slowly.
func lateBody(got int64, window time.Duration) error {
	if got > 0 {
		return fmt.Errorf("%w: only %d bytes came in %v", ErrTimeout, got, window)
	}
	return fmt.Errorf("%w: nothing came for %v", ErrTimeout, window)
}

// retry calls do until it succeeds or fails for good. Transient failures count only as long as they follow each other
// without progress, of which progress says how much there was, in bytes; nil means none.
func (c *Client) retry(ctx context.Context, q query, progress func() int64, do func() error) error {
	const enough = 1 << 20
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.Multiplier, wait.MaxInterval = c.cfg.Backoff, 2, maxBackoff
	failures, before := 0, int64(0)
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = do()
		if last == nil {
			return struct{}{}, nil
		}
		status, _ := errors.AsType[*statusError](last)
		if !errors.Is(last, errBroken) && (status == nil || !status.transient()) {
			return struct{}{}, backoff.Permanent(last)
		}
		if ctx.Err() != nil {
			return struct{}{}, backoff.Permanent(context.Cause(ctx))
		}
		if progress != nil && progress()-before >= enough {
			before, failures = progress(), 0
			wait.Reset()
		}
		// Counted here and not by backoff, which does not know of progress.
		if failures++; failures >= c.cfg.Tries {
			return struct{}{}, backoff.Permanent(last)
		}
		if status != nil && status.after >= 0 {
			return struct{}{}, &backoff.RetryAfterError{Duration: status.after}
		}
		return struct{}{}, last
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(_ error, d time.Duration) {
		c.log.Warn("trying again", "url", redacted(q.u.url(q.elem)), "err", last, "dur", d)
	}))
	if err == nil {
		return nil
	}
	if !errors.Is(last, err) && !errors.Is(err, last) {
		err = fmt.Errorf("%w (after: %v)", err, last) // the context ended while we waited
	}
	return fmt.Errorf("%s: %w", redacted(q.u.url(q.elem)), err)
}

// answer is a small file.
type answer struct {
	data []byte
	html bool   // said to be HTML: a proxy's files are not, a login page is
	from string // the URL that was asked for, without credentials
}

// get fetches a file of at most limit bytes into memory.
func (c *Client) get(ctx context.Context, q query, limit int64) (a answer, err error) {
	a.from = q.u.shown(q.elem)
	if q.u.base.Scheme == "file" {
		start := time.Now()
		a.data, err = getFile(q, limit)
		c.tellFile(ctx, q, start, int64(len(a.data)), err)
		return a, err
	}
	err = c.retry(ctx, q, nil, func() error {
		return c.exchange(ctx, http.MethodGet, q, nil, func(resp *http.Response) (err error) {
			a.html = strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
			// A length may be missing, or be that of the packed form, so the limit is on what is read, too.
			if resp.ContentLength <= limit {
				a.data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
			}
			if err == nil && (resp.ContentLength > limit || int64(len(a.data)) > limit) {
				err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
			}
			return err
		})
	})
	return a, err
}

// getFile is get for a file URL.
func getFile(q query, limit int64) ([]byte, error) {
	f, size, err := openFile(q)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", f.Name(), ErrTooLarge, limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// openFile opens what a file URL names, if it is a regular file.
func openFile(q query) (*os.File, int64, error) {
	name := filepath.FromSlash(q.u.url(q.elem).Path)
	// Looked at first, because to open a fifo would wait for somebody to write to it.
	fi, err := os.Stat(name)
	if err == nil && !fi.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %w: not a regular file", name, ErrNotFound)
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(name)
	}
	switch {
	case errors.Is(err, iofs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return nil, 0, fmt.Errorf("%s: %w", name, ErrNotFound)
	case errors.Is(err, iofs.ErrPermission):
		return nil, 0, fmt.Errorf("%s: %w: %v", name, ErrForbidden, errors.Unwrap(err))
	case err != nil:
		return nil, 0, err
	}
	return f, fi.Size(), nil
}
