package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"modfs/fetch"
	modfs "modfs/fs"
	"modfs/lru"
)

// What export, import and bundle have in common: they move module versions, and say what became of each.

// interruptibleExit says what the exit status of a command is that a signal interrupts.
const interruptibleExit = "0; 1 if something went wrong; 2 if the command line is wrong; 128+N if signal N interrupted it."

// movingFlags are their flags.
type movingFlags struct {
	serveFlags
	sum string
}

func (f *movingFlags) register(fs *pflag.FlagSet, offline, sum string) {
	fs.SortFlags = false
	fs.StringVar(&f.store, "store", "", "the store is in `dir` (default: modfs in your cache directory)")
	if sum != "" {
		fs.StringVar(&f.sum, "sum", "", sum)
	}
	if offline != "" {
		fs.BoolVar(&f.offline, "offline", false, offline)
	}
	f.registerFetch(fs)
	f.logLevel = choiceValue{"error", "level", []string{"debug", "info", "warn", "error", "off"}}
	fs.Var(&f.logLevel, "log-level", f.logLevel.usage("what to log"))
}

// depotOptions returns what the flags mean to a store that is not mounted. It has no limit but the partition: what a mount may
// keep is for the mount to say.
func (f *movingFlags) depotOptions(cmd *cobra.Command, dir string) (o modfs.Options, err error) {
	if o.Fetch, err = f.fetchConfig(cmd.Context(), cmd.Flags()); err != nil {
		return o, err
	}
	o.Log = newLogger(cmd.ErrOrStderr(), f.logLevel.word, "text")
	o.Fetch.Log = o.Log
	o.Store = lru.Config{Dir: dir, MinFreePercent: 5, Exclude: storeExclude, Log: o.Log}
	return o, nil
}

// readSums reads a go.sum; nil if name is empty.
func readSums(name string) (modfs.Sums, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("go.sum %s cannot be read: %w", name, errno(err))
	}
	sums, err := modfs.ParseSums(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return sums, nil
}

// moves counts module versions that are moved and says what became of each: a line each or, on a terminal, a bar and a line for
// each that failed.
type moves struct {
	out, say io.Writer
	done     string // what was done to them, e.g. "imported"
	bars     *bars
	bar      *mpb.Bar

	seen            map[string]moved // by module version: of a tar file it may come in pieces
	n, kept, failed int
	bytes           int64
	trusted         []string // versions that were not checked against anything
	deferred        int      // of those
	network         bool     // something failed because it could not be reached
}

// moved is what has become of a module version.
type moved struct{ trusted, failed bool }

func newMoves(cmd *cobra.Command, done string) *moves {
	m := &moves{out: cmd.OutOrStdout(), say: cmd.ErrOrStderr(), done: done, seen: make(map[string]moved)}
	if m.bars = newBars(m.out, m.say); m.bars != nil {
		m.bar = m.bars.add(decor.CountersNoUnit("%d / %d modules"), decor.Elapsed(decor.ET_STYLE_GO))
	}
	return m
}

// report is a modfs.Report.
func (m *moves) report(total int, mv modfs.Moved) {
	m.bytes += mv.Bytes
	name := mv.Module.String()
	before, again := m.seen[name]
	now := before
	if !again {
		m.n++
	}
	if mv.Unchecked && mv.Err == nil && !before.trusted {
		now.trusted = true
		m.trusted = append(m.trusted, name)
		if mv.Deferred {
			m.deferred++
		}
	}
	now.failed = now.failed || mv.Err != nil
	if now.failed && !before.failed {
		m.failed++
	}
	if mv.Kept && !again {
		m.kept++
	}
	m.seen[name] = now
	if m.bar != nil {
		m.bar.SetTotal(int64(max(total, m.n)), false)
		m.bar.Increment()
	}
	if mv.Err != nil {
		m.network = m.network || errors.Is(mv.Err, fetch.ErrUnreachable)
		text := oneLine(mv.Err)
		if !strings.Contains(text, name) {
			text = name + ": " + text
		}
		m.line(m.say, "modfs: "+text)
		return
	}
	if m.bar == nil {
		m.line(m.out, name+": "+describeMove(mv))
	}
}

func (m *moves) line(w io.Writer, text string) { m.bars.line(w, text) }

// describeMove says what was moved and who vouches for it.
func describeMove(mv modfs.Moved) string {
	var parts []string
	for _, p := range []struct {
		part modfs.Part
		name string
	}{{modfs.PartZip, "zip"}, {modfs.PartMod, "go.mod"}, {modfs.PartInfo, "info"}} {
		if mv.Parts&p.part != 0 {
			parts = append(parts, p.name)
		}
	}
	text := strings.Join(parts, ", ")
	switch {
	case mv.Unchecked:
		text += " (not checked against anything)"
	case len(mv.By) > 0:
		text += " (" + strings.Join(mv.By, ", ") + ")"
	}
	if mv.Kept {
		text += ", there already"
	}
	return text
}

// end takes the bar away and prints a summary. err is why it ended early, nil if it did not. It returns what the command does.
func (m *moves) end(ctx context.Context, err error) error {
	if m.bar != nil {
		m.bars.end()
	}
	if status := interrupted(ctx); status != nil {
		fmt.Fprintf(m.say, "modfs: interrupted: %d modules %s, and what was %s is whole: run it again for the rest\n", m.n-m.failed, m.done, m.done)
		return status
	}
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s %d modules, %s", m.done, m.n-m.failed, size(m.bytes))
	if m.kept > 0 {
		text += fmt.Sprintf("; %d were there already", m.kept)
	}
	fmt.Fprintln(m.out, text)
	if n := len(m.trusted); n > 0 {
		fmt.Fprintf(m.out, "%d were not checked against anything, and are taken on trust: %s\n", n, strings.Join(m.trusted, " "))
	}
	if m.deferred > 0 {
		fmt.Fprintf(m.out, "%d of these the checksum database covers: the first mount without --offline asks it before it serves them\n", m.deferred)
	}
	if m.failed > 0 {
		if m.network {
			fmt.Fprintln(m.say, "modfs: there seems to be no network: with --offline none is needed, where a bundle proves what it has")
		}
		fmt.Fprintf(m.say, "modfs: %d of %d modules failed\n", m.failed, m.n)
		return exitStatus(exitError)
	}
	return nil
}

// lockedHint says what to do about a store that is in use.
func lockedHint(err error, instead string) error {
	l, ok := errors.AsType[*lru.LockedError](err)
	if !ok {
		return err
	}
	who := fmt.Sprintf("process %d", l.PID)
	switch {
	case filepath.IsAbs(l.Holder):
		who += ", which serves " + l.Holder
	case l.Holder != "": // it serves nothing
		who += " (" + l.Holder + ")"
	}
	return fmt.Errorf("store %s is in use by %s: %s", l.Dir, who, instead)
}
