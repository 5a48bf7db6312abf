package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
)

func newTrace() *cobra.Command {
	var (
		f        serveFlags
		patience ageValue
		t        tracing
	)
	cmd := &cobra.Command{
		Use:   "trace [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command, and say which modules it waited for",
		Long: `Trace runs COMMAND as 'modfs run' does, on your mount where GOMODCACHE is if there
is one and --store does not name another, and says on standard error which modules
it touched: for how long it waited for each, when it first did, and whether the
module was fetched while it waited (miss), fetched ahead in time (ahead), or there
already (hit). With --out it also writes a trace for ui.perfetto.dev or
chrome://tracing, with a row for each module, upstream and process. It exits with
COMMAND's status.
What the kernel answers from its caches is not seen, and costs nothing. COMMAND's
processes are told by MODFS_TRACE in their environment, or by their process group
where the daemon may not look at that; one that takes it out is not counted.`,
		Annotations: map[string]string{exitKey: commandExit},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "" {
				return usagef("no command given: modfs trace [flags] -- COMMAND")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			err := t.open()
			if err != nil {
				return err
			}
			defer t.close()
			if m := mountAtModCache(cmd.Context()); m != nil && !cmd.Flags().Changed("store") && owned(m) {
				f.store = m.Store
			}
			return run(cmd, &f, time.Duration(patience), args, &t)
		},
	}
	cmd.Flags().SetInterspersed(false) // COMMAND's flags are its own
	f.register(cmd.Flags(), "warn", "gopath")
	watchdogFlag(cmd.Flags(), &patience)
	cmd.Flags().StringVar(&t.name, "out", "", "write a trace to `file`, as JSON of Chrome's trace event format")
	cmd.Flags().IntVar(&t.top, "top", 25, "print the `n` modules that were waited for longest; 0: all")
	return cmd
}

// owned reports whether the daemon of a mount lives and is ours: to others it tells nothing.
func owned(m *modfs.Found) bool {
	p, err := m.Daemon()
	return err == nil && p.Release() == nil
}

// tracing is what `modfs trace` learns of a command. A nil one does nothing.
type tracing struct {
	name string // of the file for the trace; "" for none
	top  int

	id    string // the command's value of modfs.TraceEnv
	file  *os.File
	whole bool // file has what it is to have

	source events
	cancel context.CancelFunc
	ended  chan struct{} // closed when no more comes
	err    error         // why it ended early; set before
	began  time.Time
	took   time.Duration

	seen seen
}

// open makes the file, before anything runs for nothing.
func (t *tracing) open() (err error) {
	if t.name == "" {
		return nil
	}
	t.file, err = os.Create(t.name)
	if err != nil {
		return fmt.Errorf("--out %s cannot be written: %w", t.name, errno(err))
	}
	return nil
}

// close removes a file that nothing was written to.
func (t *tracing) close() {
	if t.file == nil {
		return
	}
	t.file.Close() // best effort: what mattered was said when it was written
	if fi, err := os.Stat(t.name); !t.whole && err == nil && fi.Mode().IsRegular() {
		os.Remove(t.name)
	}
}

// handOn leaves the file to a process that runs this command line again: that makes, writes and removes it itself.
func (t *tracing) handOn() {
	if t != nil && t.file != nil {
		t.file.Close() // best effort: nothing was written
		t.file = nil
	}
}

// events is where activities come from: this process, or the one that serves the mount.
type events interface {
	Events(ctx context.Context, recheck bool, begun func(), each func(modfs.Activity) error) error
	Mark(ctx context.Context, text string) error
}

// ownEvents are those of a mount that this process serves.
type ownEvents struct{ fs *modfs.FS }

func (o ownEvents) Mark(_ context.Context, text string) error {
	o.fs.Mark(text)
	return nil
}

func (o ownEvents) Events(ctx context.Context, recheck bool, begun func(), each func(modfs.Activity) error) error {
	l := o.fs.Listen()
	defer l.Close()
	if recheck {
		o.fs.Recheck()
	}
	begun()
	for {
		a, err := l.Next(ctx)
		if err == nil {
			err = each(a)
		}
		if err != nil {
			return err
		}
	}
}

// markPatience is for how long what happened may take to arrive after the command has ended.
const markPatience = 10 * time.Second

var errMarked = errors.New("all is there")

// begin listens to the mount from now on.
func (t *tracing) begin(s *session) error {
	if t == nil {
		return nil
	}
	t.source = ownEvents{s.fs}
	if s.fs == nil {
		c, err := control.Dial(context.Background(), s.mountpoint)
		if err != nil {
			return fmt.Errorf("trace: %w", err)
		}
		t.source = c
	}
	t.id = rand.Text()
	t.seen.id, t.seen.group, t.seen.keep = t.id, syscall.Getpgrp(), t.file != nil
	var ctx context.Context
	ctx, t.cancel = context.WithCancel(context.Background())
	begun := make(chan struct{})
	t.ended = make(chan struct{})
	go func() {
		defer close(t.ended)
		t.err = t.source.Events(ctx, true, func() { close(begun) }, func(a modfs.Activity) error {
			if a.Kind == modfs.ActivityMark && a.File == t.id {
				return errMarked
			}
			t.seen.add(a)
			return nil
		})
	}()
	select {
	case <-begun:
	case <-t.ended:
		return fmt.Errorf("trace: %w", t.err)
	case <-time.After(markPatience):
		t.cancel()
		return errors.New("trace: its daemon does not answer")
	}
	t.began = time.Now()
	t.seen.began = t.began
	return nil
}

// environ is what the command has in its environment besides.
func (t *tracing) environ() []string {
	if t == nil {
		return nil
	}
	return []string{modfs.TraceEnv + "=" + t.id}
}

// end waits until all that the command did has arrived.
func (t *tracing) end() {
	if t == nil {
		return
	}
	t.took = time.Since(t.began)
	ctx, cancel := context.WithTimeout(context.Background(), markPatience)
	defer cancel()
	if t.source.Mark(ctx, t.id) == nil {
		select {
		case <-t.ended:
		case <-ctx.Done():
		}
	}
	t.cancel()
	<-t.ended
}

// report prints the table, and writes the trace.
func (t *tracing) report(w io.Writer, args []string, code int) error {
	if t == nil {
		return nil
	}
	if !errors.Is(t.err, errMarked) {
		fmt.Fprintf(w, "modfs: trace: not all that happened was seen: %s\n", oneLine(t.err))
	}
	t.seen.print(w, t.top, fmt.Sprintf("'%s' took %v, exit status %d", strings.Join(args, " "), t.took.Round(time.Millisecond), code))
	if t.file == nil {
		return nil
	}
	err := writeChrome(t.file, t.seen.chrome(strings.Join(args, " "), t.took))
	if err == nil {
		err = t.file.Close()
	}
	if err != nil {
		return fmt.Errorf("--out %s cannot be written: %w", t.name, errno(err))
	}
	t.whole = true
	return nil
}
