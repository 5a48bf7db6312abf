package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A bench takes all measurements.
type bench struct {
	options
	machine
	proxy  *proxy
	goroot string
	dir    string // all that is ours is below it
	say    func(string, ...any)

	samples     []sample
	notMeasured map[string]string // reasons, by measurement
	outputs     map[string]output // by measurement: the first one, with which the others are compared
	forgotten   bool              // the page cache was emptied
	trash       trash
}

// output is what a measurement yielded, and where.
type output struct{ where, text string }

// run takes the chosen measurements so many times, with both arms in turns.
func (b *bench) run(ctx context.Context, chosen []choice) error {
	for _, w := range workloads() {
		if err := w.unpack(filepath.Join(b.dir, w.name)); err != nil {
			return err
		}
	}
	dir := filepath.Join(b.dir, "mod")
	arms := []arm{
		&plain{dir, &b.trash},
		&mounted{bin: b.modfs, dir: dir, store: filepath.Join(b.dir, "store"), flags: strings.Fields(b.mountFlags), trash: &b.trash},
	}
	for round := 1; round <= b.rounds; round++ {
		if round > 1 {
			if err := b.trash.empty(ctx); err != nil {
				return err
			}
		}
		for _, c := range chosen {
			for _, a := range arms {
				s := &session{b: b, choice: c, arm: a, round: round}
				if err := s.run(ctx); err != nil {
					return fmt.Errorf("round %d, %s: %w", round, a.name(), err)
				}
			}
		}
	}
	return nil
}

// A session is one module cache from its making to its end.
type session struct {
	b *bench
	choice
	arm      arm
	round    int
	modcache string
	env      []string

	// What is known at the moment when the clock starts.
	requests map[string]int64
	daemon   *daemonState
}

// run takes the steps.
func (s *session) run(ctx context.Context) (err error) {
	home := filepath.Join(s.b.dir, "home")
	sumDB := "off"
	if s.sumDB {
		sumDB = s.b.proxy.sumDB
	}
	s.env = benchEnv(os.Environ(),
		"GOPROXY="+s.b.proxy.url, "GOSUMDB="+sumDB, "GOPATH="+filepath.Join(home, "go"), "GOCACHE="+s.buildCache())
	defer func() { err = errors.Join(err, s.arm.close(), s.b.trash.put(home), s.b.trash.put(s.buildCache())) }()
	s.b.proxy.setLatency(s.latency)
	s.b.forgotten = true // the kernel may have made room since
	if err := s.b.warm(); err != nil {
		return err
	}
	if err := touchMemory(maxTouched); err != nil {
		return err
	}
	if s.modcache, err = s.arm.open(ctx, s.env); err != nil {
		return err
	}
	s.env = append(s.env, "GOMODCACHE="+s.modcache)
	for _, st := range s.steps {
		if err := s.take(ctx, st); err != nil {
			return fmt.Errorf("%s: %w", st.name, err)
		}
	}
	if s.b.verify && s.round == 1 {
		return s.verify(ctx)
	}
	return nil
}

func (s *session) buildCache() string { return filepath.Join(s.b.dir, "gocache") }

func (s *session) emptyBuildCache() error {
	return errors.Join(s.b.trash.put(s.buildCache()), os.MkdirAll(s.buildCache(), 0o777))
}

// take takes one step, and notes what it measured if that is wanted.
func (s *session) take(ctx context.Context, st step) error {
	if st.name != "warm-dropped" && st.name != "read" {
		if err := s.b.warm(); err != nil {
			return err
		}
	}
	s.requests, s.daemon = nil, nil
	r, err := st.run(ctx, s)
	if reason, ok := errors.AsType[*errNotMeasured](err); ok {
		s.b.notMeasured[st.name] = reason.reason
		return nil
	}
	if err != nil {
		return err
	}
	where := fmt.Sprintf("round %d, %s", s.round, s.arm.name())
	if err := s.b.same(st.name, output{where, r.output}); err != nil {
		return err
	}
	if !s.wanted[st.name] {
		s.b.say("round %d/%d  %-5s  %-14s  (to fill it)", s.round, s.b.rounds, s.arm.name(), st.name)
		return nil
	}
	smp := sample{
		Measurement: st.name, Arm: s.arm.name(), Round: s.round,
		Unit: r.unit, Value: r.value, Files: r.files, GoCPU: r.goCPU.Seconds(),
	}
	if s.requests != nil {
		if err := s.account(&smp); err != nil {
			return err
		}
	}
	s.b.samples = append(s.b.samples, smp)
	s.b.say("round %d/%d  %-5s  %-14s  %s", s.round, s.b.rounds, smp.Arm, smp.Measurement, format(smp.Value, smp.Unit))
	return nil
}

