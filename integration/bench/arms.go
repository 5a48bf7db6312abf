package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/sys/mountinfo"
)

// An arm is one of the two kinds of module cache that are compared. It is used in turns: open, close, and again.
type arm interface {
	name() string
	// open makes an empty module cache and returns its path. env is that of the go command that will use it.
	open(ctx context.Context, env []string) (modcache string, err error)
	// daemon says what its daemon has done and used since open. It is nil without a daemon.
	daemon() (*daemonState, error)
	// disk returns the bytes on disk that it takes.
	disk() (int64, error)
	// close puts all that open made, and what was put there, into the trash. It may be called again, and after a failed open.
	close() error
}

// daemonState is what is known of a daemon.
type daemonState struct {
	cpu      time.Duration
	peak     int64 // resident memory in bytes; 0: unknown
	counters map[string]int64
}

// plain is a directory.
type plain struct {
	dir   string
	trash *trash
}

func (p *plain) name() string { return "plain" }

func (p *plain) open(context.Context, []string) (string, error) {
	return p.dir, os.Mkdir(p.dir, 0o777)
}

func (p *plain) daemon() (*daemonState, error) { return nil, nil }

func (p *plain) disk() (int64, error) { return diskUsage(p.dir) }

func (p *plain) close() error { return p.trash.put(p.dir) }

// mounted is a mount of modfs, at the same path.
type mounted struct {
	bin, dir, store string
	flags           []string // of modfs mount
	trash           *trash

	pid int // of the daemon; 0: unknown
}

func (m *mounted) name() string { return "modfs" }

func (m *mounted) open(ctx context.Context, env []string) (string, error) {
	args := append([]string{"mount", "--background", "--store", m.store}, m.flags...)
	// In the root directory no go.mod file has a say in what go env tells modfs.
	// Not to be interrupted halfway, when nobody can tell what is left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if _, err := runCommand(ctx, "/", env, m.bin, append(args, m.dir)...); err != nil {
		return "", err
	}
	s, err := m.status()
	if err != nil {
		return "", err
	}
	m.pid = s.PID
	return s.ModCache, nil
}

func (m *mounted) daemon() (*daemonState, error) {
	s, err := m.status()
	if err != nil {
		return nil, err
	}
	counters, err := flatten(s.Counters)
	if err != nil {
		return nil, fmt.Errorf("%s: counters: %w", m.dir, err)
	}
	d := &daemonState{counters: counters}
	d.cpu, d.peak, err = processUsage(s.PID)
	return d, err
}

func (m *mounted) disk() (int64, error) { return diskUsage(m.store) }

// patience is how long modfs may take to mount or unmount.
const patience = 30 * time.Second

// close unmounts whatever happens: first as one should, then also if the mount is in use, and at last without its daemon.
// It does not end with the context of the benchmark, which may be what is being cleaned up after.
func (m *mounted) close() error {
	var err error
	if isMounted(m.dir) {
		err = m.unmount()
	}
	if isMounted(m.dir) {
		err = errors.Join(err, m.unmount("--lazy"))
	}
	if isMounted(m.dir) {
		if p, perr := os.FindProcess(m.pid); perr == nil && m.pid > 0 {
			p.Kill() // best effort
		}
		err = errors.Join(err, m.unmount())
	}
	if isMounted(m.dir) {
		return fmt.Errorf("%s cannot be unmounted: %w", m.dir, err)
	}
	m.pid = 0
	return errors.Join(err, m.trash.put(m.dir), m.trash.put(m.store))
}

func (m *mounted) unmount(flags ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := runCommand(ctx, "/", os.Environ(), m.bin, append(append([]string{"unmount"}, flags...), m.dir)...)
	return err
}

// status is what we need of .modfs/status.json.
type status struct {
	PID      int             `json:"pid"`
	ModCache string          `json:"modcache"`
	Counters json.RawMessage `json:"counters"`
}

func (m *mounted) status() (*status, error) {
	data, err := os.ReadFile(filepath.Join(m.dir, ".modfs", "status.json"))
	if err != nil {
		return nil, err
	}
	s := new(status)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%s: status.json: %w", m.dir, err)
	}
	if s.ModCache == "" {
		s.ModCache = m.dir
	}
	return s, nil
}

// isMounted reports whether something is mounted at dir. It does not touch what is.
func isMounted(dir string) bool {
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	return err == nil && len(found) > 0
}

// flatten returns the numbers in a JSON object by their names; those of an object in it are called OUTER.INNER. What is
// not a number is left out, and what is not an integer rounded down: this must not depend on what modfs counts.
func flatten(data json.RawMessage) (map[string]int64, error) {
	var object map[string]any
	if len(data) > 0 {
		if err := json.Unmarshal(data, &object); err != nil {
			return nil, err
		}
	}
	flat := make(map[string]int64)
	var add func(prefix string, object map[string]any)
	add = func(prefix string, object map[string]any) {
		for name, v := range object {
			switch v := v.(type) {
			case float64:
				flat[prefix+name] = int64(v)
			case map[string]any:
				add(prefix+name+".", v)
			}
		}
	}
	add("", object)
	return flat, nil
}
