package fs

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
	"modfs/lru"
)

// ExportOptions say what Export writes.
type ExportOptions struct {
	Store string // the directory of the store, which may be mounted
	Dir   string // where to; it is made if need be

	// Fetch has the settings for the checksum database. Nothing is fetched.
	Fetch fetch.Config

	Sums Sums // only what this lists, with these hashes; nil: all that the store has

	Report Report // is told of each module version
}

// tempPrefix begins the names of files that are not whole yet.
const tempPrefix = ".modfs-export-"

// Export writes what a store has as a tree that any web server or file URL can offer as a module proxy, with what the store has of
// the checksum database. The store may be in use: what is in it is replaced and never changed, and a module that is evicted
// meanwhile is not exported. Each file is copied, where the file system can without taking space for it, and the copy is compared
// with its pin before it gets its name. Files that are there and good are left alone, so that an export that was interrupted can
// be run again.
//
// There are no hard links. Who could write to the copy could write to what the store has verified, and what the store evicts
// would not make room.
//
// failed counts the versions that could not be exported, of which Report was told; unproven those that the checksum database
// covers, but of which the store has no record that it could take along. The error is ctx's, or of the directories.
func Export(ctx context.Context, o ExportOptions) (failed, unproven int, err error) {
	if err := lru.Check(o.Store); err != nil {
		return 0, 0, err
	}
	e := &exporter{o: o}
	if e.store, err = storeSeed(o.Store); err != nil {
		return 0, 0, err
	}
	defer e.store.Close()
	if e.h1, err = pinsIn(o.Store); err != nil {
		return 0, 0, err
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return 0, 0, err
	}
	if e.to, err = os.OpenRoot(o.Dir); err != nil {
		return 0, 0, err
	}
	defer e.to.Close()
	all, err := e.modules(ctx)
	if err != nil {
		return 0, 0, err
	}
	paths := make(map[string]bool)
	var good []module.Version
	for _, w := range all {
		var mv Moved
		if ctx.Err() == nil {
			mv = e.module(ctx, w)
		}
		if ctx.Err() != nil {
			return failed, 0, context.Cause(ctx)
		}
		if mv.Err != nil {
			failed++
		} else if mv.Parts == 0 {
			continue // it was evicted before we came to it
		} else {
			good = append(good, w.Version)
		}
		paths[w.Path] = true
		o.Report(len(all), mv)
	}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if err := e.list(p); err != nil {
			return failed, 0, err
		}
	}
	unproven, err = e.proofs(ctx, good)
	return failed, unproven, err
}

// storeSeed opens a store that may be in use by another process, as a seed.
func storeSeed(dir string) (*fetch.Seed, error) {
	s, err := fetch.OpenSeed(dir)
	if err != nil {
		return nil, err
	}
	s.Sum = func(name string) ([]byte, error) {
		key := "sumdb/" + name
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(key)))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		sealed, err := readAtMost(f, maxTile)
		if err != nil {
			return nil, err
		}
		return cutSum(key, sealed)
	}
	return s, nil
}

// StoreSeed opens a store that may be in use by another process, to take modules from it. The caller closes it.
func StoreSeed(dir string) (*fetch.Seed, error) {
	if err := lru.Check(dir); err != nil {
		return nil, err
	}
	return storeSeed(dir)
}

// pinsIn reads the pins of a store that may be in use.
func pinsIn(dir string) (map[module.Version]string, error) {
	f, err := os.Open(filepath.Join(dir, pinsFile))
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAtMost(f, maxPins)
	if err != nil {
		return nil, err
	}
	h1, _, _ := parsePins(string(data)) // the last line may just be being written
	return h1, nil
}

// exporter is one run of Export.
type exporter struct {
	o     ExportOptions
	store *fetch.Seed
	h1    map[module.Version]string // the pins
	to    *os.Root
}

// modules returns what is to be exported.
func (e *exporter) modules(ctx context.Context) ([]wanted, error) {
	if e.o.Sums != nil {
		return e.o.Sums.modules(), nil
	}
	return listTree(ctx, e.store.FS())
}

// pin returns the hash that a file must have, and whether the checksum database has yet to be asked about it.
func (e *exporter) pin(key module.Version) (h1 string, doubt bool) {
	if h1 := e.h1[key]; h1 != "" {
		return h1, false
	}
	h1 = e.h1[doubtKey(key)]
	return h1, h1 != ""
}

