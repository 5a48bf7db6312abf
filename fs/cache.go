package fs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
	"modfs/lru"
)

// This file and fill.go are where package fetch and package lru meet: what a client wants is in the store, or it is
// fetched, verified and put there.

// maxInfo bounds an .info file, in bytes. Those of version control systems have a few hundred.
const maxInfo = 1 << 20

// evictable says which files of the store may be dropped: zips and what was inflated from them. The rest is small, and
// is what keeps a version known when its zip is gone.
func evictable(key string) bool {
	return strings.HasSuffix(key, ".zip") || strings.HasPrefix(key, "spool/")
}

// evicted is called by the store after it dropped a file.
func (f *FS) evicted(key string) {
	f.at("evicted")
	f.zips.drop(key)
	f.touch(inMod(key))
}

// touch notes that something may have come to paths or gone from there, of which the kernel does not know. The moment is the
// mtime of directories above modules, by which it sees that a listing it keeps is old. The directories above paths are
// made to be asked for it at once.
func (f *FS) touch(paths ...string) {
	f.changed.Store(time.Now().UnixNano())
	if f.server == nil {
		return
	}
	for _, id := range f.nodes.above(paths) {
		f.server.InodeNotify(id, -1, 0) // best effort: the attributes hold for a minute at most
	}
}

// forgetName makes the kernel look p up anew, soon: not while it waits for us with the directory locked.
func (f *FS) forgetName(p string) {
	if f.server == nil {
		return
	}
	f.background(func() {
		if dir, ok := f.nodes.id(path.Dir(p)); ok {
			f.server.EntryNotify(dir, path.Base(p)) // best effort: it is believed for a minute only
		}
	})
}

// once runs work once for all who want key at the same time. It belongs to the mount; ctx bounds only the waiting.
func once[T any](f *FS, ctx context.Context, key string, work func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, context.Cause(ctx)
	}
	ch := f.flights.DoChan(key, func() (v any, err error) {
		defer f.recovered(key, &err) // DoChan would crash the process
		f.at("once")
		return work(f.ctx)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// known reports whether the store has seen m.
func (f *FS) known(m module.Version) bool {
	for _, key := range [...]string{modKey(m), infoKey(m), indexKey(m), zipKey(m)} {
		if _, err := f.store.Stat(key); err == nil {
			return true
		}
	}
	return false
}

// exists returns nil if m exists: if the store has seen it or upstream has its .info.
func (f *FS) exists(ctx context.Context, m module.Version) error {
	if f.known(m) {
		return nil
	}
	_, err := f.info(ctx, m)
	return err
}

// info returns m's .info file, as the go command would write it.
func (f *FS) info(ctx context.Context, m module.Version) ([]byte, error) {
	if data, err := f.store.ReadFile(infoKey(m), maxInfo); err == nil {
		if _, err := infoTime(m, data); err == nil {
			return data, nil
		}
		f.drop(infoKey(m), m)
	} else if !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	return once(f, ctx, "info "+m.String(), func(ctx context.Context) ([]byte, error) {
		// Another flight may have landed since we looked.
		if data, err := f.store.ReadFile(infoKey(m), maxInfo); err == nil {
			if _, err := infoTime(m, data); err == nil {
				return data, nil
			}
		}
		data, err := f.client.Info(ctx, m)
		if err != nil {
			return nil, err
		}
		return data, f.put(infoKey(m), data)
	})
}

// infoTime returns the commit time that an .info file gives. The error tells of a file that is not m's .info.
func infoTime(m module.Version, data []byte) (time.Time, error) {
	var info struct {
		Version string
		Time    time.Time
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return time.Time{}, fmt.Errorf("%s: .info: %v", m, err)
	}
	if info.Version != m.Version {
		return time.Time{}, fmt.Errorf("%s: .info is that of version %q", m, info.Version)
	}
	return info.Time, nil
}

// mod returns m's go.mod, verified: when it is fetched against the checksum database, each time that it is read against
// its pin.
func (f *FS) mod(ctx context.Context, m module.Version) ([]byte, error) {
	data, err := f.store.ReadFile(modKey(m), modzip.MaxGoMod)
	switch pin := f.pins.mod(m); {
	case err == nil && pin != "" && hashMod(data) == pin:
		return data, nil
	case err == nil:
		// Damaged, or written by a daemon that did not live to pin it.
		f.drop(modKey(m), m)
	case !errors.Is(err, iofs.ErrNotExist):
		return nil, err
	}
	return once(f, ctx, "mod "+m.String(), func(ctx context.Context) ([]byte, error) {
		// Another flight may have landed since we looked.
		if data, err := f.store.ReadFile(modKey(m), modzip.MaxGoMod); err == nil && hashMod(data) == f.pins.mod(m) {
			return data, nil
		}
		data, h1, err := f.client.Mod(ctx, m, f.pins.mod(m))
		if err != nil {
			return nil, err
		}
		if err := f.pins.pinMod(m, h1); err != nil {
			return nil, err
		}
		return data, f.put(modKey(m), data)
	})
}

// hashMod is the h1 hash of a go.mod file, as in a go.sum.
func hashMod(data []byte) string {
	h1, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
	if err != nil {
		return "" // cannot happen: the name is fine and reading memory does not fail
	}
	return h1
}

// hash returns the h1 hash of m's zip: its pin, else what the checksum database says, else that of the zip, which is then
// fetched.
func (f *FS) hash(ctx context.Context, m module.Version) (string, error) {
	if h1 := f.pins.zip(m); h1 != "" {
		return h1, nil
	}
	h1, err := once(f, ctx, "ziphash "+m.String(), func(ctx context.Context) (string, error) {
		return f.client.ZipHash(ctx, m)
	})
	if !errors.Is(err, fetch.ErrNoSum) {
		return h1, err
	}
	z, err := f.openZip(ctx, f.modules.intern(m))
	if err != nil {
		return "", err
	}
	f.zips.put(z)
	return f.pins.zip(m), nil
}

// put stores a small file that a listing may show. A full store is no reason to keep an answer from a client.
func (f *FS) put(key string, data []byte) error {
	if err := f.store.Put(key, data); err != nil {
		f.log.Warn("not stored", "key", key, "err", err)
		return nil
	}
	f.touch(inMod(key))
	return nil
}

// drop removes a small file that turned out to be damaged.
func (f *FS) drop(key string, m module.Version) {
	f.stats.damaged.Add(1)
	f.log.Error("stored file is damaged; fetching it again", "key", key, "module", m.Path, "version", m.Version)
	if err := f.store.Remove(key); err != nil {
		f.log.Error("damaged file not removed", "key", key, "err", err)
	}
}

// indexed is the tree of a module, with what else its index in the store holds.
type indexed struct {
	*tree
	time time.Time // mtime of all of its files
}

// path returns the slash path of entry i below M@V, for messages.
func (ix *indexed) path(i int) string {
	if i == 0 {
		return "."
	}
	p := ix.name(i)
	for i = ix.parent(i); i != 0; i = ix.parent(i) {
		p = ix.name(i) + "/" + p
	}
	return p
}

// memory returns about how many bytes the tree takes.
func (ix *indexed) memory() int64 {
	return int64(len(ix.entries))*int64(unsafe.Sizeof(entry{})) + int64(len(ix.names)) + int64(len(ix.heads))*int64(unsafe.Sizeof(head{}))
}

// treeMemory bounds the trees in memory, in bytes: those of about a million files.
const treeMemory = 64 << 20

// maxIndex bounds an index file, in bytes.
const maxIndex = 256 << 20

// indexHeader is the length of what precedes the tree in an index file.
const indexHeader = 8 + checksumSize

// encode returns the index file of a module: eight bytes of Unix time and their CRC-32C, then the tree, which has its own.
func (ix *indexed) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(ix.time.Unix()))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, ix.tree.encode()...)
}

