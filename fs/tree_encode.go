package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
)

// An encoded tree is
//
//	treeMagic, which changes with the format
//	uvarint    size of the zip, number of entries, total length of their names
//	entries    in order: flags (one byte), length of the name (one byte, not for entry 0), and
//	             of a directory: uvarint number of children
//	             of a file:      uvarint offset, packed, size; digest (16 bytes)
//	names      in order, without separators
//	heads      uvarint number; of each the uvarint distance from the entry of the one before it (from -1, the first),
//	           and its digest (16 bytes)
//	checksum   CRC-32C of all before it (4 bytes, big endian)
//
// What follows from the order of the entries (parents, first children, counts, offsets of names) is not in it, and so
// cannot be wrong.
const treeMagic = "modfs-tree-3\n"

const checksumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns t as bytes that decodeTree understands.
func (t *tree) encode() []byte {
	b := make([]byte, 0, len(treeMagic)+32+28*len(t.entries)+len(t.names)+checksumSize)
	b = append(b, treeMagic...)
	b = binary.AppendUvarint(b, uint64(t.zipSize))
	b = binary.AppendUvarint(b, uint64(len(t.entries)))
	b = binary.AppendUvarint(b, uint64(len(t.names)))
	for i := range t.entries {
		e := &t.entries[i]
		b = append(b, e.flags)
		if i > 0 {
			b = append(b, e.nameLen)
		}
		if e.flags&flagDir != 0 {
			b = binary.AppendUvarint(b, uint64(e.size-e.offset))
			continue
		}
		b = binary.AppendUvarint(b, uint64(e.offset))
		b = binary.AppendUvarint(b, uint64(e.packed))
		b = binary.AppendUvarint(b, uint64(e.size))
		b = append(b, e.sum[:]...)
	}
	b = append(b, t.names...)
	b = binary.AppendUvarint(b, uint64(len(t.heads)))
	last := -1
	for _, h := range t.heads {
		b = binary.AppendUvarint(b, uint64(int(h.entry)-last))
		b = append(b, h.sum[:]...)
		last = int(h.entry)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeTree is the inverse of encode. It returns an error for whatever encode cannot have returned, and a tree that it
// returns is safe to use: no index in it is out of range.
func decodeTree(b []byte) (*tree, error) {
	t, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return t, nil
}

func decode(b []byte) (*tree, error) {
	body, ok := strings.CutPrefix(string(b), treeMagic)
	if !ok {
		return nil, errors.New("not one, or of another version")
	}
	n := len(b) - checksumSize
	if n < len(treeMagic) || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return nil, errors.New("wrong checksum")
	}
	d := &decoder{rest: body[:len(body)-checksumSize]}
	zipSize := d.uvarint(math.MaxInt64)
	count := d.uvarint(maxEntries)
	nameBytes := d.uvarint(math.MaxUint32)
	// Entry 0 takes two bytes and each other at least three, so damage cannot make us allocate much more than we were given.
	if d.bad || count == 0 || 3*count-1 > uint64(len(d.rest)) {
		return nil, errors.New("wrong header")
	}
	t := &tree{zipSize: int64(zipSize), entries: make([]entry, count)}
	if err := d.entries(t); err != nil {
		return nil, err
	}
	if uint64(len(d.rest)) < nameBytes {
		return nil, errors.New("wrong length of names")
	}
	// The only copy that outlives this function, so that the tree keeps no more than it needs in memory.
	t.names = strings.Clone(d.rest[:nameBytes])
	d.rest = d.rest[nameBytes:]
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, d.heads(t)
}

// entries decodes all entries. What follows from their order it works out.
func (d *decoder) entries(t *tree) error {
	next := uint64(1) // first child of the next directory
	var name uint64   // offset of the next name
	for i := range t.entries {
		e := &t.entries[i]
		e.flags = d.byte()
		e.name = uint32(name)
		if i > 0 {
			e.nameLen = d.byte()
			name += uint64(e.nameLen)
		}
		switch {
		case d.bad || i == 0 && e.flags != flagDir || i > 0 && e.nameLen == 0 || name > math.MaxUint32:
			return fmt.Errorf("entry %d: wrong name or flags", i)
		case i > 0 && uint64(i) >= next:
			return fmt.Errorf("entry %d: in no directory", i)
		case e.flags == flagDir:
			n := d.uvarint(uint64(len(t.entries)))
			// A zip has no empty directories, only M@V can be one.
			if d.bad || n == 0 && i > 0 || next+n > uint64(len(t.entries)) {
				return fmt.Errorf("entry %d: wrong number of children", i)
			}
			e.offset, e.size = uint32(next), uint32(next+n)
			for c := next; c < next+n; c++ {
				t.entries[c].parent = uint32(i)
			}
			next += n
			if i > 0 {
				t.entries[e.parent].packed++
			}
		case e.flags&^(flagExec|flagDeflate) == 0:
			e.offset = uint32(d.uvarint(math.MaxUint32))
			e.packed = uint32(d.uvarint(math.MaxUint32))
			e.size = uint32(d.uvarint(math.MaxUint32))
			e.sum = d.digest()
			t.unpacked += int64(e.size)
			end := int64(e.offset) + int64(e.packed)
			if d.bad || e.flags&flagDeflate == 0 && e.packed != e.size || t.zipSize > 0 && end > t.zipSize {
				return fmt.Errorf("entry %d: wrong sizes", i)
			}
		default:
			return fmt.Errorf("entry %d: wrong flags", i)
		}
	}
	if next != uint64(len(t.entries)) {
		return errors.New("entries that are in no directory")
	}
	return nil
}

// heads decodes the checksums of heads, after which there must be nothing.
func (d *decoder) heads(t *tree) error {
	n := d.uvarint(uint64(len(t.entries)))
	// One takes at least 17 bytes, so damage cannot make us allocate much more than we were given.
	if d.bad || 17*n > uint64(len(d.rest)) {
		return errors.New("wrong number of heads")
	}
	if n > 0 {
		t.heads = make([]head, 0, n)
	}
	at := uint64(math.MaxUint64) // -1
	for range n {
		at += d.uvarint(uint64(len(t.entries)))
		sum := d.digest()
		last := len(t.heads) - 1
		if d.bad || at >= uint64(len(t.entries)) || last >= 0 && at <= uint64(t.heads[last].entry) || t.size(int(at)) <= headSize {
			return errors.New("wrong heads")
		}
		t.heads = append(t.heads, head{uint32(at), sum})
	}
	if d.rest != "" {
		return errors.New("too long")
	}
	return nil
}

// check verifies the names: those of a directory are sorted, and none could lead a client elsewhere.
func (t *tree) check() error {
	if last := t.entries[len(t.entries)-1]; int(last.name)+int(last.nameLen) != len(t.names) {
		return errors.New("wrong length of names")
	}
	for i := 1; i < len(t.entries); i++ {
		name := t.name(i)
		if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("entry %d: wrong name %q", i, name)
		}
		if first, _ := t.children(t.parent(i)); i > first && t.name(i-1) >= name {
			return fmt.Errorf("entry %d: %q is not in order", i, name)
		}
	}
	return nil
}

// decoder reads from a string. Once something is wrong, bad is set and all else is 0.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) take(n int) string {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return zeros[:n]
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

// zeros are as many as anybody takes.
var zeros = string(make([]byte, len(digest{})))

func (d *decoder) byte() byte { return d.take(1)[0] }

func (d *decoder) digest() (sum digest) {
	copy(sum[:], d.take(len(sum)))
	return sum
}

// uvarint reads a number that must not be above limit.
func (d *decoder) uvarint(limit uint64) uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		c := d.byte()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > limit || shift == 63 && c > 1 {
				break
			}
			return v
		}
	}
	d.bad = true
	return 0
}
