package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"modfs/cmd/modfs/internal/doctor"
	modfs "modfs/fs"
	"modfs/fs/control"
)

// maxFailed is the largest exit status of doctor: above are those that shells give a meaning.
const maxFailed = 100

func newDoctor() *cobra.Command {
	var (
		f           = new(serveFlags)
		fix, asJSON bool
		bundle      string
	)
	cmd := &cobra.Command{
		Use:   "doctor [flags] [MOUNTPOINT]",
		Short: "Look for what is wrong, and say what to do about it",
		Long:  doctorText(),
		Args:  cobra.MaximumNArgs(1),
		Annotations: map[string]string{
			exitKey: "How many findings say FAIL, at most 100; 0 if none. What is wrong with the command line is 2 as well, with a message.",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := newSystem(cmd, f, args)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			found, err := examine(cmd.Context(), out, s, fix, asJSON)
			if err != nil {
				return err
			}
			if bundle != "" {
				if asJSON {
					out = cmd.ErrOrStderr()
				}
				if err := writeReport(cmd.Context(), bundle, s, found, out); err != nil {
					return err
				}
			}
			return failures(found)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.BoolVar(&fix, "fix", false, "remove the mounts of dead daemons, and end those of daemons that hang")
	fs.StringVar(&bundle, "bundle", "", "write a `file` for a bug report (.tar.gz): findings, versions, settings, status, log, stacks of the daemon; without credentials")
	fs.BoolVar(&asJSON, "json", false, "print JSON, one object for each finding")
	fs.StringVar(&f.store, "store", "", "look at the store in `dir`, if none is mounted (default: modfs in your cache directory)")
	fs.BoolVar(&f.offline, "offline", false, "ask no proxy")
	f.registerFetch(fs)
	return cmd
}

// doctorText returns the description of the command, with all checks.
func doctorText() string {
	var b strings.Builder
	b.WriteString(`Doctor makes the checks below and prints what it found: ok, note, warn or FAIL, and
what to do about it. It changes nothing without --fix, and waits for nothing long.
The exit status is how many findings say FAIL.

`)
	for _, c := range doctor.Checks {
		fmt.Fprintf(&b, "  %-12s %s\n", c.Name, c.What)
	}
	return strings.TrimSpace(b.String())
}

// newSystem returns this machine, as its user sees it.
func newSystem(cmd *cobra.Command, f *serveFlags, args []string) (*doctor.System, error) {
	s := &doctor.System{
		UID: os.Geteuid(), Version: version(), MaxSize: defaultMaxSize, MinFree: func(total int64) int64 { return total / 100 * defaultMinFree },
		Mounts: modfs.Mounts, Probe: probe, Force: unmountByForce,
		Control: func(mountpoint string) (string, error) {
			c, err := control.Dial(cmd.Context(), mountpoint)
			if err != nil {
				return "", err
			}
			defer c.Close()
			return c.Version, nil
		},
		Owned:   func(m modfs.Found) bool { return owned(&m) },
		Unmount: func(mountpoint string) error { return modfs.Unmount(mountpoint, true) },
		Open: func(name string) error {
			dev, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return dev.Close()
		},
		Namespace: tryNamespace, LookPath: exec.LookPath, Statfs: doctor.Stat,
		Options: func(options string) error { _, err := parseMountOptions([]string{options}, false); return err },
	}
	var err error
	if len(args) == 1 {
		if args[0] == "" {
			return nil, usagef("the mountpoint is empty")
		}
		if s.Mountpoint, err = mountpointPath(args[0]); err != nil {
			return nil, err
		}
	}
	s.Store, _ = f.storePath() // without one, a check fails
	s.GoEnv, s.GoEnvErr = doctor.GoEnv(cmd.Context(), "GOMODCACHE", "GOFLAGS", "GOVERSION", "GO111MODULE", "GOSUMDB")
	ctx, cancel := context.WithTimeout(cmd.Context(), probePatience)
	defer cancel()
	s.Fetch, s.FetchErr = f.fetchConfig(ctx, cmd.Flags())
	return s, nil
}

// examine makes all checks and prints what they find.
func examine(ctx context.Context, w io.Writer, s *doctor.System, fix, asJSON bool) (all []doctor.Finding, err error) {
	paint := painter(w)
	for _, c := range doctor.Checks {
		for _, f := range c.Examine(ctx, s) {
			if fix {
				f.Repair()
			}
			all = append(all, f)
			if asJSON {
				err = json.NewEncoder(w).Encode(f)
			} else {
				err = printFinding(w, paint, f)
			}
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// failures returns the exit status that says how much is wrong; nil: nothing.
func failures(found []doctor.Finding) error {
	n := 0
	for _, f := range found {
		if f.Level == doctor.Fail {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return exitStatus(min(n, maxFailed))
}

// printFinding prints a line for a finding, and one for what to do about it.
func printFinding(w io.Writer, paint func(doctor.Level, string) string, f doctor.Finding) error {
	word := string(f.Level)
	if f.Level == doctor.Fail {
		word = "FAIL"
	}
	_, err := fmt.Fprintf(w, "%s %-12s %s\n", paint(f.Level, fmt.Sprintf("%-5s", word)), f.Check, f.Text)
	if err == nil && f.Fix != "" {
		_, err = fmt.Fprintf(w, "      %s\n", f.Fix)
	}
	return err
}

// painter returns what colours the word for a level, on a terminal whose user has nothing against that (https://no-color.org).
func painter(w io.Writer) func(doctor.Level, string) string {
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		colours := map[doctor.Level]string{doctor.OK: "32", doctor.Fixed: "32", doctor.Note: "36", doctor.Warn: "33", doctor.Fail: "31"}
		return func(l doctor.Level, word string) string { return "\x1b[" + colours[l] + "m" + word + "\x1b[0m" }
	}
	return func(_ doctor.Level, word string) string { return word }
}
