//go:build unix

package fetch

import "golang.org/x/sys/unix"

// nonblock keeps an open from waiting for somebody at the other end.
const nonblock = unix.O_NONBLOCK
