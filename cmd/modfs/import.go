package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"modfs/fetch"
	modfs "modfs/fs"
)

func newImport() *cobra.Command {
	var f movingFlags
	cmd := &cobra.Command{
		Use:   "import [flags] DIR|FILE|-",
		Short: "Take modules from a bundle or a directory into a store",
		Long: `Import takes the modules of a bundle (FILE, or - for standard input), of a module
cache or of an exported tree (DIR) into the store, which must not be mounted.
Each is checked: against the hash that the store knows, else the checksum
database or, with --offline, what the bundle has of it, which is signed; where
neither has a say, against --sum. What nothing vouches for is taken on trust,
and listed. The exit status is 1 if something was refused.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef("want one bundle or directory: modfs import DIR|FILE|-")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return importFrom(cmd, &f, args[0]) },
	}
	f.register(cmd.Flags(), "open no connection", "check also against the go.sum `file`")
	return cmd
}

func importFrom(cmd *cobra.Command, f *movingFlags, from string) error {
	dir, err := f.storeDir()
	if err != nil {
		return err
	}
	o, err := f.depotOptions(cmd, dir)
	if err != nil {
		return err
	}
	if o.Fetch.Sums, err = readSums(f.sum); err != nil {
		return err
	}
	fi, err := os.Stat(from)
	if from != "-" && err != nil {
		return fmt.Errorf("%s cannot be read: %w", from, errno(err))
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	m := newMoves(cmd, "imported")
	if from == "-" || !fi.IsDir() {
		return m.end(ctx, readBundle(ctx, o, from, m))
	}
	seed, err := fetch.OpenSeed(from)
	if err != nil {
		return err
	}
	defer seed.Close()
	o.Fetch.Seeds, o.Fetch.SeedsOnly = []*fetch.Seed{seed}, true
	d, err := modfs.OpenDepot(o)
	if err != nil {
		return lockedHint(err, "unmount it, or mount with --seed "+from)
	}
	err = d.Import(ctx, seed, m.report)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err == nil && m.n == 0 {
		err = fmt.Errorf("%s has no modules: it is neither a module cache nor a module proxy's tree", from)
	}
	return m.end(ctx, err)
}

// readBundle imports a tar file.
func readBundle(ctx context.Context, o modfs.Options, from string, m *moves) (err error) {
	var in io.Reader = os.Stdin
	if from != "-" {
		file, err := os.Open(from)
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", from, errno(err))
		}
		defer file.Close()
		in = file
	}
	d, err := modfs.OpenBundleDepot(o, from)
	if err != nil {
		return lockedHint(err, "unmount it first")
	}
	defer func() {
		if cerr := d.Close(); err == nil {
			err = cerr
		}
	}()
	if err := d.ReadBundle(ctx, in, m.report); err != nil {
		return fmt.Errorf("%s: %w; %d modules before that were imported", from, err, m.n-m.failed)
	}
	if m.n == 0 {
		return fmt.Errorf("%s has no modules", from)
	}
	return nil
}
