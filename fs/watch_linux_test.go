package fs

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestProbe holds each lock in turn: as long as that lasts, Probe does not return.
func TestProbe(t *testing.T) {
	f := unmounted(t, proxytest.New(t), func(o *Options) { o.ReadOnly = false })
	f.modules.intern(moduleA)
	f.Probe()
	if n := len(f.locks()); n < 20 { // of them all, one of a module
		t.Errorf("only %d locks", n)
	}
	for i, l := range f.locks() {
		if l == f.overlay.names.RLocker() {
			l = &f.overlay.names // another that reads is no obstacle
		}
		done := make(chan struct{})
		l.Lock()
		go func() {
			defer close(done)
			f.Probe()
		}()
		select {
		case <-done:
			t.Errorf("lock %d is held, and Probe returns", i)
		case <-time.After(20 * time.Millisecond):
		}
		l.Unlock()
		<-done
	}
}

// TestAbort ends the connection of a mount whose daemon does not answer a request: who waits for that gets an error, and so does
// whoever comes later.
func TestAbort(t *testing.T) {
	s := proxytest.New(t)
	dir, _ := mountTest(t, s, nil)
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "stallbody"
		}
		return ""
	})
	defer s.Release() // so that the reader ends if the test fails
	read := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(in(dir, "example.com/a@v1.0.0/a.go"))
		read <- err
	}()
	eventually(t, "the proxy to be asked", func() bool { return s.Stalled() == 1 })
	if err := Abort(dir); errors.Is(err, ErrNotPermitted) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := soonDone(t, "who waits", func() error { return <-read }); !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("who waits gets %v", err)
	}
	// Where it takes an unmount by force to abort, that may have unmounted it: if the reader was fast enough to leave.
	if found, err := Find(dir); err != nil {
		t.Error(err)
	} else if found != nil {
		if _, err := os.Stat(in(dir, "never.example")); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("who comes later gets %v", err)
		}
		if err := Unmount(dir, true); err != nil {
			t.Error(err)
		}
	}
	if err := Abort(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("nothing is mounted, and it says %v", err)
	}
}
