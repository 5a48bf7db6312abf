package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/lru"
)

// askedRun is one Prefetch.
type askedRun struct {
	f     *FS
	o     PrefetchOptions
	since time.Time // what was used since then stays

	mu     sync.Mutex
	report func(PrefetchEvent)
	active map[module.Version]*activeFill
	sum    PrefetchEvent // the summary
	stored []*target     // what was done and has an archive
}

// target is something wanted whose version is known.
type target struct {
	Wanted
	m      module.Version
	kept   bool  // all of it was there before
	zip    bool  // its archive was
	size   int64 // of the archive, as far as it is known
	failed bool
}

// activeFill is an archive that is being downloaded for a run.
type activeFill struct {
	t     *lru.Temp
	total int64
}

// sizePatience is for how long the size of an archive is waited for. One can do without.
const sizePatience = 15 * time.Second

func (r *askedRun) run(ctx context.Context, all []Wanted) {
	list := r.resolve(ctx, all)
	each(ctx, r.f, modsAhead, list, r.small)
	var zips []*target
	for _, a := range list {
		if !a.failed && !a.ModOnly {
			zips = append(zips, a)
		}
	}
	if ctx.Err() != nil {
		return
	}
	r.plan(list, zips)
	stop := r.tick()
	defer stop()
	// The largest first, or the last one would be alone at the end.
	slices.SortStableFunc(zips, func(a, b *target) int { return cmp.Compare(b.size, a.size) })
	each(ctx, r.f, r.o.Jobs, zips, r.archive)
}

// each runs work for each of all, some at a time. Its panics are of no consequence but that the item is not done.
func each[T any](ctx context.Context, f *FS, jobs int, all []T, work func(ctx context.Context, item T)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(jobs, len(all)) {
		group.Add(1)
		f.background(func() {
			defer group.Done()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				work(ctx, all[i])
			}
		})
	}
	group.Wait()
}

// over reports whether the run was interrupted, or the file system ends: then errors mean nothing.
func (r *askedRun) over(ctx context.Context) bool { return ctx.Err() != nil || r.f.ctx.Err() != nil }

// tell reports an event.
func (r *askedRun) tell(e PrefetchEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report(e)
}

// resolve returns what is wanted with its versions, each once, in order.
func (r *askedRun) resolve(ctx context.Context, all []Wanted) []*target {
	if len(all) > MaxWanted {
		r.fail(&target{}, fmt.Errorf("%d modules are wanted, and the limit is %d", len(all), MaxWanted))
		return nil
	}
	var mu sync.Mutex
	by := make(map[module.Version]*target)
	each(ctx, r.f, modsAhead, all, func(ctx context.Context, w Wanted) {
		a := &target{Wanted: w, m: module.Version{Path: w.Path, Version: w.Version}}
		version, err := "", w.check()
		if err == nil && r.f.private.has(w.Path) {
			err = fmt.Errorf("%s: private modules are not on this mount (--private-modules off): %w", w, errNotOffered)
		}
		if err == nil {
			version, err = r.f.resolveQuery(ctx, w.Path, w.Version)
		}
		if err != nil {
			if !r.over(ctx) {
				r.fail(a, err)
			}
			return
		}
		a.m.Version = version
		if version != w.Version {
			r.tell(PrefetchEvent{Event: PrefetchResolved, Module: w.Path, Version: version, Query: w.Version})
		}
		mu.Lock()
		defer mu.Unlock()
		if old := by[a.m]; old != nil {
			a.merge(old)
		}
		by[a.m] = a
	})
	var list []*target
	for _, a := range by {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *target) int { return compareVersions(a.m, b.m) })
	r.sum.Modules = len(list) + r.sum.FailedCount
	return list
}

// merge takes what else is wanted of the same version.
func (a *target) merge(b *target) {
	a.ModOnly = a.ModOnly && b.ModOnly
	a.Sum, a.ModSum = cmp.Or(a.Sum, b.Sum), cmp.Or(a.ModSum, b.ModSum)
}

