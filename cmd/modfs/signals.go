package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// signals are what this process was sent. From catchSignals on they do not end it: it has a mount to undo.
type signals struct{ c chan os.Signal }

// endings are the signals that ask a process to end.
var endings = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM}

// forwarded are the signals that are passed on to a command.
var forwarded = append(endings[:len(endings):len(endings)], syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)

func catchSignals(which []os.Signal) *signals {
	s := &signals{make(chan os.Signal, 16)}
	for _, sig := range which {
		// What is ignored stays so, for us and for a command that inherits it (nohup, a shell's background job).
		if !signal.Ignored(sig) {
			signal.Notify(s.c, sig)
		}
	}
	return s
}

// interruption is the cause of a context's end if that is a signal. Whoever looks for context.Canceled finds it.
type interruption struct{ os.Signal }

func (i interruption) Error() string { return i.String() + " signal received" }
func (interruption) Unwrap() error   { return context.Canceled }

// interruptible returns a context that ends when the user wants that. A second signal ends the process: it may be waiting for
// standard input.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	s := catchSignals(endings)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case sig := <-s.c:
			signal.Stop(s.c) // before the first one has any effect
			cancel(interruption{sig})
		case <-ctx.Done():
			signal.Stop(s.c)
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
	}
}

// interrupted returns the exit status of a command whose context a signal has ended, nil if none has.
func interrupted(ctx context.Context) error {
	if i, ok := errors.AsType[interruption](context.Cause(ctx)); ok {
		return statusOfSignal(i.Signal)
	}
	return nil
}

// statusOfSignal returns the exit status of what ended because of a signal, as in POSIX shells.
func statusOfSignal(sig os.Signal) exitStatus { return exitStatus(128 + int(sig.(syscall.Signal))) }

// waitFor waits for a command that was started and returns its exit status as a shell would. Meanwhile it passes on the
// signals that the command does not get anyway: it is in our process group.
func (s *signals) waitFor(cmd *exec.Cmd) int {
	ended := make(chan struct{})
	go func() {
		cmd.Wait() // the status is in cmd.ProcessState; there is no copying that could fail
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return statusOf(cmd.ProcessState)
		case sig := <-s.c:
			if !fromTerminal(sig) {
				cmd.Process.Signal(sig) // best effort: it may have ended just now
			}
		}
	}
}

// statusOf returns the exit status of a process; 128+N if signal N killed it, as in POSIX shells.
func statusOf(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

// fromTerminal reports whether sig is one that the terminal sends to our whole process group. Passing it on, too, would make
// two of it, and the second Ctrl-C means more than the first to many programs.
func fromTerminal(sig os.Signal) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGQUIT {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false // no terminal
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == syscall.Getpgrp()
}
