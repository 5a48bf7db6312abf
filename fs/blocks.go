package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// What is read piece by piece from a large file of the store is checked as well: an archive that a client reads as a file, and
// what was inflated to be served from disk. Each block of such a file has a checksum, which was taken while it was written.

// sumBlock is how much of a file has a checksum of its own, in bytes. It is what a short read costs at least.
const sumBlock = 64 << 10

// blockSums are the CRC-32Cs of the blocks of a file.
type blockSums struct {
	size int64 // of the file, in bytes
	crcs []uint32
}

func blocks(size int64) int64 { return (size + sumBlock - 1) / sumBlock }

// readAt reads from r, which must have the content that b is of, as ReadAt does. What it returns was checked. An error that
// wraps errDamaged says that r has other content, or cannot be read.
func (b *blockSums) readAt(r io.ReaderAt, p []byte, off int64) (n int, err error) {
	if off >= b.size {
		return 0, io.EOF
	}
	if more := b.size - off; int64(len(p)) >= more {
		p, err = p[:more], io.EOF
	}
	buf := blockBuffers.Get().(*[sumBlock]byte)
	defer blockBuffers.Put(buf)
	for n < len(p) {
		at := off + int64(n)
		start := at - at%sumBlock
		block := buf[:min(sumBlock, b.size-start)]
		direct := start == at && len(block) <= len(p)-n // no need to copy it
		if direct {
			block = p[n : n+len(block)]
		}
		if err := b.read(r, block, start); err != nil {
			return n, err
		}
		if direct {
			n += len(block)
		} else {
			n += copy(p[n:], block[at-start:])
		}
	}
	return n, err
}

// blockBuffers are for readAt.
var blockBuffers = sync.Pool{New: func() any { return new([sumBlock]byte) }}

// read reads the block that begins at off.
func (b *blockSums) read(r io.ReaderAt, block []byte, off int64) error {
	n, err := r.ReadAt(block, off)
	if n < len(block) {
		if err != nil && err != io.EOF && !unreadable(err) {
			return err
		}
		return fmt.Errorf("%w: %d bytes of %d at %d: %w", errDamaged, n, len(block), off, err)
	}
	if got, want := crc32.Checksum(block, castagnoli), b.crcs[off/sumBlock]; got != want {
		return fmt.Errorf("%w: the checksum of the block at %d is %08x, not %08x", errDamaged, off, got, want)
	}
	return nil
}

// checked is a file that is read through its checksums.
type checked struct {
	r    io.ReaderAt
	sums *blockSums
}

func (c checked) ReadAt(p []byte, off int64) (int, error) { return c.sums.readAt(c.r, p, off) }

// summer takes the checksums of what is written to it. Its zero value is ready.
type summer struct {
	size int64
	done []uint32 // of complete blocks
	crc  uint32   // of the last one
}

func (s *summer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := p[:min(int64(len(p)), sumBlock-s.size%sumBlock)]
		s.crc = crc32.Update(s.crc, castagnoli, part)
		if s.size += int64(len(part)); s.size%sumBlock == 0 {
			s.done = append(s.done, s.crc)
			s.crc = 0
		}
		p = p[len(part):]
	}
	return n, nil
}

func (s *summer) sums() *blockSums {
	crcs := s.done
	if s.size%sumBlock > 0 {
		crcs = append(crcs[:len(crcs):len(crcs)], s.crc)
	}
	return &blockSums{size: s.size, crcs: crcs}
}

// sumsOf returns the checksums of what is in r.
func sumsOf(r io.ReaderAt, size int64) (*blockSums, error) {
	s := new(summer)
	if n, err := io.Copy(s, io.NewSectionReader(r, 0, size)); err != nil {
		return nil, err
	} else if n != size {
		return nil, io.ErrUnexpectedEOF
	}
	return s.sums(), nil
}

// append appends b to a file, without its size: that must be known to whoever reads it.
func (b *blockSums) append(to []byte) []byte {
	for _, crc := range b.crcs {
		to = binary.BigEndian.AppendUint32(to, crc)
	}
	return to
}

// decodeSums is the inverse of append, for a file of size bytes.
func decodeSums(data []byte, size int64) (*blockSums, error) {
	if int64(len(data)) != 4*blocks(size) {
		return nil, errors.New("wrong number of checksums")
	}
	b := &blockSums{size: size, crcs: make([]uint32, len(data)/4)}
	for i := range b.crcs {
		b.crcs[i] = binary.BigEndian.Uint32(data[4*i:])
	}
	return b, nil
}

// A spool file is the content of a file, its checksums, and the CRC-32C of its key and these (4 bytes, big endian).

// spoolTrailer returns what follows the content in the spool file of key.
func (b *blockSums) spoolTrailer(key string) []byte {
	sums := b.append(nil)
	return binary.BigEndian.AppendUint32(sums, crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, sums))
}

// spoolSize returns the size of the spool file of a file.
func spoolSize(size int64) int64 { return size + 4*blocks(size) + checksumSize }

// spoolSums reads the checksums from the spool file of key, for content of size bytes.
func spoolSums(f archive, key string, size int64) (*blockSums, error) {
	if f.Size() != spoolSize(size) {
		return nil, fmt.Errorf("%w: %d bytes, not %d", errDamaged, f.Size(), spoolSize(size))
	}
	trailer := make([]byte, spoolSize(size)-size)
	if n, err := f.ReadAt(trailer, size); n < len(trailer) {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	b, err := decodeSums(trailer[:len(trailer)-checksumSize], size)
	if err != nil || string(b.spoolTrailer(key)) != string(trailer) {
		return nil, fmt.Errorf("%w: its checksums have the wrong checksum", errDamaged)
	}
	return b, nil
}
