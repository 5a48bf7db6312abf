package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"syscall"

	"modfs/fetch"
	"modfs/lru"
)

// errDamaged is the error of a stored file whose content is not what it was when it was verified.
var errDamaged = errors.New("damaged in the store")

// errno is the one place where an error becomes what a client sees. The order matters: the first that matches wins, and
// what proves an attack or damage comes before what a chain of errors may mention besides.
//
// Our own missing files are EIO, never ENOENT: kernel and go command believe ENOENT and act on it.
func errno(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		return syscall.EINTR
	case errors.Is(err, fetch.ErrMismatch), errors.Is(err, fetch.ErrSumDB), errors.Is(err, errDamaged):
		return syscall.EBADMSG
	case errors.Is(err, lru.ErrNoSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return syscall.ENOSPC
	case errors.Is(err, lru.ErrTooLarge), errors.Is(err, fetch.ErrTooLarge):
		return syscall.EFBIG
	case errors.Is(err, fetch.ErrBadAnswer), errors.Is(err, fetch.ErrUnknown):
		// Not ENOENT, or a login page would make a client look for the module elsewhere, or believe that it is gone.
		return syscall.EIO
	case errors.Is(err, fetch.ErrInvalid), errors.Is(err, fetch.ErrNotFound):
		// The go command would refuse it; to whom lists files it is not there.
		return syscall.ENOENT
	case errors.Is(err, fetch.ErrForbidden):
		return syscall.EACCES
	case errors.Is(err, fetch.ErrTimeout):
		return syscall.ETIMEDOUT
	case errors.Is(err, fetch.ErrOffline), errors.Is(err, fetch.ErrUnreachable):
		return syscall.EHOSTUNREACH
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, context.Canceled), errors.Is(err, lru.ErrClosed):
		return syscall.ESHUTDOWN // the daemon is going away
	case errors.Is(err, iofs.ErrNotExist):
		return syscall.EIO
	}
	return syscall.EIO
}
