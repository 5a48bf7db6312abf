package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	modfs "modfs/fs"
	"modfs/lru"
)

// Runs with one store share one mount. The first one mounts and serves, until all others have left. Two locks beside the
// mountpoint make that so, both with flock, so that the kernel undoes what a killed run did:
//
//   - users.lock is shared by all runs that use the mount. Who can lock it exclusively knows that nobody does.
//   - start.lock is held, exclusively, while a run looks for the mount, mounts, and becomes a user; and by the serving run
//     while it looks for users and unmounts. So nobody joins a mount that is about to go.
//
// start.lock is taken before users.lock. A serving run waits for users.lock without start.lock.

// session is the use of a mount by `modfs run`.
type session struct {
	mountpoint string
	modcache   string    // what the command's GOMODCACHE is
	fs         *modfs.FS // nil if another process serves it
	dir        string    // of the locks
	users      *os.File  // users.lock, locked; nil if the mount is one of `modfs mount`

	hung    atomic.Bool // the file system does; see watch
	leaving atomic.Bool // the command has ended
}

// latePatience is for how long something is waited for without a word.
const latePatience = 5 * time.Second

// tellLate says what is waited for, once, when that has taken so long. stop ends that: nothing is said after it.
func tellLate(patience time.Duration, say io.Writer, text string) (stop func()) {
	told := make(chan struct{})
	t := time.AfterFunc(patience, func() {
		defer close(told)
		fmt.Fprintln(say, "modfs: "+text)
	})
	return func() {
		if !t.Stop() {
			<-told
		}
	}
}

// openSession finds the mount of a store, or mounts it. A signal ends the wait for another run.
func openSession(o modfs.Options, signals *signals, say io.Writer) (*session, error) {
	dir, err := runDir(o.Store.Dir)
	if err != nil {
		return nil, err
	}
	var deadline time.Time // for a daemon that seems to be leaving
	for said := false; ; said = true {
		s, err := tryOpenSession(dir, o, signals)
		l, locked := errors.AsType[*lru.LockedError](err)
		if !locked {
			return s, err
		}
		if !said {
			o.Log.Info("waiting for another user of the store", "pid", l.PID)
			defer tellLate(latePatience, say, oneLine(l)+": waiting until that has ended (Ctrl-C ends the wait)")()
		}
		// Either a run that we can wait for, in a namespace of its own or on its way out, or a daemon that we cannot see.
		users, err := lockFile(filepath.Join(dir, "users.lock"), syscall.LOCK_EX|syscall.LOCK_NB, nil)
		if err == nil {
			if deadline.IsZero() {
				deadline = time.Now().Add(leavingPatience)
			}
			if !leaving(l) || time.Now().After(deadline) {
				return nil, l
			}
			users.Close()
			time.Sleep(leavingPause)
			continue
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		if users, err = lockFile(filepath.Join(dir, "users.lock"), syscall.LOCK_EX, signals); err != nil {
			return nil, err
		}
		users.Close()
		deadline = time.Time{}
	}
}

func tryOpenSession(dir string, o modfs.Options, signals *signals) (*session, error) {
	start, err := lockFile(filepath.Join(dir, "start.lock"), syscall.LOCK_EX, signals)
	if err != nil {
		return nil, err
	}
	defer start.Close()
	s := &session{mountpoint: filepath.Join(dir, "pkg"), dir: dir}
	found, err := findServed(o.Store.Dir)
	if err != nil {
		return nil, err
	}
	if found != nil {
		own := found.Mountpoint == s.mountpoint
		s.mountpoint, s.modcache = found.Mountpoint, found.ModCache
		if !own {
			return s, nil
		}
	} else {
		// Without waiting for a daemon that leaves: it may be one that waits for start.lock.
		if s.fs, err = mountAt(s.mountpoint, o, false, false); err != nil {
			return nil, err
		}
		s.modcache = s.fs.ModCache()
	}
	s.users, err = lockFile(filepath.Join(dir, "users.lock"), syscall.LOCK_SH, signals)
	if err != nil && s.fs != nil {
		s.fs.Close() // best effort
	}
	return s, err
}

// findServed returns the state of the live daemon that serves a store, nil if there is none that we can see.
func findServed(store string) (*modfs.Status, error) {
	mounts, err := modfs.Mounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if m.Stale || !sameDir(m.Store, store) {
			continue
		}
		// Another mount of the store may be a dead daemon's, or have something mounted over it.
		if s, err := probe(m.Mountpoint); err == nil && sameDir(s.Store.Dir, store) {
			return m.Local(s), nil
		}
	}
	return nil, nil
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	fa, erra := os.Stat(a)
	fb, errb := os.Stat(b)
	return erra == nil && errb == nil && os.SameFile(fa, fb)
}

