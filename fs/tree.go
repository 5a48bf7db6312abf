package fs

import (
	"archive/zip"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	iofs "io/fs"
	"math"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"modfs/fetch"
)

// tree is the directory tree of one module version and where each file's content is in its zip. It is immutable, so
// all methods may be called concurrently.
//
// Entries are numbered breadth first, entry 0 being M@V itself: the children of a directory are neighbours, sorted by
// name. The number of an entry is a function of the zip alone and may be handed to the kernel as part of a node ID.
type tree struct {
	entries []entry
	names   string // the base names of all entries, in order

	// heads are the digests of how files larger than headSize begin, ordered by entry. A file may have none.
	heads []head

	// unpacked is the total size of all files in bytes.
	unpacked int64

	// zipSize is the size in bytes of the zip that the tree was made from, so that it is known when that is evicted.
	zipSize int64
}

// digest is how the SHA-256 of a file's content begins, or that of how it begins. 128 bits are enough: the first content was in the
// zip's h1 hash, and to find another one with its digest takes 2¹²⁸ tries. Only who writes the module gets to choose both, and
// finds two with one digest in 2⁶⁴ tries; that gains him a machine that dropped the zip and got the second one from a proxy of his.
//
// The CRC-32 that a zip has for each of its files would not do. It may be missing (0), and whoever sends us the zip of an evicted
// module anew can make a second one with the same hash where at the places of the first one's files other content lies, with the
// same size and CRC-32: the index is still that of the first one.
type digest [16]byte

func makeDigest(sum [sha256.Size]byte) digest { return digest(sum[:len(digest{})]) }

// digestOf returns the digest of data.
func digestOf(data []byte) digest { return makeDigest(sha256.Sum256(data)) }

// digests are those of the files of a zip and of the first headSize bytes of larger ones, by slash path below M@V. They come from
// the verification of the zip.
type digests struct{ files, heads map[string]digest }

// headSize is how much of a larger file has a digest of its own, in bytes, so that it can be read without inflating the
// rest: what reads source code for its imports rarely needs more. With 4 KiB read first, the kernel reads 16 KiB, then 32.
const headSize = 48 << 10

// head is the digest of the first headSize bytes of a file.
type head struct {
	entry uint32
	sum   digest
}

// entry is a file or directory in 40 bytes. Four are enough for each number, as the go command refuses zips above 500 MiB,
// packed or not (modzip.MaxZipFile); newTree checks that they are.
type entry struct {
	offset  uint32 // of the packed data in the zip; of a directory: its first child
	size    uint32 // inflated; of a directory: the entry after its last child
	packed  uint32 // size in the zip; of a directory: how many of its children are directories
	sum     digest // of the inflated data
	parent  uint32
	name    uint32 // offset in names
	nameLen uint8
	flags   uint8
}

const (
	flagDir     = 1 << iota
	flagExec    // executable
	flagDeflate // packed with zip.Deflate, else zip.Store
)

// maxEntries is how many entries a tree can have: their numbers have 24 bits of a node ID.
const maxEntries = 1<<24 - 1

// fileData is where the content of a file is.
type fileData struct {
	offset       int64 // of the first packed byte in the zip
	packed, size int64
	sum          digest // of the inflated content
	method       uint16 // zip.Store or zip.Deflate
}

// treeFile is a file while its tree is being made.
type treeFile struct {
	name string // slash path below M@V
	data fileData
	head digest // zero if it has none
	exec bool
}

// newTree indexes the zip of m, of zipSize bytes, whose verification has found sums. It reads the local header of each file. The
// error wraps fetch.ErrInvalid if the zip has files that no client could open.
//
// With toolchain, the tree is what the go command makes of golang.org/toolchain after unpacking it; see readyToRun.
func newTree(m module.Version, zr *zip.Reader, zipSize int64, sums digests, toolchain bool) (*tree, error) {
	files, err := zipFiles(zr, m.Path+"@"+m.Version+"/", zipSize, sums)
	if err != nil {
		return nil, fmt.Errorf("%s@%s: index of the zip: %w", m.Path, m.Version, err)
	}
	if toolchain {
		files = readyToRun(files)
	}
	slices.SortFunc(files, func(a, b treeFile) int { return comparePaths(a.name, b.name) })
	t, err := buildTree(files)
	if err != nil {
		return nil, fmt.Errorf("%s@%s: index of the zip: %w", m.Path, m.Version, err)
	}
	t.zipSize = zipSize
	return t, nil
}