// small brings the small files of a module, and finds out how large its archive is.
func (r *askedRun) small(ctx context.Context, a *target) {
	f, m := r.f, a.m
	begin := time.Now()
	has := func(key string) bool {
		_, err := f.store.Stat(key)
		return err == nil
	}
	a.kept = has(modKey(m))
	if info, err := f.store.Stat(zipKey(m)); err == nil {
		f.store.Touch(zipKey(m)) // or it would have to make room for the others
		a.zip, a.size = true, info.Size
	}
	var group sync.WaitGroup // all three at a time: each is a round trip
	var modErr, infoErr error
	for _, get := range []func(){
		func() { _, modErr = f.mod(ctx, m) },
		func() { _, infoErr = f.info(ctx, m) },
		func() {
			if !a.ModOnly && !a.zip {
				ctx, cancel := context.WithTimeout(ctx, sizePatience)
				defer cancel()
				a.size, _ = f.announcedSize(ctx, f.modules.intern(m)) // who fetches it gets the error
				a.size = max(a.size, 0)
			}
		},
	} {
		group.Add(1)
		f.background(func() {
			defer group.Done()
			get()
		})
	}
	group.Wait()
	if r.over(ctx) {
		return
	}
	err := modErr
	if err == nil && infoErr != nil && !errors.Is(infoErr, fetch.ErrNotFound) && !errors.Is(infoErr, fetch.ErrOffline) {
		err = infoErr // without one a build goes on; with none that can be trusted, it should not
	}
	if err == nil {
		err = a.compare(m, "go.mod", f.pins.mod(m))
	}
	if err != nil {
		r.fail(a, f.failAheadOf("mod", m, err))
	} else if a.ModOnly {
		r.done(a, begin)
	}
}

// archive brings the archive of a module.
func (r *askedRun) archive(ctx context.Context, a *target) {
	f, m := r.f, a.m
	begin := time.Now()
	err := r.bring(ctx, a)
	if r.over(ctx) {
		return
	}
	if err == nil {
		err = a.compare(m, "zip", f.pins.zip(m))
	}
	if err != nil {
		r.fail(a, f.failAheadOf("zip", m, err))
		return
	}
	if f.overlay != nil && f.removals.has(inMod(moduleDir(m))) {
		f.offer(m) // a client removed it, and now somebody wants it back
	}
	r.mu.Lock()
	r.stored = append(r.stored, a)
	r.mu.Unlock()
	r.done(a, begin)
}

// failAheadOf is failAhead, but for a go.sum that differs: that is told to who has it, and is nobody else's business.
func (f *FS) failAheadOf(op string, m module.Version, err error) error {
	if e, ok := errors.AsType[*fetch.MismatchError](err); ok && e.Source == goSumSource {
		return err
	}
	return f.failAhead(op, m, err)
}

// goSumSource is the Source of a fetch.MismatchError about a user's go.sum.
const goSumSource = "go.sum"

// errAbandoned is the error of a fill whose user has gone. Who has joined it since begins anew.
var errAbandoned = fmt.Errorf("its prefetch was interrupted: %w", errSpared)

// bring has the archive of a module in the store, fetched if need be.
func (r *askedRun) bring(ctx context.Context, a *target) error {
	f, md := r.f, r.f.modules.intern(a.m)
	if err := f.confirm(ctx, a.m, ""); err != nil {
		return err
	}
	defer f.turns.ask(md)()
	for {
		var ours atomic.Bool
		file, err := f.store.Fill(ctx, md.zipKey, func(life context.Context, t *lru.Temp) error {
			ours.Store(true)
			return r.fill(ctx, life, a, md, t)
		})
		if errors.Is(err, errSpared) && !ours.Load() && ctx.Err() == nil {
			continue // it was being fetched on a hint, which may take less room, or for somebody who has gone
		}
		if err != nil {
			return f.notReplaced(md.zipKey, err)
		}
		a.size = file.Size()
		if ours.Load() || !a.zip {
			a.kept = false
			f.filled(md)
			f.stats.prefetched.Add(1)
		}
		return file.Close()
	}
}

// fill fetches an archive into t. life is the store's life, ctx that of the run.
func (r *askedRun) fill(ctx, life context.Context, a *target, md *mod, t *lru.Temp) error {
	t.Spare(r.since)
	life, cancel := context.WithCancelCause(life)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		if !r.f.turns.wanted(md) {
			cancel(errAbandoned)
		}
	})()
	r.mu.Lock()
	r.active[a.m] = &activeFill{t, a.size}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.active, a.m)
	}()
	return spared(r.f.fetchZip(life, md, t, func() {}))
}

