package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const (
	exitError = 1
	exitUsage = 2

	// A command that cannot be run, as with env(1).
	exitNotRun   = 126
	exitNotFound = 127
)

// exitStatus is an error that has been reported already, or needs no report: it is only the status to exit with.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a mistake in what the user typed.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef returns a usageError.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// execute runs modfs with args, which exclude the program's name, and returns its exit status.
func execute(args []string, stdout, stderr io.Writer) int {
	root, started := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	// What fails before a command starts is how it was called: flags, arguments, its very name.
	if _, ok := errors.AsType[usageError](err); ok || !*started {
		fmt.Fprintf(stderr, "modfs: %s (see '%s')\n", oneLine(err), strings.Replace(cmd.CommandPath(), "modfs", "modfs help", 1))
		return exitUsage
	}
	fmt.Fprintf(stderr, "modfs: %s\n", oneLine(explain(err)))
	return exitError
}

// Annotations of commands, for their man pages.
const (
	manNameKey = "man-name" // what the page is called, if that is not the command's path
	exitKey    = "exit"     // what the exit status says, if that is more than whether something went wrong
)

//go:generate go test -count=1 -run ^TestManPages$ . -update

// newRoot returns the command with all its subcommands. *started becomes true when flags and arguments were accepted.
func newRoot() (root *cobra.Command, started *bool) {
	started = new(bool)
	root = &cobra.Command{
		Use:   "modfs",
		Short: "A lazy, verified, bounded Go module cache, as a file system",
		Long: `modfs mounts a file system that looks like a complete Go module cache and holds
next to nothing: a module is fetched from your GOPROXY when something in it is
first opened, checked against the checksum database before any of it can be
read, and dropped again when the store is over its limit.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}, // newCompletion
		PersistentPreRun:  func(*cobra.Command, []string) { *started = true },
	}
	cobra.EnableCommandSorting = false
	root.AddCommand(
		newMount(), newRun(), newUnmount(), newClean(),
		newStatus(), newWhy(), newTrace(), newDoctor(),
		newList(), newPrefetch(), newEvict(), newPin(), newUnpin(), newGC(),
		newVerify(), newExport(), newImport(), newBundle(),
		newCompletion(), newVersion(),
	)
	for _, cmd := range append(root.Commands(), root) {
		cmd.DisableFlagsInUseLine = true // Use says it better
	}
	addCompletions(root)
	return root, started
}

// oneLine returns err's text without line breaks: scripts and logs get one line for one error.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}