// zipFiles returns the files of a zip, all of which must be below prefix. Like modzip.Unzip it makes nothing of the entries
// for directories.
func zipFiles(zr *zip.Reader, prefix string, zipSize int64, sums digests) ([]treeFile, error) {
	files := make([]treeFile, 0, len(zr.File))
	for _, zf := range zr.File {
		name, ok := strings.CutPrefix(zf.Name, prefix)
		if !ok {
			return nil, fmt.Errorf("%q is not below %s", zf.Name, prefix)
		}
		if name == "" || strings.HasSuffix(name, "/") {
			continue
		}
		if !iofs.ValidPath(name) || name == "." || !clean(name) {
			// The go command could not unpack it, either.
			return nil, fmt.Errorf("%w: %.200q is not a file name, or longer than %d bytes (%d an element)", fetch.ErrInvalid, zf.Name, maxPath, maxName)
		}
		sum, ok := sums.files[name]
		if !ok {
			return nil, fmt.Errorf("%q was not verified", zf.Name)
		}
		if zf.Method != zip.Store && zf.Method != zip.Deflate {
			return nil, fmt.Errorf("%q: unknown compression method %d", zf.Name, zf.Method)
		}
		offset, err := zf.DataOffset()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", zf.Name, err)
		}
		// The packed data may be said to go on behind the end of the zip: where it ends is told by itself.
		offset = min(offset, zipSize)
		packed := min(zf.CompressedSize64, uint64(zipSize-offset))
		if max(uint64(offset), packed, zf.UncompressedSize64) > math.MaxUint32 {
			return nil, fmt.Errorf("%q: larger than 4 GiB", zf.Name)
		}
		if zf.Method == zip.Store && packed != zf.UncompressedSize64 {
			return nil, fmt.Errorf("%q: stored with two sizes", zf.Name)
		}
		files = append(files, treeFile{name: name, head: sums.heads[name], data: fileData{
			offset: offset,
			packed: int64(packed),
			size:   int64(zf.UncompressedSize64),
			sum:    sum,
			method: zf.Method,
		}})
	}
	return files, nil
}

// readyToRun does to the files of a toolchain what the go command does when it first runs one (NewerToolchain's download
// in cmd/go/internal/toolchain/select.go): it sets the execute bits, which zips of modules don't have, and copies each
// _go.mod to go.mod, because a zip cannot hold a go.mod below its root. On a file system that it cannot write to it must
// find both done.
func readyToRun(files []treeFile) []treeFile {
	sizes := map[string]int64{} // by name, of all files that matter here
	for _, f := range files {
		if base := path.Base(f.name); base == "go.mod" || base == "_go.mod" || f.name == "bin/go" {
			sizes[f.name] = f.data.size
		}
	}
	size := func(name string) int64 {
		if n, ok := sizes[name]; ok {
			return n
		}
		return -1
	}

	if size("bin/go") >= 0 { // it refuses a toolchain without
		for i := range files {
			name := files[i].name
			wrapper := false
			if strings.HasPrefix(name, "lib/") {
				wrapper, _ = path.Match("go_?*_?*_exec", path.Base(name)) // the pattern is well formed
			}
			files[i].exec = wrapper || strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "pkg/tool/")
		}
	}

	// The go command takes src/go.mod for the sign that all copies are there. A go.mod of another size is overwritten.
	if size("src/go.mod") == size("src/_go.mod") {
		return files
	}
	var copies []treeFile
	replaced := map[string]bool{}
	for _, f := range files {
		dir, base := path.Split(f.name)
		if base != "_go.mod" || size(dir+"go.mod") == f.data.size {
			continue
		}
		f.name = dir + "go.mod"
		copies = append(copies, f)
		replaced[f.name] = true
	}
	files = slices.DeleteFunc(files, func(f treeFile) bool { return replaced[f.name] })
	return append(files, copies...)
}

// comparePaths orders slash paths element by element, so that the files of a directory are neighbours and its children
// are sorted by name.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}

