package fs

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lstatBelow is os.Root.Lstat in one to three system calls, instead of two for each element of the path: most lookups come
// here first. ok is false if that must tell.
func lstatBelow(dir *os.File, name string) (st *syscall.Stat_t, ok bool, err error) {
	fd := -1
	conn, err := dir.SyscallConn() // unlike Fd, it knows when dir is closed
	if err != nil {
		return nil, false, nil
	}
	closed := conn.Control(func(at uintptr) {
		fd, err = unix.Openat2(int(at), name, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
	})
	if closed != nil {
		return nil, false, nil
	}
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		return nil, true, err
	default: // a link on the way, or a kernel or a sandbox without this system call
		return nil, false, nil
	}
	defer unix.Close(fd)
	st = new(syscall.Stat_t)
	if err := syscall.Fstat(fd, st); err != nil {
		return nil, false, nil
	}
	return st, true, nil
}
