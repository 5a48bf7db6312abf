package main

import (
	"fmt"
	"os"
	"path/filepath"

	"modfs/fetch"
)

// openSeeds opens the directories of --seed. They stay open until the process ends.
func openSeeds(dirs []string) ([]*fetch.Seed, error) {
	var seeds []*fetch.Seed
	for _, dir := range dirs {
		if dir == "" {
			return nil, usagef("--seed is empty: name a directory")
		}
		s, err := fetch.OpenSeed(dir)
		if err != nil {
			return nil, fmt.Errorf("seed %s cannot be read: %w", dir, errno(err))
		}
		seeds = append(seeds, s)
	}
	return seeds, nil
}

// seedBelow opens the module cache in a directory that is about to be mounted over. What is opened before that stays reachable.
// It returns nil if there is none.
func seedBelow(mountpoint string) *fetch.Seed {
	for _, dir := range [...]string{mountpoint, filepath.Join(mountpoint, "mod")} { // the latter with --layout gopath
		if fi, err := os.Stat(filepath.Join(dir, "cache", "download")); err != nil || !fi.IsDir() {
			continue
		}
		if s, err := fetch.OpenSeed(dir); err == nil {
			return s
		}
	}
	return nil
}
