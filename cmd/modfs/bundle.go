package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"modfs/fetch"
	modfs "modfs/fs"
	"modfs/lru"
)

func newBundle() *cobra.Command {
	var (
		f      movingFlags
		output string
	)
	cmd := &cobra.Command{
		Use:   "bundle [flags] GO.SUM -o FILE",
		Short: "Pack what a project needs for a machine without a network",
		Long: `Bundle packs all that GO.SUM lists, each with the hash given there, and what proves
it to the checksum database's key, into the tar file FILE (-: standard output).
What the store does not have is fetched. 'modfs import FILE' takes it into a
store; unpacked, it is a tree for GOPROXY=file://. The same modules make the
same file, as long as the checksum database has not grown.
If something cannot be had, it is named and there is no FILE.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef("want one go.sum: modfs bundle GO.SUM -o FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" {
				return usagef("where to? Give -o FILE, or -o - for standard output")
			}
			return bundle(cmd, &f, args[0], output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the bundle to `file`; -: standard output")
	f.register(cmd.Flags(), "pack what the store has, fetch nothing", "")
	return cmd
}

func bundle(cmd *cobra.Command, f *movingFlags, from, output string) error {
	sums, err := readSums(from)
	if err != nil {
		return err
	}
	dir, err := f.storeDir()
	if err != nil {
		return err
	}
	o, err := f.depotOptions(cmd, dir)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	d, done, err := openOrBorrow(o)
	if err != nil {
		return err
	}
	defer done()
	m := newMoves(cmd, "packed")
	if output == "-" {
		m.out = m.say
		_, err := d.WriteBundle(ctx, cmd.OutOrStdout(), sums, m.report)
		return m.end(ctx, err)
	}
	return m.end(ctx, writeFile(output, func(w io.Writer) (whole bool, err error) {
		failed, err := d.WriteBundle(ctx, w, sums, m.report)
		return failed == 0, err
	}))
}

// openOrBorrow opens a store or, if it is mounted, one of its own for a while, which takes from that. done closes it.
func openOrBorrow(o modfs.Options) (d *modfs.Depot, done func(), err error) {
	d, err = modfs.OpenDepot(o)
	if _, locked := errors.AsType[*lru.LockedError](err); !locked {
		return d, func() { d.Close() }, err
	}
	seed, err := modfs.StoreSeed(o.Store.Dir)
	if err != nil {
		return nil, nil, err
	}
	temp, err := os.MkdirTemp("", "modfs-bundle-")
	if err != nil {
		seed.Close()
		return nil, nil, err
	}
	clean := func() {
		seed.Close()
		os.RemoveAll(temp) // best effort
	}
	o.Store.Dir, o.Fetch.Seeds = temp, []*fetch.Seed{seed}
	if d, err = modfs.OpenDepot(o); err != nil {
		clean()
		return nil, nil, err
	}
	return d, func() {
		d.Close()
		clean()
	}, nil
}

// writeFile makes a file that is there whole or not at all.
func writeFile(name string, write func(w io.Writer) (whole bool, err error)) (err error) {
	temp := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s-%d", filepath.Base(name), os.Getpid()))
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", name, errno(err))
	}
	defer os.Remove(temp) // best effort, and of no effect if it has its name
	whole, err := write(out)
	if err == nil && whole {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil && whole {
		err = os.Rename(temp, name)
	}
	return err
}
