package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"golang.org/x/mod/module"
)

// Classes of errors. What belongs to none is an upstream in trouble (another status, a connection that breaks), or an error of
// Dst or of a context.
var (
	ErrNotFound    = errors.New("not found")     // 404 or 410 from every proxy, or none may be asked
	ErrForbidden   = errors.New("forbidden")     // 401 or 403, or 407 of a web proxy
	ErrOffline     = errors.New("offline")       // Config.Offline
	ErrUnreachable = errors.New("unreachable")   // refused, no address, no route
	ErrTimeout     = errors.New("timeout")       // one of Config's, or the network's own
	ErrMismatch    = errors.New("hash mismatch") // a *MismatchError
	ErrSumDB       = errors.New("checksum database is not to be trusted")
	ErrInvalid     = errors.New("invalid")   // a zip that can be read, and that the go command would refuse
	ErrTooLarge    = errors.New("too large") // for the limits of golang.org/x/mod/zip, or ours
	ErrNoSum       = errors.New("not covered by the checksum database")

	// What these two say is not that there is no such version, so nobody must conclude that.
	ErrBadAnswer = errors.New("bad answer") // not what was asked for: a login page, half a zip or a broken one, another version's .info
	ErrUnknown   = errors.New("not in the checksum database")
)

// MismatchError says that a proxy sent other bytes than were expected. It wraps ErrMismatch.
type MismatchError struct {
	Module    module.Version
	File      string // "zip" or "go.mod"
	Want, Got string // h1 hashes
	From      string // where it was got, without credentials
	Source    string // who says what to expect: "pin", or "checksum database NAME"
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: %s: %s: %v: got %s, want %s (%s)", e.Module, e.File, e.From, ErrMismatch, e.Got, e.Want, e.Source)
}

// Unwrap returns ErrMismatch.
func (e *MismatchError) Unwrap() error { return ErrMismatch }

// classify returns err, of a request that was sent with ctx, as an error of its class.
func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if class := classOf(err); class != nil {
		return fmt.Errorf("%w: %v", class, err)
	}
	return err
}

// unreachable are the errors that say that no connection can be made, now or in a second.
var unreachable = []error{
	syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL,
}

func classOf(err error) error {
	// Before timeouts: a resolver that does not answer is how a missing network shows.
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return ErrUnreachable
	}
	for _, e := range unreachable {
		if errors.Is(err, e) {
			return ErrUnreachable
		}
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return ErrTimeout
	}
	// Whatever else stops a connection from being made, e.g. a local firewall's EPERM.
	if e, ok := errors.AsType[*net.OpError](err); ok && (e.Op == "dial" || e.Op == "proxyconnect") {
		return ErrUnreachable
	}
	return nil
}

// streamError has the fields of net/http's HTTP/2 error of that name, which can be had by errors.As for a struct that
// looks like it.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream error %d", e.Code) }

// broken reports whether err says that a connection broke, so that another one may do.
func broken(err error) bool {
	var stream streamError
	switch {
	case classOf(err) != nil:
		return false
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED), errors.As(err, &stream):
		return true
	}
	// These have no type: net/http's "http2: server sent GOAWAY and closed the connection", "http2: client connection
	// lost", "http: server closed idle connection".
	text := err.Error()
	return strings.Contains(text, "GOAWAY") || strings.Contains(text, "connection lost") ||
		strings.Contains(text, "server closed idle connection")
}

// errOffline is what is not here, and must not be fetched.
var errOffline = fmt.Errorf("%w, and not in the store: open it once without --offline, or bring it with modfs bundle and modfs import", ErrOffline)
