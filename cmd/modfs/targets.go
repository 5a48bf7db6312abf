package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	modfs "modfs/fs"
)

// maxProjectFile bounds a go.sum, go.mod or go.work file, in bytes.
const maxProjectFile = 64 << 20

// targets are what go.sum, go.mod and go.work files, directories and MODULE@VERSION name.
type targets struct {
	wanted []modfs.Wanted
	notes  []string // what is not among them

	by    map[string]int // index of a module version in wanted
	local func() (localGo, error)
}

// readTargets returns what the arguments name; without any, the project of the current directory.
func readTargets(ctx context.Context, args []string) (*targets, error) {
	t := &targets{by: make(map[string]int)}
	t.local = func() (localGo, error) { return findLocalGo(ctx) }
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, arg := range args {
		if err := t.add(arg); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *targets) add(arg string) error {
	path, query, isModule := strings.Cut(arg, "@")
	fi, err := os.Stat(arg)
	switch {
	case arg == "":
		return usagef("an argument is empty: want a go.sum, go.mod, go.work, directory or MODULE@VERSION")
	case isModule && err != nil && !strings.HasPrefix(arg, "/") && !strings.HasPrefix(arg, "."):
		if err := module.CheckPath(path); err != nil {
			return usagef("%s: %v", arg, err)
		}
		if query == "" {
			return usagef("%s: the version is empty: name one, or %s@latest", arg, path)
		}
		return t.want(modfs.Wanted{Path: path, Version: query}, arg)
	case err != nil:
		err = fmt.Errorf("%s cannot be read: %w", arg, errno(err))
		if errors.Is(err, os.ErrNotExist) && module.CheckPath(arg) == nil {
			err = fmt.Errorf("%w (for the module, name a version: %s@latest)", err, arg)
		}
		return err
	case fi.IsDir():
		return t.project(arg)
	}
	switch filepath.Ext(arg) {
	case ".work":
		return t.workspace(arg)
	case ".mod":
		return t.module(arg, true)
	case ".sum":
		if err := t.sums(arg); err != nil {
			return err
		}
		if mod := strings.TrimSuffix(arg, ".sum") + ".mod"; exists(mod) {
			return t.toolchainOf(mod)
		}
		return nil
	}
	return usagef("%s is none of go.sum, go.mod and go.work", arg)
}

// project adds what the go command would use in a directory: the workspace that it is in or, without one, its module.
func (t *targets) project(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	work := os.Getenv("GOWORK")
	if work == "" {
		work = findUp(dir, "go.work")
	}
	if work != "" && work != "off" {
		return t.workspace(work)
	}
	if mod := findUp(dir, "go.mod"); mod != "" {
		return t.module(mod, true)
	}
	if sum := filepath.Join(dir, "go.sum"); exists(sum) {
		return t.sums(sum)
	}
	return fmt.Errorf("%s: neither it nor a directory above it has a go.work or go.mod file", dir)
}

// findUp returns the file of that name in dir or the next directory above it that has one, "" if none has.
func findUp(dir, name string) string {
	for ; ; dir = filepath.Dir(dir) {
		if file := filepath.Join(dir, name); exists(file) {
			return file
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func exists(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular()
}

// workspace adds what the modules of a go.work file need.
func (t *targets) workspace(name string) error {
	data, err := readProjectFile(name)
	if err != nil {
		return err
	}
	w, err := modfile.ParseWork(name, data, nil)
	if err != nil {
		return err
	}
	if sum := name + ".sum"; exists(sum) {
		if err := t.sums(sum); err != nil {
			return err
		}
	}
	for _, use := range w.Use {
		dir := filepath.FromSlash(use.Path)
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(filepath.Dir(name), dir)
		}
		if err := t.module(filepath.Join(dir, "go.mod"), false); err != nil {
			return fmt.Errorf("%s uses %s: %w", name, use.Path, err)
		}
	}
	goLine, toolchain := "", ""
	if w.Go != nil {
		goLine = w.Go.Version
	}
	if w.Toolchain != nil {
		toolchain = w.Toolchain.Name
	}
	return t.toolchain(name, goLine, toolchain)
}

// module adds what a go.mod file and the go.sum beside it name and, with switches, the toolchain that it has the go command switch to.
func (t *targets) module(name string, switches bool) error {
	f, err := readGoMod(name)
	if err != nil {
		return err
	}
	if sum := strings.TrimSuffix(name, ".mod") + ".sum"; exists(sum) {
		err = t.sums(sum)
	} else {
		err = t.requirements(f)
	}
	if err != nil || !switches {
		return err
	}
	return t.toolchainOf(name)
}

func readGoMod(name string) (*modfile.File, error) {
	data, err := readProjectFile(name)
	if err != nil {
		return nil, err
	}
	return modfile.Parse(name, data, nil)
}

// toolchainOf adds the toolchain that a go.mod file has the go command switch to, if any.
func (t *targets) toolchainOf(name string) error {
	f, err := readGoMod(name)
	if err != nil {
		return err
	}
	goLine, toolchain := "", ""
	if f.Go != nil {
		goLine = f.Go.Version
	}
	if f.Toolchain != nil {
		toolchain = f.Toolchain.Name
	}
	return t.toolchain(name, goLine, toolchain)
}

// requirements adds what a go.mod file without a go.sum requires.
func (t *targets) requirements(f *modfile.File) error {
	replaced := make(map[module.Version]module.Version)
	for _, r := range f.Replace {
		replaced[r.Old] = r.New
	}
	excluded := make(map[module.Version]bool)
	for _, e := range f.Exclude {
		excluded[e.Mod] = true
	}
	n := 0
	for _, r := range f.Require {
		m := r.Mod
		if with, ok := replaced[m]; ok {
			m = with
		} else if with, ok := replaced[module.Version{Path: m.Path}]; ok {
			m = with
		}
		if m.Version == "" || excluded[r.Mod] { // a directory
			continue
		}
		if err := t.want(modfs.Wanted{Path: m.Path, Version: m.Version}, f.Syntax.Name); err != nil {
			return err
		}
		n++
	}
	if n > 0 {
		t.notes = append(t.notes, fmt.Sprintf("%s has no go.sum beside it: what it requires is fetched, but not what only these modules require, "+
			"and no hash is compared; 'go mod tidy' makes a go.sum", f.Syntax.Name))
	}
	return nil
}

// sums adds what a go.sum lists: archives with their go.mod files, and the go.mod files of the others.
func (t *targets) sums(name string) error {
	data, err := readProjectFile(name)
	if err != nil {
		return err
	}
	sums, err := modfs.ParseSums(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	keys := make([]module.Version, 0, len(sums))
	for key := range sums {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b module.Version) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Version, b.Version))
	})
	for _, key := range keys {
		w := modfs.Wanted{Path: key.Path, Version: key.Version, Sum: sums[key]}
		if v, isMod := strings.CutSuffix(key.Version, "/go.mod"); isMod {
			w = modfs.Wanted{Path: key.Path, Version: v, ModOnly: true, ModSum: sums[key]}
		}
		if err := t.want(w, name); err != nil {
			return err
		}
	}
	return nil
}