// module exports the files of a module version.
func (e *exporter) module(ctx context.Context, w wanted) Moved {
	mv := Moved{Module: w.Version, Kept: true}
	for _, part := range [...]Part{PartMod, PartZip, PartInfo} { // the .info last: it is what says that a version is there
		if w.parts&part == 0 {
			continue
		}
		kept, size, err := e.file(ctx, &mv, part)
		if isNotExist(err) && part == PartMod && w.parts&PartZip != 0 {
			continue // it is in the zip
		}
		if isNotExist(err) {
			if e.o.Sums == nil {
				continue
			}
			err = fmt.Errorf("%s: %s: the store does not have it: fetch it, on a mount or with modfs bundle", w.Version, partName(part))
		}
		if err != nil {
			mv.Err, mv.Kept = err, false
			return mv
		}
		if part == PartZip {
			mv.Bytes = size
		}
		mv.Kept = mv.Kept && kept
		mv.Parts |= part
	}
	if mv.Parts&PartZip != 0 && mv.Parts&PartMod == 0 {
		if err := e.modOfZip(&mv); err != nil {
			mv.Err, mv.Kept = err, false
		}
	}
	return mv
}

// modOfZip makes the .mod file of a module of which only the zip was ever wanted: the zip's go.mod, or the one that the go command
// makes up for a module without (https://go.dev/ref/mod#non-module-compat). A proxy must have it.
func (e *exporter) modOfZip(mv *Moved) error {
	m := mv.Module
	f, err := e.to.Open(strings.TrimPrefix(zipKey(m), downloadDir+"/"))
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := zip.NewReader(f, mv.Bytes)
	if err != nil {
		return err
	}
	data := []byte("module " + modfile.AutoQuote(m.Path) + "\n")
	if in, err := zr.Open(m.String() + "/go.mod"); err == nil {
		data, err = readAtMost(in, modzip.MaxGoMod)
		in.Close()
		if err != nil {
			return err
		}
	}
	key := sumKey(m, "go.mod")
	h1 := hashMod(data)
	if want, _ := e.pin(key); want != "" && want != h1 {
		return fmt.Errorf("%s: go.mod: %w: its hash is %s in the zip, and %s by itself", m, errDamaged, h1, want)
	}
	if err := e.o.Sums.check(key, "go.mod", h1); err != nil {
		return err
	}
	mv.Parts |= PartMod
	elem := strings.TrimPrefix(modKey(m), downloadDir+"/")
	if old, err := e.to.ReadFile(elem); err == nil && bytes.Equal(old, data) {
		return nil
	}
	mv.Kept = false
	return e.write(elem, bytes.NewReader(data), nil)
}

func partName(part Part) string {
	if name := partNames[part]; name != "" {
		return name
	}
	return ".info"
}

// file exports one file. It reports whether a good one was there.
func (e *exporter) file(ctx context.Context, mv *Moved, part Part) (kept bool, size int64, err error) {
	m := mv.Module
	var key string
	var limit int64
	var check func(r io.ReaderAt, size int64) error
	switch part {
	case PartInfo:
		key, limit = infoKey(m), maxInfo
		check = func(r io.ReaderAt, size int64) error { return e.checkInfo(m, r, size) }
	case PartMod:
		key, limit = modKey(m), modzip.MaxGoMod
	default:
		key, limit = zipKey(m), modzip.MaxZipFile
	}
	elem := strings.TrimPrefix(key, downloadDir+"/")
	if file := partNames[part]; file != "" {
		want, doubt := e.pin(sumKey(m, file))
		mv.Unchecked, mv.Deferred = mv.Unchecked || doubt, mv.Deferred || doubt
		if want != "" {
			if err := e.o.Sums.check(sumKey(m, file), file, want); err != nil {
				return false, 0, err
			}
		}
		check = func(r io.ReaderAt, size int64) error { return checkHash(ctx, m, file, want, r, size) }
	}
	if f, err := e.to.Open(elem); err == nil {
		fi, serr := f.Stat()
		if serr == nil && fi.Mode().IsRegular() && fi.Size() <= limit && check(f, fi.Size()) == nil {
			f.Close()
			return true, fi.Size(), nil
		}
		f.Close()
	}
	in, size, err := e.store.Open(elem)
	if err != nil {
		return false, 0, err
	}
	defer in.Close()
	if size > limit {
		return false, 0, fmt.Errorf("%s: %s: %w: %d bytes", m, partName(part), errDamaged, size)
	}
	return false, size, e.write(elem, in, check)
}

