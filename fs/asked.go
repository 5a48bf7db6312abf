package fs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/module"
)

// Unlike what is fetched ahead on a hint (prefetch.go), this is what a user asked for by name: each module is fetched or its error is
// told, room is made for it, and it is verified as soon as nobody waits for anything else.

// Wanted is a module version that a user wants to have in the store.
type Wanted struct {
	Path    string `json:"path"`
	Version string `json:"version"` // or a query: latest, v1.2, <v1.5.0, a branch or commit

	// ModOnly is for what is needed to choose versions only: its .mod and .info, no archive.
	ModOnly bool `json:"mod_only,omitempty"`

	// Sum and ModSum are the hashes that the user's go.sum has of the archive and the go.mod file, "" for none. They decide
	// nothing. If they are not those that were verified, that is an error.
	Sum    string `json:"sum,omitempty"`
	ModSum string `json:"mod_sum,omitempty"`
}

func (w Wanted) String() string { return w.Path + "@" + w.Version }

// Limits of PrefetchOptions and of what is wanted at once.
const (
	MaxPrefetchJobs = 64
	MaxWanted       = 1 << 14
)

// PrefetchOptions say how Prefetch works.
type PrefetchOptions struct {
	Jobs int  `json:"jobs,omitempty"` // archives fetched at a time, at most MaxPrefetchJobs; 0: 8
	Pin  bool `json:"pin,omitempty"`  // spare the archives that are there in the end from eviction, as FS.Pin does
}

// Kinds of PrefetchEvent.
const (
	PrefetchResolved = "resolved" // Query stands for Module@Version
	PrefetchWarning  = "warning"  // Message
	PrefetchPlan     = "plan"     // what is about to be fetched: Modules, Bytes
	PrefetchProgress = "progress" // Bytes of Total of an archive are there, so far
	PrefetchDone     = "done"     // Module@Version is in the store
	PrefetchFailed   = "failed"   // it is not, or not the right one: Reason; without a module, it is about all
	PrefetchSummary  = "summary"  // the last one: Modules, Fetched, Kept, Failed, Bytes
)

// PrefetchEvent is told while Prefetch works. Sizes are in bytes of archives.
type PrefetchEvent struct {
	Event   string `json:"event"`
	Module  string `json:"module,omitempty"`
	Version string `json:"version,omitempty"`
	Query   string `json:"query,omitempty"`
	ModOnly bool   `json:"mod_only,omitempty"`

	Bytes int64 `json:"bytes,omitempty"`
	Total int64 `json:"total,omitempty"` // 0: not known

	Kept    bool    `json:"kept,omitempty"` // it was there before
	Seconds float64 `json:"seconds,omitempty"`

	Message  string `json:"message,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Security bool   `json:"security,omitempty"` // the reason is a hash that is wrong

	Modules     int  `json:"modules,omitempty"`
	Fetched     int  `json:"fetched,omitempty"`
	FailedCount int  `json:"failed,omitempty"`
	KeptCount   int  `json:"present,omitempty"` // of Modules, before
	Mods        int  `json:"mods,omitempty"`    // of Fetched and KeptCount, those that are ModOnly
	Pinned      int  `json:"pinned,omitempty"`
	Interrupted bool `json:"interrupted,omitempty"`
}

// Prefetch brings all that is wanted into the store, and tells report what becomes of it; report is not called concurrently, and its
// last event is the summary. It is interrupted when ctx ends: then what is under way is given up, unless somebody waits for it, and
// what is done stays.
//
// It takes no room from what was used since it began, itself and what it found in the store included.
func (f *FS) Prefetch(ctx context.Context, all []Wanted, o PrefetchOptions, report func(PrefetchEvent)) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.ctx, func() { cancel(context.Cause(f.ctx)) })()
	if o.Jobs <= 0 {
		o.Jobs = zipsAhead
	}
	o.Jobs = min(o.Jobs, MaxPrefetchJobs)
	r := &askedRun{f: f, o: o, since: time.Now(), report: report, active: make(map[module.Version]*activeFill)}
	done := make(chan struct{})
	f.background(func() { // which Close waits for
		defer close(done)
		r.run(ctx, all)
	})
	<-done
	r.end(ctx)
}

// Prefetch is FS.Prefetch for a store that is not mounted.
func (d *Depot) Prefetch(ctx context.Context, all []Wanted, o PrefetchOptions, report func(PrefetchEvent)) {
	d.f.Prefetch(ctx, all, o, report)
}

// check returns what is wrong with it.
func (w Wanted) check() error {
	if err := module.CheckPath(w.Path); err != nil {
		return err
	}
	if w.Version == "" || len(w.Version) > maxName || strings.ContainsFunc(w.Version, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return fmt.Errorf("%s: %q is no version", w.Path, w.Version)
	}
	for _, sum := range []string{w.Sum, w.ModSum} {
		if sum != "" && !validH1(sum) {
			return fmt.Errorf("%s: %q is no hash of a go.sum", w, sum)
		}
	}
	return nil
}

// compare returns an error if the user's go.sum has another hash of a file of m than the one that was verified.
func (w Wanted) compare(m module.Version, file, verified string) error {
	sums := Sums{m: w.Sum, sumKey(m, "go.mod"): w.ModSum}
	if err := sums.check(sumKey(m, file), file, verified); err != nil {
		return fmt.Errorf("%w: what was verified differs from your go.sum: find out which of them was tampered with before you build", err)
	}
	return nil
}
