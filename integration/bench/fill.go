package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/mod/module"
)

// fill makes cache/mod/cache/download a tree that has all that the workloads need, and returns its path. If it is complete
// already, nothing is fetched.
func fill(ctx context.Context, cache string, ws []workload, say func(string, ...any)) (string, error) {
	modcache := filepath.Join(cache, "mod")
	tree := filepath.Join(modcache, "cache", "download")
	sum, err := fingerprint(ws)
	if err != nil {
		return "", err
	}
	marker := filepath.Join(cache, "complete")
	if data, err := os.ReadFile(marker); err == nil && string(data) == sum {
		return tree, nil
	}
	say("filling %s, once (about 300 MB of downloads) ...", tree)
	tmp, err := os.MkdirTemp(cache, "fill-")
	if err != nil {
		return "", err
	}
	defer removeAll(tmp) // best effort
	env := userEnv(modcache)
	for _, w := range ws {
		dir := filepath.Join(tmp, w.name)
		if err := w.unpack(dir); err != nil {
			return "", err
		}
		if _, err := runGo(ctx, dir, env, append([]string{"list", "-deps"}, w.patterns...)...); err != nil {
			return "", fmt.Errorf("fill the proxy: %w", err)
		}
		// With a complete go.sum the go command does without most .info files. Others ask for them.
		mods, err := withoutInfo(tree)
		if err != nil {
			return "", err
		}
		if len(mods) > 0 {
			args := []string{"list", "-m", "-f", "{{.Time}}", "-mod=readonly"}
			for _, m := range mods {
				args = append(args, m.String())
			}
			if _, err := runGo(ctx, dir, env, args...); err != nil {
				return "", fmt.Errorf("fill the proxy: %w", err)
			}
		}
	}
	if err := keepOnly(modcache, "cache"); err != nil {
		return "", err
	}
	return tree, os.WriteFile(marker, []byte(sum), 0o666)
}

// fingerprint identifies what a complete tree has.
func fingerprint(ws []workload) (string, error) {
	h := sha256.New()
	for _, w := range ws {
		data, err := archives.ReadFile("testdata/" + w.name + ".txtar")
		if err != nil {
			return "", err
		}
		h.Write(data)
		fmt.Fprintln(h, w.patterns)
	}
	return fmt.Sprintf("%x %s\n", h.Sum(nil), runtime.Version()), nil
}

// withoutInfo returns the module versions in tree that have no .info file.
func withoutInfo(tree string) ([]module.Version, error) {
	var mods []module.Version
	err := eachModule(tree, func(m module.Version, base string) error {
		_, err := os.Stat(base + ".info")
		if errors.Is(err, fs.ErrNotExist) {
			mods = append(mods, m)
			return nil
		}
		return err
	})
	return mods, err
}

// eachModule calls f for each module version of which tree has the .mod file. base is that file's name without the suffix.
func eachModule(tree string, f func(m module.Version, base string) error) error {
	return filepath.WalkDir(tree, func(name string, d fs.DirEntry, err error) error {
		base, ok := strings.CutSuffix(name, ".mod")
		if err != nil || d.IsDir() || !ok {
			return err
		}
		rel, err := filepath.Rel(tree, base)
		if err != nil {
			return err
		}
		escPath, escVersion, ok := strings.Cut(filepath.ToSlash(rel), "/@v/")
		if !ok {
			return nil
		}
		var m module.Version
		if m.Path, err = module.UnescapePath(escPath); err != nil {
			return err
		}
		if m.Version, err = module.UnescapeVersion(escVersion); err != nil {
			return err
		}
		return f(m, base)
	})
}

// keepOnly removes all but one name from dir.
func keepOnly(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == keep {
			continue
		}
		if err := removeAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeAll is os.RemoveAll for module caches, too: their directories are read-only.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(name, 0o777) // best effort: RemoveAll has the error that counts
		}
		return nil
	})
	return os.RemoveAll(dir)
}
