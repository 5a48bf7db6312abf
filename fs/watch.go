package fs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Probe returns once each lock of the file system and of its store was to be had, and never if one is held for good: who
// wants to know whether this daemon works calls it from a goroutine, and does not wait for ever. It asks nothing of the
// mount itself. That the kernel's requests are answered only another process can find out: for a process to wait for a
// mount that it serves is how it hangs.
func (f *FS) Probe() {
	var err error // it has been told
	defer f.recovered("probe", &err)
	for _, l := range f.locks() {
		func() {
			l.Lock()
			defer l.Unlock() // being able to is all that is wanted
		}()
	}
	f.Status() // has those of the store and the client
}

// locks are all that a request may have to wait for.
func (f *FS) locks() []sync.Locker {
	ls := []sync.Locker{
		&f.nodes.mu, &f.modules.mu, &f.trees.mu, &f.content.mu, &f.keeping.mu, &f.zips.mu, &f.answers.by.mu, &f.turns.mu,
		&f.callers.mu, &f.goSums.mu, &f.errors.mu, &f.pins.mu, &f.removals.mu, &f.work.mu, &f.prefetch.zips.mu,
		&f.prefetch.mods.mu, &f.damage.mu, &f.transfers.mu, &f.churn.mu,
		&f.kept.mu, &f.origins.mu,
	}
	for i := range f.waiting {
		ls = append(ls, &f.waiting[i].mu)
	}
	if f.overlay != nil {
		// For reading: one that waits to write keeps new readers waiting, and it may take a moment for those who read.
		ls = append(ls, f.overlay.names.RLocker(), &f.overlay.mu)
	}
	for _, md := range f.modules.all() {
		ls = append(ls, &md.mu)
	}
	return ls
}

// all returns the modules that have a slot.
func (t *modules) all() []*mod {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.bySlot))
}

// Mounted reports whether the file system is (still) what is mounted at its mountpoint. It does not touch that.
func (f *FS) Mounted() bool {
	info, err := findMount(f.mountpoint)
	return err == nil && info != nil && device(info) == f.dev
}

// Abort ends the kernel's connection with the daemon of the modfs at mountpoint, whichever process that is: who waits for an
// answer gets an error, and so does (ENOTCONN) who asks anything later. The mount itself stays, for Unmount. It is for a
// daemon that hangs; a user who may not do it can end the daemon instead, which has the same effect.
//
// The error wraps ErrNotMounted if nothing is mounted there, and ErrNotPermitted.
func Abort(mountpoint string) error {
	info, err := findMount(mountpoint)
	if err == nil && info == nil {
		err = ErrNotMounted
	}
	if err == nil {
		err = abort(info)
	}
	if err != nil {
		return fmt.Errorf("abort the connection of %s: %w", mountpoint, err)
	}
	return nil
}

// Daemon returns the process that serves the mount, if that can be known for sure: not only by what is written in the lock of
// its store, which may be a process of another namespace.
func (m *Found) Daemon() (*os.Process, error) {
	fail := func(format string, args ...any) (*os.Process, error) {
		return nil, fmt.Errorf("store %s: "+format, append([]any{m.Store}, args...)...)
	}
	holder, err := os.ReadFile(filepath.Join(m.Store, lockName))
	if err != nil {
		return nil, err
	}
	pid := storePID(m.Store)
	if pid <= 0 || !storeLocked(m.Store) {
		return fail("no process is known to have it")
	}
	// The mount may be a dead daemon's, and its store have another one by now.
	if _, at, _ := strings.Cut(strings.TrimSpace(string(holder)), "\n"); at != m.Mountpoint {
		return fail("process %d serves it at %s", pid, at)
	}
	p, err := os.FindProcess(pid) // a handle, where there are such: it does not come to stand for another process
	if err != nil {
		return nil, err
	}
	if err := hasOpen(pid, m.Store); err != nil {
		p.Release()
		return fail("it is not certain that process %d has it: %w", pid, err)
	}
	return p, nil
}
