package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"modfs/fetch"
	modfs "modfs/fs"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT] [--json]",
		Short: "Say what is mounted, and how it is doing",
		Long: `Status describes the module cache at MOUNTPOINT, by default each one there is.
With --json it prints what the mount's .modfs/status.json holds.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mounts, err := statusMounts(args)
			if err != nil {
				return err
			}
			return printMounts(cmd.OutOrStdout(), mounts, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object for each mount")
	return cmd
}

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
func printMounts(w io.Writer, mounts []modfs.Found, asJSON bool) error {
	var errs []error
	for i, m := range mounts {
		if m.Stale {
			errs = append(errs, fmt.Errorf("%s: its daemon is dead: 'modfs mount' replaces it, 'modfs unmount' removes it", m.Mountpoint))
			continue
		}
		s, err := probe(m.Mountpoint)
		if err != nil {
			if errors.Is(err, errHangs) {
				err = fmt.Errorf("%w: 'modfs unmount --force %s' ends it", err, m.Mountpoint)
			}
			errs = append(errs, fmt.Errorf("%s: no status: %w", m.Mountpoint, err))
			continue
		}
		if asJSON {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "\t")
			err = enc.Encode(s)
		} else {
			if i > 0 {
				fmt.Fprintln(w)
			}
			err = printStatus(w, s)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func printStatus(w io.Writer, s *modfs.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	mode := "read-write"
	if s.ReadOnly {
		mode = "read-only"
	}
	if s.Offline {
		mode += ", offline"
	}
	row("mountpoint", "%s (%s)", s.Mountpoint, mode)
	row("daemon", "process %d, since %s", s.PID, s.Since.Local().Format(time.DateTime))
	row("store", "%s", s.Store.Dir)
	u := s.Store.Usage
	limit := "no limit"
	if u.Limit > 0 {
		limit = "limit " + size(u.Limit)
	}
	row("  used", "%s in %d files (%s)", size(u.Bytes), u.Files, limit)
	row("  in flight", "%s", size(u.InFlight))
	row("  evicted", "%s in %d files", size(u.EvictedBytes), u.Evictions)
	row("  partition", "%s free of %s", size(u.Free), size(u.Total))
	row("modules", "%d versions seen", s.Modules)
	row("memory", "%s inflated files, %s trees", size(s.Memory.Content), size(s.Memory.Trees))
	row("process", "%s from the system, %d goroutines, %d file descriptors", size(s.Memory.System), s.Process.Goroutines, s.Process.FileDescriptors)
	if r := s.Requests; r.Slow > 0 {
		row("requests", "%d wait for an answer, the oldest for %v", r.Slow, time.Duration(r.Oldest*float64(time.Second)).Round(time.Second))
	}
	row("errors", "%d%s", s.Errors, errorsHint(s))
	for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
		n := s.Counters[name]
		if base, ok := strings.CutSuffix(name, "_bytes"); ok {
			row(strings.ReplaceAll(base, "_", " "), "%s", size(n))
		} else {
			row(strings.ReplaceAll(name, "_", " "), "%d", n)
		}
	}
	for _, up := range s.Upstreams {
		row("upstream", "%s", describeUpstream(up))
	}
	return t.Flush()
}

// describeUpstream says in one line how an upstream is doing.
func describeUpstream(up fetch.Upstream) string {
	last := ""
	if up.LastError != "" {
		last = ", last: " + up.LastError
	}
	if !up.DownSince.IsZero() {
		last += fmt.Sprintf("; unreachable since %s, next try in %v", up.DownSince.Local().Format(time.TimeOnly), max(time.Until(up.NextTry), 0).Round(100*time.Millisecond))
	}
	return fmt.Sprintf("%s: %d requests, %d failed%s", up.URL, up.Requests, up.Failures, last)
}

func errorsHint(s *modfs.Status) string {
	if s.Errors == 0 {
		return ""
	}
	return fmt.Sprintf(" (the last ones: %s/.modfs/errors)", s.Mountpoint)
}

func size[T int | int64 | uint64](n T) string { return humanize.IBytes(uint64(max(n, 0))) }
