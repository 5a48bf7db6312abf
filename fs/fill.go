package fs

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"
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
	if err := f.confirm(ctx, md.Version, ""); err != nil {
		return nil, err
	}
	file, err := f.store.Get(md.zipKey)
	switch {
	case err == nil:
		f.stats.hits.Add(1)
		if md.counted.CompareAndSwap(false, true) {
			f.stats.saved.Add(file.Size())
		}
	case unreadable(err):
		return nil, fmt.Errorf("%s: zip: %w: %w", md.Version, errDamaged, err)
	case !isNotExist(err):
		return nil, err
	default:
		if file, err = f.fill(ctx, md, f.store.Fill); err != nil {
			return nil, f.notReplaced(md.zipKey, err)
		}
	}
	return f.keepOpen(md.zipKey, file), nil
}

// keepOpen keeps a file of the store open for other readers, and returns it as handles.get does.
func (f *FS) keepOpen(key string, file *lru.File) *handle { return f.keepSummed(key, file, nil) }

// keepSummed is keepOpen for a file that brings its checksums.
func (f *FS) keepSummed(key string, file *lru.File, sums *blockSums) *handle {
	h := f.zips.addSummed(key, file, sums)
	if _, err := f.store.Stat(key); err != nil {
		// It was evicted before it was in the table. Nobody would drop it from there, and its bytes would never be free.
		f.zips.drop(key)
	}
	return h
}

