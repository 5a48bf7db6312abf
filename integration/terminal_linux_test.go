package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// openTerminal returns both ends of a pseudo-terminal of 20 rows and 120 columns; see pty(7).
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 120})
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skipf("no terminals: %v", err)
	}
	return master, terminal
}

// TestPrefetchBars checks what a person sees: a bar for each download and one for all while they last, and in the end the failures
// and a summary.
func TestPrefetchBars(t *testing.T) {
	proxy := proxytest.New(t)
	var asked atomic.Int32
	proxy.SetFault(func(path string) string {
		// Not when its size is asked for, which is first.
		if strings.HasSuffix(path, "large/@v/v1.0.0.zip") && asked.Add(1) > 1 {
			return "stallbody"
		}
		return ""
	})
	master, terminal := openTerminal(t)
	cmd := exec.Command(filepath.Join(bin, "modfs"), "prefetch", "--store", filepath.Join(t.TempDir(), "store"),
		"example.com/large@v1.0.0", "example.com/a@v1", "example.com/none@v1.0.0")
	cmd.Env = append(os.Environ(), append(proxy.Env(), "GOMODCACHE="+t.TempDir(), "GOFLAGS=")...)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	var seen bytes.Buffer
	buf := make([]byte, 4<<10)
	read := func() bool {
		n, err := master.Read(buf) // fails when the other end is closed
		seen.Write(buf[:n])
		return err == nil
	}
	shows := func(pattern string) bool { return regexp.MustCompile(pattern).Match(seen.Bytes()) }
	for _, pattern := range []string{
		`looking up .*/ 3`,
		`example\.com/large@v1\.0\.0 +\[=+>-+\] [0-9.]+ MiB / [0-9.]+ MiB`,
		`2 of 3 +\[=+>-+\] [0-9.]+ MiB / [0-9.]+ MiB .*[bB]/s`,
	} {
		for !shows(pattern) {
			if !read() {
				t.Fatalf("never seen: %s\n%q", pattern, seen.Bytes()[max(0, seen.Len()-1000):])
			}
		}
	}
	proxy.SetFault(nil)
	proxy.Release()
	for read() {
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, want status 1", err)
	}
	rest := seen.String()
	for _, text := range []string{"example.com/a@v1 is v1.0.0\r\n", "modfs: example.com/none@v1.0.0: go.mod: ", "prefetched 2 modules, ", "modfs: 1 of 3 failed\r\n"} {
		if !strings.Contains(rest, text) {
			t.Errorf("no %q in\n%q", text, rest[max(0, len(rest)-1000):])
		}
	}
	// Nothing of the bars is left below the lines that stay.
	if _, after, _ := strings.Cut(rest, "modfs: example.com/none"); strings.Contains(after, "[=") {
		t.Errorf("%q", after)
	}
}
