package main

import (
	"fmt"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
)

func newExport() *cobra.Command {
	var f movingFlags
	cmd := &cobra.Command{
		Use:   "export [flags] DIR",
		Short: "Copy a store to a directory that can be a module proxy",
		Long: `Export writes what the store has below DIR as a module proxy has it: M/@v/V.info,
V.mod, V.zip and list, and below sumdb what proves their hashes. It may be
mounted. Each copy is compared with its hash before it gets its name; what is
there and good stays, so that an export can be repeated, and continued.
The files are copies and no hard links; file systems that can share their blocks.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef("want one directory: modfs export DIR")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return export(cmd, &f, args[0]) },
	}
	f.register(cmd.Flags(), "", "export only what the go.sum `file` lists, with these hashes")
	return cmd
}

func export(cmd *cobra.Command, f *movingFlags, dir string) error {
	store, err := f.storePath()
	if err != nil {
		return err
	}
	if dir, err = realPath(dir); err != nil {
		return err
	}
	if within(dir, store) || within(store, dir) {
		return usagef("%s and the store %s must not be inside one another", dir, store)
	}
	sums, err := readSums(f.sum)
	if err != nil {
		return err
	}
	c, err := f.fetchConfig(cmd.Context(), cmd.Flags())
	if err != nil {
		return err
	}
	c.Log = newLogger(cmd.ErrOrStderr(), f.logLevel.word, "text")
	ctx, stop := interruptible(cmd)
	defer stop()
	m := newMoves(cmd, "exported")
	_, unproven, err := modfs.Export(ctx, modfs.ExportOptions{Store: store, Dir: dir, Fetch: c, Sums: sums, Report: m.report})
	if err == nil && unproven > 0 {
		defer fmt.Fprintf(m.out, "of %d the store has no record of the checksum database to take along\n", unproven)
	}
	return m.end(ctx, err)
}
