package fs

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"syscall"

	"modfs/fetch"
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

// content is what a file inside a module has, or how that begins.
type content struct {
	data  []byte
	whole bool // data is all of it
}

// covers reports whether c has what a read of n bytes at off wants.
func (c content) covers(off int64, n int) bool { return c.whole || off+int64(n) <= int64(len(c.data)) }

// open is what reads of a file are answered from: its content in memory, or a handle on it.
type open struct {
	content
	spool *handle
}

// openFile returns what a read of n bytes at off in file i of a module is answered from; release gives it back.
func (f *FS) openFile(ctx context.Context, md *mod, i int, off int64, n int) (c open, release func(), err error) {
	if held, ok := f.content.get(contentKey{md.slot, i}); ok && held.covers(off, n) {
		return open{content: held}, func() {}, nil
	}
	err = f.repairing(ctx, md, func() error {
		ix, err := f.load(ctx, md)
		if err != nil {
			return err
		}
		if i >= ix.len() || ix.isDir(i) {
			return fmt.Errorf("%s: entry %d: %w", md.Version, i, iofs.ErrNotExist)
		}
		_, hasHead := ix.head(i)
		switch {
		case hasHead && off+int64(n) <= headSize:
			c.content, err = f.inflateHead(ctx, md, ix, i)
		case ix.size(i) <= maxInMemory:
			c.content, err = f.inflateToMemory(ctx, md, ix, i)
		default:
			c.spool, err = f.inflateToSpool(ctx, md, ix, i)
		}
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
func (f *FS) inflateToMemory(ctx context.Context, md *mod, ix *indexed, i int) (content, error) {
	return f.inflateOnce(ctx, "whole", contentKey{md.slot, i}, func(c content) bool { return c.whole }, func(ctx context.Context) (content, error) {
		var data []byte
		err := f.inflater(ctx, md, ix, i, func(r io.Reader) error {
			// Not before the archive is there. Who has room has all that it needs, so this does not take long.
			size := ix.size(i)
			room := min(size, maxInflating)                       // or it would wait for ever
			f.inflating.Acquire(context.WithoutCancel(ctx), room) // cannot fail
			defer f.inflating.Release(room)
			data = make([]byte, size)
			return f.readAll(r, ix.data(i), data)
		})
		return content{data, true}, err
	})
}

// maxInflating bounds how large the files are that are being inflated into memory at a time, in bytes.
const maxInflating = 64 << 20

// inflateAll inflates file i into data, which has its size.
func (f *FS) inflateAll(ctx context.Context, md *mod, ix *indexed, i int, data []byte) error {
	return f.inflater(ctx, md, ix, i, func(r io.Reader) error { return f.readAll(r, ix.data(i), data) })
}

// readAll reads the file that d describes into data, which has its size.
func (f *FS) readAll(r io.Reader, d fileData, data []byte) error {
	n, err := io.ReadFull(r, data)
	f.stats.inflated.Add(int64(n))
	if err != nil && err != io.EOF {
		return err
	}
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n > 0 || err != io.EOF {
		return fmt.Errorf("more than %d bytes, or %v", d.size, err)
	}
	return d.check(int64(n), digestOf(data))
}

// inflateHead is inflateToMemory for the first headSize bytes of a larger file, which have a digest of their own.
func (f *FS) inflateHead(ctx context.Context, md *mod, ix *indexed, i int) (content, error) {
	return f.inflateOnce(ctx, "head", contentKey{md.slot, i}, func(content) bool { return true }, func(ctx context.Context) (content, error) {
		data := new([headSize]byte)
		return content{data[:], false}, f.inflateBeginning(ctx, md, ix, i, data)
	})
}

// inflateBeginning inflates how file i, which is larger, begins.
func (f *FS) inflateBeginning(ctx context.Context, md *mod, ix *indexed, i int, data *[headSize]byte) error {
	return f.inflater(ctx, md, ix, i, func(r io.Reader) error {
		n, err := io.ReadFull(r, data[:])
		f.stats.inflated.Add(int64(n))
		if err != nil {
			return err
		}
		if want, _ := ix.head(i); digestOf(data[:]) != want {
			return errors.New("the SHA-256 of its first bytes is another")
		}
		return nil
	})
}

// inflateOnce returns what is held of a file, if that will do, or what work makes of it, once for all who want that.
func (f *FS) inflateOnce(ctx context.Context, what string, key contentKey, will func(content) bool, work func(context.Context) (content, error)) (content, error) {
	return once(f, ctx, fmt.Sprintf("inflate %s %d %d", what, key.slot, key.index), func(ctx context.Context) (content, error) {
		if held, ok := f.content.get(key); ok && will(held) {
			return held, nil
		}
		c, err := work(ctx)
		if err != nil {
			return content{}, err
		}
		f.content.add(key, c, int64(cap(c.data)))
		return c, nil
	})
}

// inflateToSpool returns a handle on the inflated content of file i.
func (f *FS) inflateToSpool(ctx context.Context, md *mod, ix *indexed, i int) (*handle, error) {
	key := spoolKey(md.Version, i)
	if h := f.zips.get(key); h != nil {
		return h, nil
	}
	file, err := f.store.Get(key)
	if err == nil {
		sums, err := spoolSums(file, key, ix.size(i))
		if err == nil {
			return f.keepSummed(key, file, sums), nil
		}
		file.Close()
		f.spoolDamaged(key, err)
	} else if !isNotExist(err) {
		if !unreadable(err) {
			return nil, err
		}
		f.spoolDamaged(key, err)
	}
	file, err = f.store.Fill(ctx, key, func(ctx context.Context, t *lru.Temp) error {
		if err := t.Reserve(spoolSize(ix.size(i))); err != nil {
			return err
		}
		sums := new(summer)
		if err := f.inflate(ctx, md, ix, i, io.MultiWriter(t, sums)); err != nil {
			return err
		}
		_, err := t.Write(sums.sums().spoolTrailer(key))
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	f.replaced(key)
	sums, err := spoolSums(file, key, ix.size(i))
	if err != nil {
		file.Close()
		return nil, err
	}
	return f.keepSummed(key, file, sums), nil
}

// spoolDamaged takes a damaged spool file away. It can be made again.
func (f *FS) spoolDamaged(key string, cause error) {
	f.damaged(key, cause)
	f.zips.drop(key)
	if err := f.store.Quarantine(key); err != nil {
		f.log.Error("damaged file not removed", "key", key, "err", err)
	}
}

// readSpool reads from h, a handle on the inflated content of file i that the caller puts back. If that is damaged, it is inflated
// again.
func (f *FS) readSpool(ctx context.Context, md *mod, i int, h *handle, off int64, buf []byte) (n int, err error) {
	n, err = h.sums.readAt(h, buf, off)
	if !errors.Is(err, errDamaged) {
		return n, err
	}
	f.spoolDamaged(h.Key(), err)
	c, release, err := f.openFile(ctx, md, i, off, len(buf))
	if err != nil {
		return 0, err
	}
	defer release()
	return c.spool.sums.readAt(c.spool, buf, off)
}

// readArchive reads from the archive of a module, which a client was told has so many bytes.
func (f *FS) readArchive(ctx context.Context, md *mod, size, off int64, buf []byte) (n int, err error) {
	err = f.repairing(ctx, md, func() error {
		z, err := f.openZip(ctx, md)
		if err != nil {
			return err
		}
		defer f.zips.put(z)
		ix, err := f.load(ctx, md)
		if err != nil {
			return err
		}
		if z.Size() != ix.sums.size {
			return fmt.Errorf("%s: zip: %w: %d bytes, and its index is of %d", md.Version, errDamaged, z.Size(), ix.sums.size)
		}
		if z.Size() != size {
			f.forgetName(inMod(md.zipKey)) // the next lookup makes a new node with the right size
			return fmt.Errorf("%s: upstream announced a zip of %d bytes and sent one of %d", md.Version, size, z.Size())
		}
		if n, err = ix.sums.readAt(z, buf, off); err == io.EOF {
			err = nil
		}
		return err
	})
	return n, err
}

// check returns an error if a file is not what its archive has been verified to have.
func (d fileData) check(size int64, sum digest) error {
	switch {
	case size != d.size:
		return fmt.Errorf("%d bytes inflated, not %d", size, d.size)
	case sum != d.sum:
		return fmt.Errorf("SHA-256 is %x…, not %x…", sum, d.sum)
	}
	return nil
}

// inflate writes the content of file i to w, and checks its size and digest. An error that wraps errDamaged says that the
// archive on disk is not what was verified.
func (f *FS) inflate(ctx context.Context, md *mod, ix *indexed, i int, w io.Writer) error {
	d := ix.data(i)
	out := &sink{w: w}
	err := f.inflater(ctx, md, ix, i, func(r io.Reader) error {
		sum := sha256.New()
		n, err := io.Copy(io.MultiWriter(sum, out), io.LimitReader(r, d.size+1))
		f.stats.inflated.Add(n)
		if err != nil {
			return err
		}
		return d.check(n, makeDigest([sha256.Size]byte(sum.Sum(nil))))
	})
	if out.err != nil {
		return fmt.Errorf("%s: %s: %w", md.Version, ix.path(i), out.err)
	}
	return err
}

// sink remembers the error of a writer, which is not to be taken for that of what is read.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// inflater calls read with what file i inflates to. An error of read is damage, unless it is one of the store's.
func (f *FS) inflater(ctx context.Context, md *mod, ix *indexed, i int, read func(io.Reader) error) error {
	z, err := f.openZip(ctx, md)
	if err != nil {
		return err
	}
	defer f.zips.put(z)
	damaged := func(what string) error {
		return fmt.Errorf("%s: %s: %w: %s", md.Version, ix.path(i), errDamaged, what)
	}
	d := ix.data(i)
	if now, ok := f.trees.get(md.slot); ok && i < now.len() {
		d = now.data(i) // the archive may have come anew just now, with its files at other places
	}
	var in io.Reader = io.NewSectionReader(z, d.offset, d.packed)
	switch d.method {
	case zip.Store:
	case zip.Deflate:
		inflated := fetch.Inflate(in)
		defer inflated.Close() // cannot fail
		in = inflated
	default:
		return damaged(fmt.Sprintf("unknown method %d", d.method))
	}
	err = read(in)
	if _, system := errors.AsType[syscall.Errno](err); err == nil || system && !unreadable(err) {
		return err // lack of memory, for one
	}
	return damaged(err.Error())
}
