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
	var lazy bool
	cmd := &cobra.Command{
		Use:   "unmount [--lazy] MOUNTPOINT",
		Short: "Unmount a module cache",
		Long: `Unmount unmounts a module cache and waits until its daemon has left the store.
It removes the mount of a dead daemon, too.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			mountpoint, err := mountpointPath(args[0])
			if err != nil {
				return err
			}
			return unmount(mountpoint, lazy)
		},
	}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "unmount it even if it is in use; it is served until its last user leaves")
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
		return fmt.Errorf("%s is not a modfs mount: 'modfs status' lists those there are", mountpoint)
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
		waitForDaemon(found.Store)
	}
	return err
}

// probe returns the status that the daemon at mountpoint gives, or an error if it does not do so soon: what would wait for
// a daemon that hangs can only be ended with that.
func probe(mountpoint string) (*modfs.Status, error) {
	type answer struct {
		status *modfs.Status
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		s, err := modfs.ReadStatus(mountpoint)
		got <- answer{s, err}
	}()
	const patience = 20 * time.Second
	select {
	case a := <-got:
		return a.status, a.err
	case <-time.After(patience):
		return nil, fmt.Errorf("its daemon does not answer: %w", syscall.ETIMEDOUT)
	}
}

// dead reports whether the mount at mountpoint has no daemon. The lock of its store, which package fs goes by, may be held
// by another daemon by now, which serves the same store elsewhere.
func dead(mountpoint string) bool {
	_, err := probe(mountpoint)
	return errors.Is(err, syscall.ENOTCONN)
}

// waitForDaemon waits until the daemon that served store has left it, so that the store may be moved, removed or served
// again when we return. The wait is bounded: another daemon may have it by then.
func waitForDaemon(store string) {
	for deadline := time.Now().Add(leavingPatience); time.Now().Before(deadline); time.Sleep(leavingPause) {
		lock, err := os.Open(filepath.Join(store, "lock"))
		if err != nil {
			return // not a store of ours to read
		}
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		lock.Close()
		if err == nil {
			return
		}
	}
}
