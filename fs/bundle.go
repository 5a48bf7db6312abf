package fs

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
)

// A bundle is a tar file that unpacks to what is below a proxy's URL (https://go.dev/ref/mod#goproxy-protocol), with the files of
// the checksum database as a proxy has them, in this order:
//
//	sumdb/NAME/supported, latest, lookup/M@V, tile/…   what proves the hashes of all that follows; see fetch.Client.Proofs
//	M/@v/V.info, V.mod, V.zip                          of each module version, by path and then by version
//	M/@v/list                                          after the last version of M: those that have a zip
//
// It is not compressed, as zips are. Its entries are regular files with mode 0644 and no owner or time, so that the same modules
// and the same tree head make the same bytes.

// aheadInBundle is how many module versions are fetched before they are written.
const aheadInBundle = 8

// WriteBundle writes a bundle of all that sums lists to w, and tells report of each module version. What the store does not have
// is fetched. Each file has the hash that sums says, or is an error.
//
// failed counts what could not be had, of which report was told; what is in w is then not complete, and not to be used. The error
// is w's, ctx's, or that of the checksum database.
func (d *Depot) WriteBundle(ctx context.Context, w io.Writer, sums Sums, report Report) (failed int, err error) {
	all := sums.modules()
	b := &bundler{d: d, w: tar.NewWriter(w), sums: sums}
	bad, err := b.proofs(ctx, all)
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	results := d.fetchAhead(ctx, all)
	var list []string
	for i, wanted := range all {
		var mv Moved
		select {
		case mv = <-results[i]:
		case <-ctx.Done(): // then nobody may send it
		}
		if ctx.Err() != nil {
			return failed, context.Cause(ctx)
		}
		if mv.Err == nil {
			mv.Err = bad[wanted.Version]
		}
		if mv.Err == nil {
			mv.Err = b.module(ctx, &mv, wanted)
		}
		if e, ok := errors.AsType[*writeError](mv.Err); ok {
			return failed, e.err
		}
		if mv.Err != nil {
			failed++
		}
		report(len(all), mv)
		if wanted.parts&PartZip != 0 && !module.IsPseudoVersion(wanted.Version.Version) {
			list = append(list, wanted.Version.Version)
		}
		if i+1 == len(all) || all[i+1].Path != wanted.Path {
			if err := b.file(listKey(wanted.Path), versionList(list)); err != nil {
				return failed, err
			}
			list = nil
		}
	}
	return failed, b.w.Close()
}

