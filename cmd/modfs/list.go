package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
)

func newList() *cobra.Command {
	var f steerFlags
	by := choiceValue{"name", "order", []string{"name", "size", "used"}}
	cmd := &cobra.Command{
		Use:   "list [flags] [MOUNTPOINT]",
		Short: "List the modules that a store has",
		Long: `List prints the module versions whose archives are in the store of a mount, by
default of the only one: what each takes on disk, when it was last used, whether
it is pinned, and where it came from. What is pinned and not there (yet) has no
size.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		Args:        cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mountpoint, err := optionalMountpoint(args)
			if err != nil {
				return err
			}
			return f.steer(cmd, mountpoint, func(c *control.Client) error {
				all, err := c.Modules(cmd.Context())
				if err != nil {
					return err
				}
				sortResidents(all, by.word)
				if f.asJSON {
					return printJSON(cmd.OutOrStdout(), control.Modules{Modules: all})
				}
				return printResidents(cmd.OutOrStdout(), all, time.Now())
			})
		},
	}
	f.register(cmd)
	cmd.Flags().Var(&by, "sort", by.usage("what comes first, the largest or the latest"))
	return cmd
}

func sortResidents(all []modfs.Resident, by string) {
	switch by {
	case "size":
		slices.SortStableFunc(all, func(a, b modfs.Resident) int { return cmp.Compare(b.Disk, a.Disk) })
	case "used":
		slices.SortStableFunc(all, func(a, b modfs.Resident) int { return b.Used.Compare(a.Used) })
	}
}

// printResidents prints a table whose sizes are aligned at their ends.
func printResidents(w io.Writer, all []modfs.Resident, now time.Time) error {
	rows := [][]string{{"MODULE", "VERSION", "SIZE", "USED", "PINNED", "SOURCE"}}
	for _, r := range all {
		row := []string{r.Module, r.Version, size(r.Disk), ago(now.Sub(r.Used)) + " ago", "", plain(r.Source, 200)}
		if r.Missing {
			row[2], row[3] = "-", "-"
		}
		if r.Pinned {
			row[4] = "pinned"
		}
		rows = append(rows, row)
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 2 {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
			b.WriteString("  ")
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// printJSON prints one value, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