// tick tells the progress of downloads until it is stopped.
func (r *askedRun) tick() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	r.f.background(func() {
		defer close(done)
		tick := time.NewTicker(progressPause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.progress()
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		<-done
	}
}

func (r *askedRun) progress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m, a := range r.active {
		r.report(PrefetchEvent{Event: PrefetchProgress, Module: m.Path, Version: m.Version, Bytes: a.t.Size(), Total: a.total})
	}
}

// plan tells what is about to be fetched, and warns if that is more than there may be.
func (r *askedRun) plan(list, zips []*target) {
	limit := r.f.usage().Limit
	plan := PrefetchEvent{Event: PrefetchPlan}
	var all, unknown int64
	for _, a := range zips {
		all += a.size
		if !a.zip {
			plan.Modules++
			plan.Bytes += a.size
		}
		if a.size == 0 {
			unknown++
		}
		if limit > 0 && a.size > limit {
			r.warn("%s has %s, and the store's limit is %s: it cannot be kept", a.m, bytesText(a.size), bytesText(limit))
		}
	}
	if limit > 0 && all > limit {
		more := ""
		if unknown > 0 {
			more = fmt.Sprintf(" (and %d of unknown size)", unknown)
		}
		r.warn("the %d modules have %s together%s, and the store's limit is %s: not all can be kept; raise --max-size",
			len(zips), bytesText(all), more, bytesText(limit))
	}
	r.tell(plan)
}

func bytesText(n int64) string { return humanize.IBytes(uint64(n)) }

func (r *askedRun) warn(format string, args ...any) {
	r.tell(PrefetchEvent{Event: PrefetchWarning, Message: fmt.Sprintf(format, args...)})
}

// done tells that something wanted is there.
func (r *askedRun) done(a *target, begin time.Time) {
	e := PrefetchEvent{Event: PrefetchDone, Module: a.m.Path, Version: a.m.Version, ModOnly: a.ModOnly, Kept: a.kept}
	if !a.ModOnly {
		e.Bytes = a.size
	}
	if !a.kept {
		e.Seconds = time.Since(begin).Round(time.Millisecond).Seconds()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.kept {
		r.sum.KeptCount++
	} else {
		r.sum.Fetched++
		r.sum.Bytes += e.Bytes
	}
	if a.ModOnly {
		r.sum.Mods++
	}
	r.report(e)
}

// fail tells that something wanted is not there, or not what it must be.
func (r *askedRun) fail(a *target, err error) {
	a.failed = true
	if errors.Is(err, lru.ErrNoSpace) {
		err = fmt.Errorf("%w (raise --max-size)", err)
	}
	e := PrefetchEvent{Event: PrefetchFailed, Module: a.m.Path, Version: a.m.Version, ModOnly: a.ModOnly, Security: insecure(err)}
	e.Reason = strings.TrimPrefix(r.f.cause(err), errSpared.Error()+": ")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.FailedCount++
	r.report(e)
}

// pin pins what is there.
func (r *askedRun) pin() {
	var ms []module.Version
	for _, a := range r.stored {
		ms = append(ms, a.m)
	}
	if err := r.f.Pin(ms); err != nil {
		r.fail(&target{}, fmt.Errorf("not pinned: %w", err))
		return
	}
	r.sum.Pinned = len(ms)
}

// end looks whether all is still there, and tells the summary.
func (r *askedRun) end(ctx context.Context) {
	if r.o.Pin && len(r.stored) > 0 && !r.over(ctx) {
		r.pin()
	}
	for _, a := range r.stored {
		if _, err := r.f.store.Stat(zipKey(a.m)); err != nil && !r.over(ctx) {
			if a.kept {
				r.sum.KeptCount--
			} else {
				r.sum.Fetched--
			}
			r.fail(a, fmt.Errorf("%s: evicted again meanwhile: %w: others use the store, or it is too small", a.m, lru.ErrNoSpace))
		}
	}
	r.sum.Event = PrefetchSummary
	r.sum.Interrupted = r.over(ctx)
	r.tell(r.sum)
}
