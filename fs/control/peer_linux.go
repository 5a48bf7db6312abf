package control

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID returns the user that connected, at the time of connect(2): SO_PEERCRED of unix(7).
func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	})
	return uid, errors.Join(cerr, err)
}
