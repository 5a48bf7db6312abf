package proxytest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
)

// RawZip is a zip file of which every byte is the test's choice. The format is that of PKWARE's APPNOTE.TXT.
type RawZip struct {
	Before  []byte // what precedes the first entry; offsets do not count it
	Entries []RawEntry
	End     RawEnd
	After   []byte // what follows the end record
}

// RawEntry is a file of a RawZip: its local header, what follows that, and its header in the central directory.
type RawEntry struct {
	Local, Central RawHeader
	Packed         []byte // the data
	Descriptor     []byte // what follows the data

	At        int  // if not 0, the entry has no data of its own: the central directory refers to that of entry At-1
	NoCentral bool // the central directory does not have it
}

// RawHeader is what a header says of a file, be it true or not.
type RawHeader struct {
	Name              string
	Flags, Method     uint16
	CRC, Packed, Size uint32
	Extra             []byte
	Attrs             uint32 // in the central directory: the mode in the upper half
	Shift             int    // in the central directory: added to the offset
}

// RawEnd changes the record at the end.
type RawEnd struct {
	Entries, Size, Offset int // added to what it would say
	Comment               []byte
	Zip64                 bool // with the records of zip64, and all ones in the old one
}

// RawStored returns an entry that is as it should be, not compressed.
func RawStored(name, content string) RawEntry {
	h := RawHeader{Name: name, CRC: crc32.ChecksumIEEE([]byte(content)), Packed: uint32(len(content)), Size: uint32(len(content))}
	return RawEntry{Local: h, Central: h, Packed: []byte(content)}
}

// RawDeflated returns an entry that is as it should be.
func RawDeflated(name, content string) RawEntry {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed) // fails only for levels that there are not
	w.Write([]byte(content))                     // memory does not fail
	w.Close()
	return rawPacked(name, b.Bytes(), crc32.ChecksumIEEE([]byte(content)), len(content))
}

// RawZeros returns an entry of size zero bytes, which is a multiple of 1 MiB, in a thousandth of the size.
func RawZeros(name string, size int) RawEntry {
	chunk := make([]byte, 1<<20)
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(chunk)
	w.Flush() // ends at a byte, and refers to nothing before
	crc := crc32.NewIEEE()
	for range size >> 20 {
		crc.Write(chunk)
	}
	packed := append(bytes.Repeat(b.Bytes(), size>>20), 3, 0) // the last block is empty
	return rawPacked(name, packed, crc.Sum32(), size)
}

func rawPacked(name string, packed []byte, crc uint32, size int) RawEntry {
	h := RawHeader{Name: name, Method: 8, CRC: crc, Packed: uint32(len(packed)), Size: uint32(size)}
	return RawEntry{Local: h, Central: h, Packed: packed}
}

// Both changes both headers of an entry alike.
func (e RawEntry) Both(change func(h *RawHeader)) RawEntry {
	change(&e.Local)
	change(&e.Central)
	return e
}

// Bytes lays the file out.
func (z RawZip) Bytes() []byte {
	le := binary.LittleEndian
	b := bytes.Clone(z.Before)
	offsets := make([]int, len(z.Entries))
	for i, e := range z.Entries {
		if e.At > 0 {
			offsets[i] = offsets[e.At-1]
			continue
		}
		offsets[i] = len(b) - len(z.Before)
		b = le.AppendUint32(b, 0x04034b50)
		b = le.AppendUint16(b, 20) // version needed
		b = e.Local.append(b)
		b = append(append(append(append(b, e.Local.Name...), e.Local.Extra...), e.Packed...), e.Descriptor...)
	}
	start, n := len(b), 0
	for i, e := range z.Entries {
		if e.NoCentral {
			continue
		}
		n++
		b = le.AppendUint32(b, 0x02014b50)
		b = le.AppendUint16(b, 3<<8|20) // made by: Unix, so that Attrs has a mode
		b = le.AppendUint16(b, 20)
		b = e.Central.append(b)
		b = append(b, 0, 0, 0, 0, 0, 0) // comment length, disk, internal attributes
		b = le.AppendUint32(b, e.Central.Attrs)
		b = le.AppendUint32(b, uint32(offsets[i]+e.Central.Shift))
		b = append(append(b, e.Central.Name...), e.Central.Extra...)
	}
	size, offset := len(b)-start+z.End.Size, start-len(z.Before)+z.End.Offset
	n += z.End.Entries
	if z.End.Zip64 {
		end := len(b)
		b = le.AppendUint32(b, 0x06064b50)
		b = le.AppendUint64(b, 44)
		b = append(b, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0) // versions, disks
		b = le.AppendUint64(b, uint64(n))
		b = le.AppendUint64(b, uint64(n))
		b = le.AppendUint64(b, uint64(size))
		b = le.AppendUint64(b, uint64(offset))
		b = le.AppendUint32(b, 0x07064b50)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(end))
		b = le.AppendUint32(b, 1)
		n, size, offset = 0xffff, 0xffffffff, 0xffffffff
	}
	b = le.AppendUint32(b, 0x06054b50)
	b = le.AppendUint32(b, 0) // disks
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, uint32(offset))
	b = le.AppendUint16(b, uint16(len(z.End.Comment)))
	return append(append(b, z.End.Comment...), z.After...)
}

// append appends what both kinds of headers have in common: from the flags to the length of the extra field.
func (h RawHeader) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, h.Flags)
	b = le.AppendUint16(b, h.Method)
	b = le.AppendUint32(b, 0x50224000) // 2020-01-02, 08:00
	b = le.AppendUint32(b, h.CRC)
	b = le.AppendUint32(b, h.Packed)
	b = le.AppendUint32(b, h.Size)
	b = le.AppendUint16(b, uint16(len(h.Name)))
	return le.AppendUint16(b, uint16(len(h.Extra)))
}

// RawExtra returns an extra field: its tag, its length and what is in it.
func RawExtra(tag uint16, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, tag)
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(data))), data...)
}
