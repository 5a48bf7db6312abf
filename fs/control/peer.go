package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
)

// The directory of the socket keeps others out already. That the kernel tells who is at the other end is a second lock: a directory
// that somebody opened up, or a socket that was moved, lets nobody else steer the daemon.

var errUnknownPeer = errors.New("no unix socket")

type peerKey struct{}

// peer is who sent a request over a unix socket.
type peer struct {
	uid uint32
	err error
}

// withPeer notes in the context of a connection who is at its other end.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	var p peer
	if u, ok := c.(*net.UnixConn); ok {
		p.uid, p.err = peerUID(u)
	} else {
		p.err = errUnknownPeer
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// mayCommand returns an error unless a request comes from this process's user or root.
func mayCommand(ctx context.Context) error {
	p, ok := ctx.Value(peerKey{}).(peer)
	switch {
	case !ok || p.err != nil:
		return errorf(http.StatusForbidden, "it is not known who asks: only the user of the daemon, and root, may")
	case p.uid != 0 && p.uid != uint32(os.Geteuid()):
		return errorf(http.StatusForbidden, "user %d may not: only the user of the daemon, and root, may", p.uid)
	}
	return nil
}
