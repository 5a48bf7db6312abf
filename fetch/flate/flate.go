// Package flate inflates DEFLATE data (RFC 1951) that is in memory, into memory.
//
// That both ends are slices makes it two to three times as fast as decompressors with an io.Reader: where nothing can run out,
// a loop decodes several symbols for each look at the input and copies eight bytes at a time. The structure is that of Eric
// Biggers' libdeflate.
//
// It accepts what compress/flate accepts.
package flate

import (
	"encoding/binary"
	"errors"
	"io"
)

// Errors of Inflate, besides io.ErrUnexpectedEOF if the data ends too early.
var (
	// ErrCorrupt says that the data is no DEFLATE data.
	ErrCorrupt = errors.New("flate: corrupt input")

	// ErrFull says that there is more than has room. It is not known whether what follows is right.
	ErrFull = errors.New("flate: more data than there is room for")
)

// Window is how many bytes back the data may refer to (RFC 1951, 2).
const Window = 32 << 10

// Inflater inflates one thing at a time. It takes some 8 kB. Its zero value is ready for use.
type Inflater struct {
	s      state
	lit    [litEntries]entry
	dist   [distEntries]entry
	pre    [preEntries]entry
	lens   [maxLit + maxDist]uint8
	sorted [maxLit]uint16
	fixed  bool // lit and dist are those of fixed codes
}

// entry is what a table has for the next bits of the input:
//
//	bits 0-7    how many bits it takes, with the extra bits of a length or distance
//	bits 8-11   how many of them are the code; of a pointer, by how many bits the subtable is indexed
//	bit 13      end of block
//	bit 14      a pointer to a subtable
//	bit 15      one of those two, or, if it is neither, no code: special
//	bits 16-30  the literal, the base of the length or distance, the symbol, or where the subtable begins
//	bit 31      a literal
type entry uint32

const (
	literal entry = 1 << 31
	special entry = 1 << 15
	pointer entry = 1<<14 | special
	end     entry = 1<<13 | special
)

// Alphabets (RFC 1951, 3.2.5 to 3.2.7), and how many bits index a table: codes that are longer are in subtables. The numbers
// of entries are the most that a complete code of 15 bits can need, as computed by zlib's examples/enough.c.
const (
	maxLit   = 288
	usedLit  = 286 // the others have codes, but may not occur
	maxDist  = 32
	usedDist = 30
	numPre   = 19

	litBits     = 9
	litEntries  = 854
	distBits    = 8
	distEntries = 402
	preBits     = 7
	preEntries  = 128
)

// margin is what the fast loop may write at once at most: two literals, a match and the rest of the last eight bytes.
const margin = 2 + 258 + 8

// state is a position in the input and the output.
type state struct {
	src, dst []byte
	in, out  int    // how much of them is done
	bits     uint64 // input ahead, the next bit lowest
	count    uint   // how many bits that are; there may be more in bits, of the input at in

	block block
	last  bool // no other block follows
	left  int  // bytes to come of a stored block, or of a match
	dist  int  // of that match
}

// block is what kind of block the position is in.
type block int

const (
	between block = iota
	stored
	coded
)

// Inflate inflates src into dst and returns how many bytes that are. If the error is ErrFull, dst is full, and what is in it is
// right; Next has what follows. What follows the end of the data in src is ignored.
func (z *Inflater) Inflate(dst, src []byte) (int, error) {
	z.s = state{src: src}
	return z.Next(dst, 0)
}

// Next goes on where Inflate, or Next, returned ErrFull. The first n bytes of dst are what came before: the last Window bytes, or
// all if there were fewer. What follows is written behind them. It returns as Inflate does; src must not have been changed.
func (z *Inflater) Next(dst []byte, n int) (int, error) {
	s := &z.s
	s.dst, s.out = dst, n
	for {
		var err error
		switch s.block {
		case between:
			if s.last {
				return s.out - n, nil
			}
			err = z.head()
		case stored:
			err = s.copyStored()
		case coded:
			err = z.decode()
		}
		if err != nil {
			return s.out - n, err
		}
	}
}