// fill fetches the archive of a module into the store, once however many ask, and indexes it. into is the store's Fill, or its
// Refill.
func (f *FS) fill(ctx context.Context, md *mod, into func(context.Context, string, func(context.Context, *lru.Temp) error) (*lru.File, error)) (*lru.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	defer f.turns.want(md)()
	defer f.transfers.wait(md, threadOf(ctx))()
	for {
		file, err := into(ctx, md.zipKey, f.filler(md, 0, false))
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
func (f *FS) filled(md *mod) {
	md.counted.Store(true) // to open it again spares no download
	f.arrived(md.Version)
	f.replaced(md.zipKey)
	f.came(inMod(md.zipKey), inMod(moduleDir(md.Version)))
}

// filler returns what fills the store with the archive of a module; ahead, for a thread or for none in particular, if nobody waits
// for that yet.
func (f *FS) filler(md *mod, thread uint32, ahead bool) func(context.Context, *lru.Temp) error {
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
		return spared(f.fetchZip(withThread(ctx, thread), md, t, done))
	}
}

// fetchZip downloads and verifies a module's archive into t. When it returns nil, the module has its pin and its index,
// and what was inflated on the way is in memory, as far as there is room: the client is about to read it. downloaded is
// called, maybe more than once, when it is no longer downloading.
func (f *FS) fetchZip(ctx context.Context, md *mod, t *lru.Temp, downloaded func()) error {
	told := f.fetching(md.Version, !f.turns.wanted(md))
	err := f.fetchZipTelling(ctx, md, t, told, downloaded)
	told.done(t.Size(), err)
	return err
}

// fetchZipTelling is fetchZip, and tells how it goes on.
func (f *FS) fetchZipTelling(ctx context.Context, md *mod, t *lru.Temp, told *progress, downloaded func()) error {
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
	dst := &summed{Temp: t, told: told}
	tr := f.transfers.begin(md, dst, threadOf(ctx))
	defer f.transfers.end(tr)
	pin := f.pins.zip(md.Version)
	h1, err := f.client.Zip(ctx, md.Version, pin, dst, fetch.Watch{
		File:  kept.add,
		Sum:   kept.sum,
		Again: kept.reset,
		Turn: func(ctx context.Context) (cores int) {
			downloaded()
			told.downloaded(t.Size())
			tr.verifying.Store(true)
			return f.turns.verify(ctx, md)
		},
	})
	verified()
	if err != nil {
		return err
	}
	f.vouched(md.Version, "zip", h1, pin)
	<-info
	if err := f.pins.pinZip(md.Version, h1); err != nil {
		return err
	}
	ix, err := f.index(md, t, kept.sums, dst.blocks.sums())
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
	if from := tr.from.Load(); from != nil {
		f.origins.note(md.Version, *from)
	}
	f.stats.fetched.Add(t.Size())
	f.churn.fetched(md.zipKey, t.Size(), time.Now())
	f.log.Info("fetched", "module", md.Path, "version", md.Version.Version, "bytes", t.Size(), "dur", time.Since(told.start))
	return nil
}

// archive is an open zip: a *handle or a *lru.Temp.
type archive interface {
	io.ReaderAt
	Size() int64
}

// summed is a file that is being written, with the checksums of its blocks.
type summed struct {
	*lru.Temp
	blocks summer
	told   *progress
	total  atomic.Int64 // bytes that are announced; 0: not known
}

// Reserve implements fetch.Dst.
func (s *summed) Reserve(n int64) error {
	s.told.total = n
	s.total.Store(n)
	return s.Temp.Reserve(n)
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.Temp.Write(p)
	s.blocks.Write(p[:n])
	s.told.wrote(s.Temp.Size())
	return n, err
}

// Truncate is for starting over.
func (s *summed) Truncate(n int64) error {
	if n != 0 {
		return fmt.Errorf("truncate to %d: %w", n, errors.ErrUnsupported)
	}
	s.blocks = summer{}
	return s.Temp.Truncate(0)
}

// index makes the tree of a module from its archive, whose verification has found sums, and keeps it, in memory and in the store.
// blocks are the checksums of the archive.
func (f *FS) index(md *mod, a archive, sums digests, blocks *blockSums) (*indexed, error) {
	zr, err := zip.NewReader(a, a.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: zip: %w: %v", md.Version, errDamaged, err)
	}
	t, err := newTree(md.Version, zr, a.Size(), sums, md.Path == toolchainPath)
	if err != nil {
		return nil, fmt.Errorf("%s: zip: %w", md.Version, err)
	}
	ix := &indexed{tree: t, time: f.modTime(md.Version), sums: blocks}
	key := indexKey(md.Version)
	if err := f.store.Put(key, ix.encode(md.Version)); err != nil {
		f.log.Warn("index not stored", "module", md.Path, "version", md.Version.Version, "err", err)
		f.store.Remove(key) // best effort: one that is there may be that of another archive, which is noticed
	} else {
		f.replaced(key)
	}
	f.keepTree(md, ix)
	return ix, nil
}

// reindex makes the tree of a module, whose index is lost, from its archive. Nothing says that this is still what it was when it was
// verified, and it has no digests of its files, so it is verified again.
func (f *FS) reindex(ctx context.Context, md *mod) (*indexed, error) {
	if ix, ok := f.trees.get(md.slot); ok {
		return ix, nil
	}
	m := md.Version
	z, err := f.openZip(ctx, md)
	if err != nil {
		return nil, err
	}
	defer f.zips.put(z)
	want := f.pins.zip(m)
	if want == "" {
		if want, err = f.client.ZipHash(ctx, m); err != nil && !errors.Is(err, fetch.ErrNoSum) {
			return nil, fmt.Errorf("%s: neither index nor pin: %w", m, err)
		}
	}
	kept := keeper{allowance: &allowance{}} // nothing but digests
	h1, err := fetch.HashZip(ctx, m, z, z.Size(), 0, fetch.Watch{File: kept.add, Sum: kept.sum})
	switch {
	case err != nil && (errors.Is(err, fetch.ErrInvalid) || errors.Is(err, fetch.ErrBadAnswer) || errors.Is(err, fetch.ErrTooLarge) || unreadable(err)):
		return nil, fmt.Errorf("%s: zip: %w: %v", m, errDamaged, err)
	case err != nil:
		return nil, err
	case want == "":
		return nil, fmt.Errorf("%s: zip: %w: its hash is %s, and nobody knows what it should be", m, errDamaged, h1)
	case h1 != want:
		return nil, fmt.Errorf("%s: zip: %w: its hash is %s, not %s", m, errDamaged, h1, want)
	}
	if err := f.pins.pinZip(m, h1); err != nil {
		return nil, err
	}
	sums, err := sumsOf(z, z.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: zip: %w: %v", m, errDamaged, err)
	}
	return f.index(md, z, kept.sums, sums)
}

// toolchainPath is the module whose versions are Go toolchains (https://go.dev/doc/toolchain).
const toolchainPath = "golang.org/toolchain"

// noTime is the mtime of what has no commit time that we know: old, like the content of a zip without times.
var noTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// modTime returns the commit time of a module version, as far as the store has it. It fetches nothing.
func (f *FS) modTime(m module.Version) time.Time {
	if data, err := f.storedInfo(m); err == nil && data != nil {
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
		head = digestOf(data[:headSize])
		data = data[:pushSize]
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
func set[K comparable, V any](m *map[K]V, key K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[key] = v
}

// reset is the Again of a fetch.Watch.
func (k *keeper) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.release()
	k.files, k.sums, k.bytes = nil, digests{}, 0
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
