package flate

import "math/bits"

// Values of symbols, as entries without their codes: bases and extra bits (RFC 1951, 3.2.5).
var (
	litValues  = makeLitValues()
	distValues = makeDistValues()
	preValues  = makePreValues()
)

func makeLitValues() (v [maxLit]entry) {
	for i := range 256 {
		v[i] = literal | entry(i)<<16
	}
	v[256] = end
	base := entry(3)
	for i := 257; i < usedLit; i++ {
		extra := entry(0)
		if i >= 265 && i < 285 {
			extra = entry(i-261) / 4
		}
		if i == 285 {
			base = 258
		}
		v[i] = base<<16 | extra
		base += 1 << extra
	}
	v[286], v[287] = special, special
	return v
}

func makeDistValues() (v [maxDist]entry) {
	base := entry(1)
	for i := range usedDist {
		extra := entry(0)
		if i >= 4 {
			extra = entry(i-2) / 2
		}
		v[i] = base<<16 | extra
		base += 1 << extra
	}
	v[30], v[31] = special, special
	return v
}

func makePreValues() (v [numPre]entry) {
	for i := range v {
		v[i] = entry(i) << 16
	}
	return v
}

// preOrder is the order in which the lengths of the code of code lengths come (RFC 1951, 3.2.7).
var preOrder = [numPre]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// fixedTables makes the tables of blocks with fixed codes (RFC 1951, 3.2.6).
func (z *Inflater) fixedTables() {
	if z.fixed {
		return
	}
	lens := &z.lens
	for i := range maxLit {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	z.build(z.lit[:], litBits, lens[:maxLit], litValues[:])
	for i := range maxDist {
		lens[i] = 5
	}
	z.build(z.dist[:], distBits, lens[:maxDist], distValues[:])
	z.fixed = true
}

// tables reads the codes of a block and makes its tables (RFC 1951, 3.2.7).
func (z *Inflater) tables() error {
	s := &z.s
	z.fixed = false
	counts, err := s.take(14)
	if err != nil {
		return err
	}
	nlit, ndist, npre := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if nlit > usedLit || ndist > usedDist {
		return ErrCorrupt
	}
	lens := &z.lens
	clear(lens[:numPre])
	for _, i := range preOrder[:npre] {
		n, err := s.take(3)
		if err != nil {
			return err
		}
		lens[i] = uint8(n)
	}
	if !z.build(z.pre[:], preBits, lens[:numPre], preValues[:]) {
		return ErrCorrupt
	}
	for i := 0; i < nlit+ndist; {
		_, v, err := lookup(s, z.pre[:], preBits)
		if err != nil {
			return err
		}
		if v < 16 {
			lens[i] = uint8(v)
			i++
			continue
		}
		var repeat, bits uint
		var n uint8
		switch v {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			n, repeat, bits = lens[i-1], 3, 2
		case 17:
			repeat, bits = 3, 3
		case 18:
			repeat, bits = 11, 7
		}
		more, err := s.take(bits)
		if err != nil {
			return err
		}
		repeat += more
		if i+int(repeat) > nlit+ndist {
			return ErrCorrupt
		}
		for range repeat {
			lens[i] = n
			i++
		}
	}
	if !z.build(z.lit[:], litBits, lens[:nlit], litValues[:]) || !z.build(z.dist[:], distBits, lens[nlit:nlit+ndist], distValues[:]) {
		return ErrCorrupt
	}
	return nil
}

// build makes a table, and subtables behind it, of a canonical Huffman code that is given by the lengths of its codes, at most
// 15. It returns false if there is no such code. As in compress/flate, a code must be complete, have but one symbol, of
// length 1, or none.
func (z *Inflater) build(table []entry, index uint, lens []uint8, values []entry) bool {
	var counts [16]uint16
	for _, n := range lens {
		counts[n]++
	}
	counts[0] = 0
	longest := uint(15)
	for longest > 0 && counts[longest] == 0 {
		longest--
	}
	code := 0
	var first [16]uint16 // of sorted, for each length
	for n := uint(1); n <= longest; n++ {
		code = code<<1 + int(counts[n])
		if code > 1<<n {
			return false
		}
		if n < 15 {
			first[n+1] = first[n] + counts[n]
		}
	}
	if code != 1<<longest && longest > 0 && (code != 1 || longest != 1) {
		return false
	}
	if longest == 0 || code != 1<<longest {
		for i := range table[:1<<index] {
			table[i] = special | 1
		}
		if longest == 0 {
			return true
		}
	}
	for sym, n := range lens {
		if n > 0 {
			z.sorted[first[n]] = uint16(sym)
			first[n]++
		}
	}
	if code != 1<<longest { // one code, 0
		for i := 0; i < 1<<index; i += 2 {
			table[i] = withCode(values[z.sorted[0]], 1)
		}
		return true
	}

	// The table grows from what the shortest codes need, and what there is is doubled for each bit more. Codes come in the
	// order of their bits, of which the first one read is the lowest.
	sorted := z.sorted[:]
	rev := uint(0)
	n := uint(1)
	for counts[n] == 0 {
		n++
	}
	for size := uint(1) << n; n <= min(longest, index); n++ {
		for range counts[n] {
			table[rev] = withCode(values[sorted[0]], n)
			sorted = sorted[1:]
			rev = next(rev, n)
		}
		if n < index {
			copy(table[size:2*size], table[:size])
			size *= 2
		}
	}
	if longest <= index {
		for size := uint(1) << min(longest+1, index); size < 1<<index; size *= 2 {
			copy(table[size:2*size], table[:size])
		}
		return true
	}

	free := uint(1) << index
	prefix, start, sub := ^uint(0), uint(0), uint(0)
	for n := index + 1; n <= longest; n++ {
		for left := counts[n]; left > 0; left-- {
			if p := rev & (1<<index - 1); p != prefix {
				// As many bits as complete what begins with this prefix.
				prefix, start, sub = p, free, n-index
				for room, m := int(1)<<sub-int(left), n+1; room > 0 && m <= longest; m++ {
					room = room<<1 - int(counts[m])
					sub++
				}
				free += 1 << sub
				table[prefix] = pointer | entry(start)<<16 | entry(sub)<<8 | entry(index)
			}
			e := withCode(values[sorted[0]], n-index)
			for i := rev >> index; i < 1<<sub; i += 1 << (n - index) {
				table[start+i] = e
			}
			sorted = sorted[1:]
			rev = next(rev, n)
		}
	}
	return true
}

// withCode is the entry of a value whose code has n bits.
func withCode(value entry, n uint) entry {
	return value + entry(n) | entry(n)<<8
}

// next returns the code of n bits that follows one of them, both with the first bit lowest; after the last one, 0.
func next(code, n uint) uint {
	// The carry goes from the last bit towards the first.
	inverted := ^code & (1<<n - 1)
	if inverted == 0 {
		return 0
	}
	top := uint(1) << (bits.Len(inverted) - 1) // the last bit that is 0
	return code&(top-1) | top
}
