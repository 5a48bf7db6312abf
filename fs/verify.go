package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/module"
	"golang.org/x/sync/errgroup"

	"modfs/fetch"
	"modfs/lru"
)

// VerifyOptions say what Verify checks and how. The zero value of each field has a meaning.
type VerifyOptions struct {
	Dir     string       // the store's directory; must be set
	Exclude []string     // names in Dir that are not the store's, as in Options.Store; only Repair looks at what else is there
	Fetch   fetch.Config // the checksum database that pins are compared with and, with Repair, where to fetch from

	// Repair replaces what is damaged. The store must not be in use then.
	Repair bool

	Modules []module.Version // nil: all that the store has
	Jobs    int              // how many modules are checked at a time; 0: as many as there are cores

	// Found is told what is wrong, and Progress how many bytes are to be checked in all, and how many more were. Neither is
	// called concurrently with itself. nil: nobody wants to know.
	Found    func(Finding)
	Progress func(total, more int64)

	Log *slog.Logger // nil: discarded
}

// Finding is something that is wrong with a store.
type Finding struct {
	Module  string `json:"module,omitempty"`
	Version string `json:"version,omitempty"`
	File    string `json:"file"`             // below the store's directory
	Problem string `json:"problem"`          // what is wrong with it
	Action  string `json:"action,omitempty"` // what was done about it
	Bad     bool   `json:"bad"`              // it is still so
}

// VerifySummary counts what Verify saw.
type VerifySummary struct {
	Modules  int   `json:"modules"` // versions of which the store has an archive
	Files    int   `json:"files"`
	Bytes    int64 `json:"bytes"`
	Damaged  int   `json:"damaged"`
	Repaired int   `json:"repaired"` // of Damaged: no longer in the store, or replaced
	// Unasked are the hashes that could not be compared with the checksum database, and Uncovered those that it does not cover. They
	// were compared with their pins.
	Unasked   int    `json:"unasked"`
	Uncovered int    `json:"uncovered"`
	Why       string `json:"why,omitempty"` // the first of the unasked could not be compared
}

// Verify checks the files of a store against their pins and checksums, and the pins against the checksum database as far as
// the settings allow that. It reads all of it, and as files of a store are replaced and never changed, it may be in use.
//
// The error is that of ctx, or says why the store cannot be looked at: with Repair it is a *lru.LockedError if it is in use.
func Verify(ctx context.Context, o VerifyOptions) (VerifySummary, error) {
	v := &verifier{o: o, broken: make(map[string]bool)}
	if v.o.Jobs <= 0 {
		v.o.Jobs = runtime.GOMAXPROCS(0)
	}
	if v.o.Log == nil {
		v.o.Log = slog.New(slog.DiscardHandler)
	}
	if err := lru.Check(o.Dir); err != nil {
		return v.sum, err
	}
	if err := v.open(); err != nil {
		return v.sum, err
	}
	defer v.close()
	if err := v.readPins(); err != nil {
		return v.sum, err
	}
	modules, others, err := v.jobs()
	if err != nil {
		return v.sum, err
	}
	// Others first: with Repair, to ask the checksum database is to replace what is damaged of it.
	for _, jobs := range [...][]*job{others, modules} {
		var group errgroup.Group
		group.SetLimit(v.o.Jobs)
		for _, j := range jobs {
			group.Go(func() error {
				v.checkJob(ctx, j)
				return nil
			})
		}
		group.Wait() // what goes wrong is a finding
	}
	return v.sum, ctx.Err()
}

// verifier is one run of Verify.
type verifier struct {
	o      VerifyOptions
	f      *FS           // of the store, not mounted; nil without Repair
	client *fetch.Client // f's, or one of its own
	down   atomic.Bool   // the checksum database cannot be asked; others need not find that out, too

	mu     sync.Mutex
	pins   map[module.Version]string
	pinned int64           // size of the file of pins when it was read
	broken map[string]bool // keys of archives that are damaged, and of indexes
	sum    VerifySummary
}

func (v *verifier) open() (err error) {
	if !v.o.Repair {
		c := v.o.Fetch
		c.Log = v.o.Log
		v.client, err = fetch.New(c)
		return err
	}
	v.f, err = newFS("modfs verify", Options{
		Store: lru.Config{Dir: v.o.Dir, Exclude: v.o.Exclude, Holder: "modfs verify"}, Fetch: v.o.Fetch, ReadOnly: true, NoPrefetch: true, Log: v.o.Log,
	})
	if err == nil {
		v.client = v.f.client
	}
	return err
}

func (v *verifier) close() {
	if v.f != nil {
		v.f.close()
	} else {
		v.client.Close()
	}
}

// job is what is checked one after the other: what the store has of a module, or one other file.
type job struct {
	m     module.Version
	files []found
	bytes int64
	sums  digests // of the archive, once it was verified
}

// found is a file of the store. Its path is parsed as that of a file in a mount, unless it is not there.
type found struct {
	key  string
	fi   iofs.FileInfo
	kind Kind
}

