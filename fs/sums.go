package fs

import (
	"bytes"
	"cmp"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// sums are the module versions that a go.sum lists, ordered: those whose zips, and those whose go.mod files a build with it can
// need (https://go.dev/ref/mod#go-sum-files). They are a hint of what to offer and to fetch, never of what is right.
type sums struct{ zips, mods []module.Version }

func compareVersions(a, b module.Version) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Version, b.Version))
}

// parseSums returns what a go.sum lists. What is not a line of one, or not a module version, is left out.
func parseSums(data []byte) sums {
	var s sums
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 || !validH1(fields[2]) {
			continue
		}
		version, isMod := strings.CutSuffix(fields[1], "/go.mod")
		m := module.Version{Path: fields[0], Version: version}
		if module.Check(m.Path, m.Version) != nil || module.CanonicalVersion(m.Version) != m.Version {
			continue
		}
		if isMod {
			s.mods = append(s.mods, m)
		} else {
			s.zips = append(s.zips, m)
		}
	}
	return s.ordered()
}

func (s sums) ordered() sums { return sums{ordered(s.zips), ordered(s.mods)} }

func ordered(ms []module.Version) []module.Version {
	slices.SortFunc(ms, compareVersions)
	return slices.Clip(slices.Compact(ms))
}

// has reports whether the zip of m is listed.
func (s sums) has(m module.Version) bool { return has(s.zips, m) }

// hasMod reports whether the go.mod file of m is listed.
func (s sums) hasMod(m module.Version) bool { return has(s.mods, m) }

func has(ms []module.Version, m module.Version) bool {
	_, ok := slices.BinarySearchFunc(ms, m, compareVersions)
	return ok
}

// below reports whether there is a module with that path, or one that continues it: one whose zip is listed or, with mods,
// whose go.mod file is.
func (s sums) below(dir string, mods bool) bool {
	return anyBelow(s.zips, dir) || mods && anyBelow(s.mods, dir)
}

func anyBelow(ms []module.Version, dir string) bool {
	i, _ := slices.BinarySearchFunc(ms, module.Version{Path: dir}, compareVersions)
	for ; i < len(ms) && strings.HasPrefix(ms[i].Path, dir); i++ {
		if below(ms[i].Path, dir) {
			return true
		}
	}
	return false
}

// memory returns about how many bytes s takes.
func (s sums) memory() int64 {
	n := int64(0)
	for _, m := range slices.Concat(s.zips, s.mods) {
		n += 32 + int64(len(m.Path)+len(m.Version))
	}
	return n
}

// sumsMemory bounds what is remembered of go.sum files, in bytes.
const sumsMemory = 8 << 20

// fileID tells a file, and its content, from any other.
type fileID struct {
	dev, ino uint64
	size     int64
	mtime    time.Time
}

// maxUp is how many directories a go command is followed up: more than any tree has.
const maxUp = 64

// sumsOf returns what the go.sum files list that a go command with the working directory of a process uses: that of the
// nearest go.mod, or of a workspace all those of its modules. goWork is the process's GOWORK.
func (f *FS) sumsOf(p process, goWork string) sums {
	dir, ok := p.dir(f.dev)
	if !ok {
		return sums{} // in this mount, which its own daemon does not look into
	}
	work := ""
	if filepath.IsAbs(goWork) {
		work = goWork
	}
	// No path is cleaned: dir begins with a magic link, which the kernel follows in the mount namespace of the process.
	mod := ""
	at := dir
	for range maxUp {
		if mod == "" && isFile(at+"/go.mod") {
			mod = at
		}
		if work == "" && goWork != "off" && isFile(at+"/go.work") {
			work = at + "/go.work"
		}
		up := at + "/.."
		if mod != "" && (work != "" || goWork == "off") || sameDir(at, up) {
			break
		}
		at = up
	}
	var files []string
	if work != "" {
		files = append(files, work+".sum")
		for _, use := range workUses(work) {
			files = append(files, use+"/go.sum")
		}
	} else if mod != "" {
		files = []string{mod + "/go.sum"}
	}
	if len(files) == 1 {
		s, _ := f.sumsIn(files[0])
		return s
	}
	var all sums
	seen := make(map[fileID]bool) // several names may lead to one file
	for _, file := range files {
		s, id := f.sumsIn(file)
		if seen[id] {
			continue
		}
		seen[id] = true
		if len(all.zips)+len(all.mods)+len(s.zips)+len(s.mods) > maxWorkSums {
			break
		}
		all.zips, all.mods = append(all.zips, s.zips...), append(all.mods, s.mods...)
	}
	return all.ordered()
}

// maxUses bounds how many modules of a workspace are looked at, and maxWorkSums how many lines of their go.sum files are remembered. The
// largest known programs have some 3,000 each.
const (
	maxUses     = 256
	maxWorkSums = 1 << 16
)

// workUses returns the directories of the modules that a go.work file uses.
func workUses(name string) []string {
	data, err := readForeign(name, maxGoSum)
	if err != nil {
		return nil
	}
	w, err := modfile.ParseWork(name, data, nil)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, use := range w.Use[:min(len(w.Use), maxUses)] {
		dir := filepath.FromSlash(use.Path)
		if !filepath.IsAbs(dir) {
			dir = strings.TrimSuffix(name, path.Base(name)) + dir
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// sumsIn returns what one go.sum lists, and which file it is; nothing if there is none.
func (f *FS) sumsIn(name string) (s sums, id fileID) {
	id, ok := identify(name)
	if !ok || id.size > maxGoSum {
		return sums{}, fileID{}
	}
	if s, ok := f.goSums.get(id); ok {
		return s, id
	}
	data, err := readForeign(name, maxGoSum)
	if err != nil {
		return sums{}, fileID{}
	}
	s = parseSums(data)
	f.goSums.add(id, s, s.memory())
	return s, id
}
