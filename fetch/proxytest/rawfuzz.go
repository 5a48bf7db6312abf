package proxytest

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// RawSeeds are hand-made zips with files below prefix, right and wrong, for fuzz tests to begin with.
func RawSeeds(prefix string) []RawZip {
	text := strings.Repeat("package a // and some text\n", 20)
	one := RawDeflated(prefix+"a.go", text)
	change := func(f func(h *RawHeader)) RawEntry {
		e := one
		f(&e.Central)
		return e
	}
	hidden, shared := one, RawStored(prefix+"b.go", text)
	hidden.NoCentral = true
	shared.At = 1
	described := one.Both(func(h *RawHeader) { h.Flags |= 8 })
	described.Descriptor = binary.LittleEndian.AppendUint32(nil, one.Central.CRC)
	described.Descriptor = binary.LittleEndian.AppendUint32(described.Descriptor, one.Central.Packed)
	described.Descriptor = binary.LittleEndian.AppendUint32(described.Descriptor, one.Central.Size)
	zip := func(entries ...RawEntry) RawZip { return RawZip{Entries: entries} }
	return []RawZip{
		zip(one, RawStored(prefix+"go.mod", "module example.com/a\n"), RawStored(prefix+"d/e/f", "")),
		zip(one, one), zip(hidden, one), zip(one, shared), zip(described), zip(RawStored(prefix+"d/", ""), RawStored(prefix+"d/x", "y")),
		zip(change(func(h *RawHeader) { h.CRC = 0 })), zip(change(func(h *RawHeader) { h.Size-- })), zip(change(func(h *RawHeader) { h.Size++ })),
		zip(change(func(h *RawHeader) { h.Packed *= 2 })), zip(change(func(h *RawHeader) { h.Packed /= 2 })), zip(change(func(h *RawHeader) { h.Method = 0 })),
		zip(change(func(h *RawHeader) { h.Name = prefix + "A.go" }), one), zip(change(func(h *RawHeader) { h.Shift = 1 })),
		{Before: []byte("#!/bin/sh\n"), Entries: []RawEntry{one}, After: []byte("more")}, {Entries: []RawEntry{one}, End: RawEnd{Zip64: true}},
		{Entries: []RawEntry{one}, End: RawEnd{Comment: RawZip{Entries: []RawEntry{shared}}.Bytes()}},
	}
}

// RawFrom makes a zip as data says, any data: most of it well-formed, so that a fuzz test gets past the first checks.
func RawFrom(prefix string, data []byte) RawZip {
	r := bytes.NewReader(data)
	next := func() int {
		c, err := r.ReadByte()
		if err != nil {
			return 0
		}
		return int(c)
	}
	names := []string{"a", "b", "A", "d/", "d/a", "d/e/", "d/e/f", "D/a", "go.mod", "GO.MOD", "d/go.mod", "LICENSE", "k", "\u212a", "", "../a", "x y", "\xff",
		strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("d/", 100) + "x"}
	contents := []string{"", "x", "some text", strings.Repeat("long ", 300), strings.Repeat("\x00", 50_000)}
	mangle := func(h *RawHeader) {
		switch v := next(); v % 16 {
		case 0:
			h.CRC = 0
		case 1:
			h.CRC++
		case 2:
			h.Size += uint32(v/16) - 8
		case 3:
			h.Packed += uint32(v/16) - 8
		case 4:
			h.Method ^= 8
		case 5:
			h.Method = uint16(next())
		case 6:
			h.Flags = uint16(next())
		case 7:
			h.Name = prefix + names[next()%len(names)]
		case 8:
			h.Extra = data[:min(len(data), next())]
		case 9:
			h.Shift = next() - 128
		case 10:
			h.Size, h.Packed = 0xffffffff, 0xffffffff
			h.Extra = RawExtra(1, data[:min(len(data), 16)]...)
		case 11:
			h.Packed <<= uint(next() % 32)
		case 12:
			h.Size <<= uint(next() % 32)
		case 13:
			h.Attrs = uint32(next()) << 24
		}
	}
	var z RawZip
	for range next()%6 + 1 {
		pack := RawStored
		if next()%2 == 0 {
			pack = RawDeflated
		}
		p := prefix
		if next()%64 == 1 {
			p = "other@v1.0.0/"
		}
		e := pack(p+names[next()%len(names)], contents[next()%len(contents)])
		if next()%4 == 1 {
			mangle(&e.Central)
		}
		if next()%4 == 1 {
			mangle(&e.Local)
		}
		if next()%8 == 1 {
			e = e.Both(func(h *RawHeader) { h.Flags |= 8 })
			e.Descriptor = binary.LittleEndian.AppendUint32(nil, e.Central.CRC+uint32(next()%2))
			e.Descriptor = append(e.Descriptor, data[:min(len(data), next())]...)
		}
		e.NoCentral = next()%16 == 1
		if next()%8 == 1 && len(z.Entries) > 0 {
			e.At = next()%len(z.Entries) + 1
		}
		z.Entries = append(z.Entries, e)
	}
	switch next() % 16 {
	case 1:
		z.Before = data[:min(len(data), next())]
	case 2:
		z.After = data[:min(len(data), next())]
	case 3:
		z.End.Entries = next() - 128
	case 4:
		z.End.Size = next() - 128
	case 5:
		z.End.Offset = next() - 128
	case 6:
		z.End.Comment = data[:min(len(data), next())]
	case 7:
		z.End.Zip64 = true
	}
	return z
}
