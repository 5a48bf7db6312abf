package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/module"

	"modfs/fetch"
)

// Depot is a store that is not mounted, for who moves modules from one machine to another: see Import, WriteBundle and Export. What
// it takes is verified and pinned as on a mount, by the same code, so that what is in the store was verified however it came
// there. It is not for concurrent use.
type Depot struct {
	f *FS

	mu     sync.Mutex
	checks map[module.Version]fetch.Check // what came from a seed, by module and suffix

	bundle *bundleReader // of OpenBundleDepot
}

// OpenDepot opens the store of o. The error is a *lru.LockedError if it is mounted. Close it.
func OpenDepot(o Options) (*Depot, error) {
	o.ReadOnly, o.NoPrefetch = true, true // no writable layer, and nobody who opens anything
	f, err := newFS("", o)
	if err != nil {
		return nil, err
	}
	d := &Depot{f: f, checks: make(map[module.Version]fetch.Check)}
	f.onSeed = d.seeded
	return d, nil
}

// OpenBundleDepot is OpenDepot for ReadBundle.
func OpenBundleDepot(o Options, name string) (*Depot, error) {
	b := &bundleReader{seen: make(map[[16]byte]struct{}), sums: make(map[string][]byte), small: make(map[string][]byte)}
	o.Fetch.Seeds, o.Fetch.SeedsOnly = []*fetch.Seed{{Name: name, Open: b.open, Sum: b.sum}}, true
	d, err := OpenDepot(o)
	if err == nil {
		d.bundle = b
	}
	return d, err
}

// Close ends all that is under way, and closes the store.
func (d *Depot) Close() error { return d.f.close() }

func (d *Depot) seeded(c fetch.Check) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checks[sumKey(c.Module, c.File)] = c
}

// sumKey is a module version as a go.sum has it: that of a go.mod file has a suffix.
func sumKey(m module.Version, file string) module.Version {
	if file != "zip" {
		m.Version += modSuffix
	}
	return m
}

// Part is a set of files of a module version.
type Part uint8

// The files of a module version.
const (
	PartInfo Part = 1 << iota
	PartMod
	PartZip
)

// partNames are the parts that have a hash.
var partNames = map[Part]string{PartMod: "go.mod", PartZip: "zip"}

// partOf returns the part that a kind of path is, 0 for none.
func partOf(k Kind) Part {
	switch k {
	case KindInfo:
		return PartInfo
	case KindMod:
		return PartMod
	case KindZip:
		return PartZip
	}
	return 0
}

// Moved says what became of a module version.
type Moved struct {
	Module module.Version
	Parts  Part     // those that are there now
	Bytes  int64    // of its zip
	Kept   bool     // all of them were there before
	By     []string // who vouches for them: "checksum database NAME", "go.sum", "pin"; sorted, each once

	// Unchecked is set if nothing vouches for one of them: it is taken on trust. With Deferred, the checksum database will be
	// asked by the first mount that can.
	Unchecked, Deferred bool

	Err error
}

// Report is told what became of one module version of so many; 0: it is not known how many there are.
type Report func(total int, mv Moved)

// take brings parts of a module version into the store, from the seeds or wherever else the depot's options allow. One that cannot
// be had leaves the others.
func (d *Depot) take(ctx context.Context, m module.Version, parts Part) Moved {
	f, mv := d.f, Moved{Module: m, Kept: true}
	had := func(key string) {
		if _, err := f.store.Stat(key); err != nil {
			mv.Kept = false
		}
	}
	get := func(part Part, key string, get func() error) {
		if parts&part == 0 || ctx.Err() != nil || errors.Is(mv.Err, fetch.ErrOffline) || errors.Is(mv.Err, fetch.ErrUnreachable) {
			return
		}
		had(key)
		if err := get(); err != nil {
			mv.Err, mv.Kept = errors.Join(mv.Err, err), false
			return
		}
		mv.Parts |= part
	}
	get(PartInfo, infoKey(m), func() error { // first, as the zip's index has the time in it
		_, err := f.info(ctx, m)
		return err
	})
	get(PartMod, modKey(m), func() error {
		if err := d.again(ctx, m, modSuffix); err != nil {
			return err
		}
		_, err := f.mod(ctx, m)
		return err
	})
	get(PartZip, zipKey(m), func() error {
		if err := d.again(ctx, m, ""); err != nil {
			return err
		}
		h, err := f.openZip(ctx, f.modules.intern(m))
		if err != nil {
			return err
		}
		mv.Bytes = h.Size()
		f.zips.put(h)
		f.zips.drop(zipKey(m)) // a store that is at its limit may need the room
		return nil
	})
	if ctx.Err() != nil {
		mv.Err = context.Cause(ctx)
	}
	d.vouch(&mv)
	return mv
}

