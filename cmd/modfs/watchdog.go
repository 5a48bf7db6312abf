package main

import (
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/spf13/pflag"

	modfs "modfs/fs"
)

// watchdog finds out when a daemon no longer works although it runs: what is in a mount whose daemon hangs waits for ever,
// and cannot be killed.
//
// It counts the times that it looked in vain and not the time: a machine that was asleep, or a process that was stopped, has
// not been hanging.
type watchdog struct {
	check func()        // returns if, and when, the mount works
	every time.Duration // between two checks, and two looks at one that does not end
	limit int           // how many looks in vain mean that it hangs; 0: no number does
	alive func()        // called after each check
}

// looks is how many times a watchdog looks while its patience lasts.
const looks = 4

// newWatchdog returns the watchdog of m, nil if nobody wants one: it has patience for so long, 0 meaning for ever, and keeps n
// informed if that wants to be.
func newWatchdog(m *modfs.FS, n *notifier, patience time.Duration) *watchdog {
	w := &watchdog{check: func() { checkMount(m) }, alive: func() {}}
	if patience > 0 {
		w.every, w.limit = patience/looks, looks
	}
	if n != nil && n.watchdog > 0 {
		w.alive = func() { n.tell("WATCHDOG=1") }
		if every := n.watchdog / 3; w.every == 0 || every < w.every {
			w.every = every
			w.limit = int((patience + every - 1) / every)
		}
	}
	if w.every == 0 {
		return nil
	}
	return w
}

// checkMount returns when m's locks were free and its mount has answered.
func checkMount(m *modfs.FS) {
	m.Probe()
	if !m.Mounted() {
		return // it is served to its last users, and there is no way to it
	}
	cmd, err := newProbe(m.Mountpoint(), "status.json")
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return // that there is no child tells nothing about the mount
	}
	cmd.Wait() // whatever the answer is, it is one
}

// run returns true if the mount hangs, and false when stop is closed.
func (w *watchdog) run(stop <-chan struct{}) bool {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	checked := make(chan struct{}, 1)
	check := func() {
		w.check()
		checked <- struct{}{}
	}
	for checking, vain := false, 0; ; {
		select {
		case <-stop:
			return false
		case <-checked:
			checking, vain = false, 0
			w.alive()
		case <-tick.C:
			if !checking {
				checking = true
				go check()
				continue
			}
			if vain++; w.limit > 0 && vain >= w.limit {
				return true
			}
		}
	}
}

// maxStacks bounds what is written of the stacks of a daemon that hangs, in bytes.
const maxStacks = 4 << 20

// giveUp is for a daemon that hangs: it leaves what is needed to find out why, and ends all waiting for it. It reports whether it
// could; the process is to end, which does the same where this cannot.
func giveUp(m *modfs.FS, say io.Writer) (aborted bool) {
	const patience = 5 * time.Second
	bounded(patience, func() { // it may be writing that hangs
		stacks := make([]byte, maxStacks)
		stacks = stacks[:runtime.Stack(stacks, true)]
		fmt.Fprintf(say, "modfs: the mount at %s hangs: ending its daemon. All goroutines:\n%s\n", m.Mountpoint(), stacks)
	})
	done := make(chan bool, 1)
	// Best effort: see above. It matters where a thread hangs in a system call, and the process with it.
	return bounded(patience, func() { done <- m.Mounted() && modfs.Abort(m.Mountpoint()) == nil }) && <-done
}

// defaultWatchdog is how much patience watchdogs have.
const defaultWatchdog = ageValue(2 * time.Minute)

// watchdogFlag adds the flag that says otherwise.
func watchdogFlag(fs *pflag.FlagSet, patience *ageValue) {
	*patience = defaultWatchdog
	fs.Var(patience, "watchdog", "end a daemon that hangs for this long; 0: never")
}
