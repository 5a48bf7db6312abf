package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

// interruptBy returns a context of interruptible that these signals have ended, in this order.
func interruptBy(t *testing.T, sigs ...syscall.Signal) context.Context {
	t.Helper()
	cmd := new(cobra.Command)
	cmd.SetContext(t.Context())
	ctx, stop := interruptible(cmd)
	t.Cleanup(stop)
	for _, sig := range sigs {
		if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	<-ctx.Done()
	return ctx
}

// TestInterrupted checks that the exit status names the signal, and that what fails because of it is a cancellation.
func TestInterrupted(t *testing.T) {
	for sig, want := range map[syscall.Signal]exitStatus{syscall.SIGHUP: 129, syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		ctx := interruptBy(t, sig)
		if got := interrupted(ctx); got != want {
			t.Errorf("%v: %v, want %v", sig, got, want)
		}
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: the cause %q is no cancellation", sig, err)
		}
		var say bytes.Buffer
		m := &moves{say: &say, done: "moved"}
		if got := m.end(ctx, context.Cause(ctx)); got != want || !strings.HasPrefix(say.String(), "modfs: interrupted: 0 modules moved, ") {
			t.Errorf("%v: %v, want %v; %q", sig, got, want, &say)
		}
	}
}

// TestInterruptedNot checks that the end of a command is no interruption.
func TestInterruptedNot(t *testing.T) {
	cmd := new(cobra.Command)
	cmd.SetContext(t.Context())
	ctx, stop := interruptible(cmd)
	stop()
	if err := interrupted(ctx); err != nil || ctx.Err() == nil {
		t.Errorf("after stop: %v, %v", err, ctx.Err())
	}
}

// TestInterruptibleIgnored checks that what was ignored stays so, as nohup wants it.
func TestInterruptibleIgnored(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	t.Cleanup(func() { // Reset would have Ignored say so still
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGHUP)
		signal.Stop(c)
	})
	if got := interrupted(interruptBy(t, syscall.SIGHUP, syscall.SIGTERM)); got != exitStatus(143) {
		t.Errorf("%v, want that of SIGTERM", got)
	}
}