// head reads the beginning of a block.
func (z *Inflater) head() error {
	s := &z.s
	head, err := s.take(3)
	if err != nil {
		return err
	}
	s.last = head&1 != 0
	s.block = coded
	switch head >> 1 {
	case 0:
		s.block = stored
		return s.storedHead()
	case 1:
		z.fixedTables()
		return nil
	case 2:
		return z.tables()
	}
	return ErrCorrupt
}

// fill reads bytes until there are 56 bits ahead, or all that there are.
func (s *state) fill() {
	if s.in+8 <= len(s.src) {
		s.bits |= binary.LittleEndian.Uint64(s.src[s.in:]) << (s.count & 63)
		s.in += int((63 - s.count) >> 3)
		s.count |= 56
		return
	}
	// bits may have more than count says, from the branch above. They are the same.
	for s.count < 56 && s.in < len(s.src) {
		s.bits |= uint64(s.src[s.in]) << (s.count & 63)
		s.in++
		s.count += 8
	}
}

// take takes the next n bits of the input, 16 at most.
func (s *state) take(n uint) (uint, error) {
	s.fill()
	if s.count < n {
		return 0, io.ErrUnexpectedEOF
	}
	v := uint(s.bits) & (1<<n - 1)
	s.drop(n)
	return v, nil
}

func (s *state) drop(n uint) {
	s.bits >>= n & 63
	s.count -= n
}

// storedHead reads the size of a block that is not compressed.
func (s *state) storedHead() error {
	s.drop(s.count & 7) // it begins with a byte
	// Back to what was not taken.
	s.in -= int(s.count / 8)
	s.bits, s.count = 0, 0
	if len(s.src)-s.in < 4 {
		return io.ErrUnexpectedEOF
	}
	n := binary.LittleEndian.Uint16(s.src[s.in:])
	if n != ^binary.LittleEndian.Uint16(s.src[s.in+2:]) {
		return ErrCorrupt
	}
	s.in += 4
	s.left = int(n)
	return nil
}

// copyStored copies the rest of a block that is not compressed.
func (s *state) copyStored() error {
	data := s.src[s.in:min(s.in+s.left, len(s.src))]
	n := copy(s.dst[s.out:], data)
	s.in += n
	s.out += n
	s.left -= n
	switch {
	case n < len(data):
		return ErrFull
	case s.left > 0:
		return io.ErrUnexpectedEOF
	}
	s.block = between
	return nil
}

// decode inflates the rest of a block whose tables are there.
func (z *Inflater) decode() error {
	s := &z.s
	for s.block == coded {
		if err := s.copyMatch(); err != nil {
			return err
		}
		if len(s.dst)-s.out > margin && len(s.src)-s.in > 16 {
			if err := z.fast(); err != nil {
				return err
			}
		} else if err := z.symbol(); err != nil {
			return err
		}
	}
	return nil
}

// symbol inflates one symbol, which may be the end of the block. The bytes of a match are left to copyMatch.
func (z *Inflater) symbol() error {
	s := &z.s
	in, bits, count := s.in, s.bits, s.count
	e, v, err := lookup(s, z.lit[:], litBits)
	switch {
	case err != nil:
		return err
	case e&end == end:
		s.block = between
		return nil
	case s.out == len(s.dst):
		s.in, s.bits, s.count = in, bits, count // the next time
		return ErrFull
	case e&literal != 0:
		s.dst[s.out] = byte(v)
		s.out++
		return nil
	}
	_, dist, err := lookup(s, z.dist[:], distBits)
	if err != nil {
		return err
	}
	if int(dist) > s.out {
		return ErrCorrupt
	}
	s.left, s.dist = int(v), int(dist)
	return nil
}

// copyMatch copies what is left of a match.
func (s *state) copyMatch() error {
	for ; s.left > 0; s.left-- {
		if s.out == len(s.dst) {
			return ErrFull
		}
		s.dst[s.out] = s.dst[s.out-s.dist]
		s.out++
	}
	return nil
}