// vouch notes who vouches for what was taken.
func (d *Depot) vouch(mv *Moved) {
	by := make(map[string]bool)
	mv.Unchecked, mv.Deferred = false, false
	for part, file := range partNames {
		if mv.Parts&part == 0 {
			continue
		}
		key := sumKey(mv.Module, file)
		d.mu.Lock()
		c, taken := d.checks[key]
		d.mu.Unlock()
		switch {
		case d.f.pins.inDoubt(key) != "":
			mv.Unchecked, mv.Deferred = true, true
		case !taken || c.Deferred:
			by["pin"] = true
		case c.Source == "":
			mv.Unchecked = true
		default:
			by[c.Source] = true
		}
	}
	mv.By = slices.Sorted(maps.Keys(by))
}

// again tries to end the doubt about what is there already, with what there is now: the network, or the records of a bundle.
func (d *Depot) again(ctx context.Context, m module.Version, suffix string) error {
	key := module.Version{Path: m.Path, Version: m.Version + suffix}
	if d.f.pins.inDoubt(key) == "" {
		return nil
	}
	err := d.f.askAgain(ctx, m, suffix)
	if errors.Is(err, fetch.ErrOffline) {
		return nil
	}
	return err
}

// Sums are hashes by what they are of: a go.sum.
type Sums map[module.Version]string

// ParseSums returns what a go.sum lists. Unlike the go command it refuses lines that are none, and two hashes of one file: who
// packs or checks by a go.sum wants to know.
func ParseSums(data []byte) (Sums, error) {
	s := make(Sums)
	n := 0
	for line := range bytes.Lines(data) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d is not of a go.sum: want a module path, a version and a hash", n)
		}
		key := module.Version{Path: fields[0], Version: fields[1]}
		m := key
		m.Version = strings.TrimSuffix(m.Version, modSuffix)
		if err := module.Check(m.Path, m.Version); err != nil {
			return nil, fmt.Errorf("line %d: %v", n, err)
		}
		if module.CanonicalVersion(m.Version) != m.Version {
			return nil, fmt.Errorf("line %d: version %q is not canonical", n, m.Version)
		}
		if !validH1(fields[2]) {
			continue // of a kind of hash that is yet to be invented, which the go command ignores
		}
		if old := s[key]; old != "" && old != fields[2] {
			return nil, fmt.Errorf("line %d: %s %s has another hash before", n, key.Path, key.Version)
		}
		s[key] = fields[2]
	}
	return s, nil
}

// wanted is a module version and the files of it that are wanted.
type wanted struct {
	module.Version
	parts Part
}

// modules returns what a go.sum lists, ordered: of each the .info and .mod, of those whose archive has a hash the .zip.
func (s Sums) modules() []wanted {
	parts := make(map[module.Version]Part)
	for key := range s {
		m := key
		var isMod bool
		if m.Version, isMod = strings.CutSuffix(m.Version, modSuffix); isMod {
			parts[m] |= PartInfo | PartMod
		} else {
			parts[m] |= PartInfo | PartMod | PartZip
		}
	}
	return orderedParts(parts)
}

func orderedParts(parts map[module.Version]Part) []wanted {
	var all []wanted
	for m, p := range parts {
		all = append(all, wanted{m, p})
	}
	slices.SortFunc(all, func(a, b wanted) int { return compareVersions(a.Version, b.Version) })
	return all
}

// maxListed bounds how many files of a directory are looked at.
const maxListed = 1 << 22

// listTree returns the module versions in a tree as below a proxy's URL, ordered.
func listTree(ctx context.Context, tree iofs.FS) ([]wanted, error) {
	parts := make(map[module.Version]Part)
	n := 0
	err := iofs.WalkDir(tree, ".", func(p string, d iofs.DirEntry, err error) error {
		if n++; n > maxListed {
			return fmt.Errorf("it has more than %d files", maxListed)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && p == "." {
			return err
		}
		if err != nil || p == "." {
			return nil // a directory that cannot be read: what is not found is not there
		}
		pp := ParsePath(downloadDir + "/" + p)
		switch {
		case d.IsDir() && (!pp.Kind.isDir() || pp.Kind == KindSumDB):
			return iofs.SkipDir
		case !d.IsDir() && partOf(pp.Kind) != 0:
			parts[pp.Mod] |= partOf(pp.Kind)
		}
		return nil
	})
	return orderedParts(parts), err
}

// Import takes all modules of the depot's seeds into the store, and tells report of each. Where the tree has several files of a
// version, one that cannot be had leaves the others.
//
// The error is that of ctx, or says that the tree cannot be read.
func (d *Depot) Import(ctx context.Context, seed *fetch.Seed, report Report) error {
	all, err := listTree(ctx, seed.FS())
	if err != nil {
		return err
	}
	for _, w := range all {
		mv := d.take(ctx, w.Version, w.parts)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		report(len(all), mv)
	}
	return nil
}

// readLimited reads all of r, which is of so many bytes as announced and may have limit.
func readLimited(r io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes", fetch.ErrTooLarge, size)
	}
	return readAtMost(r, limit)
}