// checkHash compares a file with its pin.
func checkHash(ctx context.Context, m module.Version, file, want string, r io.ReaderAt, size int64) error {
	var got string
	if file == "zip" {
		h1, err := fetch.HashZip(ctx, m, r, size, 0, fetch.Watch{})
		if err != nil {
			return fmt.Errorf("%s: zip: %w: %v: run modfs verify --repair", m, errDamaged, err)
		}
		got = h1
	} else {
		data, err := io.ReadAll(io.NewSectionReader(r, 0, size))
		if err != nil {
			return err
		}
		got = hashMod(data)
	}
	switch {
	case want == "":
		return fmt.Errorf("%s: %s: the store does not know its hash, so it was never verified", m, file)
	case got != want:
		return fmt.Errorf("%s: %s: %w: its hash is %s, not %s: run modfs verify --repair", m, file, errDamaged, got, want)
	}
	return nil
}

func (e *exporter) checkInfo(m module.Version, r io.ReaderAt, size int64) error {
	data, err := io.ReadAll(io.NewSectionReader(r, 0, size))
	if err != nil {
		return err
	}
	key := m
	key.Version += infoSuffix
	if pin := e.h1[key]; pin != "" && pin != hashInfo(data) {
		return fmt.Errorf("%s: .info: %w: it is not what was fetched", m, errDamaged)
	}
	_, err = infoTime(m, data)
	return err
}

// write makes a file of the tree: under another name, until it was checked.
func (e *exporter) write(elem string, in io.Reader, check func(r io.ReaderAt, size int64) error) (err error) {
	if err := e.to.MkdirAll(path.Dir(elem), 0o777); err != nil {
		return err
	}
	// One name for each file, so that what an interrupted export left is overwritten by the next.
	temp := path.Dir(elem) + "/" + tempPrefix + path.Base(elem)
	if err := e.to.Remove(temp); err != nil && !isNotExist(err) {
		return err
	}
	out, err := e.to.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			out.Close()
			e.to.Remove(temp) // best effort: the next export does
		}
	}()
	// Between two files on one file system that can, this shares their blocks.
	size, err := io.Copy(out, in)
	if err == nil && check != nil {
		err = check(out, size)
	}
	if err == nil {
		err = out.Sync()
	}
	if err == nil {
		err = out.Close()
	}
	if err == nil {
		err = e.to.Rename(temp, elem)
	}
	return err
}

// list makes the list of a module: of the versions that the tree has an archive of.
func (e *exporter) list(modPath string) error {
	dir := strings.TrimPrefix(versionsDir(modPath), downloadDir+"/")
	des, err := iofs.ReadDir(e.to.FS(), dir)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var versions []string
	for _, de := range des {
		pp := ParsePath(downloadDir + "/" + dir + "/" + de.Name())
		if pp.Kind == KindZip && !module.IsPseudoVersion(pp.Mod.Version) {
			versions = append(versions, pp.Mod.Version)
		}
	}
	return e.write(dir+"/list", strings.NewReader(string(versionList(versions))), nil)
}

// proofs exports what proves modules, and returns of how many the store does not have that.
func (e *exporter) proofs(ctx context.Context, ms []module.Version) (unproven int, err error) {
	c := e.o.Fetch
	c.Offline, c.Seeds, c.SeedsOnly, c.Tiles = true, nil, true, readTiles{e.store.Sum}
	client, err := fetch.New(c)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	files, failed, err := proofs(ctx, client, ms)
	if err != nil {
		return 0, err
	}
	for name, data := range files {
		if err := e.write("sumdb/"+name, strings.NewReader(string(data)), nil); err != nil {
			return 0, err
		}
	}
	return len(failed), nil
}

// readTiles is a fetch.TileStore that keeps nothing.
type readTiles struct {
	read func(name string) ([]byte, error)
}

func (t readTiles) ReadFile(name string) ([]byte, error) { return t.read(name) }
func (t readTiles) WriteFile(string, []byte) error       { return nil }
