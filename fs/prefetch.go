package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/module"

	"modfs/lru"
)

// What a build is going to need is fetched ahead. A go command works through its modules nearly one at a time, and waits for
// each; but its go.sum names all that it can need (https://go.dev/ref/mod#go-sum-files). So when one opens the first module
// that the store does not have, the others are fetched and verified meanwhile, several at a time.
//
// That is a hint and nothing else. It decides neither what is offered nor what is right, it takes no room from what was used
// lately, and who opens a module waits behind no other that was only fetched ahead. A module that cannot be
// fetched ahead is nobody's error: who opens it will see that, or a later success.

// How much is fetched ahead at a time: go.mod files, archives that are downloaded, and archives that are downloaded or wait to
// be verified (see turns.go), which have a file open.
const (
	modsAhead    = 16
	zipsAhead    = 8
	waitingAhead = 256
)

// spareTime is for how long what was used is not evicted to make room for what is fetched ahead.
const spareTime = 24 * time.Hour

// prefetcher is what is to be fetched ahead.
type prefetcher struct{ zips, mods queue }

func (f *FS) initPrefetch() {
	f.prefetch.zips = queue{max: waitingAhead, run: f.prefetchZip, start: f.background, recovered: f.recovered, log: f.log.With("file", "zip")}
	f.prefetch.mods = queue{max: modsAhead, run: f.prefetchMod, start: f.background, recovered: f.recovered, log: f.log.With("file", "mod")}
}

// hint has that fetched ahead which the go command that sent a request is about to need: the go.mod files that its go.sum
// lists and, with zips, the archives.
func (f *FS) hint(pid uint32, zips bool) {
	if f.opts.NoPrefetch {
		return
	}
	c := f.callerOf(pid)
	client := f.overlay != nil && f.opts.ResolveClient
	if !c.opens() || client && (!c.same || c.writable) {
		return
	}
	if client && c.hintedMods.CompareAndSwap(false, true) {
		for _, m := range c.sums().mods {
			if _, err := f.store.Stat(modKey(m)); err != nil {
				f.prefetch.mods.add(task{m, pid})
			}
		}
	}
	if zips && c.hintedZips.CompareAndSwap(false, true) {
		for _, m := range c.sums().zips {
			if _, err := f.store.Stat(zipKey(m)); err != nil {
				f.prefetch.zips.add(task{m, pid})
			}
		}
	}
}

// hintIfMissing is hint for a request that is about to open a module, if its archive has to be fetched.
func (f *FS) hintIfMissing(pid uint32, m module.Version) {
	if _, err := f.store.Stat(zipKey(m)); err != nil {
		f.hint(pid, true)
	}
}

// soon has the archive of a module fetched ahead whose .ziphash was read: the go command does that right before it uses a
// module.
func (f *FS) soon(m module.Version) {
	if f.opts.NoPrefetch {
		return
	}
	if _, err := f.store.Stat(zipKey(m)); err != nil {
		f.prefetch.zips.add(task{m: m})
	}
}

// pointless reports whether nobody is going to need what a task would fetch.
func (f *FS) pointless(t task) bool {
	if f.ctx.Err() != nil || t.pid != 0 && !process(t.pid).alive() {
		return true
	}
	if f.private.has(t.m.Path) {
		return true
	}
	if f.overlay == nil {
		return false
	}
	// What a client has, makes or does not want to have is none of our business.
	dir := inMod(moduleDir(t.m))
	return f.removals.has(dir) || f.overlay.has(dir) || f.overlay.has(partialPath(t.m))
}

// prefetchMod fetches a go.mod file.
func (f *FS) prefetchMod(t task) error {
	if f.pointless(t) || f.overlay.has(inMod(modKey(t.m))) {
		return nil
	}
	_, err := f.mod(f.ctx, t.m)
	return f.failAhead("mod", t.m, err)
}

// prefetchZip fetches an archive, and what has to be known to offer it.
func (f *FS) prefetchZip(t task) error {
	f.at("prefetch")
	md := f.modules.intern(t.m)
	if _, err := f.store.Stat(md.zipKey); err == nil || f.pointless(t) || f.turns.wanted(md) {
		return nil
	}
	if f.overlay != nil && f.opts.ResolveClient {
		f.prefetch.mods.add(t)
	}
	file, err := f.store.Fill(f.ctx, md.zipKey, f.filler(md, t.pid, true))
	if err != nil {
		return f.failAhead("zip", t.m, err)
	}
	f.filled(md)
	f.stats.prefetched.Add(1)
	return file.Close()
}

// errSpared is the error of a fill that found no room, but would have if it had spared nothing.
var errSpared = errors.New("not fetched ahead")

// spared returns the error of a fill that fetches ahead.
func spared(err error) error {
	if errors.Is(err, lru.ErrNoSpace) {
		return fmt.Errorf("%w: %w", errSpared, err)
	}
	return err
}

// queue runs tasks in the background, in the order in which they came and some at a time; each but once at a time, and one that
// failed not again for a while.
type queue struct {
	max   int // how many run at a time
	run   func(task) error
	start func(func()) // runs a function in the background
	log   *slog.Logger

	// recovered is deferred, and makes a panic of a task its error.
	recovered func(what string, err *error)

	mu      sync.Mutex
	tasks   []task
	known   map[module.Version]bool // waiting or running
	failed  map[module.Version]time.Time
	running int
}

// task is to fetch something of a module ahead, for a process; 0 is for no process in particular.
type task struct {
	m   module.Version
	pid uint32
}

// maxTasks bounds how many tasks wait, and of how many it is known that they failed. What is not queued is fetched when it is
// opened.
const maxTasks = 1 << 14

// retryAfter is for how long a task that failed is not queued again.
const retryAfter = time.Minute

func (q *queue) add(t task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known[t.m] || len(q.tasks) >= maxTasks || time.Since(q.failed[t.m]) < retryAfter {
		return
	}
	if q.known == nil {
		q.known = make(map[module.Version]bool)
	}
	q.known[t.m] = true
	q.tasks = append(q.tasks, t)
	if q.running < q.max {
		q.running++
		q.start(q.work)
	}
}

// len returns how many tasks wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.tasks)
}

// work runs tasks until there are none.
func (q *queue) work() {
	var t task
	for q.next(&t) {
		if err := q.try(t); err != nil {
			q.log.Debug("not fetched ahead", "module", t.m.Path, "version", t.m.Version, "err", err)
			q.fail(t)
		}
	}
}

// try runs a task, and takes it for an error if that panics.
func (q *queue) try(t task) (err error) {
	defer q.recovered("prefetch", &err)
	return q.run(t)
}

func (q *queue) fail(t task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed == nil || len(q.failed) >= maxTasks {
		q.failed = make(map[module.Version]time.Time)
	}
	q.failed[t.m] = time.Now()
}

// next replaces the task that was run by the next one. If there is none, the worker ends.
func (q *queue) next(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.known, t.m)
	if len(q.tasks) == 0 {
		q.tasks = nil
		q.running--
		return false
	}
	*t = q.tasks[0]
	q.tasks = q.tasks[1:]
	return true
}
