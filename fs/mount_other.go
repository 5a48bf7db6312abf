//go:build !linux

package fs

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// isFUSE reports whether a type in the table of mounts is one of FUSE's: "fusefs.modfs" on FreeBSD, "macfuse" or "osxfuse".
func isFUSE(fsType string) bool { return strings.Contains(fsType, "fuse") }

// mountFUSE mounts raw at c.Dir, with the helper that go-fuse finds, and returns its server, which the caller must run
// (Serve) and then wait for (waitMount).
func mountFUSE(raw fuse.RawFileSystem, c mountConfig) (*fuse.Server, error) {
	o := c.fuse
	o.Name, o.FsName, o.AllowOther = fsName, c.Source, c.AllowOther
	if c.ReadOnly {
		o.Options = append(o.Options[:len(o.Options):len(o.Options)], "ro")
	}
	if c.NoExec {
		o.Options = append(o.Options[:len(o.Options):len(o.Options)], "noexec")
	}
	if c.AllowOther {
		o.Options = append(o.Options[:len(o.Options):len(o.Options)], "default_permissions")
	}
	server, err := fuse.NewServer(raw, c.Dir, &o)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", c.Dir, err)
	}
	return server, nil
}

// unmount unmounts what is at dir. There is no lazy unmount here: a mount that is busy but dead can be forced, which a
// live one is not, as its users would lose their files.
func unmount(dir string, lazy bool) error {
	err := unix.Unmount(dir, 0)
	if err == nil || !errors.Is(err, syscall.EBUSY) || !lazy {
		return err
	}
	if f, ferr := Find(dir); ferr == nil && f != nil && f.Stale {
		return unix.Unmount(dir, unix.MNT_FORCE)
	}
	return fmt.Errorf("%w, and %s cannot unmount lazily", err, runtime.GOOS)
}