func decodeIndex(data []byte) (*indexed, error) {
	if len(data) < indexHeader {
		return nil, errors.New("index file is too short")
	}
	if crc32.Checksum(data[:8], castagnoli) != binary.BigEndian.Uint32(data[8:]) {
		return nil, errors.New("index file: wrong checksum of the time")
	}
	t, err := decodeTree(data[indexHeader:])
	if err != nil {
		return nil, err
	}
	return &indexed{tree: t, time: time.Unix(int64(binary.BigEndian.Uint64(data)), 0)}, nil
}

// load returns the tree of a module: from memory, or the store's index of it, or its zip, which is fetched if need be.
func (f *FS) load(ctx context.Context, md *mod) (*indexed, error) {
	if ix, ok := f.trees.get(md.slot); ok {
		return ix, nil
	}
	key := indexKey(md.Version)
	data, err := f.store.ReadFile(key, maxIndex)
	if err == nil {
		ix, err := decodeIndex(data)
		if err == nil {
			f.keepTree(md, ix)
			return ix, nil
		}
		f.drop(key, md.Version)
	} else if !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	z, err := f.openZip(ctx, md) // makes the index if it has to fetch
	if err != nil {
		return nil, err
	}
	f.zips.put(z)
	return once(f, ctx, "index "+md.zipKey, func(ctx context.Context) (*indexed, error) { return f.reindex(ctx, md) })
}

// reindex makes the tree of a module, whose index is lost, from its archive. Nothing says that this is still what it was when it was
// verified, and it has no digests of its files, so it is verified again.
func (f *FS) reindex(ctx context.Context, md *mod) (*indexed, error) {
	if ix, ok := f.trees.get(md.slot); ok {
		return ix, nil
	}
	z, err := f.openZip(ctx, md)
	if err != nil {
		return nil, err
	}
	defer f.zips.put(z)
	kept := keeper{allowance: &allowance{}} // nothing but digests
	h1, err := fetch.HashZip(ctx, md.Version, z, z.Size(), 0, fetch.Watch{File: kept.add, Sum: kept.sum})
	pin := f.pins.zip(md.Version)
	switch {
	case errors.Is(err, fetch.ErrInvalid), errors.Is(err, fetch.ErrTooLarge):
		return nil, fmt.Errorf("%s: zip: %w: %v", md.Version, errDamaged, err)
	case err != nil:
		return nil, err
	case h1 != pin:
		return nil, fmt.Errorf("%s: zip: %w: its hash is %s, not %s", md.Version, errDamaged, h1, cmp.Or(pin, "known"))
	}
	return f.index(md, z, kept.sums)
}

func (f *FS) keepTree(md *mod, ix *indexed) {
	f.trees.add(md.slot, ix, ix.memory())
}

// tiles lets package fetch keep what it verified of a checksum database in the store.
type tiles struct{ store *lru.Store }

const maxTile = 16 << 20

func (t tiles) ReadFile(name string) ([]byte, error) {
	return t.store.ReadFile("sumdb/"+name, maxTile)
}

func (t tiles) WriteFile(name string, data []byte) error {
	return t.store.Put("sumdb/"+name, data)
}
