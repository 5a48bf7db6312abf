package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
)

func newUnmount() *cobra.Command {
	var lazy, force bool
	cmd := &cobra.Command{
		Use:   "unmount [--lazy | --force] MOUNTPOINT",
		Short: "Unmount a module cache",
		Long: `Unmount unmounts a module cache and waits until its daemon has left the store.
It removes the mount of a dead daemon, too. With --force it is for a daemon that
hangs: who waits for it, or uses the mount, gets errors from then on, and the
daemon is killed if it does not leave the store by itself.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			mountpoint, err := mountpointPath(args[0])
			if err != nil {
				return err
			}
			if force {
				return unmountByForce(mountpoint)
			}
			return unmount(mountpoint, lazy)
		},
	}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "unmount it even if it is in use; it is served until its last user leaves")
	cmd.Flags().BoolVar(&force, "force", false, "unmount it even if its daemon hangs, and end that")
	cmd.MarkFlagsMutuallyExclusive("lazy", "force")
	return cmd
}

// A mount is in use for a moment after its last user has left, as far as that can tell: a process that was forked meanwhile
// has copies of all open files until it runs its program.
const (
	busyPatience = 3 * time.Second
	busyPause    = 50 * time.Millisecond
)

func unmount(mountpoint string, lazy bool) error {
	found, err := modfs.Find(mountpoint)
	if err != nil {
		return err
	}
	if found == nil {
		return notMounted(mountpoint)
	}
	lazy = lazy || found.Stale
	err = modfs.Unmount(mountpoint, lazy)
	for deadline := time.Now().Add(busyPatience); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); {
		time.Sleep(busyPause)
		err = modfs.Unmount(mountpoint, lazy)
	}
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%s is in use: end what uses it ('fuser -vm %[1]s' lists that), or add --lazy", mountpoint)
	}
	if err == nil && !lazy {
		waitForDaemon(found.Store, leavingPatience)
	}
	return err
}

// unmountByForce ends the mount of a daemon that hangs, and the daemon. Nothing here waits for that.
func unmountByForce(mountpoint string) error {
	found, err := modfs.Find(mountpoint)
	if err != nil {
		return err
	}
	if found == nil {
		return notMounted(mountpoint)
	}
	// Who serves it must be known before it is too late to find out.
	daemon, daemonErr := found.Daemon()
	var abortErr error
	if !found.Stale {
		abortErr = modfs.Abort(mountpoint)
	}
	if err := modfs.Unmount(mountpoint, true); err != nil && !errors.Is(err, modfs.ErrNotMounted) {
		return err
	}
	if daemonErr != nil && abortErr != nil { // either will do
		return fmt.Errorf("%w; and its daemon cannot be ended: %v", abortErr, daemonErr)
	}
	if daemonErr != nil || waitForDaemon(found.Store, forcePatience) {
		return nil
	}
	if err := daemon.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d hangs and cannot be killed: %w", daemon.Pid, errno(err))
	}
	if !waitForDaemon(found.Store, leavingPatience) {
		return fmt.Errorf("process %d was killed and still has the store %s: it hangs in the kernel", daemon.Pid, found.Store)
	}
	return nil
}

// forcePatience is for how long a daemon whose mount was ended by force may take to leave its store.
const forcePatience = 2 * time.Second

func notMounted(mountpoint string) error {
	return fmt.Errorf("%s is not a modfs mount: 'modfs status' lists those there are", mountpoint)
}

// waitForDaemon waits until the daemon that served store has left it, so that the store may be moved, removed or served
// again when it returns true. The wait is bounded: another daemon may have it by then.
func waitForDaemon(store string, patience time.Duration) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(leavingPause) {
		lock, err := os.Open(filepath.Join(store, "lock"))
		if err != nil {
			return true // not a store of ours to read
		}
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		lock.Close()
		if err == nil {
			return true
		}
	}
	return false
}
