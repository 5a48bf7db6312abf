package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
)

func newClean() *cobra.Command {
	return &cobra.Command{
		Use:   "clean [MOUNTPOINT]",
		Short: "Remove all that a mounted module cache has",
		Long: `Clean does what 'go clean -modcache' does, by default where 'go env GOMODCACHE'
is: it removes all that the mount has, from the store too. The go command then
complains that it cannot remove the mountpoint itself; clean leaves that alone.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("more than one mountpoint: modfs clean [MOUNTPOINT]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			mountpoint, err := mountpointArg(cmd.Context(), args)
			if err != nil {
				return err
			}
			return clean(mountpoint)
		},
	}
}

func clean(mountpoint string) error {
	found, err := modfs.Find(mountpoint)
	if err != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("%s is not a modfs mount: 'modfs status' lists those there are; for a plain directory use 'go clean -modcache'", mountpoint)
	}
	s, err := probe(mountpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", mountpoint, err)
	}
	if s.ReadOnly {
		return fmt.Errorf("%s is mounted read-only: unmount it, and remove the store %s", mountpoint, s.Store.Dir)
	}
	s = found.Local(s)
	names, err := os.ReadDir(s.ModCache)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, removeAll(filepath.Join(s.ModCache, name.Name())))
	}
	return errors.Join(errs...)
}

// removeAll removes a tree whose directories may be read-only, as those of modules are.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o777) // best effort: if it mattered, the removal says so
		}
		return nil
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
