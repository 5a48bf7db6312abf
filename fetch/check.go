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

// maxShown is how many broken rules the error of a zip shows.
const maxShown = 3

// checkEntries applies the rules of golang.org/x/mod/zip to the names and sizes of a zip's entries, as its CheckZip does
// to a file with a name. The error is that of sizes, which must not even be tried; invalid is that of names.
func checkEntries(m module.Version, zr *zip.Reader) (invalid, err error) {
	// A list of all of them would be as long as whoever made the zip likes.
	var shown []string
	broken := 0
	seen := make(collisions, len(zr.File))
	prefix := m.String() + "/"
	total := int64(0)
	for _, f := range zr.File {
		// The size is what the directory says. archive/zip holds the file to it while inflating.
		size := int64(f.UncompressedSize64)
		if size < 0 || size > modzip.MaxZipFile-total {
			return nil, fmt.Errorf("%w: more than %d bytes when unpacked", ErrTooLarge, int64(modzip.MaxZipFile))
		}
		total += size
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok {
			err = fmt.Errorf("its name does not begin with %q", prefix)
		} else if err = seen.checkEntry(name, size); errors.Is(err, ErrTooLarge) {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		if err != nil {
			if broken++; broken <= maxShown {
				shown = append(shown, fmt.Sprintf("%q: %v", f.Name, err))
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
func (c collisions) checkEntry(name string, size int64) error {
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

// collisions are the paths of a zip, files and directories, by what they fold to.
type collisions map[string]collision

type collision struct {
	path  string
	isDir bool
}

// add notes a path and the directories above it. It refuses two files with one name, a file that is also a directory,
// and two paths that some file systems take for one.
func (c collisions) add(p string, isDir bool) error {
	for ; p != "."; p, isDir = path.Dir(p), true {
		key := fold(p)
		other, ok := c[key]
		switch {
		case !ok:
			c[key] = collision{p, isDir}
		case other.path != p:
			return fmt.Errorf("it differs from %q in the case of letters only", other.path)
		case other.isDir != isDir:
			return errors.New("it is both a file and a directory")
		case !isDir:
			return errors.New("there are two files of that name")
		default:
			return nil // a directory that is known, as are those above it
		}
	}
	return nil
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
