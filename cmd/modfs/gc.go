package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"modfs/fs/control"
)

func newGC() *cobra.Command {
	var (
		f       steerFlags
		maxSize sizeValue
		unused  ageValue
	)
	cmd := &cobra.Command{
		Use:   "gc [flags] [MOUNTPOINT]",
		Short: "Make a store smaller",
		Long: `Gc removes from the store of a mount, by default of the only one, what is not
needed: files that were found damaged, and those inflated for programs that read
them. With --max-size or --unused-for it evicts modules, too, those unused for
longest first. What is pinned, or open, stays. The exit status is 1 if the store
takes more than --max-size after that.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mountpoint, err := optionalMountpoint(args)
			if err != nil {
				return err
			}
			var gc control.GC
			if cmd.Flags().Changed("max-size") {
				n := int64(maxSize)
				gc.MaxBytes = &n
			}
			if cmd.Flags().Changed("unused-for") {
				s := time.Duration(unused).Seconds()
				gc.UnusedSeconds = &s
			}
			return f.steer(cmd, mountpoint, func(c *control.Client) error { return runGC(cmd, c, gc, f.asJSON) })
		},
	}
	f.register(cmd)
	cmd.Flags().Var(&maxSize, "max-size", "evict until the store takes no more than this; 0: all that may go")
	cmd.Flags().Var(&unused, "unused-for", "evict what nobody used for this long, e.g. 30d")
	return cmd
}

func runGC(cmd *cobra.Command, c *control.Client, gc control.GC, asJSON bool) error {
	r, err := c.GC(cmd.Context(), gc)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), r)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "evicted %s, freed %s; the store takes %s\n", count(r.Modules, "module version"), size(r.Freed), size(r.Used))
	}
	if err == nil && gc.MaxBytes != nil && *gc.MaxBytes > 0 && r.Used > *gc.MaxBytes {
		err = fmt.Errorf("the store takes %s, more than %s: the rest is pinned (%s), open, or what keeps versions known", size(r.Used), size(*gc.MaxBytes), size(r.Pinned))
	}
	return err
}
