//go:build !linux

package fs

import (
	"errors"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// abort ends the connection of a mount, and unmounts it: there is no other way here.
func abort(info *mountinfo.Info) error { return unix.Unmount(info.Mountpoint, unix.MNT_FORCE) }

// hasOpen cannot tell here which files a process has open.
func hasOpen(int, string) error { return errors.ErrUnsupported }

// GoCommands returns none: what processes have for their module cache is not to be seen here.
func (f *FS) GoCommands() []int { return nil }
