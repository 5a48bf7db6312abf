package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A group is a number of steps that one module cache goes through. The first one fills it, and is therefore always taken.
type group struct {
	work    workload
	latency time.Duration // of the proxy; 0: none
	sumDB   bool          // the checksum database is asked, as by default
	steps   []step
}

// A step is one measurement.
type step struct {
	name string
	run  func(context.Context, *session) (result, error)
}

// A result is what a step measured. Its zero value is for what is not known of it.
type result struct {
	value  float64
	unit   unit
	files  int64
	goCPU  time.Duration
	output string // the same for both arms, if all is right
}

// groups returns all measurements, in the order in which they are taken:
//
//	cold             go list -deps of a large program, with an empty module cache and an empty build cache
//	disk             what the module cache takes on disk after that: the directory, or the store of modfs
//	warm-coldbuild   the same command when the module cache has it all, with an empty build cache
//	warm-dropped     that, when the kernel has forgotten all files (Linux, root)
//	warm-warm        with the build cache, too
//	walk             list all files of all modules with find -ls, after having done so twice
//	read             read each file of a large module when the kernel has forgotten all (Linux, root)
//	cold-40ms        cold, with a proxy that takes so long for each request
//	cold-sumdb       cold, with a checksum database. The go command does not ask it for what a go.sum has; modfs always does
//	build-cold       go build of a program of middle size, with an empty module cache and an empty build cache
//	build-warm       the same when the module cache has it all, with an empty build cache
func groups(latency time.Duration) []group {
	return []group{
		{work: large, steps: []step{
			{"cold", coldBuild},
			{"disk", disk},
			{"warm-coldbuild", coldBuild},
			{"warm-dropped", dropped},
			{"warm-warm", warmBuild},
			{"walk", walkAll},
			{"read", readOne},
		}},
		{work: large, latency: latency, steps: []step{{"cold-" + latency.String(), coldBuild}}},
		{work: large, sumDB: true, steps: []step{{"cold-sumdb", coldBuild}}},
		{work: middle, steps: []step{{"build-cold", coldBuild}, {"build-warm", coldBuild}}},
	}
}

// names returns the measurements of gs.
func names(gs []group) []string {
	var all []string
	for _, g := range gs {
		for _, s := range g.steps {
			all = append(all, s.name)
		}
	}
	return all
}

// A choice is a group and those of its steps that are wanted.
type choice struct {
	group
	wanted map[string]bool
}

// choose returns the groups with steps that only, a comma-separated list, names; all if it is empty.
func choose(gs []group, only string) ([]choice, error) {
	all := names(gs)
	list := all
	if only != "" {
		list = strings.Split(only, ",")
	}
	for i, name := range list {
		list[i] = strings.TrimSpace(name)
		if !slices.Contains(all, list[i]) {
			return nil, fmt.Errorf("no measurement %q: there are %s", list[i], strings.Join(all, ", "))
		}
	}
	var chosen []choice
	for _, g := range gs {
		c := choice{g, make(map[string]bool)}
		for i, s := range g.steps {
			wanted := slices.Contains(list, s.name)
			if wanted {
				c.wanted[s.name] = true
			}
			if !wanted && i > 0 {
				continue
			}
			if i == 0 {
				c.steps = nil // not the caller's
			}
			c.steps = append(c.steps, s)
		}
		if len(c.wanted) > 0 {
			chosen = append(chosen, c)
		}
	}
	return chosen, nil
}

// errNotMeasured is why something cannot be measured here, which is no failure.
type errNotMeasured struct{ reason string }

func (e *errNotMeasured) Error() string { return e.reason }

// coldBuild runs the go command with an empty build cache.
func coldBuild(ctx context.Context, s *session) (result, error) {
	if err := s.emptyBuildCache(); err != nil {
		return result{}, err
	}
	return s.runWorkload(ctx)
}

// warmBuild runs the go command with the build cache of the step before.
func warmBuild(ctx context.Context, s *session) (result, error) { return s.runWorkload(ctx) }

func dropped(ctx context.Context, s *session) (result, error) {
	if err := s.emptyBuildCache(); err != nil {
		return result{}, err
	}
	if err := s.b.dropCaches(); err != nil {
		return result{}, err
	}
	return s.runWorkload(ctx)
}

func disk(_ context.Context, s *session) (result, error) {
	syncDisks() // what is not written yet has no blocks
	n, err := s.arm.disk()
	return result{value: float64(n), unit: bytesOnDisk}, err
}

func walkAll(ctx context.Context, s *session) (result, error) {
	// Twice: the first time, the kernel finds out what has changed above the modules, and the second time it lists that anew.
	var files lineCounter
	for range 2 {
		files = 0
		if err := walk(s.modcache, &files); err != nil {
			return result{}, err
		}
	}
	r, err := s.visit(ctx, s.modcache, func(dir string) (tally, error) { return tally{files: int64(files)}, walk(dir, nil) })
	r.output = "" // a mount shows what was fetched ahead, too
	return r, err
}

func readOne(ctx context.Context, s *session) (result, error) {
	m, err := s.work.required(readModule)
	if err != nil {
		return result{}, err
	}
	if err := s.b.dropCaches(); err != nil {
		return result{}, err
	}
	return s.visit(ctx, filepath.Join(s.modcache, m.String()), readTree)
}

// visit measures f by the file. The output is what it found.
func (s *session) visit(ctx context.Context, dir string, f func(string) (tally, error)) (result, error) {
	if err := s.start(ctx); err != nil {
		return result{}, err
	}
	start := time.Now()
	t, err := f(dir)
	took := time.Since(start)
	if err == nil && t.files == 0 {
		err = errors.New("there are no files in " + dir)
	}
	if err != nil {
		return result{}, err
	}
	return result{
		value: took.Seconds() / float64(t.files), unit: secondsPerFile, files: t.files,
		output: fmt.Sprintf("%d files of %d bytes", t.files, t.bytes),
	}, nil
}
