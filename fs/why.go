package fs

import (
	"errors"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
)

// Why is what is known of a path below the mount: what it is, how it was resolved, and what a reader gets now. It has no
// credentials in it, but names that only the daemon's user should see.
type Why struct {
	Mountpoint string `json:"mountpoint"`
	Path       string `json:"path"`  // below the mountpoint
	Kind       string `json:"kind"`  // e.g. "module", "zip"
	Means      string `json:"means"` // the same as a sentence
	Module     string `json:"module,omitempty"`
	Version    string `json:"version,omitempty"`
	File       string `json:"file,omitempty"` // below M@V, or the revision

	Answer Answer `json:"answer"`
	Asked  bool   `json:"asked"` // it was tried just now, and Answer is what came of it

	ReadOnly bool   `json:"read_only"`
	Resolve  string `json:"resolve"` // who finds out which versions there are: "client" or "daemon"

	Overlay *OverlayFile `json:"overlay,omitempty"` // what the writable layer has at the path
	Removed bool         `json:"removed,omitempty"` // a client removed it

	// Only of what belongs to a module.
	Route     *fetch.Route      `json:"route,omitempty"`
	Hidden    *fetch.Match      `json:"hidden,omitempty"` // the pattern for which there are no private modules on this mount
	Record    *fetch.Record     `json:"record,omitempty"` // of the checksum database
	NoRecord  string            `json:"no_record,omitempty"`
	Pins      map[string]string `json:"pins,omitempty"` // hashes by file: "zip", "mod"; "zip (unchecked)" for one taken on trust
	Store     []StoredFile      `json:"store,omitempty"`
	Refused   *time.Time        `json:"refused_until,omitempty"`   // not offered until then, as its archive could not be had
	Ahead     *time.Time        `json:"not_ahead_until,omitempty"` // not fetched ahead until then, as that failed
	Upstreams []fetch.Upstream  `json:"upstreams,omitempty"`
	Steps     []Activity        `json:"steps,omitempty"` // oldest first; those since the mount, as far as they are remembered
}

// OverlayFile is a file or directory of the writable layer.
type OverlayFile struct {
	Dir   bool      `json:"dir,omitempty"`
	Size  int64     `json:"size"`
	MTime time.Time `json:"mtime"`
}

// StoredFile is a file that the store has, or does not have, of a module version.
type StoredFile struct {
	File    string    `json:"file"` // "info", "mod", "zip", "index"
	Size    int64     `json:"size,omitempty"`
	Used    time.Time `json:"used,omitzero"` // last, within a few minutes
	Pinned  bool      `json:"pinned,omitempty"`
	Missing bool      `json:"missing,omitempty"`
	Evicted time.Time `json:"evicted,omitzero"`  // if it was, since the mount
	Damaged string    `json:"damaged,omitempty"` // what is wrong with it
}

// Why returns what is known of the path p below the mountpoint, which is slash-separated; "" is the mountpoint. It asks nobody and
// changes nothing.
func (f *FS) Why(p string) *Why {
	w, pp := f.why(p)
	w.Answer = f.foresee(w, pp)
	w.Answer.advise()
	return w
}

// whyPath returns where a path below the mountpoint is below $GOPATH/pkg.
func (f *FS) whyPath(p string) string {
	switch {
	case f.opts.Pkg:
		return p
	case p == "":
		return modRoot
	}
	return inMod(p)
}

// PathOf returns the path of m below the mountpoint: its directory or, if that is no canonical version, the file that says what it
// stands for. The error says what is wrong with m, and wraps fetch.ErrNotFound.
func (f *FS) PathOf(m module.Version) (string, error) {
	if err := module.CheckPath(m.Path); err != nil {
		return "", errors.Join(fetch.ErrNotFound, err)
	}
	key := moduleDir(m)
	if pp := ParsePath(key); pp.Kind != KindModule || pp.Mod != m {
		key = revisionKey(m.Path, m.Version)
		if m.Version == "latest" {
			key = latestKey(m.Path)
		}
	}
	if f.opts.Pkg {
		key = inMod(key)
	}
	return key, nil
}

