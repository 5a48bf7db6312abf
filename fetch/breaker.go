package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// A network that is gone is found out by waiting for it, and once is enough. So when no connection to an upstream can be made,
// its breaker opens: whoever is waiting for a connection to it, and whoever comes then, gets that error at once. In the
// background the upstream is tried again, soon and then more and more rarely, and the first answer, of whatever status, closes the
// breaker. Only that a connection cannot be made opens it: what a server that can be reached has to say about one file
// tells nothing of others.
const (
	// connectTimeout is for how long a connection is tried to be made: long enough for a SYN that got lost three times
	// (RFC 6298: after 1, 2 and 4 seconds).
	connectTimeout = 8 * time.Second

	// The first try is so soon that a proxy which refused one connection, in being restarted for example, costs hardly more than
	// that one; the last ones so often that nobody has to wait when the network is back.
	firstProbe = 100 * time.Millisecond
	maxProbe   = 5 * time.Second

	// forgetOutage is for how long nobody must have wanted anything from an upstream for it not to be tried any more. The next
	// request finds out by itself.
	forgetOutage = 5 * time.Minute
)

// breaker is that of one upstream. Its zero value is closed: requests are sent.
type breaker struct {
	mu       sync.Mutex
	down     *outage // nil if the upstream can be reached as far as is known
	waiting  map[*attempt]struct{}
	checking bool // it is being found out, in the background, whether it can still be reached
}

// outage is the time in which an upstream cannot be reached. Its fields are guarded by breaker.mu.
type outage struct {
	since  time.Time
	next   time.Time // when it is tried again
	wanted time.Time // the last request that was refused
	cause  error
	over   chan struct{} // closed when it is
}

// downError says that an upstream cannot be reached, without having tried. Its text does not change with time: causes of a
// failed lookup are told by their texts.
type downError struct{ text string }

func (e *downError) Error() string { return e.text }

// Unwrap returns ErrUnreachable.
func (e *downError) Unwrap() error { return ErrUnreachable }

// attempt is a request to an upstream.
type attempt struct {
	b      *breaker
	cancel context.CancelCauseFunc
	start  time.Time

	// guarded by b.mu
	connected bool // it has a connection, which is not necessarily alive if it was
	reused    bool
}

// begin lets a request begin, whose end is end. cancel ends it if the breaker opens while it waits for a connection.
func (b *breaker) begin(ctx context.Context, cancel context.CancelCauseFunc) (context.Context, *attempt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		b.down.wanted = time.Now()
		return ctx, nil, b.down.error()
	}
	a := &attempt{b: b, cancel: cancel, start: time.Now()}
	if b.waiting == nil {
		b.waiting = make(map[*attempt]struct{})
	}
	b.waiting[a] = struct{}{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: a.gotConn}), a, nil
}

// error is what requests get. b.mu is held.
func (o *outage) error() error {
	wait := max(time.Until(o.next), 0).Round(100 * time.Millisecond)
	return &downError{fmt.Sprintf("%v since %s (%v), next try in %v", ErrUnreachable, o.since.Format(time.TimeOnly), o.cause, wait)}
}

func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	if !a.connected { // the first: those of redirects are others
		a.connected, a.reused = true, info.Reused
	}
	delete(a.b.waiting, a)
}

// ended notes how an attempt at u ended: err is what net/http said, nil for an answer. ctx is the request's.
func (c *Client) ended(ctx context.Context, u *upstream, a *attempt, err error) {
	b := &u.breaker
	b.mu.Lock()
	delete(b.waiting, a)
	stalled := errors.Is(context.Cause(ctx), ErrTimeout) && time.Since(a.start) >= c.cfg.IdleTimeout
	dead := stalled && a.connected && a.reused
	stalled = stalled && !a.connected
	b.mu.Unlock()
	switch {
	case err == nil:
		if b.close(nil) {
			c.log.Info("upstream can be reached again", "url", u.stats.URL)
		}
	case dead:
		// A connection that was kept from before the network was lost looks like a server that does not answer. There may be
		// more of its kind.
		c.check(u)
	case stalled:
		c.trip(u, context.Cause(ctx))
	case ctx.Err() == nil && noConnection(err, u.base):
		c.trip(u, cause(err))
	}
}

