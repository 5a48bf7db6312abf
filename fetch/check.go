package fetch

import (
	"archive/zip"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// maxShown is how many broken rules the error of a zip shows, and maxText how many bytes of what a zip says, names above all,
// any error quotes: a name may have 64 KiB.
const (
	maxShown = 3
	maxText  = 500
)

// clip returns s, or how it begins.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// maxPaths is how many files and directories a zip may have. A path of n bytes can be one of n/2 directories, so to bound the
// size of a zip is not enough to bound the memory that they take. The largest modules have a tenth of that.
const maxPaths = 1 << 20

// checkEntries applies the rules of golang.org/x/mod/zip to the names and sizes of a zip's entries, as its CheckZip does
// to a file with a name. The error is that of sizes, which must not even be tried; invalid is that of names.
func checkEntries(m module.Version, zr *zip.Reader) (invalid, err error) {
	// A list of all of them would be as long as whoever made the zip likes.
	var shown []string
	broken := 0
	seen := collisions{nodes: make(map[edge]node, len(zr.File))}
	prefix := m.String() + "/"
	total := int64(0)
	for _, f := range zr.File {
		// The size is what the directory says. archive/zip holds the file to it while inflating; that of a directory counts for
		// nothing, as it must have no content.
		size := int64(f.UncompressedSize64)
		if !strings.HasSuffix(f.Name, "/") {
			if size < 0 || size > modzip.MaxZipFile-total {
				return nil, fmt.Errorf("%w: more than %d bytes when unpacked", ErrTooLarge, int64(modzip.MaxZipFile))
			}
			total += size
		}
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok {
			err = fmt.Errorf("its name does not begin with %q", prefix)
		} else if err = seen.checkEntry(name, size); errors.Is(err, ErrTooLarge) {
			return nil, fmt.Errorf("%q: %w", clip(f.Name), err)
		}
		if err != nil {
			if broken++; broken <= maxShown {
				shown = append(shown, fmt.Sprintf("%q: %s", clip(f.Name), clip(err.Error())))
			}
		}
	}
	if broken == 0 {
		return nil, nil
	}
	text := strings.Join(shown, "; ")
	if broken > maxShown {
		text += fmt.Sprintf("; and %d more", broken-maxShown)
	}
	return fmt.Errorf("%w: %s", ErrInvalid, text), nil
}

// checkEntry applies the rules to one entry. name is below M@V; that of a directory ends in a slash.
func (c *collisions) checkEntry(name string, size int64) error {
	if name == "" {
		return nil // M@V itself
	}
	// Directories count for collisions and are otherwise ignored.
	name, isDir := strings.CutSuffix(name, "/")
	if path.Clean(name) != name {
		return errors.New("its path is not clean")
	}
	if err := module.CheckFilePath(name); err != nil {
		return err
	}
	if err := c.add(name, isDir); err != nil || isDir {
		return err
	}
	if base := path.Base(name); strings.EqualFold(base, "go.mod") && name != "go.mod" {
		return errors.New("a go.mod file must be in the root, and its name in lower case")
	}
	if name == "go.mod" && size > modzip.MaxGoMod || name == "LICENSE" && size > modzip.MaxLICENSE {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	return nil
}

// collisions are the paths of a zip, files and directories, by what they fold to. They are a tree of names, not a table of paths:
// those of all directories on the way to a file of a deep one would take the square of its length.
type collisions struct {
	nodes map[edge]node

	// The directory of the last path, which is that of the next one, too, in most cases.
	dir   string
	dirID uint32
}

// edge is a name in a directory, folded. Directory 0 is M@V.
type edge struct {
	dir  uint32
	name string
}

type node struct {
	id    uint32
	name  string
	isDir bool
}

// add notes a path and the directories above it. It refuses two files with one name, a file that is also a directory,
// and two paths that some file systems take for one.
func (c *collisions) add(p string, isDir bool) error {
	slash := strings.LastIndexByte(p, '/')
	dir := uint32(0)
	if slash >= 0 && p[:slash] == c.dir {
		dir = c.dirID
	} else if slash >= 0 {
		for name := range strings.SplitSeq(p[:slash], "/") {
			var err error
			if dir, _, err = c.step(dir, name, true); err != nil {
				return err
			}
		}
		c.dir, c.dirID = p[:slash], dir
	}
	_, known, err := c.step(dir, p[slash+1:], isDir)
	if err == nil && known && !isDir {
		err = errors.New("there are two files of that name")
	}
	return err
}

// step notes a name in a directory, and returns which it is and whether it was known.
func (c *collisions) step(dir uint32, name string, isDir bool) (id uint32, known bool, err error) {
	key := edge{dir, fold(name)}
	other, known := c.nodes[key]
	switch {
	case !known && len(c.nodes) >= maxPaths:
		return 0, false, fmt.Errorf("%w: more than %d files and directories", ErrTooLarge, maxPaths)
	case !known:
		id = uint32(len(c.nodes)) + 1
		c.nodes[key] = node{id, name, isDir}
		return id, false, nil
	case other.name != name:
		return 0, true, fmt.Errorf("%q in it differs from %q in the case of letters only", clip(name), clip(other.name))
	case other.isDir != isDir:
		return 0, true, fmt.Errorf("%q in it is both a file and a directory", clip(name))
	}
	return other.id, true, nil
}

// fold returns the same string for all those that strings.EqualFold takes for equal.
func fold(s string) string {
	// Most names are in lower case already, and then nothing is allocated.
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return strings.Map(foldRune, s)
		}
	}
	return s
}

// foldRune returns the least of the runes that fold to each other, but lower case for ASCII: most names then fold to
// themselves.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}
