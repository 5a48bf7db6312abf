// Bench compares a modfs mount with a plain directory as GOMODCACHE.
//
//	go run ./integration/bench [flags]
//
// The go command does the same work with both, from a module proxy on loopback that has what a real one has: it is
// filled once, from the proxy that the go command is set up to use. Both have the module cache at the same path, one
// after the other in each round, and in each measurement the go command has the same environment. The measurements
// are in measurements, below; -only selects some of them.
//
// What is the same for both is kept out of the result: the proxy's files and those of the Go distribution are in the
// page cache, but where a measurement is about what is not, and nothing waits to be written to disk when the clock starts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds     int
	only       string
	latency    time.Duration
	cache      string
	work       string
	modfs      string
	mountFlags string
	verify     bool
	json       string
	markdown   bool
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 1 if something went wrong, 2 if the command line is wrong.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, o, stdout, stderr); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

const usage = `Bench compares a modfs mount with a plain directory as GOMODCACHE.

Usage: go run ./integration/bench [flags]

`

// parse reads the command line. What the flag package has to say about it goes to stderr.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(&o.rounds, "rounds", 5, "measure this many `times`")
	fs.StringVar(&o.only, "only", "", "measure only these, a comma-separated `list`")
	fs.DurationVar(&o.latency, "latency", 40*time.Millisecond, "how long the distant proxy takes for each request")
	fs.StringVar(&o.cache, "cache", "", "keep the proxy's files in `dir` (default: modfs-bench in your cache directory)")
	fs.StringVar(&o.work, "work", "", "have the module caches in a new directory in `dir` (default: that of -cache)")
	fs.StringVar(&o.modfs, "modfs", "", "measure this `binary` (default: build modfs/cmd/modfs)")
	fs.StringVar(&o.mountFlags, "mount-flags", "", "`flags` of 'modfs mount', separated by spaces, such as --read-only")
	fs.BoolVar(&o.verify, "verify", false, "fail if both do not yield the same")
	fs.StringVar(&o.json, "json", "", "write every sample to `file`")
	fs.BoolVar(&o.markdown, "markdown", false, "print Markdown")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, usage)
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		fmt.Fprintf(stderr, "\nThe measurements: %s.\n", strings.Join(names(groups(o.latency)), ", "))
	}
	switch {
	case err != nil:
		return o, err
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.rounds < 1:
		return o, fmt.Errorf("-rounds %d: want 1 or more", o.rounds)
	case o.latency <= 0:
		return o, fmt.Errorf("-latency %v: want more than 0", o.latency)
	}
	if _, err := choose(groups(o.latency), o.only); err != nil {
		return o, err
	}
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("no cache directory (%w): set HOME or give -cache", err)
		}
		o.cache = filepath.Join(dir, "modfs-bench")
	}
	if o.work == "" {
		o.work = o.cache
	}
	// The go command wants absolute paths, and the kernel's name of the mountpoint has no symbolic links.
	for _, dir := range []*string{&o.cache, &o.work} {
		if *dir, err = realDir(*dir); err != nil {
			return o, err
		}
	}
	if o.modfs != "" {
		if o.modfs, err = filepath.Abs(o.modfs); err != nil {
			return o, err
		}
	}
	return o, nil
}

// realDir makes dir, if it is not there, and returns its absolute path without symbolic links.
func realDir(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// compare measures and reports.
func compare(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	work, err := os.MkdirTemp(o.work, "work-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(work)) }()

	chosen, err := choose(groups(o.latency), o.only)
	if err != nil {
		return err
	}
	tree, err := fill(ctx, o.cache, workloads(), say)
	if err != nil {
		return err
	}
	p, err := startProxy(tree)
	if err != nil {
		return err
	}
	defer p.close()
	if o.modfs == "" {
		if o.modfs, err = build(ctx, filepath.Join(work, "bin")); err != nil {
			return err
		}
	}
	b := &bench{
		options: o, proxy: p, dir: work, say: say, trash: trash{dir: filepath.Join(work, "trash")},
		notMeasured: make(map[string]string), outputs: make(map[string]output),
	}
	if b.machine, b.goroot, err = describe(ctx, work); err != nil {
		return err
	}
	if err := b.run(ctx, chosen); err != nil {
		return err
	}
	return b.report(stdout)
}
