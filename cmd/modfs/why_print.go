package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	modfs "modfs/fs"
)

// whyPrinter prints rows with a label. A label is printed once for the rows that follow each other with it.
type whyPrinter struct {
	t    *tabwriter.Writer
	last string
}

func (p *whyPrinter) row(label, format string, args ...any) {
	shown := label
	if label == p.last {
		shown = ""
	}
	p.last = label
	fmt.Fprintf(p.t, "%s\t%s\n", shown, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// printWhy prints w for people.
func printWhy(out io.Writer, w *modfs.Why) error {
	p := &whyPrinter{t: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	p.row("path", "%s", path.Join(w.Mountpoint, w.Path))
	p.row("is", "%s", w.Means)
	printAnswer(p, w)
	mode := "read-write"
	if w.ReadOnly {
		mode = "read-only"
	}
	p.row("mount", "%s; the %s finds out which versions there are", mode, w.Resolve)
	if o := w.Overlay; o != nil {
		p.row("writable", "%s, changed %s", size(o.Size), clock(o.MTime))
	}
	if w.Route != nil {
		printRoute(p, w)
	}
	printProof(p, w)
	printStored(p, w)
	for _, u := range w.Upstreams {
		p.row("upstream", "%s", describeUpstream(u))
	}
	for _, s := range w.Steps {
		p.row("steps", "%s %s", s.Time.Local().Format("15:04:05.000"), describeStep(s))
	}
	return p.t.Flush()
}

func printAnswer(p *whyPrinter, w *modfs.Why) {
	a := w.Answer
	asked := ""
	if w.Asked {
		asked = "tried just now: "
	}
	switch a.State {
	case modfs.AnswerError:
		p.row("answer", "%s%s (%s)", asked, a.Errno, a.Message)
	case modfs.AnswerFetch:
		p.row("answer", "it would be fetched, and what comes of that is not known: --ask tries it")
	default:
		p.row("answer", "%sit can be read", asked)
	}
	p.row("because", "%s", a.Cause)
	for _, advice := range a.Advice {
		p.row("to do", "%s", advice)
	}
}

func printRoute(p *whyPrinter, w *modfs.Why) {
	r := w.Route
	if r.Offline {
		p.row("settings", "--offline: nobody is asked")
	}
	for _, s := range r.Seeds {
		p.row("settings", "seed: %s is looked into first", s)
	}
	var hops []string
	for i, h := range r.Proxies {
		if i > 0 {
			sep := "then, after 404 or 410, "
			if r.Proxies[i-1].FallBack {
				sep = "then, after any error, "
			}
			h.URL = sep + h.URL
		}
		hops = append(hops, h.URL)
	}
	p.row("settings", "GOPROXY: %s", strings.Join(hops, ", "))
	if r.Private != nil {
		vcs := "; version control is asked"
		if !r.VersionControl {
			vcs = "; version control is not asked either, on this mount"
		}
		p.row("settings", "%s: %s matches: no proxy is asked%s", r.Private.Setting, r.Private.Pattern, vcs)
	}
	if r.NoSum != nil {
		p.row("settings", "%s: %s matches: the checksum database is not asked", r.NoSum.Setting, r.NoSum.Pattern)
	}
	if h := w.Hidden; h != nil {
		p.row("settings", "--private-modules off: %s=%s hides it", h.Setting, h.Pattern)
	}
}

func printProof(p *whyPrinter, w *modfs.Why) {
	switch r := w.Record; {
	case r != nil:
		proven := "proven again just now with the tiles in the store"
		if !r.Proven {
			proven = "not all that proves it again is in the store"
		}
		p.row("checked", "by %s: record %d of the tree of %d that it signed (root %s), %s", r.Database, r.ID, r.TreeSize, r.TreeHash, proven)
		p.row("checked", "it says %s for the zip, %s for go.mod", cmp.Or(r.ZipHash, "nothing"), cmp.Or(r.ModHash, "nothing"))
	case w.NoRecord != "":
		p.row("checked", "no record of a checksum database: %s", w.NoRecord)
	}
	for _, file := range slices.Sorted(maps.Keys(w.Pins)) {
		p.row("pinned", "%s %s", file, w.Pins[file])
	}
}

func printStored(p *whyPrinter, w *modfs.Why) {
	for _, s := range w.Store {
		text := size(s.Size) + ", last used " + humanize.Time(s.Used)
		if s.Missing {
			text = "not there"
			if !s.Evicted.IsZero() {
				text = "evicted at " + clock(s.Evicted)
			}
		}
		if s.Pinned {
			text += ", never evicted"
		}
		if s.Damaged != "" {
			text += ", damaged: " + s.Damaged
		}
		p.row("store", "%s: %s", s.File, text)
	}
	if w.Removed {
		p.row("store", "removed by a client of this mount")
	}
	if w.Refused != nil {
		p.row("store", "not offered until %s: its archive could not be had", clock(*w.Refused))
	}
	if w.Ahead != nil {
		p.row("store", "not fetched ahead until %s: that failed", clock(*w.Ahead))
	}
}

// clock is a time of today, or a date.
func clock(t time.Time) string {
	t = t.Local()
	if time.Since(t) < 12*time.Hour {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// describeStep says in one line what happened.
func describeStep(s modfs.Activity) string {
	took := time.Duration(s.Seconds * float64(time.Second)).Round(10 * time.Microsecond)
	var text string
	switch s.Kind {
	case modfs.ActivityRequest:
		outcome := fmt.Sprintf("%d", s.Status)
		switch {
		case s.Status == 0 && s.Error != "":
			outcome = s.Error
		case s.Status == 0:
			outcome = "there"
		case s.Error != "" && s.Status < 400:
			outcome += ", but: " + s.Error
		}
		text = fmt.Sprintf("%s %s/%s: %s", s.Method, strings.TrimSuffix(s.Upstream, "/"), s.File, outcome)
		if s.Bytes > 0 {
			text += ", " + size(s.Bytes)
		}
		text += fmt.Sprintf(" in %v", took)
	case modfs.ActivityFetch:
		text = "zip: fetched from now on"
		if s.Ahead {
			text += ", ahead: nobody waits for it"
		}
	case modfs.ActivityDownloaded:
		text = fmt.Sprintf("zip: downloaded, %s", size(s.Bytes))
	case modfs.ActivityVerified:
		text = fmt.Sprintf("%s: verified: %s by %s", s.File, s.H1, cmp.Or(s.By, "nobody: this was the first download"))
	case modfs.ActivityFetched:
		text = fmt.Sprintf("zip: in the store, %s after %v", size(s.Bytes), took)
	case modfs.ActivityError:
		text = fmt.Sprintf("%s: %s to who asked: %s", s.File, s.Errno, s.Error)
	default: // failed, evicted, damaged, replaced
		text = fmt.Sprintf("%s: %s", s.File, s.Kind)
		if s.Error != "" {
			text += ": " + s.Error
		}
	}
	if s.Repeats > 0 {
		text += fmt.Sprintf(" (%d times)", s.Repeats+1)
	}
	return text
}
