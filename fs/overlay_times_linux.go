package fs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setTimes changes the times of an open file; a zero time is left as it is. os.Root.Chtimes would follow a symbolic link.
func setTimes(file *os.File, atime, mtime time.Time) error {
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	var err error
	raw, rawErr := file.SyscallConn()
	if rawErr != nil {
		return rawErr
	}
	if rawErr = raw.Control(func(fd uintptr) {
		err = unix.UtimesNanoAt(int(fd), "", ts, unix.AT_EMPTY_PATH)
	}); rawErr != nil {
		return rawErr
	}
	return err
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.NsecToTimespec(t.UnixNano())
}
