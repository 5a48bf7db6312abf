package fs

import (
	"errors"
	"syscall"
)

// euclean reports whether err is how some file systems (ext4, XFS) say that they are damaged.
func euclean(err error) bool { return errors.Is(err, syscall.EUCLEAN) }
