package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// A report is what -json writes.
type report struct {
	Machine     machine           `json:"machine"`
	Rounds      int               `json:"rounds"`
	MountFlags  string            `json:"mount_flags"`
	Summary     []comparison      `json:"summary"`
	NotMeasured map[string]string `json:"not_measured,omitempty"` // reasons, by measurement
	Samples     []sample          `json:"samples"`
}

// report prints the tables, and writes the JSON file if that is wanted.
func (b *bench) report(w io.Writer) error {
	r := &report{
		Machine: b.machine, Rounds: b.rounds, MountFlags: b.mountFlags,
		Summary: summarize(b.samples), NotMeasured: b.notMeasured, Samples: b.samples,
	}
	if b.json != "" {
		data, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.json, append(data, '\n'), 0o666); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, r.text(b.markdown))
	return err
}

// text returns the tables for people.
func (r *report) text(markdown bool) string {
	var b strings.Builder
	flags := "default flags"
	if r.MountFlags != "" {
		flags = r.MountFlags
		if markdown {
			flags = "`" + flags + "`"
		}
	}
	rounds := "One round"
	if r.Rounds > 1 {
		rounds = fmt.Sprintf("Medians of %d rounds, with the least and the greatest", r.Rounds)
	}
	fmt.Fprintf(&b, "%v.\n%s; modfs mount with %s.\n", r.Machine, rounds, flags)
	for _, t := range []table{r.times(), r.costs(), r.counters()} {
		if len(t.rows) > 0 {
			b.WriteString("\n" + t.String(markdown))
		}
	}
	for i, name := range slices.Sorted(maps.Keys(r.NotMeasured)) {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "Not measured: %s, because %s.\n", name, r.NotMeasured[name])
	}
	return b.String()
}

// times is the table of what is compared.
func (r *report) times() table {
	t := table{head: []string{"measurement", "plain", "modfs", "modfs/plain"}}
	for _, c := range r.Summary {
		t.rows = append(t.rows, []string{
			c.Measurement, formatSpread(c.Plain, c.Unit), formatSpread(c.Modfs, c.Unit),
			formatRatio(c.Ratio, c.RoundRatios),
		})
	}
	return t
}

// costs is the table of what that took.
func (r *report) costs() table {
	t := table{head: []string{
		"measurement", "go CPU, plain", "go CPU, modfs", "daemon CPU", "daemon peak memory", "requests, plain", "requests, modfs",
	}}
	for _, c := range r.Summary {
		if c.Unit == bytesOnDisk {
			continue
		}
		p, m := c.Detail["plain"], c.Detail["modfs"]
		t.rows = append(t.rows, []string{
			c.Measurement, format(p.GoCPU, seconds), format(m.GoCPU, seconds), format(m.DaemonCPU, seconds),
			format(m.PeakRSS, bytesOnDisk), fmt.Sprintf("%.0f", p.Requests), fmt.Sprintf("%.0f", m.Requests),
		})
	}
	return t
}

// counters is the table of what modfs counted: a line for each counter, a column for each measurement.
func (r *report) counters() table {
	t := table{head: []string{"counter"}}
	var columns []map[string]float64
	all := make(map[string]bool)
	for _, c := range r.Summary {
		if counters := c.Detail["modfs"].Counters; len(counters) > 0 {
			t.head = append(t.head, c.Measurement)
			columns = append(columns, counters)
			for name := range counters {
				all[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		row := []string{name}
		for _, counters := range columns {
			row = append(row, humanize.Comma(int64(counters[name])))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// formatRatio returns the ratio of the medians, and the least and the greatest of one round if there are several.
func formatRatio(r float64, rounds spread) string {
	if rounds.Min == rounds.Max {
		return fmt.Sprintf("%.2f", r)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r, rounds.Min, rounds.Max)
}

// formatSpread returns the median, and the least and the greatest value if these are not the same.
func formatSpread(s spread, u unit) string {
	least, suffix := number(s.Min, u)
	greatest, _ := number(s.Max, u)
	if least == greatest {
		return format(s.Median, u)
	}
	middle, _ := number(s.Median, u)
	return fmt.Sprintf("%s (%s–%s) %s", middle, least, greatest, suffix)
}

// format returns v as people write it. Zero is what was not measured.
func format(v float64, u unit) string {
	if v == 0 {
		return "–"
	}
	n, suffix := number(v, u)
	return n + " " + suffix
}

// number returns v in the unit that tables have, and the name of that.
func number(v float64, u unit) (n, suffix string) {
	switch u {
	case secondsPerFile:
		return fmt.Sprintf("%.1f", v*1e6), "µs/file"
	case bytesOnDisk:
		return humanize.Comma(int64(v/(1<<20) + 0.5)), "MiB"
	}
	return fmt.Sprintf("%.2f", v), "s"
}
