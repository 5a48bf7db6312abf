package fs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setTimes changes the times of an open file; a zero time is left as it is. The file may have no name any more.
func setTimes(file *os.File, atime, mtime time.Time) error {
	return utimes(file, "", unix.AT_EMPTY_PATH, atime, mtime)
}

// setLinkTimes changes the times of the symbolic link name in dir.
func setLinkTimes(dir *os.File, name string, atime, mtime time.Time) error {
	return utimes(dir, name, unix.AT_SYMLINK_NOFOLLOW, atime, mtime)
}

func utimes(at *os.File, name string, flags int, atime, mtime time.Time) error {
	raw, err := at.SyscallConn()
	if err != nil {
		return err
	}
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	var sysErr error
	if raw.Control(func(fd uintptr) { sysErr = unix.UtimesNanoAt(int(fd), name, ts, flags) }) != nil {
		return os.ErrClosed // the only error that there is, under another name
	}
	return sysErr
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.NsecToTimespec(t.UnixNano())
}
