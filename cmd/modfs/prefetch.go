package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
	"modfs/lru"
)

// prefetchFlags are the flags of prefetch.
type prefetchFlags struct {
	movingFlags
	mount       string
	jobs        int
	pin         bool
	json, quiet bool
}

func newPrefetch() *cobra.Command {
	var f prefetchFlags
	cmd := &cobra.Command{
		Use:   "prefetch [flags] [go.sum|go.mod|go.work|DIR|MODULE@VERSION...]",
		Short: "Fetch what a project needs, before it is asked for",
		Long: `Prefetch fetches the modules that are named into a running mount or into the
store of one: those of a go.sum, with the go.mod files of the others that it
lists; those of the project in DIR (default: the current directory), which may
be a workspace; or a module by its version or a query such as @latest, @v1.2 or
@master. The toolchain that the go command would switch to is one of them. So
what is built next needs no network.

The mount is that of --mount, else the one at GOMODCACHE; without one it is the
store of --store, or whatever mount serves that. All is verified as ever: a
go.sum says what is fetched, and decides nothing: one whose hashes differ is an
error. Room is made by dropping what was last used before the prefetch began.

Interrupted, it keeps what is done. The exit status is 1 if something failed.`,
		Annotations: map[string]string{exitKey: "0: all is there; 1: something is not, which is listed with its reason; 2: the command line is wrong; 128+N: signal N interrupted it."},
		RunE:        func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.mount, "mount", "", "prefetch into the mount at `dir` (default: the one at GOMODCACHE, if there is one)")
	fs.IntVarP(&f.jobs, "jobs", "j", 8, "fetch `n` modules at a time")
	fs.BoolVar(&f.pin, "pin", false, "pin what is there in the end, as 'modfs pin' does: it is never evicted")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but what failed")
	fs.BoolVar(&f.json, "json", false, "print JSON, one object for each module and one for the summary")
	f.register(fs, "fetch nothing: say what the store lacks", "")
	fs.Var(&f.maxSize, "max-size", "limit of the store on disk, if it is not mounted; 0: none (default 0)")
	return cmd
}

func (f *prefetchFlags) run(cmd *cobra.Command, args []string) error {
	switch {
	case f.jobs < 1 || f.jobs > modfs.MaxPrefetchJobs:
		return usagef("--jobs %d: want a number from 1 to %d", f.jobs, modfs.MaxPrefetchJobs)
	case f.mount != "" && f.store != "":
		return usagef("both --mount and --store: the mount has its store")
	case f.json && f.quiet:
		return usagef("both --json and --quiet")
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	t, err := readTargets(ctx, args)
	if err != nil {
		return err
	}
	show := newPrefetchShow(cmd.OutOrStdout(), cmd.ErrOrStderr(), f.json, f.quiet)
	for _, note := range t.notes {
		show.note(note)
	}
	if len(t.wanted) == 0 {
		show.note("nothing is needed")
		show.event(modfs.PrefetchEvent{Event: modfs.PrefetchSummary})
		return nil
	}
	to, err := f.destination(ctx, cmd)
	if err != nil {
		return err
	}
	defer to.close()
	show.begin(len(t.wanted))
	err = to.prefetch(ctx, t.wanted, modfs.PrefetchOptions{Jobs: f.jobs, Pin: f.pin}, show.event)
	return show.end(ctx, to.name, err)
}

// destination is where modules are prefetched into.
type destination struct {
	name     string
	prefetch func(ctx context.Context, wanted []modfs.Wanted, o modfs.PrefetchOptions, report func(modfs.PrefetchEvent)) error
	close    func()
}

// destination returns the mount or the store that the flags mean.
func (f *prefetchFlags) destination(ctx context.Context, cmd *cobra.Command) (*destination, error) {
	if f.mount != "" {
		mountpoint, err := mountpointPath(f.mount)
		if err != nil {
			return nil, err
		}
		return f.onMount(cmd, mountpoint)
	}
	if f.store == "" {
		if m := mountAtModCache(ctx); m != nil {
			return f.onMount(cmd, m.Mountpoint)
		}
	}
	dir, err := f.storeDir()
	if err != nil {
		return nil, err
	}
	o, err := f.depotOptions(cmd, dir)
	if err != nil {
		return nil, err
	}
	o.Store.MaxSize = int64(f.maxSize) // none unless it is given: the mount's may be any
	d, err := modfs.OpenDepot(o)
	if _, locked := errors.AsType[*lru.LockedError](err); locked {
		if m := mountOfStore(dir); m != nil {
			return f.onMount(cmd, m.Mountpoint)
		}
		return nil, lockedHint(err, "prefetch into its mount, with --mount, or wait until it has ended")
	}
	if err != nil {
		return nil, err
	}
	return &destination{
		name: "the store " + dir,
		prefetch: func(ctx context.Context, wanted []modfs.Wanted, o modfs.PrefetchOptions, report func(modfs.PrefetchEvent)) error {
			d.Prefetch(ctx, wanted, o, report)
			return nil
		},
		close: func() { d.Close() },
	}, nil
}

// onMount returns the mount at a mountpoint.
func (f *prefetchFlags) onMount(cmd *cobra.Command, mountpoint string) (*destination, error) {
	names := []string{"offline", "max-size", "client-cert", "client-key"}
	for _, v := range fetchFlags {
		names = append(names, v.flag)
	}
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return nil, usagef("--%s is for a store that is not mounted; the mount at %s has settings of its own", name, mountpoint)
		}
	}
	c, err := dialMount(cmd.Context(), mountpoint)
	if err != nil {
		return nil, err
	}
	return &destination{
		name: "the mount " + mountpoint,
		prefetch: func(ctx context.Context, wanted []modfs.Wanted, o modfs.PrefetchOptions, report func(modfs.PrefetchEvent)) error {
			return c.Prefetch(ctx, control.PrefetchRequest{Modules: wanted, PrefetchOptions: o}, report)
		},
		close: c.Close,
	}, nil
}

// mountAtModCache returns the mount that the go command uses, nil if it uses none.
func mountAtModCache(ctx context.Context) *modfs.Found {
	dir, err := mountpointArg(ctx, nil)
	if err != nil {
		return nil // no go command, so nobody's module cache
	}
	mounts, _ := modfs.Mounts()
	var best *modfs.Found
	for i, m := range mounts {
		if within(dir, m.Mountpoint) && (best == nil || len(m.Mountpoint) >= len(best.Mountpoint)) {
			best = &mounts[i] // the last one covers those before it
		}
	}
	return best
}

// mountOfStore returns the mount of a store, nil if there is none that we can see.
func mountOfStore(dir string) *modfs.Found {
	mounts, _ := modfs.Mounts()
	for i, m := range mounts {
		if !m.Stale && sameDir(m.Store, dir) {
			return &mounts[i]
		}
	}
	return nil
}
