package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
)

func newStatus() *cobra.Command {
	var (
		asJSON bool
		every  ageValue
	)
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT] [--json] [--watch[=INTERVAL]]",
		Short: "Say what is mounted, and how it is doing",
		Long: `Status describes the module cache at MOUNTPOINT, by default each one there is:
the store against its limit, hits and misses, what was fetched, what is being
fetched and for whom, the upstreams, the last errors, and whether the store is
too small for its work. --json has all of it. --watch says it again and again,
in place on a terminal, until Ctrl-C; with --json as one line each time.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("watch") && time.Duration(every) < minWatch {
				return usagef("--watch=%v: want an interval of %v or more", time.Duration(every), minWatch)
			}
			show := func(w io.Writer) error {
				mounts, err := statusMounts(args)
				if err != nil {
					return err
				}
				return printMounts(w, mounts, asJSON, every > 0)
			}
			if every == 0 {
				return show(cmd.OutOrStdout())
			}
			return watch(cmd, time.Duration(every), asJSON, show)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object for each mount")
	cmd.Flags().Var(&every, "watch", "say it again after each `interval`, until Ctrl-C (2s if none is given)")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	return cmd
}

// minWatch is how often a status may be asked for.
const minWatch = 100 * time.Millisecond

// statusMounts returns the mount that args name, or all.
func statusMounts(args []string) ([]modfs.Found, error) {
	if len(args) == 0 {
		mounts, err := modfs.Mounts()
		if err == nil && len(mounts) == 0 {
			err = errors.New("nothing is mounted: 'modfs mount' mounts")
		}
		return mounts, err
	}
	mountpoint, err := mountpointPath(args[0])
	if err != nil {
		return nil, err
	}
	found, err := modfs.Find(mountpoint)
	if err == nil && found == nil {
		err = notMounted(mountpoint)
	}
	if err != nil {
		return nil, err
	}
	return []modfs.Found{*found}, nil
}

// printMounts prints the status of each of the mounts. The error tells of those that cannot be read.
func printMounts(w io.Writer, mounts []modfs.Found, asJSON, oneLine bool) error {
	var errs []error
	for i, m := range mounts {
		s, err := readStatus(m)
		if err != nil {
			if found, ferr := modfs.Find(m.Mountpoint); ferr == nil && found == nil && len(mounts) > 1 {
				continue // it was unmounted meanwhile
			}
			errs = append(errs, err)
			continue
		}
		if asJSON {
			enc := json.NewEncoder(w)
			if !oneLine {
				enc.SetIndent("", "\t")
			}
			err = enc.Encode(s)
		} else {
			if i > 0 {
				fmt.Fprintln(w)
			}
			err = printStatus(w, s, time.Now())
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// readStatus asks a daemon for its status: by its socket, which answers also if the mount does not; where there is none for us, by the
// mount, which another user's daemon may refuse as well.
func readStatus(m modfs.Found) (*control.Status, error) {
	if m.Stale {
		return nil, fmt.Errorf("%s: its daemon is dead: 'modfs mount' replaces it, 'modfs unmount' removes it", m.Mountpoint)
	}
	s, err := statusBySocket(m.Mountpoint)
	if errors.Is(err, control.ErrNoControl) || errors.Is(err, control.ErrNotYours) || errors.Is(err, control.ErrDead) {
		var by *modfs.Status
		if by, err = probe(m.Mountpoint); err == nil {
			return &control.Status{Status: *by}, nil
		}
		err = fmt.Errorf("%s: no status: %w", m.Mountpoint, err)
	}
	if errors.Is(err, errHangs) || errors.Is(err, control.ErrHangs) {
		return nil, fmt.Errorf("%w: 'modfs unmount --force %s' ends it", err, m.Mountpoint)
	}
	return s, err
}

func statusBySocket(mountpoint string) (*control.Status, error) {
	c, err := control.Dial(context.Background(), mountpoint)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s, err := c.Status(context.Background())
	if err != nil {
		return nil, fmt.Errorf("%s: no status: %w", mountpoint, err)
	}
	return s, nil
}

// watch prints what show does, every so often, until a signal or an error.
func watch(cmd *cobra.Command, every time.Duration, asJSON bool, show func(io.Writer) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), interrupts...)
	defer stop()
	out := cmd.OutOrStdout()
	s := &screen{w: out, inPlace: !asJSON && isTerminal(out)}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var b bytes.Buffer
		if err := show(&b); err != nil {
			out.Write(b.Bytes()) // best effort: the error is about the others
			return err
		}
		if !asJSON && !s.inPlace {
			fmt.Fprintf(out, "%s\n", time.Now().Format(time.DateTime))
			b.WriteByte('\n')
		}
		if err := s.draw(b.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