// fetchAhead takes all, some at a time, in order. Each result is received, or ctx ends.
func (d *Depot) fetchAhead(ctx context.Context, all []wanted) []chan Moved {
	results := make([]chan Moved, len(all))
	for i := range results {
		results[i] = make(chan Moved)
	}
	for start := range min(aheadInBundle, len(all)) {
		d.f.background(func() {
			for i := start; i < len(all); i += aheadInBundle {
				mv := d.take(ctx, all[i].Version, all[i].parts)
				select {
				case results[i] <- mv:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return results
}

// versionList is a proxy's list.
func versionList(versions []string) []byte {
	slices.SortFunc(versions, semver.Compare)
	var b strings.Builder
	for _, v := range slices.Compact(versions) {
		b.WriteString(v + "\n")
	}
	return []byte(b.String())
}

// bundler writes a bundle.
type bundler struct {
	d    *Depot
	w    *tar.Writer
	sums Sums
}

// writeError is an error of writing.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

// proofs returns the files of the checksum database that prove ms, as a proxy has them below sumdb, and of which there is no proof.
func proofs(ctx context.Context, client *fetch.Client, ms []module.Version) (files map[string][]byte, failed map[module.Version]error, err error) {
	files, failed, err = client.Proofs(ctx, ms)
	if err != nil {
		return nil, nil, err
	}
	for name := range files {
		if db, ok := strings.CutSuffix(name, "/latest"); ok {
			files[db+"/supported"] = nil
		}
	}
	return files, failed, nil
}

// proofs writes the files of the checksum database, and returns of which modules there is no proof.
func (b *bundler) proofs(ctx context.Context, all []wanted) (failed map[module.Version]error, err error) {
	var ms []module.Version
	for _, w := range all {
		ms = append(ms, w.Version)
	}
	files, failed, err := proofs(ctx, b.d.f.client, ms)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := b.file(downloadDir+"/sumdb/"+name, files[name]); err != nil {
			return nil, err
		}
	}
	return failed, nil
}

// file writes a small file. key is the store's.
func (b *bundler) file(key string, data []byte) error {
	if err := b.header(key, int64(len(data))); err != nil {
		return err
	}
	_, err := b.w.Write(data)
	return err
}

func (b *bundler) header(key string, size int64) error {
	name := strings.TrimPrefix(key, downloadDir+"/")
	return b.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}

// module writes the files of a module version, each with the hash that it must have. The error is a *writeError if it is w's.
func (b *bundler) module(ctx context.Context, mv *Moved, w wanted) error {
	f, m := b.d.f, w.Version
	info, err := f.info(ctx, m)
	if err != nil {
		return err
	}
	mod, err := f.mod(ctx, m)
	if err != nil {
		return err
	}
	if err := b.sums.check(sumKey(m, "go.mod"), "go.mod", hashMod(mod)); err != nil {
		return err
	}
	var h *handle
	if w.parts&PartZip != 0 {
		if h, err = b.d.sound(ctx, m); err != nil {
			return err
		}
		defer f.zips.put(h)
		if err := b.sums.check(m, "zip", f.pins.zip(m)); err != nil {
			return err
		}
		mv.Bytes = h.Size()
	}
	if err := errors.Join(b.file(infoKey(m), info), b.file(modKey(m), mod)); err != nil {
		return &writeError{err}
	}
	if h == nil {
		return nil
	}
	if err := b.header(zipKey(m), h.Size()); err != nil {
		return &writeError{err}
	}
	if _, err := io.Copy(b.w, io.NewSectionReader(h, 0, h.Size())); err != nil {
		return &writeError{err}
	}
	return nil
}

// check compares a hash with the one that is listed, if there is one.
func (s Sums) check(key module.Version, file, h1 string) error {
	if want := s[key]; want != "" && want != h1 {
		m := key
		m.Version = strings.TrimSuffix(m.Version, modSuffix)
		return &fetch.MismatchError{Module: m, File: file, Want: want, Got: h1, From: "the store", Source: goSumSource}
	}
	return nil
}

// sound returns the open archive of a module, after it was checked against its pin: the disk may have changed it since. The caller
// puts it back.
func (d *Depot) sound(ctx context.Context, m module.Version) (*handle, error) {
	f := d.f
	md := f.modules.intern(m)
	for again := false; ; again = true {
		h, err := f.openZip(ctx, md)
		if err != nil {
			return nil, err
		}
		h1, err := fetch.HashZip(ctx, m, h, h.Size(), 0, fetch.Watch{})
		if err == nil && h1 == f.pins.zip(m) {
			return h, nil
		}
		f.zips.put(h)
		if err == nil {
			err = fmt.Errorf("%s: zip: %w: its hash is %s, not %s", m, errDamaged, h1, f.pins.zip(m))
		}
		if ctx.Err() != nil || again {
			return nil, err
		}
		f.damaged(md.zipKey, err)
		f.zips.drop(md.zipKey)
		if err := f.store.Quarantine(md.zipKey); err != nil {
			return nil, err
		}
	}
}

// Limits of a bundle that is read, of which nothing is trusted.
const (
	maxTarEntries = 1 << 22
	maxProofs     = 512 << 20 // bytes of the files of the checksum database, which are kept in memory
	maxProofFile  = 4 << 20
)

// bundleReader takes the modules of a tar file into a depot, in the order in which they come: nothing is unpacked but what is
// about to be verified.
type bundleReader struct {
	d      *Depot
	report Report
	seen   map[[16]byte]struct{} // of the names of all entries

	sums     map[string][]byte // by their names in a TileStore
	sumBytes int64

	m     module.Version // of the entry that is being taken
	parts Part           // of it that have come

	// That entry, and small files of the same module version before it.
	mu    sync.Mutex
	small map[string][]byte // by the name below a proxy's URL
	name  string
	size  int64
	body  io.Reader

	doubt []Moved // what was taken before what proves it had come
}

// ReadBundle takes the modules of a bundle, or of another tar file of a tree as below a proxy's URL, into the store, and tells
// report of each file group as it comes; of a version whose files are not next to each other more than once. The depot must be one
// of OpenBundleDepot.
//
// The error says what is wrong with the tar file; what came before that was taken. Or it is that of ctx.
func (d *Depot) ReadBundle(ctx context.Context, r io.Reader, report Report) error {
	b := d.bundle
	b.d, b.report = d, report
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil && n >= maxTarEntries {
			err = fmt.Errorf("more than %d entries", maxTarEntries)
		}
		if err == nil {
			err = b.entry(ctx, h, tr)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("not a bundle, or a damaged one: %w", err)
		}
	}
	b.flush(ctx)
	return b.settle(ctx)
}

// entry takes one entry of the tar file.
func (b *bundleReader) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(strings.TrimPrefix(h.Name, "./"), downloadDir+"/")
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil // made when there is something in it
	case tar.TypeReg:
	default:
		return fmt.Errorf("%q is not a regular file (type %q)", h.Name, h.Typeflag)
	}
	// Of each name 16 bytes, so that a million names do not take gigabytes.
	digest := sha256.Sum256([]byte(name))
	key := [16]byte(digest[:16])
	if _, ok := b.seen[key]; ok {
		return fmt.Errorf("%q is there twice", h.Name)
	}
	b.seen[key] = struct{}{}
	pp := ParsePath(downloadDir + "/" + name)
	switch pp.Kind {
	case KindSumDB:
		return b.proof(pp.Rest, h.Size, r)
	case KindList, KindLatest:
		return nil // what is in the store is listed
	case KindInfo, KindMod, KindZip:
	default:
		return fmt.Errorf("%q is no file of a module proxy", h.Name)
	}
	if pp.Mod != b.m {
		b.flush(ctx)
		b.m = pp.Mod
	}
	if pp.Kind == KindZip {
		b.mu.Lock()
		b.name, b.size, b.body = name, h.Size, r
		b.mu.Unlock()
		b.parts |= PartZip
		b.flush(ctx)
		b.m = pp.Mod
		return nil
	}
	limit := int64(maxInfo)
	if pp.Kind == KindMod {
		limit = modzip.MaxGoMod
	}
	data, err := readLimited(r, h.Size, limit)
	if err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	b.mu.Lock()
	b.small[name] = data
	b.mu.Unlock()
	b.parts |= partOf(pp.Kind)
	return nil
}

// proof keeps a file of the checksum database.
func (b *bundleReader) proof(rest string, size int64, r io.Reader) error {
	data, err := readLimited(r, size, maxProofFile)
	if b.sumBytes += int64(len(data) + len(rest)); err == nil && b.sumBytes > maxProofs {
		err = fmt.Errorf("%w: more than %d bytes for the checksum database", fetch.ErrTooLarge, maxProofs)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", "sumdb/"+rest, err)
	}
	b.sums[rest] = data
	return nil
}

// flush takes what has come of a module version.
func (b *bundleReader) flush(ctx context.Context) {
	if b.parts != 0 {
		mv := b.d.take(ctx, b.m, b.parts)
		if mv.Deferred {
			b.doubt = append(b.doubt, mv)
		} else if ctx.Err() == nil {
			b.report(0, mv)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parts, b.name, b.body = 0, "", nil
	clear(b.small)
}

// settle looks once more at what could not be proven when it came: now all has come.
func (b *bundleReader) settle(ctx context.Context) error {
	for _, mv := range b.doubt {
		for part, suffix := range map[Part]string{PartMod: modSuffix, PartZip: ""} {
			if mv.Parts&part == 0 || mv.Err != nil {
				continue
			}
			key := module.Version{Path: mv.Module.Path, Version: mv.Module.Version + suffix}
			h1 := b.d.f.pins.zip(key)
			mv.Err = b.d.again(ctx, mv.Module, suffix)
			if pin := b.d.f.pins.zip(key); mv.Err == nil && pin != h1 { // and what had the other hash is removed
				mv.Err = &fetch.MismatchError{Module: mv.Module, File: partNames[part], Want: pin, Got: h1, From: "what was there before", Source: "checksum database"}
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if mv.Err == nil {
			b.d.vouch(&mv)
		}
		b.report(0, mv)
	}
	return nil
}

// open is the Open of a fetch.Seed: what is there of the tar file at this moment.
func (b *bundleReader) open(elem string) (io.ReadCloser, int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if data, ok := b.small[elem]; ok {
		return io.NopCloser(strings.NewReader(string(data))), int64(len(data)), nil
	}
	if elem == b.name && b.body != nil {
		r := b.body
		b.body = nil // it can be read but once
		return io.NopCloser(r), b.size, nil
	}
	return nil, 0, fmt.Errorf("%s: %w", path.Base(elem), iofs.ErrNotExist)
}

// sum is the Sum of a fetch.Seed.
func (b *bundleReader) sum(name string) ([]byte, error) {
	if data, ok := b.sums[name]; ok {
		return data, nil
	}
	return nil, iofs.ErrNotExist
}