// jobs lists what is to be checked.
func (v *verifier) jobs() (modules, others []*job, err error) {
	byModule := make(map[module.Version]*job)
	for _, top := range []string{downloadDir, "index", "spool", "sumdb"} {
		err := filepath.WalkDir(filepath.Join(v.o.Dir, top), func(name string, d iofs.DirEntry, err error) error {
			if errors.Is(err, iofs.ErrNotExist) {
				return nil // not yet, or not any more
			}
			if err != nil || d.IsDir() {
				return err
			}
			fi, err := d.Info()
			if errors.Is(err, iofs.ErrNotExist) || err == nil && fi.Mode().IsRegular() && fi.Size() == 0 {
				return nil // an empty file is an absent one
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(v.o.Dir, name)
			if err != nil {
				return err
			}
			f := found{key: filepath.ToSlash(rel), fi: fi}
			m := f.classify()
			if m.Version == "" {
				others = append(others, &job{m: m, files: []found{f}})
				return nil
			}
			if byModule[m] == nil {
				byModule[m] = &job{m: m}
			}
			byModule[m].files = append(byModule[m].files, f)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if len(v.o.Modules) > 0 {
		others = nil
	}
	modules = v.choose(byModule)
	total := int64(0)
	for _, j := range slices.Concat(modules, others) {
		for _, f := range j.files {
			j.bytes += f.fi.Size()
		}
		total += j.bytes
		// Archives first, then indexes, for which they count, and what was inflated, for which both count.
		slices.SortFunc(j.files, func(a, b found) int { return a.order() - b.order() })
	}
	// The largest first, or the last core would work on one alone at the end.
	slices.SortStableFunc(modules, func(a, b *job) int { return int(b.bytes>>16 - a.bytes>>16) })
	if v.o.Progress != nil {
		v.o.Progress(total, 0)
	}
	return modules, others, nil
}

// choose returns the jobs of the modules that are wanted or, if none are named, all.
func (v *verifier) choose(modules map[module.Version]*job) (jobs []*job) {
	if len(v.o.Modules) == 0 {
		for _, j := range modules {
			jobs = append(jobs, j)
		}
		slices.SortFunc(jobs, func(a, b *job) int { return compareVersions(a.m, b.m) })
		return jobs
	}
	for _, m := range v.o.Modules {
		if j := modules[m]; j != nil {
			jobs = append(jobs, j)
		} else {
			v.found(m, zipKey(m), "the store has nothing of this module", "")
		}
	}
	return jobs
}

// classify says what a file is and which module it belongs to; the zero module for what belongs to none, or has no version.
func (f *found) classify() module.Version {
	top, rest, _ := strings.Cut(f.key, "/")
	switch top {
	case "index":
		f.kind = KindModule
	case "spool":
		f.kind = KindFile
		rest = rest[:max(0, strings.LastIndexByte(rest, '/'))]
	case "sumdb":
		f.kind = KindSumDB
		return module.Version{}
	default:
		pp := ParsePath(f.key)
		f.kind = pp.Kind
		switch pp.Kind {
		case KindZip, KindMod, KindInfo:
			return pp.Mod
		case KindList, KindLatest, KindQuery:
			return module.Version{Path: pp.Mod.Path}
		}
		f.kind = KindNone
		return module.Version{}
	}
	pp := ParsePath(rest)
	if pp.Kind != KindModule {
		f.kind = KindNone
		return module.Version{}
	}
	return pp.Mod
}

func (f *found) order() int {
	return slices.Index([]Kind{KindZip, KindMod, KindInfo, KindModule, KindFile}, f.kind)
}

func (v *verifier) checkJob(ctx context.Context, j *job) {
	for _, f := range j.files {
		if ctx.Err() != nil {
			return
		}
		err := v.checkFile(ctx, j, &f)
		if errors.Is(err, iofs.ErrNotExist) || ctx.Err() != nil {
			err = nil // evicted meanwhile, or not checked to the end
		}
		if err != nil {
			action, repaired := v.repair(ctx, j.m, &f)
			v.report(Finding{Module: j.m.Path, Version: j.m.Version, File: f.key, Problem: err.Error(), Action: action, Bad: !repaired})
		}
		v.mu.Lock()
		v.sum.Files++
		v.sum.Bytes += f.fi.Size()
		if f.kind == KindZip {
			v.sum.Modules++
		}
		if v.o.Progress != nil {
			v.o.Progress(0, f.fi.Size())
		}
		v.mu.Unlock()
	}
}

// found reports something that nothing can be done about.
func (v *verifier) found(m module.Version, file, problem, action string) {
	v.report(Finding{Module: m.Path, Version: m.Version, File: file, Problem: problem, Action: action, Bad: true})
}

func (v *verifier) report(f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f.Problem = strings.Join(strings.Fields(f.Problem), " ")
	v.sum.Damaged++
	if !f.Bad {
		v.sum.Repaired++
	}
	if v.o.Found != nil {
		v.o.Found(f)
	}
}
