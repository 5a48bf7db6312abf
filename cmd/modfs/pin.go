package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"modfs/fs/control"
)

func newPin() *cobra.Command {
	return pinCommand("pin", "Keep modules in a store", `Pin keeps module versions, or all whose archives a go.sum lists, in the store of a
mount, by default of the only one: they are never evicted, also after it is
mounted again, and take at most 80% of its limit. What is not there (yet) is kept
from when it is fetched; 'modfs prefetch --pin' fetches it. Who removes a module
through the mount still does so.`, (*control.Client).Pin)
}

func newUnpin() *cobra.Command {
	return pinCommand("unpin", "Let modules be evicted again", `Unpin ends what 'modfs pin' began: module versions, or all of a go.sum that are
pinned, may be evicted when they were unused for longest.`, (*control.Client).Unpin)
}

func pinCommand(name, short, long string, do func(*control.Client, context.Context, []string) (control.Pins, error)) *cobra.Command {
	var f steerFlags
	usage := name + " [flags] [MOUNTPOINT] MODULE@VERSION|GO.SUM..."
	cmd := &cobra.Command{
		Use: usage, Short: short, Long: long,
		Annotations: map[string]string{exitKey: interruptibleExit},
		RunE: func(cmd *cobra.Command, args []string) error {
			mountpoint, rest, err := cutMountpoint(args)
			if err == nil && len(rest) == 0 {
				err = usagef("which modules? modfs %s [MOUNTPOINT] MODULE@VERSION|GO.SUM...", name)
			}
			if err != nil {
				return err
			}
			return f.steer(cmd, mountpoint, func(c *control.Client) error {
				modules, err := pinned(cmd.Context(), c, rest, name == "unpin")
				if err != nil {
					return err
				}
				pins, err := do(c, cmd.Context(), modules)
				if err != nil {
					return err
				}
				if f.asJSON {
					return printJSON(cmd.OutOrStdout(), pins)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%sned %s; %s pinned in all, %s\n", name, count(len(modules), "module version"), count(pins.Modules, "is", "are"), size(pins.Bytes))
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}

// pinned returns the module versions that arguments name, each once. To unpin, those of a go.sum are only the ones that are pinned.
func pinned(ctx context.Context, c *control.Client, args []string, unpin bool) ([]string, error) {
	named, listed := make(map[string]bool), make(map[string]bool)
	for _, arg := range args {
		if !isGoSum(arg) {
			if !strings.Contains(arg, "@") {
				return nil, usagef("%q is neither MODULE@VERSION nor a go.sum file", arg)
			}
			named[arg] = true
			continue
		}
		sums, err := readSums(arg)
		if err != nil {
			return nil, err
		}
		for m := range sums {
			if !strings.HasSuffix(m.Version, "/go.mod") {
				listed[m.String()] = true
			}
		}
		if len(listed) == 0 {
			return nil, fmt.Errorf("%s lists no archives", arg)
		}
	}
	if unpin && len(listed) > 0 {
		all, err := c.Modules(ctx)
		if err != nil {
			return nil, err
		}
		are := make(map[string]bool)
		for _, r := range all {
			are[r.Module+"@"+r.Version] = r.Pinned
		}
		maps.DeleteFunc(listed, func(name string, _ bool) bool { return !are[name] })
		if len(listed)+len(named) == 0 {
			return nil, fmt.Errorf("nothing that it lists is pinned")
		}
	}
	maps.Copy(listed, named)
	return slices.Sorted(maps.Keys(listed)), nil
}
