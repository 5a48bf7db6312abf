package fs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"modfs/lru"
)

// Resident is a module version whose archive is in the store, or that is pinned.
type Resident struct {
	Module  string    `json:"module"`
	Version string    `json:"version"`
	Size    int64     `json:"size"`             // bytes of its archive; 0: it is not there
	Disk    int64     `json:"disk"`             // bytes on disk of that and of what was inflated from it
	Used    time.Time `json:"used,omitzero"`    // when it was last used; within a few minutes of that after a restart
	Pinned  bool      `json:"pinned"`           // never evicted
	Missing bool      `json:"missing"`          // it is pinned, and will be kept when it is fetched
	Source  string    `json:"source,omitempty"` // where its archive came from: a proxy's URL, "direct", "seed NAME"; "" if that is not known
}

// Residents returns the module versions whose archives the store has, and those that are pinned, ordered by path and version.
func (f *FS) Residents() []Resident {
	disk := make(map[module.Version]int64)
	archives := make(map[module.Version]lru.Info)
	for key, i := range f.store.All("") {
		switch m, file, ok := ofModule(key); {
		case !ok:
		case file == "zip":
			archives[m] = i
			disk[m] += i.Disk
		case file == "spool":
			disk[m] += i.Disk
		}
	}
	all := make([]Resident, 0, len(archives))
	for m, i := range archives {
		all = append(all, Resident{Module: m.Path, Version: m.Version, Size: i.Size, Disk: disk[m], Used: i.Used, Pinned: i.Pinned, Source: f.origins.of(m)})
	}
	for _, m := range f.kept.all() {
		if _, ok := archives[m]; !ok {
			all = append(all, Resident{Module: m.Path, Version: m.Version, Pinned: true, Missing: true})
		}
	}
	slices.SortFunc(all, func(a, b Resident) int {
		return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Version, b.Version))
	})
	return all
}

// Evict drops what the store has of the content of module versions; one without a version stands for all of them that are there. Who
// has a file open reads on, and who opens one has the module fetched again. It returns what was evicted, with its bytes on disk.
//
// Nothing is evicted if one of them is not there (ErrNotResident), or is pinned (ErrPinned); the error names it.
func (f *FS) Evict(ms []module.Version) ([]Resident, error) {
	f.steering.Lock()
	defer f.steering.Unlock()
	residents := f.Residents()
	chosen := make(map[module.Version]bool)
	var victims []Resident
	for _, m := range ms {
		found := false
		for _, r := range residents {
			if r.Missing || r.Module != m.Path || m.Version != "" && r.Version != m.Version {
				continue
			}
			found = true
			v := module.Version{Path: r.Module, Version: r.Version}
			if r.Pinned {
				return nil, fmt.Errorf("%s: %w: unpin it first", v, ErrPinned)
			}
			if !chosen[v] {
				chosen[v] = true
				victims = append(victims, r)
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: %w", strings.TrimSuffix(m.String(), "@"), ErrNotResident)
		}
	}
	for _, r := range victims {
		m := module.Version{Path: r.Module, Version: r.Version}
		for _, key := range append(f.spooled(m), zipKey(m)) {
			f.zips.drop(key)
			f.evict(key)
		}
		f.noteKey(ActivityEvicted, zipKey(m), nil)
		f.touch(inMod(zipKey(m)))
	}
	return victims, nil
}

// GCOptions say what GC evicts. The zero value evicts no module.
type GCOptions struct {
	MaxSize *int64    // evict, what was unused for longest first, until the store takes so many bytes; nil: do not
	Before  time.Time // evict what was last used before; zero: do not
}

// GCResult is what a GC did.
type GCResult struct {
	Modules int   `json:"modules"` // versions that were evicted
	Freed   int64 `json:"freed"`   // bytes
	Used    int64 `json:"used"`    // bytes that the store takes now
	Pinned  int64 `json:"pinned"`  // of Used: archives that are pinned
}

// GC removes what is not needed (the quarantine, and what was inflated from archives and is not in use), and evicts modules as o says.
// What is pinned, or being read, stays.
func (f *FS) GC(o GCOptions) GCResult {
	f.steering.Lock()
	defer f.steering.Unlock()
	before, used := f.resident(), f.store.Usage().Bytes
	f.store.Sweep()
	for key := range f.store.All("") {
		if strings.HasPrefix(key, "spool/") {
			f.zips.drop(key)
			f.evict(key)
		}
	}
	if !o.Before.IsZero() {
		f.store.EvictUnused(o.Before)
	}
	if o.MaxSize != nil {
		f.store.Evict(*o.MaxSize)
	}
	after, now := f.resident(), f.store.Usage().Bytes
	return GCResult{Modules: max(0, before.Modules-after.Modules), Freed: max(0, used-now), Used: now, Pinned: after.PinnedBytes}
}

// FS returns the file system that is not mounted, for package control.
func (d *Depot) FS() *FS { return d.f }
