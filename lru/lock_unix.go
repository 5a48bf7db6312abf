//go:build unix

package lru

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// acquire locks the file of that name, creating it if need be, and writes into it who has it. The kernel drops the lock
// with the descriptor, however the process ends. The descriptor is close-on-exec, as all that package os opens, so a child does
// not keep the store. A lock that depended on the file's existence would outlive a kill.
func acquire(name, dir, holder string) (*os.File, error) {
	// Readable to all, so that whoever may look into the directory can tell who has the store.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		return nil, lockedError(f, dir)
	}
	if err == nil {
		// In one write and shortened after it: a process that is refused meanwhile reads whole lines.
		text := fmt.Sprintf("%d\n%s\n", os.Getpid(), strings.ReplaceAll(holder, "\n", " "))
		if _, err = f.WriteAt([]byte(text), 0); err == nil {
			err = f.Truncate(int64(len(text)))
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: lock: %w", name, err)
	}
	return f, nil
}

// lockedError reads from the lock file who has the store. It may be somebody who has just taken it and not signed yet.
func lockedError(f *os.File, dir string) error {
	e := &LockedError{Dir: dir}
	text := make([]byte, 8192)
	n, _ := f.ReadAt(text, 0) // best effort: that it is locked is what counts
	if pid, rest, ok := strings.Cut(string(text[:n]), "\n"); ok {
		e.PID, _ = strconv.Atoi(pid)
		e.Holder, _, _ = strings.Cut(rest, "\n")
	}
	return e
}

// unlock gives the lock back. The file stays: who removes a lock file can remove one that another process has just locked.
func unlock(f *os.File) error {
	f.Truncate(0) // best effort: nobody has the store now
	return f.Close()
}

// statfs returns what the partition that dir lies on has free for this user, and its size.
func statfs(dir string) (partition, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return partition{}, fmt.Errorf("%s: statfs: %w", dir, err)
		}
	}
	// Not Bfree: part of that may be for root only. Bavail is signed on FreeBSD, and negative when root has used its part.
	return partition{free: max(0, int64(st.Bavail)) * int64(st.Bsize), total: int64(st.Blocks) * int64(st.Bsize)}, nil
}

// allocated returns the bytes that a file has on disk, which du shows: st_blocks is in units of 512 bytes on every Unix.
func allocated(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return 0
}

// diskFull reports whether err says that the partition, or the user's share of it, is full. Either may be cured by
// eviction.
func diskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