// noConnection reports whether err, of a request for something at base, says that no connection could be made there.
func noConnection(err error, base *url.URL) bool {
	if e, ok := errors.AsType[*url.Error](err); ok {
		// A redirect may have led to another host. That one is asked for one file only.
		if at, perr := url.Parse(e.URL); perr != nil || at.Host != base.Host {
			return false
		}
	}
	for _, mine := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, mine) {
			return false // that is us, and not the network
		}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && (e.Op == "dial" || e.Op == "proxyconnect") {
		return true
	}
	return classOf(err) == ErrUnreachable
}

// cause returns err without the URL, which whoever shows it says.
func cause(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// trip opens the breaker of u.
func (c *Client) trip(u *upstream, cause error) {
	b := &u.breaker
	cause = c.redact(cause)
	b.mu.Lock()
	if b.down != nil {
		b.mu.Unlock()
		return
	}
	now := time.Now()
	o := &outage{since: now, next: now.Add(firstProbe), wanted: now, cause: cause, over: make(chan struct{})}
	b.down = o
	waiting := b.waiting
	b.waiting = nil
	err := o.error()
	b.mu.Unlock()
	for a := range waiting {
		a.cancel(err)
	}
	c.log.Warn("upstream cannot be reached", "url", u.stats.URL, "err", cause)
	c.dropConnections()
	if c.hold() != nil {
		return // the client is closed, and asks nobody any more
	}
	go func() {
		defer c.calls.Done()
		var err error // a panic is logged; the breaker is then closed, or the upstream would stay down
		defer c.recovered("probe", &err)
		c.probe(u, o)
	}()
}

// dropConnections closes connections that nobody uses: they are as dead as the network.
func (c *Client) dropConnections() {
	if c.idle != nil {
		c.idle.CloseIdleConnections()
	}
}

// close closes the breaker, if it is open because of o or, with nil, at all. It reports whether it was.
func (b *breaker) close(o *outage) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil || o != nil && b.down != o {
		return false
	}
	close(b.down.over)
	b.down = nil
	return true
}

// probe tries an upstream again and again until it can be reached, or nobody wants to know.
func (c *Client) probe(u *upstream, o *outage) {
	b := &u.breaker
	defer b.close(o) // not a later one
	for wait := firstProbe; ; wait = min(2*wait, maxProbe) {
		b.mu.Lock()
		o.next = time.Now().Add(wait)
		b.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-o.over: // something was answered after all
			timer.Stop()
			return
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		b.mu.Lock()
		forget := time.Since(o.wanted) > forgetOutage
		b.mu.Unlock()
		if forget {
			return
		}
		err := c.ping(u)
		if err == nil {
			c.log.Info("upstream can be reached again", "url", u.stats.URL, "dur", time.Since(o.since))
			return
		}
		b.mu.Lock()
		o.cause = c.redact(err)
		b.mu.Unlock()
	}
}

// check finds out, in the background, whether u can still be reached.
func (c *Client) check(u *upstream) {
	b := &u.breaker
	b.mu.Lock()
	busy := b.checking || b.down != nil
	b.checking = b.checking || !busy
	b.mu.Unlock()
	c.dropConnections()
	if busy || c.hold() != nil {
		return
	}
	go func() {
		defer c.calls.Done()
		var err error // a panic is logged
		defer c.recovered("check", &err)
		defer func() {
			b.mu.Lock()
			b.checking = false
			b.mu.Unlock()
		}()
		err = c.ping(u)
		if err != nil {
			c.trip(u, err)
		}
	}()
}

// ping returns nil if a new connection to u can be made, or anything is answered.
func (c *Client) ping(u *upstream) error {
	ctx, cancel := context.WithTimeout(c.ctx, 2*connectTimeout)
	defer cancel()
	var mu sync.Mutex
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		mu.Lock()
		defer mu.Unlock()
		connected = connected || !info.Reused
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.url("").String(), nil)
	if err != nil {
		return nil // cannot be: there were requests before
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := c.http.Do(req)
	if err == nil {
		resp.Body.Close()
		return nil
	}
	mu.Lock()
	defer mu.Unlock()
	if connected || ctx.Err() == nil && !noConnection(err, u.base) {
		return nil
	}
	return cause(err)
}
