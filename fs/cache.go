package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
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
// is what keeps a version known when its zip is gone; minor says which of it may be dropped where there is too much of it.
func evictable(key string) bool {
	return strings.HasSuffix(key, zipSuffix) || strings.HasPrefix(key, "spool/")
}

// minor says which files may go once such files take a quarter of the store: all that can be had again. Whoever reads the mount
// can have some stored for each version there is. The tree head of a checksum database is what a lie would be found out by.
func minor(key string) bool {
	db, ok := strings.CutPrefix(key, "sumdb/")
	if !ok {
		return true
	}
	_, file := cutSumDB(db)
	return file != "latest"
}

// evicted is called by the store after it dropped a file.
func (f *FS) evicted(e lru.Eviction) {
	f.at("evicted")
	f.churn.evicted(e, time.Now())
	if m, file, ok := ofModule(e.Key); ok && file == "zip" {
		f.origins.forget(m)
	}
	f.zips.drop(e.Key)
	f.noteKey(ActivityEvicted, e.Key, nil)
	f.touch(inMod(e.Key))
}

// once runs work once for all who want key at the same time. It belongs to the mount; ctx bounds only the waiting.
func once[T any](f *FS, ctx context.Context, key string, work func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, context.Cause(ctx)
	}
	thread := threadOf(ctx) // of the first who asks: for Status
	ch := f.flights.DoChan(key, func() (v any, err error) {
		defer f.recovered(key, &err) // DoChan would crash the process
		f.at("once")
		return work(withThread(f.ctx, thread))
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
	if err != nil && f.client.Seeded(m) {
		// A module cache need not have the .info of what it has.
		if _, err := f.mod(ctx, m); err == nil {
			return nil
		}
		if _, err := f.load(ctx, f.modules.intern(m)); err == nil {
			return nil
		}
	}
	return err
}

// info returns m's .info file, as the go command would write it.
func (f *FS) info(ctx context.Context, m module.Version) ([]byte, error) {
	if data, err := f.storedInfo(m); data != nil || err != nil {
		return data, err
	}
	return once(f, ctx, "info "+m.String(), func(ctx context.Context) ([]byte, error) {
		// Another flight may have landed since we looked.
		if data, err := f.storedInfo(m); data != nil || err != nil {
			return data, err
		}
		data, err := f.client.Info(ctx, m)
		if err != nil {
			return nil, f.notReplaced(infoKey(m), err)
		}
		// An .info file has no hash that anybody vouches for. Ours tells whether it is still the one that was fetched.
		if err := f.pins.pinInfo(m, hashInfo(data)); err != nil {
			f.log.Warn("not stored", "key", infoKey(m), "err", err)
			return data, nil
		}
		return data, f.put(infoKey(m), data)
	})
}

// storedInfo returns m's .info file from the store, nil if it is not there or damaged.
func (f *FS) storedInfo(m module.Version) ([]byte, error) {
	return f.stored(infoKey(m), maxInfo, func(data []byte) error {
		if pin := f.pins.info(m); pin != "" && pin != hashInfo(data) {
			return fmt.Errorf("%w: it is not what was fetched", errDamaged)
		}
		_, err := infoTime(m, data)
		return err
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
	if err := f.confirm(ctx, m, modSuffix); err != nil {
		return nil, err
	}
	if data, err := f.storedMod(m); data != nil || err != nil {
		return data, err
	}
	return once(f, ctx, "mod "+m.String(), func(ctx context.Context) ([]byte, error) {
		// Another flight may have landed since we looked.
		if data, err := f.storedMod(m); data != nil || err != nil {
			return data, err
		}
		pin := f.pins.mod(m)
		data, h1, err := f.client.Mod(ctx, m, pin)
		if err != nil {
			return nil, f.notReplaced(modKey(m), err)
		}
		f.vouched(m, "mod", h1, pin)
		if err := f.pins.pinMod(m, h1); err != nil {
			return nil, err
		}
		return data, f.put(modKey(m), data)
	})
}

// storedMod returns m's go.mod from the store, nil if it is not there or damaged. One without a pin is damaged: a file is
// pinned before it is stored.
func (f *FS) storedMod(m module.Version) ([]byte, error) {
	return f.stored(modKey(m), modzip.MaxGoMod, func(data []byte) error {
		if got, pin := hashMod(data), f.pins.mod(m); got != pin {
			return fmt.Errorf("%w: its hash is %s, and its pin is %q", errDamaged, got, pin)
		}
		return nil
	})
}

// isNotExist reports whether err says that the store does not have a file.
func isNotExist(err error) bool { return errors.Is(err, iofs.ErrNotExist) }

// hashMod is the h1 hash of a go.mod file, as in a go.sum.
func hashMod(data []byte) string { return hashFile("go.mod", data) }

// hashInfo is the same of an .info file.
func hashInfo(data []byte) string { return hashFile(".info", data) }

func hashFile(name string, data []byte) string {
	h1, err := dirhash.Hash1([]string{name}, func(string) (io.ReadCloser, error) {
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
	if err := f.confirm(ctx, m, ""); err != nil {
		return "", err
	}
	if h1 := f.pins.zip(m); h1 != "" {
		return h1, nil
	}
	h1, err := once(f, ctx, "ziphash "+m.String(), func(ctx context.Context) (string, error) {
		return f.client.ZipHash(ctx, m)
	})
	if !errors.Is(err, fetch.ErrNoSum) && !errors.Is(err, fetch.ErrOffline) { // offline, a seed may have the zip
		return h1, err
	}
	md := f.modules.intern(m)
	err = f.repairing(ctx, md, func() error {
		z, err := f.openZip(ctx, md)
		if err != nil {
			return err
		}
		f.zips.put(z)
		if h1 = f.pins.zip(m); h1 == "" {
			return fmt.Errorf("%s: zip: %w: its pin was lost, and nobody else knows what it should be", m, errDamaged)
		}
		return nil
	})
	return h1, err
}

// put stores a small file that a listing may show. A full store is no reason to keep an answer from a client.
func (f *FS) put(key string, data []byte) error {
	if err := f.store.Put(key, data); err != nil {
		f.log.Warn("not stored", "key", key, "err", err)
		return nil
	}
	f.replaced(key)
	f.came(inMod(key))
	return nil
}

// indexed is the tree of a module, with what else its index in the store holds.
type indexed struct {
	*tree
	time time.Time  // mtime of all of its files
	sums *blockSums // of the archive
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
	return int64(len(ix.entries))*int64(unsafe.Sizeof(entry{})) + int64(len(ix.names)) + int64(len(ix.heads))*int64(unsafe.Sizeof(head{})) +
		4*int64(len(ix.sums.crcs))
}

// treeMemory bounds the trees in memory, in bytes: those of about a million files.
const treeMemory = 64 << 20

// maxIndex bounds an index file, in bytes.
const maxIndex = 256 << 20

// An index file is
//
//	indexMagic, which changes with the format
//	eight bytes of Unix time, and how many bytes of checksums follow (4 bytes; big endian, all of them)
//	the CRC-32Cs of the archive's blocks
//	the CRC-32C of M@V, all before this, and the last four bytes of the file, which are the tree's checksum
//	the tree
//
// So it is known when it is that of another module, or has parts of two.
const indexMagic = "modfs-index-1\n"

// errOldIndex is the error of an index that another version of modfs made.
var errOldIndex = errors.New("index file is of another version")

// encode returns the index file of m.
func (ix *indexed) encode(m module.Version) []byte {
	b := append([]byte(nil), indexMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(ix.time.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(4*len(ix.sums.crcs)))
	b = ix.sums.append(b)
	t := ix.tree.encode()
	return append(binary.BigEndian.AppendUint32(b, indexSum(m, b, t)), t...)
}

func indexSum(m module.Version, head, tree []byte) uint32 {
	crc := crc32.Checksum([]byte(m.String()), castagnoli)
	crc = crc32.Update(crc, castagnoli, head)
	return crc32.Update(crc, castagnoli, tree[max(0, len(tree)-checksumSize):])
}

// decodeIndex is the inverse of encode.
func decodeIndex(m module.Version, data []byte) (*indexed, error) {
	const fixed = len(indexMagic) + 8 + 4
	const old = 8 + checksumSize // what was before the tree when there was no magic
	if len(data) > old && strings.HasPrefix(string(data[old:min(len(data), old+len(treeMagic))]), "modfs-tree-") {
		return nil, errOldIndex
	}
	if len(data) < fixed || string(data[:len(indexMagic)]) != indexMagic {
		return nil, fmt.Errorf("%w: not an index file", errDamaged)
	}
	unix, n := binary.BigEndian.Uint64(data[len(indexMagic):]), int64(binary.BigEndian.Uint32(data[fixed-4:]))
	end := int64(fixed) + n
	if end+checksumSize > int64(len(data)) {
		return nil, fmt.Errorf("%w: index file is too short", errDamaged)
	}
	if indexSum(m, data[:end], data[end+checksumSize:]) != binary.BigEndian.Uint32(data[end:]) {
		return nil, fmt.Errorf("%w: index file: wrong checksum", errDamaged)
	}
	t, err := decodeTree(data[end+checksumSize:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	sums, err := decodeSums(data[fixed:end], t.zipSize)
	if err != nil {
		return nil, fmt.Errorf("%w: index file: %w", errDamaged, err)
	}
	return &indexed{tree: t, time: time.Unix(int64(unix), 0), sums: sums}, nil
}

// load returns the tree of a module: from memory, or the store's index of it, or its zip, which is fetched if need be.
func (f *FS) load(ctx context.Context, md *mod) (ix *indexed, err error) {
	if ix, ok := f.trees.get(md.slot); ok {
		return ix, nil
	}
	err = f.repairing(ctx, md, func() (err error) {
		ix, err = f.loadStored(ctx, md)
		return err
	})
	return ix, err
}

func (f *FS) loadStored(ctx context.Context, md *mod) (*indexed, error) {
	if err := f.confirm(ctx, md.Version, ""); err != nil {
		return nil, err
	}
	key := indexKey(md.Version)
	if ix, err := f.storedIndex(md.Version); err != nil {
		return nil, err
	} else if ix != nil {
		f.keepTree(md, ix)
		return ix, nil
	}
	z, err := f.openZip(ctx, md) // makes the index if it has to fetch
	if err != nil {
		return nil, f.notReplaced(key, err)
	}
	f.zips.put(z)
	return once(f, ctx, "index "+md.zipKey, func(ctx context.Context) (*indexed, error) { return f.reindex(ctx, md) })
}

// storedIndex returns m's index from the store, nil if it is not there, or damaged.
func (f *FS) storedIndex(m module.Version) (ix *indexed, err error) {
	old := false
	_, err = f.stored(indexKey(m), maxIndex, func(data []byte) (err error) {
		if ix, err = decodeIndex(m, data); errors.Is(err, errOldIndex) {
			old, err = true, nil
		}
		return err
	})
	if err != nil || old {
		return nil, err
	}
	return ix, nil
}

func (f *FS) keepTree(md *mod, ix *indexed) {
	f.trees.add(md.slot, ix, ix.memory())
}

// tiles lets package fetch keep what it verified of a checksum database in the store, each file with a checksum: what is kept is
// handed to clients without verifying it again.
type tiles struct{ f *FS }

const maxTile = 16 << 20

func (t tiles) ReadFile(name string) (data []byte, err error) {
	key := "sumdb/" + name
	found, err := t.f.stored(key, maxTile, func(sealed []byte) (err error) {
		data, err = cutSum(key, sealed)
		return err
	})
	if err == nil && found == nil {
		err = iofs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (t tiles) WriteFile(name string, data []byte) error {
	key := "sumdb/" + name
	err := t.f.store.Put(key, addSum(key, data))
	if err == nil {
		t.f.replaced(key)
	}
	return err
}
