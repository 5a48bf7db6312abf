package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	modfs "modfs/fs"
)

// The trace event format that Perfetto and chrome://tracing read
// (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU): slices ("X") with a time stamp and a duration
// in microseconds, in rows ("threads") of groups ("processes"), which metadata ("M") names. Slices of a row must not overlap, but
// may be nested.

// chromeEvent is an event of a trace.
type chromeEvent struct {
	Name string         `json:"name"`
	Cat  string         `json:"cat,omitempty"`
	Ph   string         `json:"ph"`
	TS   int64          `json:"ts"`            // µs since the command began
	Dur  *int64         `json:"dur,omitempty"` // µs
	PID  int            `json:"pid"`
	TID  int            `json:"tid"`
	Args map[string]any `json:"args,omitempty"`
}

// The groups of rows.
const (
	chromeCommand = 1 + iota
	chromeModules
	chromeUpstreams
)

// chromeTrace collects the slices of rows.
type chromeTrace struct {
	began time.Time
	rows  map[chromeRow][]chromeSlice
}

// chromeRow is a row; what overlaps in it is spread over several.
type chromeRow struct {
	group int
	name  string
}

type chromeSlice struct {
	span
	name, cat string
	args      map[string]any
}

func (t *chromeTrace) add(group int, row string, sp span, name, cat string, args map[string]any) {
	// What was under way when the command began, began with it.
	if sp.from.Before(t.began) {
		sp.from = t.began
	}
	if sp.to.Before(sp.from) {
		return
	}
	key := chromeRow{group, row}
	t.rows[key] = append(t.rows[key], chromeSlice{sp, name, cat, args})
}

// chrome returns the trace of what was seen of a command.
func (s *seen) chrome(command string, took time.Duration) []chromeEvent {
	t := &chromeTrace{began: s.began, rows: make(map[chromeRow][]chromeSlice)}
	t.add(chromeCommand, " "+command, span{s.began, s.began.Add(took)}, command, "command", nil) // the first row
	stages := make(map[string]*stages)
	for _, a := range s.all {
		m := a.Module
		if a.Version != "" {
			m += "@" + a.Version
		}
		if m != "" && stages[m] == nil {
			stages[m] = newStages(t, m)
		}
		took := before(a.Time, a.Seconds)
		switch a.Kind {
		case modfs.ActivityWait:
			t.add(chromeCommand, fmt.Sprintf("%s %d", a.Asker.Name, a.Asker.PID), took, m, "wait", map[string]any{"for": a.File})
		case modfs.ActivityRequest:
			args := map[string]any{"method": a.Method, "status": a.Status, "bytes": a.Bytes}
			if a.Error != "" {
				args["error"] = a.Error
			}
			t.add(chromeUpstreams, a.Upstream, took, a.File, "request", args)
		}
		if m != "" {
			stages[m].add(a, took)
		}
	}
	return t.events()
}

// stages are the steps of a module on its way to a reader.
type stages struct {
	t   *chromeTrace
	row string

	fetch, asked, there, verified, fetched time.Time
	read                                   bool
	ahead                                  bool
}

func newStages(t *chromeTrace, m string) *stages { return &stages{t: t, row: m, read: true} }

func (st *stages) step(from, to time.Time, name string, args map[string]any) {
	if !from.IsZero() && to.After(from) {
		st.t.add(chromeModules, st.row, span{from, to}, name, "stage", args)
	}
}

// add takes in what happened to the module.
func (st *stages) add(a modfs.Activity, took span) {
	switch a.Kind {
	case modfs.ActivityFetch:
		*st = stages{t: st.t, row: st.row, fetch: a.Time, ahead: a.Ahead}
	case modfs.ActivityRequest:
		if strings.HasSuffix(a.File, ".zip") && a.Error == "" && !st.fetch.IsZero() {
			st.asked = took.from
			st.step(st.fetch, st.asked, "queue", map[string]any{"ahead": st.ahead})
		}
	case modfs.ActivityDownloaded:
		st.there = a.Time
		from := st.asked
		if from.IsZero() {
			from = st.fetch
		}
		st.step(from, a.Time, "download", map[string]any{"bytes": a.Bytes})
	case modfs.ActivityVerified:
		if a.File == "zip" {
			st.verified = a.Time
			st.step(st.there, a.Time, "verify", map[string]any{"h1": a.H1, "by": a.By})
		}
	case modfs.ActivityFetched:
		st.fetched = a.Time
		st.step(st.verified, a.Time, "store", map[string]any{"bytes": a.Bytes})
	case modfs.ActivityFailed:
		st.step(st.fetch, a.Time, "failed", map[string]any{"error": a.Error})
	case modfs.ActivityWait:
		if !st.read && !st.fetched.IsZero() && (a.File == "read" || a.File == "open") {
			st.read = true
			st.step(st.fetched, a.Time, "first read", nil)
		}
	}
}

// events returns the trace: rows in order of time, and each slice in one of them.
func (t *chromeTrace) events() []chromeEvent {
	events := []chromeEvent{
		chromeMeta("process_name", chromeCommand, 0, "command"),
		chromeMeta("process_name", chromeModules, 0, "modules"),
		chromeMeta("process_name", chromeUpstreams, 0, "upstreams"),
	}
	first := func(row chromeRow) time.Time {
		return slices.MinFunc(t.rows[row], func(a, b chromeSlice) int { return a.from.Compare(b.from) }).from
	}
	rows := slices.SortedFunc(maps.Keys(t.rows), func(a, b chromeRow) int {
		return cmp.Or(cmp.Compare(a.group, b.group), first(a).Compare(first(b)), cmp.Compare(a.name, b.name))
	})
	tid := 0
	for _, row := range rows {
		for n, lane := range lanes(t.rows[row]) {
			tid++
			name := strings.TrimSpace(row.name)
			if n > 0 {
				name = fmt.Sprintf("%s (%d)", name, n+1)
			}
			events = append(events, chromeMeta("thread_name", row.group, tid, name))
			for _, sl := range lane {
				dur := sl.to.Sub(sl.from).Microseconds()
				events = append(events, chromeEvent{Name: sl.name, Cat: sl.cat, Ph: "X", TS: sl.from.Sub(t.began).Microseconds(), Dur: &dur,
					PID: row.group, TID: tid, Args: sl.args})
			}
		}
	}
	return events
}

func chromeMeta(what string, group, tid int, name string) chromeEvent {
	return chromeEvent{Name: what, Ph: "M", PID: group, TID: tid, Args: map[string]any{"name": name}}
}

// lanes spreads slices over as few lanes as it takes so that none overlap in one.
func lanes(all []chromeSlice) [][]chromeSlice {
	slices.SortStableFunc(all, func(a, b chromeSlice) int { return a.from.Compare(b.from) })
	var lanes [][]chromeSlice
next:
	for _, sl := range all {
		for i, lane := range lanes {
			if !sl.from.Before(lane[len(lane)-1].to) {
				lanes[i] = append(lane, sl)
				continue next
			}
		}
		lanes = append(lanes, []chromeSlice{sl})
	}
	return lanes
}

// writeChrome writes a trace, an event a line.
func writeChrome(out io.Writer, events []chromeEvent) error {
	w := bufio.NewWriter(out)
	w.WriteString(`{"displayTimeUnit":"ms","traceEvents":[` + "\n") // an error comes back from Flush
	for i, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		w.Write(data)
		if i < len(events)-1 {
			w.WriteByte(',')
		}
		w.WriteByte('\n')
	}
	w.WriteString("]}\n")
	return w.Flush()
}
