package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	modfs "modfs/fs"
)

var (
	// ErrDead is the error of a mount whose daemon is not there (any more).
	ErrDead = errors.New("its daemon is dead")
	// ErrHangs is the error of a daemon that does not answer.
	ErrHangs = fmt.Errorf("its daemon does not answer: %w", syscall.ETIMEDOUT)
	// ErrNotYours is the error of a mount of another user.
	ErrNotYours = errors.New("only the user of its daemon, and root, may do that")
	// ErrNoControl is the error of a daemon that has no socket.
	ErrNoControl = errors.New("its daemon has no control socket")
)

// patience is for how long a daemon may not answer. What changes something may take longer: its answer is waited for as long as the
// caller's context says, and the daemon answers other requests.
const patience = 10 * time.Second

// forLocal is patience with this very process.
const forLocal = 24 * time.Hour

// maxAnswer bounds an answer, and a line of a stream, in bytes.
const maxAnswer = 256 << 20

// Client talks to the daemon of a mount. Its methods may be called concurrently. Close it.
type Client struct {
	Hello // what the daemon said of itself

	patience time.Duration
	http     *http.Client
	closers  []func()
}

// Dial connects to the daemon of the mount at mountpoint. It does not touch the mount, which may hang, but goes by the table of mounts
// and the store that has. It takes 10 seconds at most.
//
// The error is the context's, or wraps modfs.ErrNotMounted, ErrDead, ErrHangs, ErrNotYours or ErrNoControl, and names the mountpoint.
func Dial(ctx context.Context, mountpoint string) (*Client, error) {
	found, err := modfs.Find(mountpoint)
	if err == nil && found == nil {
		err = modfs.ErrNotMounted
	}
	if err == nil && found.Stale {
		err = ErrDead
	}
	var c *Client
	if err == nil {
		c, err = dial(ctx, found, patience)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", mountpoint, err)
	}
	return c, nil
}

func dial(ctx context.Context, found *modfs.Found, patience time.Duration) (*Client, error) {
	socket := filepath.Join(found.Store, modfs.SocketName)
	if target, err := os.Readlink(socket); err == nil {
		socket = target
	}
	c := newClient(socket, patience)
	err := c.Get(ctx, "/v1/", &c.Hello)
	// The store may have another daemon by now, which serves it elsewhere; and the mount is a dead one's.
	if err == nil && found.Device != 0 && c.Device != 0 && found.Device != c.Device {
		err = ErrDead
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newClient(socket string, patience time.Duration) *Client {
	dialer := net.Dialer{Timeout: patience}
	return &Client{patience: patience, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Close ends the connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	for _, do := range c.closers {
		do()
	}
	c.closers = nil
}

// Get gets what is at a path, which may have a query, and decodes it into answer. It takes 10 seconds at most.
func (c *Client) Get(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience, ErrHangs)
	defer cancel()
	return c.do(ctx, http.MethodGet, path, nil, answer)
}

// Post sends body, as JSON, to a path, and decodes the answer.
func (c *Client) Post(ctx context.Context, path string, body, answer any) error {
	ctx, stop := c.watched(ctx)
	defer stop()
	return c.do(ctx, http.MethodPost, path, body, answer)
}

func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer); err != nil {
		return explain(ctx, fmt.Errorf("answer of its daemon: %w", err))
	}
	return nil
}

// Stream calls each with every line of an answer. It ends with the answer, with the first error of each, or with ctx; an error that
// the daemon sends is an *Error.
func (c *Client) Stream(ctx context.Context, method, path string, body any, each func(line json.RawMessage) error) error {
	ctx, stop := c.watched(ctx)
	defer stop()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var line json.RawMessage
		if err := dec.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return explain(ctx, fmt.Errorf("answer of its daemon: %w", err))
		}
		if message := failure(line); message != "" {
			return &Error{Status: http.StatusInternalServerError, Message: message}
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// watched returns a context for a request that may take its time. It ends with ErrHangs when the daemon does not answer others any more.
func (c *Client) watched(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(c.patience):
			}
			var hello Hello
			if err := c.Get(ctx, "/v1/", &hello); errors.Is(err, ErrHangs) {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// failure returns the error that ends a stream: an object with nothing else in it. "" is for any other line.
func failure(line []byte) string {
	var object map[string]any
	if json.Unmarshal(line, &object) != nil || len(object) != 1 {
		return ""
	}
	message, _ := object["error"].(string)
	return message
}

// send sends a request and returns its answer if it is a good one.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var data io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		data = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://modfs"+path, data)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, explain(ctx, err)
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &Error{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(e); err != nil || e.Message == "" {
		e.Message = "its daemon answers " + resp.Status
	}
	return nil, e
}

// explain returns what an error of a request means.
func explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNoControl
	case errors.Is(err, os.ErrPermission):
		return ErrNotYours
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrHangs
	}
	return err
}

// Status returns the state of the mount.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	s := new(Status)
	return s, c.Get(ctx, "/v1/status", s)
}
