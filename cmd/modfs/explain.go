package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"modfs/lru"
)

// explain returns an error that also says what to do about err, where that is known.
func explain(err error) error {
	if l, ok := errors.AsType[*lru.LockedError](err); ok {
		if l.Holder == "" {
			return fmt.Errorf("store %s is locked by process %d: end it, or give another --store", l.Dir, l.PID)
		}
		return fmt.Errorf("store %s is locked by process %d, which serves %s: use that mount, unmount it, or give another --store",
			l.Dir, l.PID, l.Holder)
	}
	return err
}

// explainMount is explain for an error of mounting a store.
func explainMount(err error, store string) error {
	if storeError(err, store) && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)) {
		return fmt.Errorf("store %s is not writable: %v: name another with --store", store, err)
	}
	const device = "/dev/fuse"
	if strings.Contains(err.Error(), device) && errors.Is(unix.Access(device, unix.R_OK|unix.W_OK), fs.ErrPermission) {
		return fmt.Errorf("%v: be root, or let this user open %s (chmod 666 %[2]s)", err, device)
	}
	return explain(err)
}

// storeError reports whether err is about a file in the store.
func storeError(err error, store string) bool {
	p, ok := errors.AsType[*fs.PathError](err)
	return ok && within(p.Path, store)
}

// errno returns what the operating system said in err, without the path that a *fs.PathError repeats.
func errno(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return err
}
