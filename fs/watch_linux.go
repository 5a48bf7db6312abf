package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// fuseControl is where the FUSE control file system is mounted, if it is: with a directory for each connection, which belongs
// to the user who mounted (https://docs.kernel.org/filesystems/fuse/fuse.html#control-filesystem).
const fuseControl = "/sys/fs/fuse/connections"

// abort ends the connection of a mount. Neither way asks the daemon for anything.
func abort(info *mountinfo.Info) error {
	err := os.WriteFile(filepath.Join(fuseControl, strconv.Itoa(info.Minor), "abort"), []byte("1"), 0)
	if err == nil {
		return nil
	}
	// To unmount by force begins with the same, and goes no further if somebody uses the mount. It needs privileges.
	forced := unix.Unmount(info.Mountpoint, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
	switch {
	case forced == nil, errors.Is(forced, unix.EBUSY):
		return nil
	case errors.Is(forced, unix.EPERM):
		return fmt.Errorf("%w: %v", ErrNotPermitted, err)
	}
	return forced
}

// hasOpen returns nil if a process has the lock of the store at dir open.
func hasOpen(pid int, dir string) error {
	lock, err := filepath.EvalSymlinks(filepath.Join(dir, lockName))
	if err != nil {
		return err
	}
	fds := process(pid).path("fd")
	names, err := os.ReadDir(fds)
	if err != nil {
		return err
	}
	for _, name := range names {
		// Reading the link asks nobody but the kernel, whatever the file is on.
		if link, err := os.Readlink(filepath.Join(fds, name.Name())); err == nil && link == lock {
			return nil
		}
	}
	return fmt.Errorf("it does not have %s open", lock)
}

// GoCommands returns the numbers of the processes that are go commands and have this mount for their module cache, as far as
// they can be seen. One that is at work opens files by their paths again and again, and fails when the mount is taken away,
// although it seldom has one open.
func (f *FS) GoCommands() []int {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		p := process(pid)
		if line, err := p.read("cmdline"); err != nil || goArgs(string(line)) == nil {
			continue
		}
		environ, err := p.read("environ")
		if err != nil {
			continue // another user's
		}
		if f.isModCache(goModCache(parseEnviron(environ))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// goModCache returns the module cache of a go command with this environment (https://go.dev/ref/mod#environment-variables).
func goModCache(env map[string]string) string {
	file := goEnvFile(env)
	for _, vars := range []map[string]string{env, file} {
		if dir := vars["GOMODCACHE"]; dir != "" {
			return dir
		}
	}
	gopath := filepath.Join(env["HOME"], "go")
	for _, vars := range []map[string]string{file, env} {
		if list := filepath.SplitList(vars["GOPATH"]); len(list) > 0 {
			gopath = list[0]
		}
	}
	return filepath.Join(gopath, "pkg", "mod")
}

// isModCache reports whether dir names the module cache in this mount. It does not look at what is mounted.
func (f *FS) isModCache(dir string) bool {
	want := f.ModCache()
	if dir = filepath.Clean(dir); dir == want {
		return true
	}
	// By way of a symbolic link, above the mountpoint.
	if rel, err := filepath.Rel(f.mountpoint, want); err == nil && rel != "." {
		if filepath.Base(dir) != rel {
			return false
		}
		dir = filepath.Dir(dir)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	return err == nil && filepath.Join(parent, filepath.Base(dir)) == f.mountpoint
}
