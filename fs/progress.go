package fs

import (
	"sync"
	"time"

	"golang.org/x/mod/module"
)

// progressPause is how much time passes between two activities that tell how much of an archive is there.
const progressPause = 200 * time.Millisecond

// progress tells how the fetch of an archive goes on.
type progress struct {
	f     *FS
	m     module.Version
	start time.Time
	ahead bool

	once sync.Once // downloaded

	// Used by whoever writes the archive only.
	last  time.Time
	total int64
}

// fetching notes that the archive of m is being fetched from now on; ahead, if nobody waits for it.
func (f *FS) fetching(m module.Version, ahead bool) *progress {
	p := &progress{f: f, m: m, start: time.Now(), ahead: ahead}
	p.note(ActivityFetch, nil)
	return p
}

func (p *progress) note(kind ActivityKind, set func(*Activity)) {
	a := about(kind, p.m, "zip")
	a.Ahead = p.ahead
	if set != nil {
		set(&a)
	}
	p.f.note(a)
}

// wrote tells that size bytes are there. It is called for each piece, and tells of some.
func (p *progress) wrote(size int64) {
	if !p.f.stream.listening() || time.Since(p.last) < progressPause {
		return
	}
	p.last = time.Now()
	p.note(ActivityProgress, func(a *Activity) { a.Bytes, a.Total = size, p.total })
}

// downloaded tells, once, that all of it is there.
func (p *progress) downloaded(size int64) {
	p.once.Do(func() {
		p.note(ActivityDownloaded, func(a *Activity) { a.Bytes, a.Seconds = size, time.Since(p.start).Seconds() })
	})
}

// done tells how it ended.
func (p *progress) done(size int64, err error) {
	took := time.Since(p.start).Seconds()
	if err != nil {
		p.note(ActivityFailed, func(a *Activity) {
			*a = p.f.failed(*a, err)
			a.Seconds = took
		})
		return
	}
	p.note(ActivityFetched, func(a *Activity) { a.Bytes, a.Seconds = size, took })
}

// vouched notes against what a file of m was checked that was not in the store before. pin is the hash that it had to have.
func (f *FS) vouched(m module.Version, file, h1, pin string) {
	if f.opts.Fetch.Offline {
		return // it came from a seed, and was noted when that was told
	}
	a := about(ActivityVerified, m, file)
	switch a.H1 = h1; {
	case pin != "":
		a.By = "pin"
	default:
		if db := f.client.Route(m.Path).SumDB; db != "" {
			a.By = "checksum database " + db
		}
	}
	f.note(a)
}
