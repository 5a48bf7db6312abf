package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// interruptGrace is how long after an interrupt a request may be given up, and how often it is then looked whether it is to be. A
// person who pressed Ctrl-C waits no longer than this.
//
// The kernel does not say what the interrupt was. Most are none of our business: the go runtime interrupts its own threads all the
// time (SIGURG), others have timers (SIGALRM) or children (SIGCHLD), and none of them expects EINTR where a disk would not
// have given it. So it is looked at which signals the caller has pending; see process.toldToStop.
const interruptGrace = time.Second

// errInterrupted ends a request whose caller has been told to stop.
var errInterrupted = errors.New("interrupted")

// request returns the context that bounds how long a FUSE request waits for work that is not its own; the work goes on
// when the context ends, at the latest after requestLimit. The caller calls done when it is through. cancel is what go-fuse closes
// on an interrupt, and pid the thread that sent the request.
func (f *FS) request(cancel <-chan struct{}, pid uint32) (ctx context.Context, done func()) {
	ctx, end := context.WithCancelCause(withThread(f.ctx, pid))
	r := &waiter{thread: pid, end: end}
	f.waiting.add(r)
	watch := time.AfterFunc(watchAfter, func() { r.awaitStop(ctx, cancel) })
	return ctx, func() {
		watch.Stop()
		f.waiting.remove(r)
		end(nil)
	}
}

// watchAfter is how old a request is that a goroutine is started for, which waits for an interrupt. Hardly any gets so old.
const watchAfter = 100 * time.Millisecond

// awaitStop ends the waiting when it was interrupted and the caller has been told to stop.
func (r *waiter) awaitStop(ctx context.Context, interrupted <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-interrupted:
	}
	grace := time.NewTicker(interruptGrace)
	defer grace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-grace.C:
		}
		if process(r.thread).toldToStop() {
			r.end(errInterrupted)
			return
		}
	}
}

// waiting are the requests that are not answered from memory, oldest first: those of FS.request. It is how one that nobody will
// ever answer is found, when its work was lost or a disk hangs: such a request holds no lock that Probe would miss, but the process that
// sent it cannot even be killed.
//
// A thread sends one request at a time, so its number says which list is used, and two threads hardly ever want the same lock.
type waiting [waitingLists]waitingList

const waitingLists = 8 // a power of two

type waitingList struct {
	mu            sync.Mutex
	first, latest *waiter

	_ [40]byte // the next one's lock is in another cache line
}

// waiter is a request that waits. All but the links is set once.
type waiter struct {
	since  time.Time
	thread uint32
	end    context.CancelCauseFunc

	before, after *waiter // guarded by the list's mu
	late          bool    // likewise: it has been ended
}

func (w *waiting) list(thread uint32) *waitingList { return &w[thread%waitingLists] }

// add notes that r waits from now on.
func (w *waiting) add(r *waiter) {
	l := w.list(r.thread)
	l.mu.Lock()
	r.since = time.Now() // with mu held, so that the list is in order
	if r.before = l.latest; r.before == nil {
		l.first = r
	} else {
		r.before.after = r
	}
	l.latest = r
	l.mu.Unlock()
}

// remove notes that r is about to be answered.
func (w *waiting) remove(r *waiter) {
	l := w.list(r.thread)
	l.mu.Lock()
	if r.before == nil {
		l.first = r.after
	} else {
		r.before.after = r.after
	}
	if r.after == nil {
		l.latest = r.before
	} else {
		r.after.before = r.before
	}
	l.mu.Unlock()
}

// RequestStatus says which requests of the kernel wait for an answer: for a download, most likely.
type RequestStatus struct {
	Slow   int     `json:"slow"`           // how many have waited for a second or longer
	Oldest float64 `json:"oldest_seconds"` // for how long the first of them has; 0 if there is none
}

// slowAge is how old a request is that Status tells of.
const slowAge = time.Second

// status counts the slow ones.
func (w *waiting) status(now time.Time) (s RequestStatus) {
	for i := range w {
		l := &w[i]
		l.mu.Lock()
		for r := l.first; r != nil && now.Sub(r.since) >= slowAge; r = r.after {
			s.Slow++
			s.Oldest = max(s.Oldest, now.Sub(r.since).Seconds())
		}
		l.mu.Unlock()
	}
	return s
}

// late returns those that have waited for limit or longer, each one once.
func (w *waiting) late(now time.Time, limit time.Duration) (late []*waiter) {
	for i := range w {
		l := &w[i]
		l.mu.Lock()
		for r := l.first; r != nil && now.Sub(r.since) >= limit; r = r.after {
			if !r.late {
				r.late = true
				late = append(late, r)
			}
		}
		l.mu.Unlock()
	}
	return late
}

// requestLimit is for how long a request may wait: as long as all that it may have asked upstream for may take, an .info file, a
// go.mod file and an archive, given the limits of a zip and of what is small. So who waits longer waits for work that was lost, or
// that was begun again more often than is good.
func requestLimit(zip, small time.Duration) time.Duration { return zip + 2*small }

// maxStacks bounds what is logged of the stacks of all goroutines, in bytes.
const maxStacks = 1 << 20

// endLate ends, as long as the mount lives, the waiting of requests that are older than limit: with an error, instead of never.
// That helps where the work was lost. A request that hangs in a system call, on a disk that does, stays; Status tells of it.
func (f *FS) endLate(limit time.Duration) {
	look := time.NewTicker(min(max(limit/8, time.Millisecond), time.Minute))
	defer look.Stop()
	var dumped time.Time
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-look.C:
		}
		now := time.Now()
		late := f.waiting.late(now, limit)
		if len(late) == 0 {
			continue
		}
		f.stats.late.Add(int64(len(late)))
		args := []any{"requests", len(late), "thread", late[0].thread, "dur", now.Sub(late[0].since)}
		if now.Sub(dumped) >= limit { // the next ones may well have the same reason
			dumped = now
			stacks := make([]byte, maxStacks)
			args = append(args, "stacks", string(stacks[:runtime.Stack(stacks, true)]))
		}
		f.log.Warn("requests without an answer are given up", args...)
		for _, r := range late {
			r.end(fmt.Errorf("no answer in %v: what it waited for was lost, or takes longer than --timeout allows: try again: %w", limit.Round(time.Millisecond), os.ErrDeadlineExceeded))
		}
	}
}
