package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"modfs/fetch"
	modfs "modfs/fs"
	"modfs/fs/control"
)

// statusErrors is how many of the last errors are printed.
const statusErrors = 5

// printStatus prints a status for people: what is always of interest, and what is wrong only if it is.
func printStatus(w io.Writer, s *control.Status, now time.Time) error {
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
	row("daemon", "process %d, for %s, since %s", s.PID, ago(now.Sub(s.Since)), s.Since.Local().Format(time.DateTime))
	row("store", "%s", s.Store.Dir)
	u := s.Store.Usage
	if u.Limit > 0 {
		row("  used", "%s %s, %s (limit %s)", bar(u.Bytes, u.Limit, 20), size(u.Bytes), percent(u.Bytes, u.Limit), size(u.Limit))
	} else {
		row("  used", "%s (no limit)", size(u.Bytes))
	}
	row("  modules", "%s%s", count(s.Resident.Modules, "module version"), residentHint(s))
	row("  partition", "%s free of %s", size(u.Free), size(u.Total))
	c := s.Counters
	row("opened", "%s, %s%s", count(c["hits"], "hit"), count(c["misses"], "miss", "misses"), hitRate(c["hits"], c["misses"]))
	row("traffic", "%s fetched, %s served, %s saved", size(c["fetched_bytes"]), size(c["served_bytes"]), size(c["saved_bytes"]))
	h := s.LastHour
	row("last hour", "%d fetched (%s), %d evicted (%s), %d of them fetched again", h.Fetched, size(h.FetchedBytes), h.Evicted, size(h.EvictedBytes), h.Refetched)
	for _, up := range s.Upstreams {
		row("upstream", "%s", describeUpstream(up))
	}
	if r := s.Requests; r.Slow > 0 {
		row("waiting", "%s without an answer, the oldest for %s", count(r.Slow, "request"), ago(time.Duration(r.Oldest*float64(time.Second))))
	}
	printTroubles(row, c)
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printTransfers(w, s, now); err != nil {
		return err
	}
	if err := printErrors(w, s); err != nil {
		return err
	}
	return printWarning(w, s)
}

func residentHint(s *control.Status) string {
	if s.Resident.Modules == 0 {
		return ""
	}
	hint := ", " + size(s.Resident.Bytes)
	if n := s.Resident.Pinned; n > 0 {
		hint += fmt.Sprintf("; %d pinned, %s", n, size(s.Resident.PinnedBytes))
	}
	return hint
}

// printTroubles prints the counters that had better be zero.
func printTroubles(row func(name, format string, args ...any), c map[string]int64) {
	for _, t := range []struct{ counter, name, text string }{
		{"security_errors", "security errors", "%d: wrong hashes, or a checksum database not to be trusted"},
		{"damaged", "damaged", "%d files of the store were damaged"},
		{"panics", "panics", "%d mistakes of modfs itself; its log has them"},
		{"late", "given up", "%d requests got no answer in time"},
	} {
		if n := c[t.counter]; n > 0 {
			row(t.name, t.text, n)
		}
	}
}

// describeUpstream says in one line how an upstream is doing.
func describeUpstream(up fetch.Upstream) string {
	text, now := "ok", time.Now()
	if !up.DownSince.IsZero() {
		text = fmt.Sprintf("unreachable since %s, next try in %v", up.DownSince.Local().Format(time.TimeOnly), max(up.NextTry.Sub(now), 0).Round(100*time.Millisecond))
	}
	text += fmt.Sprintf(", %s, %d failed", count(up.Requests, "request"), up.Failures)
	if up.LastError != "" {
		text += fmt.Sprintf(", last %s ago: %s", ago(now.Sub(up.LastTime)), plain(up.LastError, 200))
	}
	return up.URL + ": " + text
}

