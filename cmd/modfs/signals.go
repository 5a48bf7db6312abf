package main

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"

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
