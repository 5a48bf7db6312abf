package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"syscall"
	"testing"

	"modfs/fetch"
	"modfs/lru"
)

func TestErrno(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{fetch.ErrNotFound, syscall.ENOENT},
		{fetch.ErrInvalid, syscall.ENOENT},
		{errNotOffered, syscall.ENOENT},
		{fetch.ErrForbidden, syscall.EACCES},
		{fetch.ErrOffline, syscall.EHOSTUNREACH},
		{fetch.ErrUnreachable, syscall.EHOSTUNREACH},
		{fetch.ErrTimeout, syscall.ETIMEDOUT},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{os.ErrDeadlineExceeded, syscall.ETIMEDOUT},
		{fetch.ErrMismatch, syscall.EBADMSG},
		{&fetch.MismatchError{}, syscall.EBADMSG},
		{fetch.ErrSumDB, syscall.EBADMSG},
		{errDamaged, syscall.EBADMSG},
		{fetch.ErrTooLarge, syscall.EFBIG},
		{lru.ErrTooLarge, syscall.EFBIG},
		{lru.ErrNoSpace, syscall.ENOSPC},
		{syscall.ENOSPC, syscall.ENOSPC},
		{syscall.EDQUOT, syscall.ENOSPC},
		{lru.ErrClosed, syscall.ESHUTDOWN},
		{context.Canceled, syscall.ESHUTDOWN},
		{errInterrupted, syscall.EINTR},

		// Our own missing files are never what a client takes for "there is no such version".
		{iofs.ErrNotExist, syscall.EIO},
		{os.ErrNotExist, syscall.EIO},
		{syscall.ENOENT, syscall.EIO},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, syscall.EIO},
		{syscall.EACCES, syscall.EIO},
		{fetch.ErrNoSum, syscall.EIO},
		{fetch.ErrBadAnswer, syscall.EIO},
		{fetch.ErrUnknown, syscall.EIO},
		{errors.New("anything else"), syscall.EIO},

		// What proves an attack comes before all that it may be wrapped with.
		{errors.Join(fetch.ErrNotFound, fetch.ErrMismatch), syscall.EBADMSG},
		{errors.Join(fetch.ErrUnreachable, fetch.ErrSumDB), syscall.EBADMSG},
		{errors.Join(fetch.ErrTimeout, fetch.ErrNotFound), syscall.ENOENT},
		{errors.Join(fetch.ErrNotFound, fetch.ErrBadAnswer), syscall.EIO},
		{errors.Join(lru.ErrNoSpace, context.Canceled), syscall.ENOSPC},
	} {
		for _, err := range []error{tt.err, fmt.Errorf("m@v: zip: %w", tt.err)} {
			if tt.err == nil {
				err = nil
			}
			if got := errno(err); got != tt.want {
				t.Errorf("%v: %v, want %v", err, got, tt.want)
			}
		}
	}
}
