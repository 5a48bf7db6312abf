package fs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

func init() {
	if os.Getenv(childEnv) == "open" {
		openOnce(os.Args[1])
		os.Exit(0)
	}
}

// openOnce says what open(2) of a file returns. Package os would try again after EINTR. The signal is for this thread, the
// process's first, as long as it does not block it.
func openOnce(name string) {
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	var no syscall.Errno
	errors.As(err, &no)
	fmt.Print(unix.ErrnoName(no))
}

// TestInterrupt stops clients that wait for a proxy which does not answer.
func TestInterrupt(t *testing.T) {
	for _, tt := range []struct {
		sig  os.Signal
		want string // of the child
	}{{os.Interrupt, "EINTR"}, {os.Kill, ""}} {
		t.Run(tt.sig.String(), func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t)
			dir, f := mountTest(t, s, nil)
			s.SetFault(func(path string) string {
				if strings.HasSuffix(path, ".zip") {
					return "stallbody"
				}
				return ""
			})
			cmd := reexec(t, in(dir, "example.com/a@v1.0.0/a.go"))
			cmd.Env = append(cmd.Env, childEnv+"=open")
			var out strings.Builder
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			defer s.Release() // so that the child ends if the test fails
			eventually(t, "the proxy to be asked", func() bool { return s.Stalled() == 1 })
			if err := cmd.Process.Signal(tt.sig); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				var exit *exec.ExitError
				if tt.want != "" && err != nil || tt.want == "" && !errors.As(err, &exit) || out.String() != tt.want {
					t.Errorf("the child said %q, %v, want %q", out.String(), err, tt.want)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("the child does not end")
			}

			// The work goes on without it.
			if n := s.Stalled(); n != 1 {
				t.Fatalf("%d requests are stalled", n)
			}
			s.Release()
			want := module1(t, "example.com/a@v1.0.0").Files["a.go"]
			if got := readFile(t, in(dir, "example.com/a@v1.0.0/a.go")); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if n := s.Count(getZip); n != 1 {
				t.Errorf("the zip was fetched %d times", n)
			}
			if n := f.errors.count(); n != 0 {
				t.Errorf("%d errors: %s", n, f.errors.lines())
			}
		})
	}
}

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
