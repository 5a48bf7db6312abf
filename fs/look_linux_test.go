package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestLookHere has clients whose environment leads the daemon to the very name that it is asked for: the kernel lets it wait for its own
// answer. This one comes all the same.
func TestLookHere(t *testing.T) {
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("no command cat")
	}
	for _, variable := range []string{"GOENV", "HOME"} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			dir, _ := mountTest(t, proxytest.New(t), func(o *Options) { o.NoPrefetch = false })
			name := in(dir, "example.com/a@v1.0.0/go.mod")
			value := name
			if variable == "HOME" {
				value = t.TempDir()
				if err := os.MkdirAll(filepath.Join(value, ".config/go"), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(name, filepath.Join(value, ".config/go/env")); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(cat, name)
			cmd.Env = []string{variable + "=" + value}
			var out strings.Builder
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case err := <-done:
				if err != nil || !strings.HasPrefix(out.String(), "module example.com/a") {
					t.Errorf("%q, %v", out.String(), err)
				}
			case <-time.After(30 * time.Second):
				cmd.Process.Kill()
				t.Fatal("no answer")
			}
		})
	}
}

// TestLookPatience fills all places with what does not end: nobody waits for that, and what ends makes room.
func TestLookPatience(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	hang := make(chan struct{})
	for range maxLooks {
		go look(f, func() int { <-hang; return 0 })
	}
	eventually(t, "all places are taken", func() bool { return len(f.looks) == maxLooks })
	if _, ok := look(f, func() int { return 1 }); ok {
		t.Error("there is no place, and it was looked all the same")
	}
	if c := f.callerOf(uint32(os.Getpid())); !c.opaque || len(c.sums().zips) > 0 {
		t.Errorf("%+v", c)
	}
	close(hang)
	eventually(t, "there are places again", func() bool { return len(f.looks) == 0 })
	if n, ok := look(f, func() int { return 1 }); !ok || n != 1 {
		t.Error(n, ok)
	}
	if n, ok := look(f, func() int { panic("looked") }); ok || n != 0 || f.stats.panics.Load() != 1 || len(f.looks) > 0 {
		t.Error(n, ok)
	}
}

// TestWorkspaceSums has workspaces whose go.sum files list more than is remembered.
func TestWorkspaceSums(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	lines := func(name string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s.example/m v1.0.%d h1:%s=\n", name, i, strings.Repeat("a", 43))
		}
		return b.String()
	}
	const each = 20_000
	for _, test := range []struct {
		name string
		one  bool // all are the same file
		want int
	}{{"one file", true, each}, {"many files", false, maxWorkSums / each * each}} {
		space := t.TempDir()
		var uses strings.Builder
		for i := range 5 {
			dir := fmt.Sprintf("u%d", i)
			fmt.Fprintf(&uses, "use ./%s\n", dir)
			name := filepath.Join(space, dir, "go.sum")
			if err := os.Mkdir(filepath.Dir(name), 0o777); err != nil {
				t.Fatal(err)
			}
			var err error
			if test.one && i > 0 {
				err = os.Symlink(filepath.Join(space, "u0", "go.sum"), name)
			} else {
				err = os.WriteFile(name, []byte(lines(dir, each)), 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		work := filepath.Join(space, "go.work")
		if err := os.WriteFile(work, []byte("go 1.21\n"+uses.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		if got := f.sumsOf(process(os.Getpid()), work); len(got.zips) != test.want || cap(got.zips) > 2*test.want {
			t.Errorf("%s: %d of %d, want %d", test.name, len(got.zips), cap(got.zips), test.want)
		}
	}
}
