package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"modfs/fs/control"
)

func newEvict() *cobra.Command {
	var f steerFlags
	cmd := &cobra.Command{
		Use:   "evict [flags] [MOUNTPOINT] MODULE[@VERSION]...",
		Short: "Drop modules from a store",
		Long: `Evict drops the content of module versions from the store of a mount, by default
of the only one; of a MODULE without a version, all there are. They stay known:
who opens one has it fetched again, and who has a file open reads on. If one is
not there, or is pinned, nothing is evicted.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		RunE: func(cmd *cobra.Command, args []string) error {
			mountpoint, modules, err := cutMountpoint(args)
			if err == nil && len(modules) == 0 {
				err = usagef("which modules? modfs evict [MOUNTPOINT] MODULE[@VERSION]...")
			}
			if err != nil {
				return err
			}
			return f.steer(cmd, mountpoint, func(c *control.Client) error {
				evicted, err := c.Evict(cmd.Context(), modules)
				if err != nil {
					return err
				}
				if f.asJSON {
					return printJSON(cmd.OutOrStdout(), control.Modules{Modules: evicted})
				}
				var bytes int64
				for _, m := range evicted {
					bytes += m.Disk
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "evicted %s, %s\n", count(len(evicted), "module version"), size(bytes))
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}
