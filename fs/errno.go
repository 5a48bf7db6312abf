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

// classes of errors, by which people and programs are told what to do; see Advice. The order is that of errno.
var classes = []struct {
	name string
	is   []error
}{
	{"interrupted", []error{errInterrupted}},
	{"mismatch", []error{fetch.ErrMismatch}},
	{"sumdb", []error{fetch.ErrSumDB}},
	{"damaged", []error{errDamaged}},
	{"no_space", []error{lru.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT}},
	{"too_large", []error{lru.ErrTooLarge, fetch.ErrTooLarge}},
	{"bad_answer", []error{fetch.ErrBadAnswer}},
	{"not_in_sumdb", []error{fetch.ErrUnknown}},
	{"not_offered", []error{errNotOffered}},
	{"invalid", []error{fetch.ErrInvalid}},
	{"not_found", []error{fetch.ErrNotFound}},
	{"forbidden", []error{fetch.ErrForbidden}},
	{"timeout", []error{fetch.ErrTimeout, context.DeadlineExceeded, os.ErrDeadlineExceeded}},
	{"offline", []error{fetch.ErrOffline}},
	{"unreachable", []error{fetch.ErrUnreachable}},
	{"ending", []error{context.Canceled, lru.ErrClosed}},
}

// class returns the name of the class of an error: "upstream" for what has none.
func class(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range classes {
		for _, is := range c.is {
			if errors.Is(err, is) {
				return c.name
			}
		}
	}
	return "upstream"
}

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
