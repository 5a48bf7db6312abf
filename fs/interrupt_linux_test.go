package fs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
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

// openOnce says what open(2) of a file returns, called by the process's first thread. Package os would try again after EINTR.
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

// TestInterrupt stops clients that wait for a proxy which does not answer. The signal is for the thread that waits: of one for the
// process, any thread may be the first to have it, such as one that go's runtime has just started; then it is handled, and the
// other one waits on.
func TestInterrupt(t *testing.T) {
	for _, tt := range []struct {
		sig  syscall.Signal
		want string // of the child
	}{{unix.SIGINT, "EINTR"}, {unix.SIGKILL, ""}} {
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
			if err := unix.Tgkill(cmd.Process.Pid, cmd.Process.Pid, tt.sig); err != nil {
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