// want adds a module version that is named in a file. The error is that another file has another hash of it.
func (t *targets) want(w modfs.Wanted, from string) error {
	i, ok := t.by[w.String()]
	if !ok {
		t.by[w.String()] = len(t.wanted)
		t.wanted = append(t.wanted, w)
		return nil
	}
	old := &t.wanted[i]
	for _, sums := range [][2]string{{old.Sum, w.Sum}, {old.ModSum, w.ModSum}} {
		if sums[0] != "" && sums[1] != "" && sums[0] != sums[1] {
			return fmt.Errorf("%s: %s: its hash is %s here, and %s in another file: one of them was tampered with", from, w, sums[1], sums[0])
		}
	}
	old.ModOnly = old.ModOnly && w.ModOnly
	old.Sum, old.ModSum = cmp.Or(old.Sum, w.Sum), cmp.Or(old.ModSum, w.ModSum)
	return nil
}

// toolchain adds the toolchain that a file has the go command switch to, if it would.
func (t *targets) toolchain(name, goLine, line string) error {
	if goLine == "" && line == "" {
		return nil
	}
	g, err := t.local()
	if err != nil {
		t.notes = append(t.notes, fmt.Sprintf("whether %s needs another toolchain is not known: %v", name, err))
		return nil
	}
	if tc := g.toolchain(goLine, line); tc != "" {
		return t.want(modfs.Wanted{Path: toolchainPath, Version: g.toolchainVersion(tc)}, name)
	}
	return nil
}

// readProjectFile reads a file of somebody's project.
func readProjectFile(name string) ([]byte, error) {
	fi, err := os.Stat(name)
	if err == nil && !fi.Mode().IsRegular() { // to open a named pipe would have us wait
		err = errors.New("not a regular file")
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", name, errno(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProjectFile+1))
	if err == nil && len(data) > maxProjectFile {
		err = fmt.Errorf("larger than %s", size(int64(maxProjectFile)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", name, errno(err))
	}
	return data, nil
}
