package fs

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"sync"

	"archive/zip"

	"github.com/klauspost/compress/flate"

	"modfs/lru"
)

// maxInMemory is the size up to which a file is inflated whole into memory, in bytes. Larger ones (the binaries of a
// toolchain, mostly) are inflated once into a file of the store and served from there.
const maxInMemory = 4 << 20

// contentKey names a file inside a module.
type contentKey struct {
	slot  uint64
	index int
}

// open is what reads of a file are answered from: its bytes in memory, or a handle on them.
type open struct {
	data  []byte
	spool *handle
}

// content returns what is in file i of a module; release gives it back.
func (f *FS) openFile(ctx context.Context, md *mod, i int) (c open, release func(), err error) {
	if data, ok := f.content.get(contentKey{md.slot, i}); ok {
		return open{data: data}, func() {}, nil
	}
	err = f.repairing(ctx, md, func() error {
		ix, err := f.load(ctx, md)
		if err != nil {
			return err
		}
		if i >= ix.len() || ix.isDir(i) {
			return fmt.Errorf("%s: entry %d: %w", md.Version, i, iofs.ErrNotExist)
		}
		if ix.size(i) <= maxInMemory {
			c.data, err = f.inflateToMemory(ctx, md, ix, i)
			return err
		}
		c.spool, err = f.inflateToSpool(ctx, md, ix, i)
		return err
	})
	if err != nil {
		return open{}, nil, err
	}
	if c.spool != nil {
		return c, func() { f.zips.put(c.spool) }, nil
	}
	return c, func() {}, nil
}

// inflateToMemory returns file i whole, from memory if somebody else has put it there.
func (f *FS) inflateToMemory(ctx context.Context, md *mod, ix *indexed, i int) ([]byte, error) {
	key := contentKey{md.slot, i}
	return once(f, ctx, fmt.Sprintf("inflate %d %d", md.slot, i), func(ctx context.Context) ([]byte, error) {
		if data, ok := f.content.get(key); ok {
			return data, nil
		}
		buf := buffer{data: make([]byte, 0, ix.size(i))}
		if err := f.inflate(ctx, md, ix, i, &buf); err != nil {
			return nil, err
		}
		f.content.add(key, buf.data, int64(cap(buf.data)))
		return buf.data, nil
	})
}

// buffer is a Writer into memory that was set aside.
type buffer struct{ data []byte }

func (b *buffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	return len(p), nil
}

// inflateToSpool returns a handle on the inflated content of file i.
func (f *FS) inflateToSpool(ctx context.Context, md *mod, ix *indexed, i int) (*handle, error) {
	key := spoolKey(md.Version, i)
	if h := f.zips.get(key); h != nil {
		return h, nil
	}
	file, err := f.store.Get(key)
	if errors.Is(err, iofs.ErrNotExist) {
		file, err = f.store.Fill(ctx, key, func(ctx context.Context, t *lru.Temp) error {
			if err := t.Reserve(ix.size(i)); err != nil {
				return err
			}
			return f.inflate(ctx, md, ix, i, t)
		})
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return f.keepOpen(key, file), nil
}

// flateReaders are reused: each has 40 KiB of state.
var flateReaders = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflate writes the content of file i to w, and checks its size and CRC-32. An error that wraps errDamaged says that the
// archive on disk is not what was verified.
func (f *FS) inflate(ctx context.Context, md *mod, ix *indexed, i int, w io.Writer) error {
	z, err := f.openZip(ctx, md)
	if err != nil {
		return err
	}
	defer f.zips.put(z)
	damaged := func(what string) error {
		return fmt.Errorf("%s: %s: %w: %s", md.Version, ix.path(i), errDamaged, what)
	}
	d := ix.data(i)
	var in io.Reader = io.NewSectionReader(z, d.offset, d.packed)
	switch d.method {
	case zip.Store:
	case zip.Deflate:
		fr := flateReaders.Get().(io.ReadCloser)
		defer flateReaders.Put(fr)
		if err := fr.(flate.Resetter).Reset(in, nil); err != nil {
			return err
		}
		in = fr
	default:
		return damaged(fmt.Sprintf("unknown method %d", d.method))
	}
	crc := crc32.NewIEEE()
	n, err := io.Copy(io.MultiWriter(crc, w), io.LimitReader(in, d.size+1))
	f.stats.inflated.Add(n)
	switch {
	case errors.Is(err, lru.ErrNoSpace), errors.Is(err, lru.ErrTooLarge):
		return err
	case err != nil:
		return damaged(err.Error())
	case n != d.size:
		return damaged(fmt.Sprintf("%d bytes inflated, not %d", n, d.size))
	case crc.Sum32() != d.crc && d.crc != 0: // 0: the packer did not set it; see package fetch
		return damaged(fmt.Sprintf("CRC-32 is %08x, not %08x", crc.Sum32(), d.crc))
	}
	return nil
}

// repairing runs read. If that finds the module's archive damaged, the archive goes to quarantine, is fetched and verified
// anew, and read runs once more.
func (f *FS) repairing(ctx context.Context, md *mod, read func() error) error {
	md.mu.Lock()
	generation := md.generation
	md.mu.Unlock()
	err := read()
	if err == nil || !errors.Is(err, errDamaged) {
		return err
	}
	if err := f.quarantine(md, generation, err); err != nil {
		return err
	}
	if err := read(); err != nil {
		return err
	}
	f.stats.repaired.Add(1)
	return nil
}

// quarantine takes a damaged archive away, unless another reader did so since this one looked at the generation.
//
// The lock is held over the rename on purpose: who comes second must not find the damaged file still there.
func (f *FS) quarantine(md *mod, generation int, cause error) error {
	md.mu.Lock()
	defer md.mu.Unlock()
	if md.generation != generation {
		return nil
	}
	md.generation++
	f.stats.damaged.Add(1)
	f.log.Error("archive in the store is damaged; fetching it again", "module", md.Path, "version", md.Version.Version, "err", cause)
	f.zips.drop(md.zipKey)
	f.trees.remove(md.slot)
	if err := f.store.Remove(indexKey(md.Version)); err != nil {
		return err
	}
	return f.store.Quarantine(md.zipKey)
}