// lookup takes a code with its extra bits, and returns its entry and value.
func lookup(s *state, table []entry, index uint) (e entry, value uint, err error) {
	s.fill()
	e = table[uint(s.bits)&(1<<index-1)]
	if e&pointer == pointer {
		sub := uint(e>>16) + uint(s.bits>>index)&(1<<(e>>8&15)-1)
		if s.count < index {
			return 0, 0, io.ErrUnexpectedEOF
		}
		s.drop(index)
		e = table[sub]
	}
	n := uint(e & 0xff)
	if n > s.count {
		return 0, 0, io.ErrUnexpectedEOF
	}
	if e&special != 0 && e&end != end {
		return 0, 0, ErrCorrupt
	}
	extra := uint(s.bits) & (1<<n - 1) >> (e >> 8 & 15)
	s.drop(n)
	return e, uint(e>>16&0x7fff) + extra, nil
}

// fast is symbol as long as nothing can run out.
func (z *Inflater) fast() (err error) {
	s := &z.s
	src, dst := s.src, s.dst
	in, out := s.in, s.out
	bits, count := s.bits, s.count
	lastIn, lastOut := len(src)-16, len(dst)-margin
loop:
	for in < lastIn && out < lastOut {
		bits |= binary.LittleEndian.Uint64(src[in:]) << (count & 63)
		in += int((63 - count) >> 3)
		count |= 56
		// Two literals take 30 of 56 bits at most, and a length 20.
		e := z.lit[bits&(1<<litBits-1)]
		if e&literal != 0 {
			bits >>= e & 63
			count -= uint(e & 0xff)
			dst[out] = byte(e >> 16)
			out++
			e = z.lit[bits&(1<<litBits-1)]
			if e&literal != 0 {
				bits >>= e & 63
				count -= uint(e & 0xff)
				dst[out] = byte(e >> 16)
				out++
				e = z.lit[bits&(1<<litBits-1)]
				if e&literal != 0 {
					continue
				}
			}
		}
		if e&special != 0 {
			if e&pointer == pointer {
				bits >>= litBits
				count -= litBits
				e = z.lit[uint(e>>16)+uint(bits)&(1<<(e>>8&15)-1)]
				if e&literal != 0 {
					bits >>= e & 63
					count -= uint(e & 0xff)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
			if e&end == end {
				bits >>= e & 63
				count -= uint(e & 0xff)
				s.block = between
				break loop
			}
			if e&special != 0 {
				err = ErrCorrupt
				break loop
			}
		}
		length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits >>= e & 63
		count -= uint(e & 0xff)

		bits |= binary.LittleEndian.Uint64(src[in:]) << (count & 63)
		in += int((63 - count) >> 3)
		count |= 56
		e = z.dist[bits&(1<<distBits-1)]
		if e&special != 0 {
			if e&pointer == pointer {
				bits >>= distBits
				count -= distBits
				e = z.dist[uint(e>>16)+uint(bits)&(1<<(e>>8&15)-1)]
			}
			if e&special != 0 {
				err = ErrCorrupt
				break loop
			}
		}
		dist := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits >>= e & 63
		count -= uint(e & 0xff)
		if dist > out {
			err = ErrCorrupt
			break loop
		}
		from, to := out-dist, out+length
		switch {
		case dist >= 8:
			for out < to {
				binary.LittleEndian.PutUint64(dst[out:], binary.LittleEndian.Uint64(dst[from:]))
				out += 8
				from += 8
			}
			out = to
		case dist == 1:
			v := uint64(dst[from]) * 0x0101010101010101
			for out < to {
				binary.LittleEndian.PutUint64(dst[out:], v)
				out += 8
			}
			out = to
		default:
			for ; out < to; out++ {
				dst[out] = dst[from]
				from++
			}
		}
	}
	s.in, s.out = in, out
	s.bits, s.count = bits, count
	return err
}
