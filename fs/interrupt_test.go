package fs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestInterruptPush stops a go command that lists a directory of a module whose archive was evicted: what it is about to read is
// fetched for it before it is told that the listing is at its end.
func TestInterruptPush(t *testing.T) {
	ls, err := exec.LookPath("ls")
	if err != nil {
		t.Skip("no command ls")
	}
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			m := source()
			s := proxytest.New(t, m)
			dir, f := mountTest(t, s, nil)
			readFile(t, in(dir, m.String()+"/go.mod"))
			shut(t, f)
			if err := os.Remove(filepath.Join(f.store.Dir(), zipKey(version(m)))); err != nil {
				t.Fatal(err)
			}
			dir, _ = mountTest(t, s, sameStore(f))
			s.SetFault(func(string) string { return "stallbody" })
			cmd := &exec.Cmd{Path: ls, Args: []string{"go", in(dir, m.String()+"/p")}}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			defer s.Release() // so that it ends if the test fails
			eventually(t, "the proxy to be asked", func() bool { return s.Stalled() == 1 })
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case <-done:
			case <-time.After(15 * time.Second):
				t.Fatal("it does not end")
			}
			if n := s.Stalled(); n != 1 {
				t.Errorf("%d requests are stalled", n)
			}
			s.SetFault(nil)
			s.Release()
			wantTree(t, s, dir, m)
			if n := s.Count(".zip"); n != 2 {
				t.Errorf("the zip was fetched %d times, want 2", n)
			}
		})
	}
}

// TestCloseWhileWaiting ends the mount under a client that waits.
func TestCloseWhileWaiting(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	s.SetFault(func(string) string { return "stall" })
	done := make(chan error)
	go func() {
		_, err := os.Stat(in(dir, "example.com/a@v1.0.0"))
		done <- err
	}()
	eventually(t, "the proxy to be asked", func() bool { return s.Stalled() == 1 })
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("stat: no error")
	}
	f.Wait()
}
