package fs

import "sync"

// prefetcher fetches zips before they are opened: a client that reads a .ziphash is about to use the module. The queue is
// short and what does not fit is dropped: an open fetches it anyway, and does not wait behind it.
type prefetcher struct {
	queue chan *mod

	mu     sync.Mutex
	queued map[*mod]bool
}

const (
	prefetchWorkers = 8
	prefetchQueue   = 256
)

func (f *FS) startPrefetch() {
	if f.opts.NoPrefetch {
		return
	}
	f.prefetch.queue = make(chan *mod, prefetchQueue)
	f.prefetch.queued = make(map[*mod]bool)
	for range prefetchWorkers {
		f.background(f.prefetchWorker)
	}
}

// prefetchZip asks for the archive of a module to be fetched some time soon.
func (f *FS) prefetchZip(md *mod) {
	p := &f.prefetch
	if p.queue == nil {
		return
	}
	if _, err := f.store.Stat(md.zipKey); err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queued[md] {
		return
	}
	select {
	case p.queue <- md:
		p.queued[md] = true
	default: // full
	}
}

func (f *FS) prefetchWorker() {
	for {
		var md *mod
		select {
		case <-f.ctx.Done():
			return
		case md = <-f.prefetch.queue:
		}
		f.prefetchOne(md)
		f.prefetch.mu.Lock()
		delete(f.prefetch.queued, md)
		f.prefetch.mu.Unlock()
	}
}

// prefetchOne fetches one archive. Nobody waits for it, so its error is nobody's yet: who opens the module will see it, or
// a later success.
func (f *FS) prefetchOne(md *mod) {
	if _, err := f.store.Stat(md.zipKey); err == nil {
		return
	}
	file, err := f.fill(f.ctx, md)
	if err != nil {
		f.log.Debug("not prefetched", "module", md.Path, "version", md.Version.Version, "err", err)
		return
	}
	f.stats.prefetched.Add(1)
	file.Close() // best effort: it was not even read
}
