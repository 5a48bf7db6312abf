package fs

import (
	"context"
	"sync"
	"time"
)

// turns decides which of several archives is fetched and verified first. Those that somebody waits for never wait. Those that
// are fetched ahead are downloaded some at a time, and wait in the store to be verified: it is not known whether they are
// needed, and what is inflated on the way is of use only to who opens them soon. Their turn comes one after the other, on half
// of the cores, when nobody has waited for an archive for a while.
//
// In between are those that a user asked for, with modfs prefetch: they wait only while one is verified that somebody waits for.
type turns struct {
	mu        sync.Mutex
	waiters   map[*mod]int      // how many wait for a module's archive
	asked     map[*mod]int      // how many users asked for it
	verifying map[*mod]struct{} // archives that were begun
	ahead     int               // downloads of archives that nobody waits for
	cores     int               // that those fetched ahead are verified on
	busy      time.Time         // when an archive was last verified that somebody waited for
	changed   chan struct{}     // closed when the above changes; nil if nobody waits for that
}

// quiet is for how long nobody must have waited for an archive before one that was fetched ahead is verified. While a go
// command loads packages it opens modules more often than that.
const quiet = time.Second

// want notes that somebody waits for the archive of a module, until done.
func (t *turns) want(md *mod) (done func()) { return t.count(&t.waiters, md) }

// ask notes that a user asked for the archive of a module, until done.
func (t *turns) ask(md *mod) (done func()) { return t.count(&t.asked, md) }

func (t *turns) count(who *map[*mod]int, md *mod) (done func()) {
	add := func(n int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if *who == nil {
			*who = make(map[*mod]int)
		}
		if (*who)[md] += n; (*who)[md] == 0 {
			delete(*who, md)
		}
		t.wake()
	}
	add(1)
	return func() { add(-1) }
}

// wanted reports whether somebody waits for the archive of a module.
func (t *turns) wanted(md *mod) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiters[md] > 0
}

// download waits until a module's archive may be downloaded, and is followed by downloaded. It returns false if the context
// ended.
func (t *turns) download(ctx context.Context, md *mod) bool {
	return t.await(ctx, func() (bool, time.Duration) {
		if t.waiters[md]+t.asked[md] == 0 && t.ahead >= zipsAhead {
			return false, 0
		}
		t.ahead++
		return true, 0
	})
}

func (t *turns) downloaded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ahead--
	t.wake()
}

// verify waits until a module's archive may be verified, or the context ends, and returns on how many cores; 0 means all. It is
// called again and again meanwhile, and verified afterwards.
func (t *turns) verify(ctx context.Context, md *mod) (cores int) {
	t.await(ctx, func() (bool, time.Duration) {
		_, begun := t.verifying[md]
		if cores = 0; t.waiters[md] == 0 {
			if t.pressing() {
				return false, 0
			}
			if t.asked[md] == 0 {
				if wait := quiet - time.Since(t.busy); wait > 0 {
					return false, wait
				}
				if !begun && len(t.verifying) > 0 {
					return false, 0
				}
				cores = t.cores
			}
		}
		if !begun {
			if t.verifying == nil {
				t.verifying = make(map[*mod]struct{})
			}
			t.verifying[md] = struct{}{}
		}
		return true, 0
	})
	return cores
}

func (t *turns) verified(md *mod) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiters[md] > 0 {
		t.busy = time.Now()
	}
	delete(t.verifying, md)
	t.wake()
}

// lengths returns how many archives somebody waits for, and how many are being verified.
func (t *turns) lengths() (wanted, verifying int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiters), len(t.verifying)
}

// pressing reports whether an archive is being verified that somebody waits for. t.mu is held.
func (t *turns) pressing() bool {
	for md := range t.verifying {
		if t.waiters[md] > 0 {
			return true
		}
	}
	return false
}

// await waits until ready, which is called with t.mu held, returns true: it is called when something has changed, and after
// the time that it returns, if that is not 0. It returns false if the context ended first.
func (t *turns) await(ctx context.Context, ready func() (bool, time.Duration)) bool {
	for {
		ok, after, changed := t.look(ready)
		if ok {
			return true
		}
		var later <-chan time.Time
		if after > 0 {
			later = time.After(after)
		}
		select {
		case <-changed:
		case <-later:
		case <-ctx.Done():
			return false
		}
	}
}

// look calls ready, and if that returns false, it returns also what is closed when something has changed since.
func (t *turns) look(ready func() (bool, time.Duration)) (ok bool, after time.Duration, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ok, after = ready(); ok {
		return true, 0, nil
	}
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return false, after, t.changed
}

// wake lets those look again who wait. t.mu is held.
func (t *turns) wake() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}
