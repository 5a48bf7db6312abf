package fs

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/lru"
)

// openZip returns the open archive of a module, fetched and verified if the store does not have it. The caller puts it
// back.
func (f *FS) openZip(ctx context.Context, md *mod) (*handle, error) {
	if h := f.zips.get(md.zipKey); h != nil {
		return h, nil
	}
	file, err := f.store.Get(md.zipKey)
	switch {
	case err == nil:
		f.stats.hits.Add(1)
	case !errors.Is(err, iofs.ErrNotExist):
		return nil, err
	default:
		if file, err = f.fill(ctx, md); err != nil {
			return nil, err
		}
	}
	return f.keepOpen(md.zipKey, file), nil
}

// keepOpen keeps a file of the store open for other readers, and returns it as handles.get does.
func (f *FS) keepOpen(key string, file *lru.File) *handle {
	h := f.zips.add(key, file)
	if _, err := f.store.Stat(key); err != nil {
		// It was evicted before it was in the table. Nobody would drop it from there, and its bytes would never be free.
		f.zips.drop(key)
	}
	return h
}

// fill fetches the archive of a module into the store, once however many ask, and indexes it.
func (f *FS) fill(ctx context.Context, md *mod) (*lru.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	defer f.turns.want(md)()
	for {
		file, err := f.store.Fill(ctx, md.zipKey, f.filler(md, false))
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, errSpared) {
			continue // it was being fetched ahead, and there was no room for that; it is not begun again while we want it
		}
		if err == nil {
			f.filled(md)
		}
		return file, err
	}
}

// filled notes that the archive of a module has come into the store.
func (f *FS) filled(md *mod) { f.touch(inMod(md.zipKey), inMod(moduleDir(md.Version))) }

// filler returns what fills the store with the archive of a module; ahead, if nobody waits for that yet.
func (f *FS) filler(md *mod, ahead bool) func(context.Context, *lru.Temp) error {
	return func(ctx context.Context, t *lru.Temp) error {
		if !ahead {
			return f.fetchZip(ctx, md, t, func() {})
		}
		t.Spare(time.Now().Add(-spareTime))
		if !f.turns.download(ctx, md) {
			return context.Cause(ctx)
		}
		done := sync.OnceFunc(f.turns.downloaded)
		defer done()
		return spared(f.fetchZip(ctx, md, t, done))
	}
}

// fetchZip downloads and verifies a module's archive into t. When it returns nil, the module has its pin and its index,
// and what was inflated on the way is in memory, as far as there is room: the client is about to read it. downloaded is
// called, maybe more than once, when it is no longer downloading.
func (f *FS) fetchZip(ctx context.Context, md *mod, t *lru.Temp, downloaded func()) error {
	start := time.Now()
	f.at("fill")
	f.stats.misses.Add(1)
	// The .info has the mtime of the files. It comes in parallel, and a module can do without.
	info := make(chan struct{})
	f.background(func() {
		defer close(info)
		f.info(ctx, md.Version)
	})
	kept := keeper{allowance: &f.keeping}
	defer kept.release()
	verified := sync.OnceFunc(func() { f.turns.verified(md) })
	defer verified() // also of one that panics, or it would keep its turn
	h1, err := f.client.Zip(ctx, md.Version, f.pins.zip(md.Version), t, fetch.Watch{
		File: kept.add,
		Sum:  kept.sum,
		Turn: func(ctx context.Context) (cores int) {
			downloaded()
			return f.turns.verify(ctx, md)
		},
	})
	verified()
	if err != nil {
		return err
	}
	<-info
	if err := f.pins.pinZip(md.Version, h1); err != nil {
		return err
	}
	ix, err := f.index(md, t, kept.sums)
	if err != nil {
		return err
	}
	add := f.content.add
	if !f.turns.wanted(md) {
		add = f.content.addSpare // nobody is about to read it; what others are about to read is worth more
	}
	for name, data := range kept.files {
		if i, ok := ix.find(name); ok && ix.data(i).sum == kept.sums.files[name] { // not if a toolchain's _go.mod takes its place
			add(contentKey{md.slot, i}, content{data, int64(len(data)) == ix.size(i)}, int64(len(data)))
		}
	}
	f.stats.fetched.Add(t.Size())
	f.log.Info("fetched", "module", md.Path, "version", md.Version.Version, "bytes", t.Size(), "dur", time.Since(start))
	return nil
}

// archive is an open zip: a *handle or a *lru.Temp.
type archive interface {
	io.ReaderAt
	Size() int64
}

// index makes the tree of a module from its archive, whose verification has found sums, and keeps it, in memory and in the store.
func (f *FS) index(md *mod, a archive, sums digests) (*indexed, error) {
	zr, err := zip.NewReader(a, a.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: zip: %w: %v", md.Version, errDamaged, err)
	}
	t, err := newTree(md.Version, zr, a.Size(), sums, md.Path == toolchainPath)
	if err != nil {
		return nil, fmt.Errorf("%s: zip: %w", md.Version, err)
	}
	ix := &indexed{tree: t, time: f.modTime(md.Version)}
	if err := f.store.Put(indexKey(md.Version), ix.encode()); err != nil {
		f.log.Warn("index not stored", "module", md.Path, "version", md.Version.Version, "err", err)
	}
	f.keepTree(md, ix)
	return ix, nil
}

// toolchainPath is the module whose versions are Go toolchains (https://go.dev/doc/toolchain).
const toolchainPath = "golang.org/toolchain"

// noTime is the mtime of what has no commit time that we know: old, like the content of a zip without times.
var noTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// modTime returns the commit time of a module version, as far as the store has it. It fetches nothing.
func (f *FS) modTime(m module.Version) time.Time {
	if data, err := f.store.ReadFile(infoKey(m), maxInfo); err == nil {
		if t, err := infoTime(m, data); err == nil && t.Unix() > 0 {
			return t
		}
	}
	if t, err := module.PseudoVersionTime(m.Version); err == nil {
		return t
	}
	return noTime
}

// keeper collects what the client that opens a module is likely to read of it, while it is verified: how source files begin.
type keeper struct {
	allowance *allowance

	mu    sync.Mutex
	files map[string][]byte // by slash path below M@V
	sums  digests           // of all files
	bytes int64
}

// add is the File of a fetch.Watch.
func (k *keeper) add(name string, data []byte, size int64) {
	var head digest
	if size > headSize {
		data = data[:headSize]
		head = digestOf(data)
	}
	keep := isSource(name) && k.allowance.take(int64(len(data)))
	if keep {
		data = bytes.Clone(data)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if size > headSize {
		set(&k.sums.heads, name, head)
	}
	if keep {
		set(&k.files, name, data)
		k.bytes += int64(len(data))
	}
}

// sum is the Sum of a fetch.Watch.
func (k *keeper) sum(name string, sum [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set(&k.sums.files, name, makeDigest(sum))
}

// set sets a value in a map that may not have been made yet.
func set[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = v
}

// release gives back what was taken of the allowance: what was kept is somewhere else by now, or nowhere.
func (k *keeper) release() { k.allowance.give(k.bytes) }

// isSource reports whether a file, by its slash path below M@V, is one that the go command reads when it loads packages: not
// one of a test's data, nor one that it ignores (https://pkg.go.dev/cmd/go, "Package lists and patterns").
func isSource(name string) bool {
	switch path.Ext(name) {
	case ".go", ".s", ".c", ".h":
	default:
		return name == "go.mod"
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == "testdata" || elem[0] == '_' || elem[0] == '.' {
			return false
		}
	}
	return true
}