// why is Why without the answer.
func (f *FS) why(p string) (*Why, Path) {
	full := f.whyPath(p)
	pp := parse(full)
	w := &Why{Mountpoint: f.mountpoint, Path: p, Kind: pp.Kind.String(), Means: pp.means(), ReadOnly: f.overlay == nil, Resolve: "daemon",
		Module: pp.Mod.Path, Version: pp.Mod.Version, File: pp.Rest}
	if f.overlay != nil {
		if f.opts.ResolveClient {
			w.Resolve = "client"
		}
		if fi, err := f.overlay.root.Lstat(overName(full)); err == nil {
			w.Overlay = &OverlayFile{Dir: fi.IsDir(), Size: fi.Size(), MTime: fi.ModTime()}
		}
		w.Removed = f.removals.has(full)
	}
	switch pp.Kind {
	case KindSumDB:
		w.Upstreams = f.client.Upstreams()
		return w, pp
	case KindModule, KindFile, KindInfo, KindMod, KindZip, KindZipHash, KindList, KindLatest, KindQuery, KindVersions:
	default:
		return w, pp
	}
	route := f.client.Route(pp.Mod.Path)
	w.Route, w.Upstreams = &route, f.client.Upstreams()
	if f.private.has(pp.Mod.Path) {
		w.Hidden = cmpOr(route.Private, route.NoSum)
	}
	w.Steps = f.journal.of(pp.Mod.Path, pp.Mod.Version)
	for i := range w.Steps {
		w.Steps[i].Module, w.Steps[i].Version = pp.Mod.Path, pp.Mod.Version
	}
	if pp.Mod.Version != "" {
		f.whyVersion(w, pp.Mod)
	}
	return w, pp
}

func cmpOr(a, b *fetch.Match) *fetch.Match {
	if a != nil {
		return a
	}
	return b
}

// whyVersion adds what is known of a module version.
func (f *FS) whyVersion(w *Why, m module.Version) {
	record, err := f.client.Record(m)
	switch {
	case err == nil:
		w.Record = record
	default:
		w.NoRecord = f.cause(err)
	}
	w.Pins = f.pins.of(m)
	for _, file := range [...]struct{ name, key string }{
		{"info", infoKey(m)}, {"mod", modKey(m)}, {"zip", zipKey(m)}, {"index", indexKey(m)},
	} {
		s := StoredFile{File: file.name}
		if info, err := f.store.Stat(file.key); err == nil {
			s.Size, s.Used, s.Pinned = info.Size, info.Used, info.Pinned
		} else {
			s.Missing = true
			for _, step := range w.Steps {
				if step.Kind == ActivityEvicted && step.File == file.name {
					s.Evicted = step.Time
				}
			}
		}
		if err := f.damage.of(file.key); err != nil {
			s.Damaged = f.cause(err)
		}
		w.Store = append(w.Store, s)
	}
	if md := f.modules.find(m); md.isRefused() {
		md.mu.Lock()
		until := md.refused.Add(refusedTimeout)
		md.mu.Unlock()
		w.Refused = &until
	}
	if until := f.prefetch.zips.restsUntil(m); !until.IsZero() {
		w.Ahead = &until
	}
}

// stored returns what is known of a file of the module version.
func (w *Why) stored(file string) StoredFile {
	for _, s := range w.Store {
		if s.File == file {
			return s
		}
	}
	return StoredFile{File: file, Missing: true}
}

// of returns the pins of a module version by file.
func (p *pins) of(m module.Version) map[string]string {
	found := make(map[string]string)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, file := range [...]struct{ name, suffix string }{{"zip", ""}, {"mod", modSuffix}} {
		key := module.Version{Path: m.Path, Version: m.Version + file.suffix}
		if h1 := p.h1[key]; h1 != "" {
			found[file.name] = h1
		} else if h1 := p.h1[doubtKey(key)]; h1 != "" {
			found[file.name+" (unchecked)"] = h1
		}
	}
	return found
}

// restsUntil returns until when a task that failed is not queued again; the zero time if it may be.
func (q *queue) restsUntil(m module.Version) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	failed, ok := q.failed[m]
	if !ok || time.Since(failed) >= retryAfter {
		return time.Time{}
	}
	return failed.Add(retryAfter)
}
