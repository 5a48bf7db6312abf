package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
	"modfs/lru"
)

// steerFlags say which store a command steers: that of a mount, whose daemon does it, or one that is not mounted.
type steerFlags struct {
	serve  serveFlags
	asJSON bool
}

func (f *steerFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.serve.store, "store", "", "take the store in `dir`, mounted or not (default: that of the mount at GOMODCACHE, or the only one)")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
}

// optionalMountpoint returns the only argument, "" if there is none.
func optionalMountpoint(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	return mountpointPath(args[0])
}

// cutMountpoint takes a mountpoint off the front of arguments that are module versions or files otherwise; "" is for none.
func cutMountpoint(args []string) (mountpoint string, rest []string, err error) {
	if len(args) == 0 || strings.Contains(args[0], "@") {
		return "", args, nil
	}
	if fi, err := os.Stat(filepath.Dir(args[0])); err == nil && fi.IsDir() {
		if found, err := modfs.Find(args[0]); err == nil && found != nil {
			return found.Mountpoint, args[1:], nil
		}
	}
	if args[0] == "" || isPath(args[0]) && !isGoSum(args[0]) {
		mountpoint, err := mountpointPath(args[0])
		return mountpoint, args[1:], err
	}
	return "", args, nil
}

// isPath reports whether an argument can only be a path of the file system: no module path begins so.
func isPath(arg string) bool { return strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") }

// isGoSum reports whether an argument names a go.sum file.
func isGoSum(arg string) bool {
	base := filepath.Base(arg)
	return base == "go.sum" || base == "go.work.sum" || isPath(arg) && strings.HasSuffix(base, ".sum")
}

// open returns a client for the daemon of the mount at mountpoint or, if that is "", for what the flags say. Close it.
func (f *steerFlags) open(cmd *cobra.Command, mountpoint string) (*control.Client, error) {
	switch {
	case mountpoint != "" && cmd.Flags().Changed("store"):
		return nil, usagef("both --store and a mountpoint: the mount has its store")
	case mountpoint != "":
		return dialMount(cmd.Context(), mountpoint)
	case cmd.Flags().Changed("store"):
		return f.openStore(cmd)
	}
	mounts, err := modfs.Mounts()
	if err != nil {
		return nil, err
	}
	switch len(mounts) {
	case 0:
		return f.openStore(cmd)
	case 1:
		return dialMount(cmd.Context(), mounts[0].Mountpoint)
	}
	if m := mountAtModCache(cmd.Context()); m != nil {
		return dialMount(cmd.Context(), m.Mountpoint)
	}
	var names []string
	for _, m := range mounts {
		names = append(names, m.Mountpoint)
	}
	return nil, usagef("several are mounted: name one of %s", strings.Join(names, ", "))
}

// openStore opens a store, or connects to the daemon that has it.
func (f *steerFlags) openStore(cmd *cobra.Command) (*control.Client, error) {
	dir, err := f.serve.storePath()
	if err != nil {
		return nil, err
	}
	if err := lru.Check(dir); err != nil {
		return nil, fmt.Errorf("%w: name another with --store, or mount one", err)
	}
	o := modfs.Options{Log: newLogger(cmd.ErrOrStderr(), "error", "text")}
	o.Store = lru.Config{Dir: dir, Exclude: storeExclude, Log: o.Log}
	o.Fetch.Offline, o.Fetch.SumDB, o.Fetch.Log = true, "off", o.Log
	c, err := control.OpenStore(o, version())
	if _, locked := errors.AsType[*lru.LockedError](err); locked {
		if m := mountOfStore(dir); m != nil {
			return dialMount(cmd.Context(), m.Mountpoint)
		}
	}
	return c, err
}

// dialMount connects to the daemon of the mount at mountpoint.
func dialMount(ctx context.Context, mountpoint string) (*control.Client, error) {
	c, err := control.Dial(ctx, mountpoint)
	switch {
	case errors.Is(err, modfs.ErrNotMounted):
		return nil, notMounted(mountpoint)
	case errors.Is(err, control.ErrDead):
		return nil, fmt.Errorf("%w: 'modfs mount' replaces it, 'modfs unmount' removes it", err)
	case errors.Is(err, control.ErrHangs):
		return nil, fmt.Errorf("%w: 'modfs unmount --force %s' ends it", err, mountpoint)
	case errors.Is(err, control.ErrNoControl):
		return nil, fmt.Errorf("%w: it is of an older version, or its log says why: mount it anew", err)
	}
	return c, err
}

// steer has do act on what the flags and a mountpoint say, until a signal.
func (f *steerFlags) steer(cmd *cobra.Command, mountpoint string, do func(c *control.Client) error) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	cmd.SetContext(ctx)
	c, err := f.open(cmd, mountpoint)
	if err == nil {
		defer c.Close()
		err = do(c)
	}
	if status := interrupted(ctx); err != nil && status != nil {
		return status
	}
	return err
}