// watch ends a mount that this process serves, and that hangs: what the command, and other runs, wait for becomes an error. Where that
// cannot be done, or the command has ended, the process ends, which has the same effect. stop ends the watch.
func (s *session) watch(patience time.Duration, say io.Writer) (stop func()) {
	if s.fs == nil {
		return func() {}
	}
	dog := newWatchdog(s.fs, nil, patience)
	if dog == nil {
		return func() {}
	}
	stopped := make(chan struct{})
	go func() {
		if !dog.run(stopped) {
			return
		}
		s.hung.Store(true)
		if !giveUp(s.fs, say) || s.leaving.Load() {
			s.abandon()
			os.Exit(exitError)
		}
	}()
	return func() { close(stopped) }
}

// abandon takes away the mount of a file system that hangs: there is no closing that.
func (s *session) abandon() {
	bounded(time.Second, func() { s.fs.UnmountLazy() }) // best effort: it is gone, or ends with us
}

// leave ends the use of the mount. The process that serves it waits until the others have left, too, and unmounts.
func (s *session) leave(signals *signals, say io.Writer, verbose bool) error {
	if s.users != nil {
		s.users.Close()
	}
	if s.fs == nil {
		return nil
	}
	patience := latePatience
	if verbose {
		patience = 0
	}
	users, err := s.awaitUnused(signals, say, patience)
	if err != nil {
		s.fs.Close() // best effort: the others get errors
		if _, told := errors.AsType[exitStatus](err); told {
			return nil // by a signal: the command's status counts
		}
		return err
	}
	defer users.Close() // after the store: until then, new runs wait for us
	return s.drain(signals, say)
}

// awaitUnused is unmountUnused when the last user has left. A signal ends the wait, as in lockFile.
func (s *session) awaitUnused(signals *signals, say io.Writer, patience time.Duration) (users *os.File, err error) {
	if users, err = s.unmountUnused(); !errors.Is(err, syscall.EWOULDBLOCK) {
		return users, err
	}
	defer tellLate(patience, say, "other runs use this mount: serving it until they end (Ctrl-C ends it now)")()
	for errors.Is(err, syscall.EWOULDBLOCK) {
		if users, err = lockFile(filepath.Join(s.dir, "users.lock"), syscall.LOCK_EX, signals); err != nil {
			return nil, err
		}
		users.Close()
		users, err = s.unmountUnused()
	}
	return users, err
}

// unmountUnused unmounts if there are no users, lazily if a process that the command left behind is in the mount. It
// returns users.lock, locked. The error wraps EWOULDBLOCK if there are users.
func (s *session) unmountUnused() (users *os.File, err error) {
	start, err := lockFile(filepath.Join(s.dir, "start.lock"), syscall.LOCK_EX, nil)
	if err != nil {
		return nil, err
	}
	defer start.Close()
	users, err = lockFile(filepath.Join(s.dir, "users.lock"), syscall.LOCK_EX|syscall.LOCK_NB, nil)
	if err != nil {
		return nil, err
	}
	if err = s.fs.Unmount(); errors.Is(err, syscall.EBUSY) {
		err = s.fs.UnmountLazy()
	}
	if err != nil && !errors.Is(err, modfs.ErrNotMounted) { // somebody else may have unmounted it
		users.Close()
		return nil, err
	}
	return users, nil
}

// drain waits until the last process has left the unmounted mount, or a signal comes, and closes the store.
func (s *session) drain(signals *signals, say io.Writer) error {
	gone := make(chan struct{})
	go func() {
		s.fs.Wait()
		close(gone)
	}()
	stop := tellLate(latePatience, say, "a process that the command left behind uses the mount: serving it until that ends (Ctrl-C ends it now)")
	select {
	case <-gone:
	case <-signals.c:
	}
	stop()
	return s.fs.Close()
}

// runDir returns the directory for the locks and the mountpoint of a store. Its path depends on nothing but the store and
// the user's cache directory: the go command's build cache knows files by their paths. It is not inside the store.
func runDir(store string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory for the mountpoint: %v: set HOME", err)
	}
	if cache, err = realPath(cache); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(store))
	dir := filepath.Join(cache, "modfs-mnt", fmt.Sprintf("%x", sum[:6]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("directory %s for the mountpoint cannot be created: %w", dir, errno(err))
	}
	return dir, nil
}

// lockFile opens, or creates, a file and locks it as flock(2) does. Closing the file unlocks it. If signals is not nil, a
// signal ends the wait; the error is then the exit status for that.
func lockFile(name string, how int, signals *signals) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	lock := func() {
		for {
			if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
				locked <- err
				return
			}
		}
	}
	if signals == nil {
		lock()
		err = <-locked
	} else {
		go lock()
		select {
		case err = <-locked:
		case sig := <-signals.c:
			// The goroutine and the file go with the process, which is about to end.
			return nil, statusOfSignal(sig)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}