// printTransfers prints what is being fetched.
func printTransfers(w io.Writer, s *control.Status, now time.Time) error {
	if len(s.Transfers) == 0 && s.Queued == 0 {
		return nil
	}
	queued := ""
	if s.Queued > 0 {
		queued = fmt.Sprintf(", %d queued", s.Queued)
	}
	fmt.Fprintf(w, "\nfetching %s%s\n", count(len(s.Transfers), "module version"), queued)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, tr := range s.Transfers {
		progress := size(tr.Bytes)
		if tr.Total > 0 {
			progress = fmt.Sprintf("%s %s of %s", bar(tr.Bytes, tr.Total, 10), size(tr.Bytes), size(tr.Total))
		}
		if tr.Phase == modfs.PhaseVerify {
			progress += ", verifying"
		}
		fmt.Fprintf(t, "  %s@%s\t%s\t%s\t%s\n", tr.Module, tr.Version, progress, ago(now.Sub(tr.Since)), askers(tr))
	}
	return t.Flush()
}

func askers(tr modfs.Transfer) string {
	var names []string
	for _, p := range tr.For {
		name := p.Command
		if p.PID > 0 {
			name = strings.TrimSpace(fmt.Sprintf("%s (process %d)", name, p.PID))
		}
		if name != "" {
			names = append(names, name)
		}
	}
	by := strings.Join(names, ", ")
	switch {
	case tr.Ahead && by == "":
		return "ahead"
	case tr.Ahead:
		return "ahead, for " + by
	case by == "":
		return ""
	}
	return "for " + by
}

func printErrors(w io.Writer, s *control.Status) error {
	if s.Errors == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s since the mount (%s/.modfs/errors), the last ones:\n", count(int64(s.Errors), "error"), s.Mountpoint)
	for _, e := range s.LastErrors[max(0, len(s.LastErrors)-statusErrors):] {
		repeats := ""
		if e.Repeats > 0 {
			repeats = fmt.Sprintf(" (%d times)", e.Repeats+1)
		}
		_, err = fmt.Fprintf(w, "  %s  %s  %s%s\n", e.Time.Local().Format(time.TimeOnly), e.Errno, plain(e.Cause, 300), repeats)
	}
	return err
}

// printWarning says if the store is too small, and what to do.
func printWarning(w io.Writer, s *control.Status) error {
	h, u := s.LastHour, s.Store.Usage
	if !h.TooSmall {
		return nil
	}
	remedy := fmt.Sprintf("mount it with --max-size %s or more", strings.ReplaceAll(size(h.Wanted), " ", ""))
	if u.Limit == 0 || u.Bytes < u.Limit/10*9 {
		remedy = "its partition has too little free: make room there, or lower --min-free"
	}
	_, err := fmt.Fprintf(w, "\nwarning: the store is too small for its work: in the last hour %s (%s) were evicted and had to be fetched again: %s\n",
		count(h.Refetched, "module version"), size(h.RefetchedBytes), remedy)
	return err
}

// bar draws how much of a whole there is.
func bar(n, whole int64, width int) string {
	full := int(float64(width) * min(max(float64(n)/float64(whole), 0), 1))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}

func percent(n, whole int64) string { return fmt.Sprintf("%.0f%%", 100*float64(n)/float64(whole)) }

func hitRate(hits, misses int64) string {
	if hits+misses == 0 {
		return ""
	}
	return " (" + percent(hits, hits+misses) + " hits)"
}

// count returns a number of things; of more than one, many says what those are called if that is not one with an s.
func count[T int | int64](n T, one string, many ...string) string {
	word := one
	switch {
	case n == 1:
	case len(many) > 0:
		word = many[0]
	default:
		word += "s"
	}
	return humanize.Comma(int64(n)) + " " + word
}

// ago returns a duration as people say it, in two units at most.
func ago(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// plain returns a text that somebody else wrote as one line without anything that a terminal would act on, of max bytes at most.
func plain(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "…"
	}
	return s
}

func size[T int | int64 | uint64](n T) string { return humanize.IBytes(uint64(max(n, 0))) }
