package main

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	modfs "modfs/fs"
	"modfs/fs/control"
)

// ending is how a mount ends that was told to: nobody who uses it is to see an error for that, within reason.
//
//   - A go command that is at work has nothing open most of the time, but opens files by their paths: it fails when the mount
//     is taken away, or worse, fills the directory below. So those that have the mount for their module cache may end first.
//   - Then the mount is taken away. Whoever has something open, or waits for something, is served until he leaves.
//
// Each has its time, the grace; so the daemon ends within twice that, whoever hangs.
type ending struct {
	m        *modfs.FS
	grace    time.Duration
	notifier *notifier
	web      *control.Web // may be nil
	say      io.Writer

	unmounted chan struct{} // closed when the mount was taken away
}

// wait returns when the mount was unmounted, by whomever, and its last user has left or the grace is over. The first signal
// begins the end, the second one ends at once. A mount that hangs ends, too. dog may be nil.
func (e *ending) wait(signals *signals, dog *watchdog) error {
	gone, stop := make(chan struct{}), make(chan struct{})
	defer close(stop)
	go func() {
		e.m.Wait()
		close(gone)
	}()
	hangs := make(chan struct{})
	if dog != nil {
		go func() {
			if dog.run(stop) {
				close(hangs)
			}
		}()
	}
	e.unmounted = make(chan struct{})
	var late <-chan time.Time
	for asked := false; ; {
		select {
		case <-gone:
			return e.close()
		case <-hangs:
			giveUp(e.m, e.say)
			return exitStatus(exitError)
		case <-e.unmounted:
			e.unmounted, late = nil, time.After(e.grace)
		case <-late:
			e.tell("ended while in use: %v have passed since it was unmounted", e.grace)
			return e.close()
		case <-signals.c:
			if asked {
				e.tell("ended while in use")
				bounded(time.Second, func() { e.m.UnmountLazy() }) // best effort: it is gone, or ends with us
				return exitStatus(exitError)
			}
			asked = true
			e.notifier.tell("STOPPING=1")
			e.web.Ending()
			go e.begin(e.unmounted) // not here: the second signal counts even if this hangs
		}
	}
}

// begin lets go commands end and unmounts, lazily if somebody uses the mount.
func (e *ending) begin(unmounted chan<- struct{}) {
	defer close(unmounted)
	bounded(e.grace, e.awaitGoCommands)
	err := e.m.Unmount()
	// Our own probe may just be looking.
	for deadline := time.Now().Add(probeBusy); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); {
		time.Sleep(leavingPause)
		err = e.m.Unmount()
	}
	if errors.Is(err, syscall.EBUSY) {
		e.tell("%s is in use: unmounted lazily, serving until its last user leaves, for %v at most (a second signal ends it)", e.m.Mountpoint(), e.grace)
		err = e.m.UnmountLazy()
	}
	if err != nil && !errors.Is(err, modfs.ErrNotMounted) {
		e.tell("%s", oneLine(err))
	}
}

// probeBusy is for how long a mount that is in use may be so by a process that only looks whether it answers.
const probeBusy = 500 * time.Millisecond

// awaitGoCommands returns when no go command has the mount for its module cache, or the grace is over.
func (e *ending) awaitGoCommands() {
	deadline := time.Now().Add(e.grace)
	for told := false; e.m.Mounted() && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		pids := e.m.GoCommands()
		if len(pids) == 0 {
			return
		}
		if !told {
			told = true
			e.tell("waiting for go commands that use %s, for %v at most (a second signal ends it): processes %v", e.m.Mountpoint(), e.grace, pids)
		}
	}
}

// close closes the file system. Whatever may hang there has nobody waiting for it any more.
func (e *ending) close() error {
	const patience = 30 * time.Second
	closed := make(chan error, 1)
	if bounded(patience, func() { closed <- e.m.Close() }) {
		return <-closed
	}
	return errors.New("the daemon hangs while it closes its store")
}

// bounded runs do, and reports whether it returned in time. If not, it is left to itself.
func bounded(patience time.Duration, do func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}

// tell says how the end comes along.
func (e *ending) tell(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(e.say, "modfs: "+text)
	e.notifier.tell("STATUS=" + text)
}
