package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	modfs "modfs/fs"
)

// prefetchShow tells a user what becomes of a prefetch: a bar for each download and one for all on a terminal, a line a module
// otherwise, or JSON.
type prefetchShow struct {
	out, say    io.Writer
	json, quiet bool
	enc         *json.Encoder

	bars   *bars
	lookup *mpb.Bar // before the plan is known
	total  *mpb.Bar // after that
	each   map[string]*download
	bytes  int64 // of archives that are done

	wanted   int
	finished atomic.Int64
	sum      modfs.PrefetchEvent // what the summary says; our own, as an interrupted daemon sends none
	summed   bool                // it was told
	failures []string
}

// download is an archive that is on its way.
type download struct {
	bar *mpb.Bar
	now int64
}

func newPrefetchShow(out, say io.Writer, asJSON, quiet bool) *prefetchShow {
	s := &prefetchShow{out: out, say: say, json: asJSON, quiet: quiet, each: make(map[string]*download)}
	s.enc = json.NewEncoder(out)
	s.enc.SetEscapeHTML(false)
	if !asJSON && !quiet {
		s.bars = newBars(out, say)
	}
	return s
}

// note tells what the user may not expect, which is no error.
func (s *prefetchShow) note(text string) {
	if s.json {
		s.enc.Encode(modfs.PrefetchEvent{Event: modfs.PrefetchWarning, Message: text}) // best effort, as all that is printed
		return
	}
	if !s.quiet {
		s.bars.line(s.say, "modfs: "+text)
	}
}

// begin begins, with so many module versions: first their small files are looked up.
func (s *prefetchShow) begin(n int) {
	if s.wanted = n; s.bars != nil {
		s.lookup = s.bars.add(decor.Name("looking up", decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d"))
		s.lookup.SetTotal(int64(n), false)
	}
}

// plan goes on with so many bytes of archives.
func (s *prefetchShow) plan(bytes int64) {
	if s.bars == nil {
		return
	}
	s.lookup.Abort(true)
	count := decor.Any(func(decor.Statistics) string { return fmt.Sprintf("%d of %d", s.finished.Load(), s.wanted) }, decor.WCSyncSpaceR)
	s.total = s.bars.add(count, append([]decor.Decorator{decor.CountersKibiByte("% .1f / % .1f"), decor.Name("  ")}, speedAndETA()...)...)
	s.total.SetTotal(bytes, false)
	s.total.SetPriority(1 << 20) // below all others
}

// event is told by the prefetch.
func (s *prefetchShow) event(e modfs.PrefetchEvent) {
	name := e.Module + "@" + e.Version
	if s.json && e.Event != modfs.PrefetchProgress {
		s.enc.Encode(e)
	}
	switch e.Event {
	case modfs.PrefetchResolved:
		s.line(fmt.Sprintf("%s@%s is %s", e.Module, e.Query, e.Version))
	case modfs.PrefetchWarning:
		if !s.json {
			s.note("warning: " + e.Message)
		}
	case modfs.PrefetchPlan:
		s.plan(e.Bytes)
	case modfs.PrefetchProgress:
		s.progress(name, e.Bytes, e.Total)
	case modfs.PrefetchDone:
		s.done(name, e)
	case modfs.PrefetchFailed:
		s.fail(name, e)
	case modfs.PrefetchSummary:
		s.sum, s.summed = e, true
	}
}

// line prints a line that is not about a failure.
func (s *prefetchShow) line(text string) {
	if !s.json && !s.quiet {
		s.bars.line(s.out, text)
	}
}

func (s *prefetchShow) done(name string, e modfs.PrefetchEvent) {
	s.finished.Add(1)
	if e.Kept {
		s.sum.KeptCount++
	} else {
		s.sum.Fetched++
		s.sum.Bytes += e.Bytes
		if s.bars != nil {
			s.drop(name, e.Bytes)
		}
	}
	if e.ModOnly {
		s.sum.Mods++
		if s.bars != nil {
			s.all()
		}
		return
	}
	if s.bars != nil {
		return // a bar was there, or is not worth it
	}
	if e.Kept {
		s.line(name + ": there already")
	} else {
		s.line(fmt.Sprintf("%s: %s", name, size(e.Bytes)))
	}
}

func (s *prefetchShow) fail(name string, e modfs.PrefetchEvent) {
	s.finished.Add(1)
	s.sum.FailedCount++
	if s.bars != nil {
		s.drop(name, 0)
	}
	text := name + ": " + e.Reason
	if len(e.Reason) >= len(name) && e.Reason[:len(name)] == name {
		text = e.Reason
	}
	if e.Module == "" { // it is about all
		text = e.Reason
	}
	if e.Security {
		text = "SECURITY: " + text
	}
	s.failures = append(s.failures, text)
}

// progress moves the bar of an archive, and that of all.
func (s *prefetchShow) progress(name string, now, total int64) {
	if s.bars == nil {
		return
	}
	d := s.each[name]
	if d == nil {
		d = &download{bar: s.bars.add(decor.Name(shorten(name, 42), decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f"))}
		s.each[name] = d
	}
	d.now = now
	d.bar.SetTotal(max(total, now), false)
	d.bar.SetCurrent(now)
	s.all()
}

// drop takes the bar of an archive away.
func (s *prefetchShow) drop(name string, bytes int64) {
	if d := s.each[name]; d != nil {
		d.bar.Abort(true)
		delete(s.each, name)
	}
	s.bytes += bytes
	s.all()
}

// all moves the bar of all.
func (s *prefetchShow) all() {
	if s.total == nil {
		s.lookup.SetCurrent(s.finished.Load())
		return
	}
	now := s.bytes
	for _, d := range s.each {
		now += d.now
	}
	s.total.SetCurrent(now)
}

// shorten cuts a text to n bytes: of a module's name the end says most.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return "…" + text[len(text)-n+1:]
}

// end prints the failures and the summary. err is why it ended early, nil if it did not. It returns what the command does.
func (s *prefetchShow) end(ctx context.Context, into string, err error) error {
	s.bars.end()
	s.bars = nil
	if !s.json {
		for _, text := range s.failures {
			fmt.Fprintln(s.say, "modfs: "+text)
		}
	}
	sum := s.sum
	if status := interrupted(ctx); status != nil {
		if s.json && !s.summed {
			sum.Event, sum.Modules, sum.Interrupted = modfs.PrefetchSummary, s.wanted, true
			s.enc.Encode(sum)
		} else if !s.json {
			fmt.Fprintf(s.say, "modfs: interrupted: %d of %d are in %s, %s of them new: run it again for the rest\n",
				sum.Fetched+sum.KeptCount, s.wanted, into, size(sum.Bytes))
		}
		return status
	}
	if err == nil && sum.Interrupted {
		err = fmt.Errorf("the daemon of %s ended before all was done", into)
	}
	if err != nil {
		return err
	}
	text := fmt.Sprintf("prefetched %d modules, %s, into %s", sum.Fetched, size(sum.Bytes), into)
	if sum.KeptCount > 0 {
		text += fmt.Sprintf("; %d were there already", sum.KeptCount)
	}
	if sum.Mods > 0 {
		text += fmt.Sprintf("; of %d only the go.mod file", sum.Mods)
	}
	if sum.Pinned > 0 {
		text += fmt.Sprintf("; %d are pinned", sum.Pinned)
	}
	s.line(text)
	if sum.FailedCount == 0 {
		return nil
	}
	if !s.json {
		fmt.Fprintf(s.say, "modfs: %d of %d failed\n", sum.FailedCount, sum.Modules)
	}
	return exitStatus(exitError)
}
