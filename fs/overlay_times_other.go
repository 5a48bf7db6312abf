//go:build !linux

package fs

import (
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// setTimes changes the times of an open file; a zero time is left as it is.
func setTimes(file *os.File, atime, mtime time.Time) error {
	st, err := fstat(file)
	if err != nil {
		return err
	}
	var old fuse.Attr
	old.FromStat(st)
	if atime.IsZero() {
		atime = old.AccessTime()
	}
	if mtime.IsZero() {
		mtime = old.ModTime()
	}
	tv := []unix.Timeval{unix.NsecToTimeval(atime.UnixNano()), unix.NsecToTimeval(mtime.UnixNano())}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var timesErr error
	if raw.Control(func(fd uintptr) { timesErr = unix.Futimes(int(fd), tv) }) != nil {
		return os.ErrClosed // the only error that there is, under another name
	}
	return timesErr
}

// setLinkTimes does nothing: nobody depends on the times of a symbolic link.
func setLinkTimes(*os.File, string, time.Time, time.Time) error { return nil }