// buildTree makes a tree of files sorted by comparePaths.
func buildTree(files []treeFile) (*tree, error) {
	t := &tree{entries: make([]entry, 1, len(files)+len(files)/4+1)}
	t.entries[0].flags = flagDir

	// span is what a directory covers of files, and the length of its path with a slash at the end.
	type span struct{ first, end, depth int }
	spans := []span{{0, len(files), 0}} // by entry; that of a file is empty
	var names strings.Builder
	for dir := 0; dir < len(t.entries); dir++ {
		if t.entries[dir].flags&flagDir == 0 {
			continue
		}
		s := spans[dir]
		first, subdirs, last := len(t.entries), 0, ""
		for i := s.first; i < s.end; {
			name, _, isDir := strings.Cut(files[i].name[s.depth:], "/")
			// Sorting has put the files of a directory behind a file of that name, and equal names together.
			if i > s.first && name == last {
				return nil, fmt.Errorf("%q is there twice, or both a file and a directory", files[i].name[:s.depth]+name)
			}
			last = name
			e := entry{parent: uint32(dir), name: uint32(names.Len()), nameLen: uint8(len(name))}
			names.WriteString(name)
			if isDir {
				// All of the span begins alike as far as depth. To compare that again would make deep directories cost the square
				// of their depth.
				end, elem := i+1, files[i].name[s.depth:s.depth+len(name)+1]
				for end < s.end && strings.HasPrefix(files[end].name[s.depth:], elem) {
					end++
				}
				e.flags = flagDir
				spans = append(spans, span{i, end, s.depth + len(elem)})
				subdirs++
				i = end
			} else {
				e.setData(files[i])
				if files[i].head != (digest{}) && files[i].data.size > headSize {
					t.heads = append(t.heads, head{uint32(len(t.entries)), files[i].head})
				}
				t.unpacked += files[i].data.size
				spans = append(spans, span{})
				i++
			}
			t.entries = append(t.entries, e)
			if len(t.entries) > maxEntries || names.Len() > math.MaxUint32-maxName {
				return nil, errors.New("too many files")
			}
		}
		t.entries[dir].setChildren(first, len(t.entries), subdirs)
	}
	t.names = names.String()
	return t, nil
}

func (e *entry) setChildren(first, end, subdirs int) {
	e.offset, e.size, e.packed = uint32(first), uint32(end), uint32(subdirs)
}

func (e *entry) setData(f treeFile) {
	e.offset, e.packed, e.size, e.sum = uint32(f.data.offset), uint32(f.data.packed), uint32(f.data.size), f.data.sum
	if f.data.method == zip.Deflate {
		e.flags |= flagDeflate
	}
	if f.exec {
		e.flags |= flagExec
	}
}

// len returns the number of entries. It is at least 1. The methods below panic for an entry that is not below it.
func (t *tree) len() int { return len(t.entries) }

// name returns the base name of entry i; that of entry 0 is "".
func (t *tree) name(i int) string {
	e := &t.entries[i]
	return t.names[e.name : int(e.name)+int(e.nameLen)]
}

func (t *tree) isDir(i int) bool { return t.entries[i].flags&flagDir != 0 }

// exec reports whether entry i is an executable file.
func (t *tree) exec(i int) bool { return t.entries[i].flags&flagExec != 0 }

// size returns the inflated size of file i in bytes, 0 for a directory.
func (t *tree) size(i int) int64 {
	if t.isDir(i) {
		return 0
	}
	return int64(t.entries[i].size)
}

// parent returns the directory that entry i is in; that of entry 0 is itself.
func (t *tree) parent(i int) int { return int(t.entries[i].parent) }

// children returns the entries [first, end) of directory dir, sorted by name; none for a file.
func (t *tree) children(dir int) (first, end int) {
	if !t.isDir(dir) {
		return 0, 0
	}
	e := &t.entries[dir]
	return int(e.offset), int(e.size)
}

// subdirs returns how many children of directory i are directories, which is two less than its link count.
func (t *tree) subdirs(i int) int {
	if !t.isDir(i) {
		return 0
	}
	return int(t.entries[i].packed)
}

// data returns where the content of file i is; the zero value for a directory. Two files of a toolchain may share theirs.
func (t *tree) data(i int) fileData {
	if t.isDir(i) {
		return fileData{}
	}
	e := &t.entries[i]
	d := fileData{offset: int64(e.offset), packed: int64(e.packed), size: int64(e.size), sum: e.sum, method: zip.Store}
	if e.flags&flagDeflate != 0 {
		d.method = zip.Deflate
	}
	return d
}

// lookup returns the child of directory dir with that name. It does not allocate.
func (t *tree) lookup(dir int, name string) (int, bool) {
	lo, hi := t.children(dir)
	end := hi
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.name(mid) < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < end && t.name(lo) == name
}

// head returns the digest of the first headSize bytes of file i, false if that is not known.
func (t *tree) head(i int) (digest, bool) {
	at, ok := slices.BinarySearchFunc(t.heads, uint32(i), func(h head, i uint32) int { return cmp.Compare(h.entry, i) })
	if !ok {
		return digest{}, false
	}
	return t.heads[at].sum, true
}

// find returns the entry at a slash path below M@V; "" is M@V itself.
func (t *tree) find(path string) (int, bool) {
	i := 0
	for path != "" {
		var name string
		var ok bool
		name, path, _ = strings.Cut(path, "/")
		if i, ok = t.lookup(i, name); !ok {
			return 0, false
		}
	}
	return i, true
}
