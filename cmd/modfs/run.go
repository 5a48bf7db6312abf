package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
)

// commandExit says what the exit status of run and trace is.
const commandExit = "That of COMMAND: 128+N if signal N killed it, 127 if it was not found, 126 if it could not be started.\n1 if something else went wrong; 2 if the command line is wrong."

func newRun() *cobra.Command {
	var (
		f        serveFlags
		patience ageValue
	)
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command with GOMODCACHE mounted",
		Long: `Run mounts the module cache at a directory of its own, runs COMMAND with
GOMODCACHE set to that, unmounts, and exits with COMMAND's status: 128+N if
signal N killed it, 126 or 127 if it could not be started. The directory is the
same each time, so that the build cache works. Runs with the same store share
one mount; where 'modfs mount' serves the store already, run uses that.
If COMMAND fails, errors of the mount meanwhile are printed after its output.`,
		Annotations: map[string]string{exitKey: commandExit},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "" {
				return usagef("no command given: modfs run [flags] -- COMMAND")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, &f, time.Duration(patience), args, nil) },
	}
	cmd.Flags().SetInterspersed(false) // COMMAND's flags are its own
	f.register(cmd.Flags(), "warn", "gopath")
	watchdogFlag(cmd.Flags(), &patience)
	return cmd
}

// run is `modfs run` and, with t, `modfs trace`. Its error is the exit status where the command ran.
func run(cmd *cobra.Command, f *serveFlags, patience time.Duration, args []string, t *tracing) error {
	stderr := cmd.ErrOrStderr()
	path, err := lookCommand(cmd.Name(), args[0])
	if err != nil {
		return err
	}
	o, err := f.options(cmd.Context(), cmd.Flags(), stderr)
	if err != nil {
		return err
	}
	var failures eventLog
	o.OnError = failures.add
	signals := catchSignals(forwarded)
	web, err := f.openWeb(&o)
	if err != nil {
		return err
	}
	defer web.Close()
	s, err := openSession(o, signals, stderr)
	if errors.Is(err, modfs.ErrNotPermitted) && !inNamespace() {
		web.Close() // the address is the other process's
		code, nerr := runInNamespace(signals)
		if nerr == nil {
			t.handOn()
			return exitStatus(code)
		}
		return fmt.Errorf("%w; and a user namespace cannot be had: %v", err, nerr)
	}
	if err != nil {
		return explainMount(err, o.Store.Dir)
	}
	if s.fs != nil {
		startWeb(web, s.fs, &o, stderr)
	} else if web != nil {
		fmt.Fprintln(stderr, "modfs: --listen has no effect: another process serves this store already")
		web.Close()
	}
	defer s.watch(patience, stderr)()
	if err := t.begin(s); err != nil {
		s.leave(signals, stderr, false) // best effort: the error is why nothing ran
		return err
	}
	started := time.Now()
	code := runCommand(path, args, s.modcache, t.environ(), signals)
	t.end()
	s.leaving.Store(true)
	if s.hung.Load() {
		s.abandon()
		return exitStatus(max(code, exitError))
	}
	if code != 0 {
		if s.fs == nil {
			failures.read(s.mountpoint, started)
		}
		failures.print(stderr)
	}
	terr := t.report(stderr, args, code)
	if lerr := s.leave(signals, stderr, f.logs(slog.LevelInfo)); lerr != nil {
		fmt.Fprintf(stderr, "modfs: %s\n", oneLine(lerr)) // what the command did is done: its status counts
	}
	if code != 0 {
		if terr != nil {
			fmt.Fprintf(stderr, "modfs: %s\n", oneLine(terr))
		}
		return exitStatus(code)
	}
	return terr
}

// lookCommand finds the program that name stands for, before anything is mounted, for the command of modfs that is to run it.
func lookCommand(verb, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	fmt.Fprintf(os.Stderr, "modfs: %s: %s: %s\n", verb, name, oneLine(startError(err)))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", exitStatus(exitNotFound)
	}
	return "", exitStatus(exitNotRun)
}

// startError returns why a command did not start, without its name.
func startError(err error) error {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return e.Err
	}
	return errno(err)
}

// runCommand runs a command with GOMODCACHE and what is in env set, and returns the exit status for it.
func runCommand(path string, args []string, gomodcache string, env []string, signals *signals) int {
	cmd := exec.Command(path)
	cmd.Args = args
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "GOMODCACHE=") || strings.HasPrefix(kv, namespaceEnv+"=")
	}), "GOMODCACHE="+gomodcache)
	cmd.Env = append(cmd.Env, env...)
	// As files, not through pipes of ours: the command sees the terminal if there is one.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := startUnprivileged(cmd); err != nil {
		fmt.Fprintf(os.Stderr, "modfs: run: %s: %s\n", args[0], oneLine(startError(err)))
		return exitNotRun
	}
	return signals.waitFor(cmd)
}
