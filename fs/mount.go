package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ErrNotPermitted is the error of Mount where this process may not mount and nothing helps it to.
var ErrNotPermitted = errors.New("not permitted")

// ErrNotMounted is the error of Unmount where there is no modfs mount.
var ErrNotMounted = errors.New("no modfs is mounted there")

const (
	fsName       = "modfs"               // what the kernel shows as type, after "fuse."
	sourcePrefix = "modfs:"              // of the source of a mount, before the directory of its store
	devFuse      = "/dev/fuse"           // the device of the FUSE protocol
	lockName     = "lock"                // in the store: held by its daemon, with flock
	maxLinks     = 40                    // in resolving a mountpoint, as in Linux's path_resolution(7)
	pollHackName = ".go-fuse-epoll-hack" // what go-fuse answers without asking its file system
)

// mountConfig says how to mount.
type mountConfig struct {
	Dir        string // an existing directory, absolute
	Source     string // shown as the device of the mount; sourcePrefix and the directory of the store
	ReadOnly   bool   // the kernel then answers every write with EROFS
	NoExec     bool   // no program is run from it
	AllowOther bool   // users other than this process's may look; the kernel then checks permissions

	fuse fuse.MountOptions // FsName, Name and AllowOther are set by mountFUSE
	Log  *slog.Logger      // nil discards
}

func (c *mountConfig) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Found is a modfs mount in the table of mounts.
type Found struct {
	Mountpoint string // absolute, without symbolic links
	Store      string // the directory of the daemon's store
	Device     uint64 // its device number; 0 where that is not known
	Stale      bool   // nobody holds the lock of the store: the daemon is dead and all that is in the mount is ENOTCONN
}

// Mounts returns the modfs mounts that this process can see, but for those with control characters in their paths. It reads the
// kernel's table and the lock of each store, and does not touch the mounts themselves, which may hang.
func Mounts() ([]Found, error) {
	infos, err := mountTable()
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, info := range infos {
		// Any user can have such a line in the table. It is shown to others, on their terminals.
		if isModfs(info) && !strings.ContainsFunc(info.Mountpoint+info.Source, unicode.IsControl) {
			found = append(found, newFound(info))
		}
	}
	return found, nil
}

// Find returns the modfs mount at mountpoint, nil if there is none or something else is mounted over it. The mount is
// not touched. Of another user's mount, whose store's lock we cannot read, it is not known that it is stale.
func Find(mountpoint string) (*Found, error) {
	info, err := findMount(mountpoint)
	if info == nil || err != nil {
		return nil, err
	}
	f := newFound(info)
	return &f, nil
}

func newFound(info *mountinfo.Info) Found {
	store := strings.TrimPrefix(info.Source, sourcePrefix)
	return Found{Mountpoint: info.Mountpoint, Store: store, Device: device(info), Stale: !storeLocked(store)}
}

// Local returns what the mount's daemon says of itself with the paths that the mount has here: of a bind mount, and in a container, the
// daemon does not know them.
func (f *Found) Local(s *Status) *Status {
	local := *s
	local.ModCache, local.Mountpoint = f.Mountpoint+strings.TrimPrefix(s.ModCache, s.Mountpoint), f.Mountpoint
	return &local
}

// device returns the device number of a mount, 0 where the table of mounts does not have it.
func device(info *mountinfo.Info) uint64 { return unix.Mkdev(uint32(info.Major), uint32(info.Minor)) }

// isModfs reports whether a mount is one of ours, whole: not a bind mount of a directory in it.
func isModfs(info *mountinfo.Info) bool {
	return strings.HasPrefix(info.Source, sourcePrefix) && isFUSE(info.FSType) && (info.Root == "" || info.Root == "/")
}

// mountTable returns all mounts. The table is read without a filter, as it matters what is mounted over what.
func mountTable() ([]*mountinfo.Info, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("table of mounts: %w", err)
	}
	return infos, nil
}

