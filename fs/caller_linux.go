package fs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is the number of a thread, for which /proc has what it has for its process.
type process uint32

func (p process) path(name string) string {
	return filepath.Join("/proc", strconv.FormatUint(uint64(p), 10), name)
}

// read returns a file of /proc/PID.
func (p process) read(name string) ([]byte, error) {
	file, err := os.Open(p.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, maxEnviron)
}

// dir returns a path by which the daemon reaches the working directory of the process: a magic link, which the kernel
// follows in the process's own mount namespace. It returns false if that directory is on the device dev, without asking
// the file system there for anything.
func (p process) dir(dev uint64) (string, bool) {
	dir := p.path("cwd")
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return "", false
	}
	return dir, unix.Mkdev(st.Dev_major, st.Dev_minor) != dev
}

// alive reports whether there is such a process.
func (p process) alive() bool {
	_, err := os.Stat(p.path("stat"))
	return err == nil
}

// asker returns what tells the process from others. It is the daemon's view: of a process in another PID namespace that it
// does not see, nothing is known.
func (p process) asker() Asker {
	var a Asker
	status, err := p.read("status")
	if p == 0 || err != nil {
		return a
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "Name":
			a.Name = value // the thread's, which is the program's unless it was renamed
		case "Tgid":
			a.PID, _ = strconv.Atoi(value)
		}
	}
	// proc_pid_stat(5): the name in parentheses may have any character in it, so what follows is counted from the last one.
	stat, err := p.read("stat")
	if i := strings.LastIndexByte(string(stat), ')'); err == nil && i >= 0 {
		if f := strings.Fields(string(stat)[i+1:]); len(f) > 3 { // state, parent, group, session
			a.Group, _ = strconv.Atoi(f[2])
			a.Session, _ = strconv.Atoi(f[3])
		}
	}
	return a
}

// stopSignals are the signals by which a process is told to end, as bits of the masks in /proc/PID/status. One whose default action
// is to end the process and that has no handler shows as SIGKILL, but for those that dump core.
const stopSignals = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGILL-1) | 1<<(unix.SIGABRT-1) |
	1<<(unix.SIGBUS-1) | 1<<(unix.SIGFPE-1) | 1<<(unix.SIGKILL-1) | 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGTERM-1) |
	1<<(unix.SIGXCPU-1) | 1<<(unix.SIGXFSZ-1) | 1<<(unix.SIGSYS-1)

// toldToStop reports whether the thread has a signal pending by which it is told to end, or whether that cannot be told: of a
// thread in another PID namespace, for example.
func (p process) toldToStop() bool {
	data, err := p.read("status")
	if p == 0 || err != nil {
		return true
	}
	var pending, blocked uint64
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		var mask *uint64
		switch name {
		case "SigPnd", "ShdPnd": // the thread's own, and the process's
			mask = &pending
		case "SigBlk":
			mask = &blocked
		default:
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return true
		}
		*mask |= bits
	}
	return pending&^blocked&stopSignals != 0
}

// hasOpen reports whether the process has a file open whose path, as that process sees it, ends with suffix.
func (p process) hasOpen(suffix string) bool {
	if p == 0 {
		return false // of another PID namespace
	}
	dir := p.path("fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		// Reading the link asks nobody but the kernel, whatever the file is on.
		if link, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasSuffix(link, suffix) {
			return true
		}
	}
	return false
}

// readForeign reads a regular file at a path that somebody else chose. Anything else there is not even opened: a pipe would
// block, and a device may do what it likes.
func readForeign(name string, max int64) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > max {
		return nil, errors.New("not a regular file of that size")
	}
	file, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, max)
}

// identify returns what tells the content of a regular file from any other's.
func identify(name string) (fileID, bool) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileID{}, false
	}
	return fileID{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: time.Unix(st.Mtim.Unix())}, true
}

func isFile(name string) bool {
	_, ok := identify(name)
	return ok
}

func sameDir(a, b string) bool {
	var sa, sb unix.Stat_t
	if unix.Stat(a, &sa) != nil || unix.Stat(b, &sb) != nil {
		return true // the search ends here
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino
}
