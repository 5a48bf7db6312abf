package lru

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// preallocate gives f blocks for its first n bytes without changing its size, so that a full partition is found out before
// a download and not after it, and so that no file system takes more than that on speculation (XFS does). It reports
// whether it did; the error is only ever that the partition is full.
func preallocate(f *os.File, n int64) (bool, error) {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if diskFull(err) {
			return false, err
		}
		return err == nil, nil // not every file system can
	}
}
