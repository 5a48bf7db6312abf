package fs

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A panic is a mistake in this program. It must end nothing but the request or the work that it happens in: thousands of files
// are being read by others. So each goroutine recovers, what waits for the work gets an error (EIO), and the panic is
// logged with its stack, counted and told in .modfs/errors. The packages below do the same, and tell us by their OnPanic.
//
// What a panic must not leave behind is a lock: each is held either under a defer, or over nothing but assignments and
// operations on maps and lists. One that is left all the same, as by an account of the store that does not add up, is what
// Probe finds.

// caught notes a panic that was recovered in what; v is its value. It is an OnPanic of packages fetch and lru.
func (f *FS) caught(what string, v any, stack []byte) {
	f.stats.panics.Add(1)
	e := Event{Time: time.Now(), Op: what, Cause: fmt.Sprintf("panic: %v", v), Errno: "EIO"}
	// Each one is logged, unlike errors: the same cause may come from two mistakes.
	f.log.Error("panic", "in", what, "err", v, "stack", string(stack))
	if f.errors.add(e) && f.opts.OnError != nil {
		f.opts.OnError(e)
	}
}

// panicked answers a FUSE request whose handler panicked.
func (f *FS) panicked(v any) fuse.Status {
	f.caught("request", v, debug.Stack())
	return fuse.EIO
}

// recovered is deferred by work whose panic is an error of it.
func (f *FS) recovered(what string, err *error) {
	if v := recover(); v != nil {
		f.caught(what, v, debug.Stack())
		*err = fmt.Errorf("%s: panic: %v", what, v)
	}
}

// work counts what runs in the background. Unlike with a sync.WaitGroup more may begin while somebody waits: a fill that is under
// way belongs to the store, which is closed later.
type work struct {
	mu      sync.Mutex
	running int
	idle    sync.Cond // with mu
}

func (w *work) start(run func()) {
	w.mu.Lock()
	w.running++
	w.mu.Unlock()
	go func() {
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.running--; w.running == 0 {
				w.idle.Broadcast()
			}
		}()
		run()
	}()
}

// wait waits until nothing is running.
func (w *work) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.running > 0 {
		w.idle.Wait()
	}
}

// background runs work that outlives the request that started it. Close waits for it, and a panic in it ends nothing
// but itself.
func (f *FS) background(work func()) {
	f.work.start(func() {
		var err error // it has been told
		defer f.recovered("background work", &err)
		work()
	})
}

// at is where a test may panic, or wait, in the middle of what.
func (f *FS) at(what string) {
	if f.opts.hook != nil {
		f.opts.hook(what)
	}
}
