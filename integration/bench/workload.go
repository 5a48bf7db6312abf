package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/tools/txtar"
)

// A workload is a module of ours whose dependencies are loaded or built. Its files are in testdata/NAME.txtar.
type workload struct {
	name     string
	patterns []string // of its packages
}

var (
	large  = workload{"large", []string{".", "tool"}}
	middle = workload{"build", []string{"tool"}}
)

// readModule is the module of large that is read file by file: 2,383 files, 16 MB.
const readModule = "k8s.io/client-go"

func workloads() []workload { return []workload{large, middle} }

// archives are in txtar because a directory with a go.mod file cannot be embedded.
//
//go:embed testdata/*.txtar
var archives embed.FS

// archive returns the files of w.
func (w workload) archive() (*txtar.Archive, error) {
	data, err := archives.ReadFile("testdata/" + w.name + ".txtar")
	if err != nil {
		return nil, err
	}
	return txtar.Parse(data), nil
}

// unpack writes the files of w to dir, which it makes.
func (w workload) unpack(dir string) error {
	a, err := w.archive()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, f := range a.Files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// required returns the version of the module modPath that w uses.
func (w workload) required(modPath string) (module.Version, error) {
	a, err := w.archive()
	if err != nil {
		return module.Version{}, err
	}
	for _, f := range a.Files {
		if f.Name != "go.mod" {
			continue
		}
		mod, err := modfile.Parse("go.mod", f.Data, nil)
		if err != nil {
			return module.Version{}, err
		}
		for _, r := range mod.Require {
			if r.Mod.Path == modPath {
				return r.Mod, nil
			}
		}
	}
	return module.Version{}, fmt.Errorf("workload %s does not require %s", w.name, modPath)
}
