package fetch

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/klauspost/compress/flate"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// maxKeep is the size up to which verifyZip hands the content of files to its caller, in bytes.
const maxKeep = 1 << 20

// verifyZip checks a zip of m as modzip.CheckZip does, inflates each entry once, on all cores, and returns the h1 hash of
// what is in them: dirhash.HashZip and CheckZip in one pass.
func verifyZip(m module.Version, r io.ReaderAt, size int64, keep func(string, []byte)) (string, error) {
	if size > modzip.MaxZipFile {
		return "", fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	zr, err := zip.NewReader(r, size)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if err := checkNames(m, zr); err != nil {
		return "", err
	}
	prefix := len(m.Path + "@" + m.Version + "/")
	sums := make([][sha256.Size]byte, len(zr.File))
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	// take hands out the entries one by one, none after an error.
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || next == len(zr.File) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(runtime.GOMAXPROCS(0), len(zr.File)) {
		wg.Go(func() {
			h := hasher{keep: keep}
			for i, ok := take(); ok; i, ok = take() {
				f := zr.File[i]
				sum, err := h.hash(r, size, f, f.Name[prefix:])
				if err != nil {
					mu.Lock()
					first = fmt.Errorf("%w: %q: %v", ErrInvalid, f.Name, err)
					mu.Unlock()
					return
				}
				sums[i] = sum
			}
		})
	}
	wg.Wait()
	if first != nil {
		return "", first
	}
	order := make([]int, len(zr.File))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(zr.File[a].Name, zr.File[b].Name) })
	all := sha256.New()
	for _, i := range order {
		fmt.Fprintf(all, "%x  %s\n", sums[i], zr.File[i].Name)
	}
	return "h1:" + base64.StdEncoding.EncodeToString(all.Sum(nil)), nil
}

// hasher inflates and hashes entries, reusing its buffers.
type hasher struct {
	keep    func(string, []byte)
	inflate io.ReadCloser
	buf     []byte
}

// hash returns the SHA-256 of an entry's content.
func (h *hasher) hash(r io.ReaderAt, size int64, f *zip.File, name string) (sum [sha256.Size]byte, err error) {
	offset, err := f.DataOffset()
	if err != nil {
		return sum, err
	}
	packed, unpacked := int64(f.CompressedSize64), int64(f.UncompressedSize64)
	if strings.HasSuffix(f.Name, "/") {
		// Some packers give directories a packed size; content they must not have.
		if unpacked != 0 {
			return sum, zip.ErrFormat
		}
		return sha256.Sum256(nil), nil
	}
	if packed < 0 || unpacked < 0 || offset > size || packed > size-offset {
		return sum, fmt.Errorf("reaches beyond the end of the file")
	}
	var in io.Reader = io.NewSectionReader(r, offset, packed)
	switch f.Method {
	case zip.Store:
		if packed != unpacked {
			return sum, fmt.Errorf("stored %d bytes as %d", unpacked, packed)
		}
	case zip.Deflate:
		if h.inflate == nil {
			h.inflate = flate.NewReader(in)
		} else if err := h.inflate.(flate.Resetter).Reset(in, nil); err != nil {
			return sum, err
		}
		in = h.inflate
	default:
		return sum, zip.ErrAlgorithm
	}
	if err := checkDescriptor(r, offset+packed, f); err != nil {
		return sum, err
	}
	if unpacked <= maxKeep {
		return h.hashSmall(in, f, name)
	}
	sha, crc := sha256.New(), crc32.NewIEEE()
	if h.buf == nil {
		h.buf = make([]byte, 256<<10)
	}
	n, err := io.CopyBuffer(writerOnly{io.MultiWriter(sha, crc)}, io.LimitReader(in, unpacked+1), h.buf)
	if err != nil {
		return sum, err
	}
	sha.Sum(sum[:0])
	return sum, checkEntry(f, n, crc.Sum32())
}

// hashSmall is hash for a file that is inflated into memory of its own.
func (h *hasher) hashSmall(in io.Reader, f *zip.File, name string) (sum [sha256.Size]byte, err error) {
	// One byte more than there should be: a longer file must not pass.
	buf := make([]byte, f.UncompressedSize64+1)
	n, err := io.ReadFull(in, buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return sum, err
	}
	data := buf[:n:n]
	if err := checkEntry(f, int64(n), crc32.ChecksumIEEE(data)); err != nil {
		return sum, err
	}
	if h.keep != nil {
		h.keep(name, data)
	}
	return sha256.Sum256(data), nil
}