// findMount returns the topmost mount at a path if it is one of ours.
func findMount(path string) (*mountinfo.Info, error) {
	infos, err := mountTable()
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	// The table has paths without symbolic links. Resolving the last element with lstat would touch the mount if it is
	// one, so each step looks it up in the table first. Readlink of a mountpoint does not ask the file system either.
	for range maxLinks {
		if info := topmost(infos, path); info != nil {
			return ours(info), nil
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return nil, nil // nothing can be mounted there
		}
		path = filepath.Join(dir, filepath.Base(path))
		if info := topmost(infos, path); info != nil {
			return ours(info), nil
		}
		link, err := os.Readlink(path)
		if err != nil {
			return nil, nil // not a symbolic link, hence no mount
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		path = link
	}
	return nil, fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// topmost returns the last mount at exactly path, which hides the others.
func topmost(infos []*mountinfo.Info, path string) *mountinfo.Info {
	for i := len(infos) - 1; i >= 0; i-- {
		if infos[i].Mountpoint == path {
			return infos[i]
		}
	}
	return nil
}

func ours(info *mountinfo.Info) *mountinfo.Info {
	if isModfs(info) {
		return info
	}
	return nil
}

// storeLocked reports whether a process holds the lock of a store, or may do so as far as we are allowed to know. The
// kernel drops it when the process ends, however that happens.
func storeLocked(dir string) bool {
	f, err := openLock(dir)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	defer f.Close() // drops the lock
	// A shared lock is in no other such probe's way, and too short-lived to be in a daemon's.
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// openLock opens the lock of a store for reading. Whose the store is nobody knows, nor what is at that name: a pipe is not waited for,
// and not read from.
func openLock(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s: not a regular file: %w", name, os.ErrNotExist)
	}
	return f, nil
}

// storePID returns the process that holds the lock of a store, according to the lock's file; 0 if that is not to be known.
func storePID(dir string) int {
	f, err := openLock(dir)
	if err != nil {
		return 0
	}
	defer f.Close()
	data, err := readAtMost(f, maxPath)
	if err != nil {
		return 0
	}
	// The first number in it, whatever is written around it.
	for _, word := range strings.FieldsFunc(string(data), func(r rune) bool { return r < '0' || '9' < r }) {
		if pid, err := strconv.Atoi(word); err == nil {
			return pid
		}
	}
	return 0
}

// replaceStale unmounts what dead daemons left at mountpoint. The mount of a live one is an error that names it.
func replaceStale(mountpoint string) error {
	for {
		f, err := Find(mountpoint)
		if err != nil || f == nil {
			return err
		}
		if !f.Stale {
			by := "modfs"
			if pid := storePID(f.Store); pid > 0 {
				by = fmt.Sprintf("modfs pid %d", pid)
			}
			return fmt.Errorf("%s is already served by %s, store %s; unmount it with: modfs unmount %s",
				mountpoint, by, f.Store, mountpoint)
		}
		// Lazily: somebody may still stand in the dead mount.
		if err := Unmount(f.Mountpoint, true); err != nil {
			return fmt.Errorf("replace the mount of a dead modfs: %w", err)
		}
	}
}

// claimPatience is for how long somebody else may be about to mount.
const claimPatience = 10 * time.Second

// claim replaces what dead daemons left at mountpoint, and keeps other daemons from mounting there until unlock is called: two
// that have both seen that nothing is mounted would mount one over the other. The lock is one on the directory itself; the
// kernel drops it when we die.
func claim(mountpoint string) (unlock func(), err error) {
	if err := replaceStale(mountpoint); err != nil {
		return nil, err
	}
	dir, err := os.Open(mountpoint)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, errors.Unwrap(err))
	}
	unlock = func() { dir.Close() }
	for deadline := time.Now().Add(claimPatience); ; time.Sleep(claimPause) {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("mount %s: another process is about to mount there", mountpoint)
	} else {
		// That the directory cannot be locked is no reason not to mount. Who had the lock before us has mounted, or failed.
		err = replaceStale(mountpoint)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

const claimPause = 10 * time.Millisecond

// Unmount unmounts the modfs at mountpoint, whichever process serves it.
//
// The error wraps ErrNotMounted if there is none, and syscall.EBUSY if a process uses it: has a file open in it or its
// working directory there. With lazy, such a mount is taken out of the tree of directories at once, and is served until
// the last user leaves it. Users without privileges need fusermount3, and may only unmount what they mounted.
func Unmount(mountpoint string, lazy bool) error {
	info, err := findMount(mountpoint)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	}
	if info == nil {
		return fmt.Errorf("unmount %s: %w", mountpoint, ErrNotMounted)
	}
	if err := unmount(info.Mountpoint, lazy); err != nil {
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	}
	return nil
}

// waitMount returns when the mount of server at dir answers. The server must be serving. It is to be called in place of
// the server's own WaitMount, which does not know dir.
//
// The Go runtime of a program polls each file that it opens, in a system call that it thinks cannot block. With
// GOMAXPROCS=1, a program that opens a file in a mount that it serves itself would so wait for itself for ever, unless
// the kernel has learnt before that we don't implement POLL (https://github.com/hanwen/go-fuse/blob/master/fuse/poll.go).
// To teach it, a file is polled that go-fuse answers for.
func waitMount(server *fuse.Server, dir string) error {
	if err := server.WaitMount(); err != nil {
		return err
	}
	fd, err := unix.Open(filepath.Join(dir, pollHackName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // best effort: nothing else depends on it
	}
	defer unix.Close(fd)
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}, 0) // best effort
	return nil
}