// start notes the state before the clock starts. Until then, all that was written is on disk.
func (s *session) start(ctx context.Context) (err error) {
	syncDisks()
	s.requests = s.b.proxy.snapshot()
	if s.daemon, err = s.arm.daemon(); err != nil {
		return err
	}
	return ctx.Err()
}

// account completes a sample with what was used since start.
func (s *session) account(smp *sample) error {
	smp.Requests = delta(s.requests, s.b.proxy.snapshot())
	now, err := s.arm.daemon()
	if err != nil || now == nil {
		return err
	}
	smp.Daemon = &daemonSample{
		CPU: (now.cpu - s.daemon.cpu).Seconds(), PeakRSS: now.peak, Counters: delta(s.daemon.counters, now.counters),
	}
	return nil
}

// runWorkload measures the go command.
func (s *session) runWorkload(ctx context.Context) (result, error) {
	args := append([]string{"list", "-deps"}, s.work.patterns...)
	bin := filepath.Join(s.b.dir, "program")
	isBuild := s.work.name == middle.name
	if isBuild {
		args = append([]string{"build", "-o", bin}, s.work.patterns...)
	}
	if err := s.start(ctx); err != nil {
		return result{}, err
	}
	run, err := runGo(ctx, filepath.Join(s.b.dir, s.work.name), s.env, args...)
	if err != nil {
		return result{}, err
	}
	if isBuild {
		if run.out, err = os.ReadFile(bin); err != nil {
			return result{}, err
		}
	}
	return result{
		value: run.wall.Seconds(), unit: seconds, goCPU: run.cpu,
		output: fmt.Sprintf("%d bytes, SHA-256 %x", len(run.out), sha256.Sum256(run.out)),
	}, nil
}

// verify compares all that the go command knows of the packages: both arms are at the same path, so it is the same text.
func (s *session) verify(ctx context.Context) error {
	args := append([]string{"list", "-deps", "-json"}, s.work.patterns...)
	run, err := runGo(ctx, filepath.Join(s.b.dir, s.work.name), s.env, args...)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	text := strings.ReplaceAll(string(run.out), s.modcache, "$GOMODCACHE")
	return s.b.same("go list -json of workload "+s.work.name, output{s.arm.name(), text})
}

// same notes what a measurement yielded, and with -verify fails if it yielded something else before.
func (b *bench) same(measurement string, o output) error {
	first, ok := b.outputs[measurement]
	if !ok {
		b.outputs[measurement] = o
		return nil
	}
	if !b.verify || first.text == o.text {
		return nil
	}
	for i, line := range strings.Split(o.text, "\n") {
		if lines := strings.Split(first.text, "\n"); i >= len(lines) || lines[i] != line {
			was := strings.Join(lines[min(i, len(lines)):min(i+1, len(lines))], "")
			return fmt.Errorf("%s: not the same: %s has %q, %s has %q", measurement, first.where, was, o.where, line)
		}
	}
	return fmt.Errorf("%s: not the same: %s has more than %s", measurement, first.where, o.where)
}

// maxTouched is how much memory is taken and given back before a session, in bytes: somewhat more than a directory that is filled
// takes of the page cache. A virtual machine's host takes back what the kernel in it does not use, and whoever uses that first, a
// file system more often than not, then waits for each page of it, three times as long as otherwise.
const maxTouched = 3 << 30

// dropCaches makes the kernel forget all files.
func (b *bench) dropCaches() error {
	b.forgotten = true
	syncDisks()
	return dropCaches()
}

// warm reads what the proxy serves, and the Go distribution, if the kernel may have forgotten them.
func (b *bench) warm() error {
	if !b.forgotten {
		return nil
	}
	if err := b.proxy.warm(); err != nil {
		return err
	}
	for _, name := range []string{"bin", "src", "pkg/tool"} {
		dir, err := filepath.EvalSymlinks(filepath.Join(b.goroot, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // distributions differ
		}
		if err != nil {
			return err
		}
		if _, err := readTree(dir); err != nil {
			return err
		}
	}
	b.forgotten = false
	return nil
}