func checkEntry(f *zip.File, n int64, crc uint32) error {
	if uint64(n) != f.UncompressedSize64 {
		return fmt.Errorf("its size is not the %d bytes that the directory says", f.UncompressedSize64)
	}
	// As for archive/zip, a checksum of 0 that nothing confirms was never set.
	if crc != f.CRC32 && (f.CRC32 != 0 || f.Flags&flagDescriptor != 0) {
		return zip.ErrChecksum
	}
	return nil
}

// flagDescriptor says that the sizes and the CRC-32 of an entry follow its data (APPNOTE.TXT, 4.3.9).
const flagDescriptor = 1 << 3

// checkDescriptor checks what follows an entry's data as archive/zip does: with or without its signature, the CRC-32 in it is
// that of the directory. The sizes, for which there are two formats, count for nothing.
func checkDescriptor(r io.ReaderAt, offset int64, f *zip.File) error {
	if f.Flags&flagDescriptor == 0 {
		return nil
	}
	const signature, length = 0x08074b50, 12
	var b [length]byte
	n, err := r.ReadAt(b[:], offset)
	if err != nil && err != io.EOF {
		return err
	}
	crc := b[:n]
	if n >= 4 && binary.LittleEndian.Uint32(crc) == signature {
		crc = crc[4:]
	}
	if n < length {
		return io.ErrUnexpectedEOF
	}
	if binary.LittleEndian.Uint32(crc) != f.CRC32 {
		return zip.ErrChecksum
	}
	return nil
}

// checkNames applies the rules of modzip's package comment to the names and sizes of a zip's entries.
func checkNames(m module.Version, zr *zip.Reader) error {
	invalid := func(name, format string, args ...any) error {
		return fmt.Errorf("%w: %q: %s", ErrInvalid, name, fmt.Sprintf(format, args...))
	}
	prefix := m.Path + "@" + m.Version + "/"
	seen := make(collisions)
	var total int64
	for _, f := range zr.File {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok {
			return invalid(f.Name, "name does not begin with %q", prefix)
		}
		if name == "" {
			continue
		}
		name, isDir := strings.CutSuffix(name, "/")
		if path.Clean(name) != name {
			return invalid(f.Name, "name is not clean")
		}
		if err := module.CheckFilePath(name); err != nil {
			return invalid(f.Name, "%v", err)
		}
		if other, ok := seen.add(name, isDir); !ok {
			return invalid(f.Name, "collides with %q", other)
		}
		if isDir {
			continue
		}
		if strings.EqualFold(path.Base(name), "go.mod") && name != "go.mod" {
			return invalid(f.Name, "a go.mod that is not at the root, or not in lower case")
		}
		size := int64(f.UncompressedSize64)
		if size < 0 || size > modzip.MaxZipFile-total {
			return fmt.Errorf("%w: more than %d bytes unpacked", ErrTooLarge, int64(modzip.MaxZipFile))
		}
		total += size
		if name == "go.mod" && size > modzip.MaxGoMod || name == "LICENSE" && size > modzip.MaxLICENSE {
			return fmt.Errorf("%w: %q: %d bytes", ErrTooLarge, f.Name, size)
		}
	}
	return nil
}

// collisions are the names of a zip's files and their directories by their folded form.
type collisions map[string]struct {
	name string
	dir  bool
}

// add notes a name and the directories above it. It is not ok if another name (returned) folds to the same, or if one is a
// file and the other a directory.
func (c collisions) add(name string, isDir bool) (other string, ok bool) {
	key := fold(name)
	if e, there := c[key]; !there {
		c[key] = struct {
			name string
			dir  bool
		}{name, isDir}
	} else if e.name != name || !e.dir || !isDir {
		return e.name, false
	}
	if parent := path.Dir(name); parent != "." {
		return c.add(parent, true)
	}
	return "", true
}

// fold returns the same string for all that strings.EqualFold takes for equal.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		// The smallest of the runes that fold to each other.
		least := r
		for q := unicode.SimpleFold(r); q != r; q = unicode.SimpleFold(q) {
			least = min(least, q)
		}
		if 'A' <= least && least <= 'Z' {
			least += 'a' - 'A'
		}
		return least
	}, s)
}
