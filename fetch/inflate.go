package fetch

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"sync"

	kflate "github.com/klauspost/compress/flate"

	"modfs/fetch/flate"
)

// inflaters are *inflaters that are not in use. One takes some 150 kB, and a module may have thousands of small files.
var inflaters sync.Pool

// inflater is a decompressor for archive/zip.
type inflater struct {
	err error // of all reads from now on

	// What is small enough is in memory, and the first read inflates as much as it has room for.
	flate  flate.Inflater
	packed []byte // all that is to be inflated
	first  bool   // nothing was read yet

	// What it has no room for goes through a buffer, behind the window that it refers to.
	buf      []byte
	from, to int // what was not read yet

	// What is large is a stream.
	bufio  *bufio.Reader
	stream io.ReadCloser // a kflate.Resetter; nil if it was never needed
	large  bool
}

// maxPacked is how much is read into memory at once to be inflated, in bytes.
const maxPacked = 1 << 20

// Inflate is a zip.Decompressor for zip.Deflate. It is made for reads that have room for all of a file, or for all of it that
// is wanted: of an *io.SectionReader, as archive/zip gives it, the first read inflates from memory into memory, if what is
// packed has at most 1 MiB. All else is left to klauspost/compress, which is somewhat faster than the standard library. The
// caller closes what it returns.
func Inflate(r io.Reader) io.ReadCloser {
	z, ok := inflaters.Get().(*inflater)
	if !ok {
		z = &inflater{buf: make([]byte, flate.Window+64<<10)}
	}
	section, ok := r.(*io.SectionReader)
	// A zip may give a size that is negative as an int64; such a section is empty for who reads it.
	if z.large = !ok || section.Size() > maxPacked || section.Size() < 0; z.large {
		z.startStream(r)
		return z
	}
	z.packed = slices.Grow(z.packed[:0], int(section.Size()))[:section.Size()]
	n, err := io.ReadFull(section, z.packed)
	z.packed = z.packed[:n]
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		z.err = err
	}
	z.first = true
	return z
}

func (z *inflater) startStream(r io.Reader) {
	if z.stream == nil {
		z.bufio = bufio.NewReaderSize(nil, 16<<10)
		z.stream = kflate.NewReader(z.bufio)
	}
	z.bufio.Reset(r)
	z.err = z.stream.(kflate.Resetter).Reset(z.bufio, nil) // which fails only with a dictionary
}

func (z *inflater) Read(p []byte) (n int, err error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case z.large && z.err == nil:
		return z.stream.Read(p)
	case z.first && z.err == nil:
		z.first = false
		n, err = z.flate.Inflate(p, z.packed)
		z.from = copy(z.buf[:flate.Window], p[max(0, n-flate.Window):n])
		z.to = z.from
		z.end(err)
	}
	for n == 0 {
		if z.from < z.to {
			n = copy(p, z.buf[z.from:z.to])
			z.from += n
			break
		}
		if z.err != nil {
			return 0, z.err
		}
		window := copy(z.buf[:flate.Window], z.buf[max(0, z.to-flate.Window):z.to])
		more, err := z.flate.Next(z.buf, window)
		z.from, z.to = window, window+more
		z.end(err)
	}
	return n, nil
}

// end notes how an Inflate or Next ended.
func (z *inflater) end(err error) {
	switch {
	case err == nil:
		z.err = io.EOF
	case !errors.Is(err, flate.ErrFull):
		z.err = err
	}
}

// Close gives the decompressor back. archive/zip calls it once, when we close the file.
func (z *inflater) Close() error {
	if z.large {
		z.bufio.Reset(nil)
	}
	z.err, z.first, z.large, z.from, z.to = nil, false, false, 0, 0
	inflaters.Put(z)
	return nil
}
