package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	modfs "modfs/fs"
)

// seen is what a command, told from others by its mark, did on a mount, and what the daemon did meanwhile.
type seen struct {
	id    string // of the command: modfs.TraceEnv in its environment
	group int    // its process group, by which processes are told whose environment cannot be read
	began time.Time
	keep  bool // all activities, for chrome

	modules map[string]*touched
	all     []modfs.Activity
	cut     int    // activities that were not kept
	lost    uint64 // that did not arrive
	unknown int    // waits of processes of which nothing is known
}

// maxKept bounds how many activities are kept for a trace file, some 100 MB of them.
const maxKept = 1 << 18

// touched is a module version that the command waited for, or that was fetched meanwhile.
type touched struct {
	name    string
	waits   spans // of the command
	archive spans // those for something in the zip
	fetches spans // of the zip
	asked   spans // requests to upstreams about anything else
	bytes   int64
	errno   string // that the command got last
}

// span is some time.
type span struct{ from, to time.Time }

type spans []span

// before returns a span of so many seconds that ended at t.
func before(t time.Time, seconds float64) span {
	return span{t.Add(-time.Duration(seconds * float64(time.Second))), t}
}

// overlap reports whether two lists have any time in common.
func (s spans) overlap(other spans) bool {
	for _, a := range s {
		for _, b := range other {
			if a.from.Before(b.to) && b.from.Before(a.to) {
				return true
			}
		}
	}
	return false
}

// total is the time that is in any of the spans: two threads that wait at the same time wait once.
func (s spans) total() (total time.Duration) {
	sorted := slices.Clone(s)
	slices.SortFunc(sorted, func(a, b span) int { return a.from.Compare(b.from) })
	var end time.Time
	for _, sp := range sorted {
		if sp.from.Before(end) {
			sp.from = end
		}
		if sp.to.After(sp.from) {
			total += sp.to.Sub(sp.from)
			end = sp.to
		}
	}
	return total
}

// first is when the first span begins.
func (s spans) first() time.Time {
	return slices.MinFunc(s, func(a, b span) int { return a.from.Compare(b.from) }).from
}

// mine reports whether it was the command that waited.
func (s *seen) mine(a *modfs.Asker) bool {
	if a == nil {
		return false
	}
	return a.Trace == s.id || a.Opaque && a.Group != 0 && a.Group == s.group
}

func (s *seen) module(a modfs.Activity) *touched {
	name := a.Module
	if a.Version != "" {
		name += "@" + a.Version
	}
	m := s.modules[name]
	if m == nil {
		if s.modules == nil {
			s.modules = make(map[string]*touched)
		}
		m = &touched{name: name}
		s.modules[name] = m
	}
	return m
}

// add takes in what happened.
func (s *seen) add(a modfs.Activity) {
	switch {
	case a.Kind == modfs.ActivityLost:
		s.lost += a.Lost
		return
	case a.Kind == modfs.ActivityWait && !s.mine(a.Asker):
		if a.Asker != nil && a.Asker.Opaque && a.Asker.Group == 0 {
			s.unknown++
		}
		return
	}
	if s.keep {
		if len(s.all) < maxKept {
			s.all = append(s.all, a)
		} else {
			s.cut++
		}
	}
	if a.Module == "" {
		return
	}
	m := s.module(a)
	took := before(a.Time, a.Seconds)
	switch a.Kind {
	case modfs.ActivityWait:
		m.waits = append(m.waits, took)
		switch a.File {
		case "info", "mod", "list", "ziphash":
		default:
			m.archive = append(m.archive, took)
		}
	case modfs.ActivityFetched, modfs.ActivityFailed:
		m.fetches = append(m.fetches, took)
	case modfs.ActivityRequest:
		m.bytes += a.Bytes
		if !strings.HasSuffix(a.File, ".zip") {
			m.asked = append(m.asked, took)
		}
	case modfs.ActivityError:
		m.errno = a.Errno
	}
}

// how says what the command waited for: a miss is what was fetched while it waited, ahead what was fetched by then, a hit what was
// there.
func (m *touched) how() string {
	file, waits, fetches := "", m.archive, m.fetches
	if len(waits) == 0 {
		file, waits, fetches = " (go.mod)", m.waits, m.asked
	}
	how := "hit"
	if waits.overlap(fetches) {
		how = "miss"
	} else if len(fetches) > 0 {
		how = "ahead"
	}
	if m.errno != "" {
		file += " " + m.errno
	}
	return how + file
}

// print prints the modules that the command waited for longest, at most top of them unless that is 0, below what is said of the
// command.
func (s *seen) print(w io.Writer, top int, command string) {
	var mine, ahead []*touched
	var waits spans
	counts := make(map[string]int)
	fetched, unused := int64(0), int64(0)
	for _, m := range s.modules {
		fetched += m.bytes
		if len(m.waits) == 0 {
			if len(m.fetches) > 0 {
				ahead = append(ahead, m)
				unused += m.bytes
			}
			continue
		}
		mine = append(mine, m)
		waits = append(waits, m.waits...)
		how, _, _ := strings.Cut(m.how(), " ")
		counts[how]++
	}
	fmt.Fprintf(w, "modfs: trace: %s\n", command)
	fmt.Fprintf(w, "modfs: trace: %d modules touched (%d misses, %d ahead, %d hits), %v waited, %s fetched\n",
		len(mine), counts["miss"], counts["ahead"], counts["hit"], brief(waits.total()), size(fetched))
	if len(ahead) > 0 {
		fmt.Fprintf(w, "modfs: trace: %s of that for %d modules that it did not touch\n", size(unused), len(ahead))
	}
	s.printDoubts(w)
	wait := make(map[*touched]time.Duration)
	for _, m := range mine {
		wait[m] = m.waits.total()
	}
	slices.SortFunc(mine, func(a, b *touched) int { return cmp.Or(-cmp.Compare(wait[a], wait[b]), cmp.Compare(a.name, b.name)) })
	shown := mine
	if top > 0 {
		shown = mine[:min(top, len(mine))]
	}
	if len(shown) > 0 {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "WAITED\tTIMES\tFIRST\tHOW\tFETCHED\tMODULE")
		for _, m := range shown {
			fmt.Fprintf(t, "%v\t%d\t%v\t%s\t%s\t%s\n", brief(wait[m]), len(m.waits),
				brief(m.waits.first().Sub(s.began)), m.how(), size(m.bytes), m.name)
		}
		t.Flush() // best effort, as all that is printed
	}
	if more := mine[len(shown):]; len(more) > 0 {
		var rest spans
		for _, m := range more {
			rest = append(rest, m.waits...)
		}
		fmt.Fprintf(w, "and %d more, which it waited %v for: --top 0 shows them\n", len(more), brief(rest.total()))
	}
}

// brief rounds a duration to what there is to say about it.
func brief(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// printDoubts says what may be missing.
func (s *seen) printDoubts(w io.Writer) {
	if s.lost > 0 {
		fmt.Fprintf(w, "modfs: trace: %d activities were lost, as this process was too slow: the numbers are too small\n", s.lost)
	}
	if s.unknown > 0 {
		fmt.Fprintf(w, "modfs: trace: %d waits of processes that the daemon cannot tell apart (of another PID namespace) are not counted\n", s.unknown)
	}
	if s.cut > 0 {
		fmt.Fprintf(w, "modfs: trace: the trace file lacks the last %d activities: it has %d\n", s.cut, maxKept)
	}
}
