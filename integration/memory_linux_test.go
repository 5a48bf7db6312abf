package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
)

// maxResident is what the README promises of the daemon's memory with --memory 64MiB, in bytes.
const maxResident = 250 << 20

// TestMemory has find and grep walk 500 modules, some with 10,000 files, some with large ones, and looks at the most memory that the
// daemon ever took.
func TestMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() || raceEnabled {
		t.Skip("-short, or -race: it takes long, and the race detector takes memory of its own")
	}
	const modules, many, large = 500, 3, 6
	var mods []proxytest.Module
	for i := range modules {
		p := fmt.Sprintf("example.com/walk/m%03d", i)
		m := proxytest.Module{Path: p, Version: "v1.0.0", Files: map[string]string{"go.mod": "module " + p + "\n"}}
		files, size := 8, 20_000 // so that the kept ones are more than --memory allows
		switch {
		case i < many:
			files, size = 10_000, 200
		case i < many+large:
			files, size = 4, 6<<20
		}
		for j := range files {
			name := fmt.Sprintf("dir%02d/file%05d.go", j%100, j)
			m.Files[name] = fmt.Sprintf("package p\n\n// %d %d\n", i, j) + strings.Repeat(fmt.Sprintf("// line of %d\n", j), size/16)
		}
		mods = append(mods, m)
	}
	m := mount(t, proxytest.New(t, mods...), "--read-only", "--memory", "64MiB", "--min-free", "0")
	pid := m.status().PID
	for _, mod := range mods { // or they would not be listed
		if _, err := os.ReadDir(m.path(mod.String())); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.status().Memory.Content; n > 64<<20 || n < 16<<20 { // of less, it is no test
		t.Errorf("%d bytes of inflated files are kept", n)
	}
	out, err := exec.Command("find", m.dir, "-name", "*.go").Output()
	if got, want := bytes.Count(out, []byte("\n")), many*10_000+large*4+(modules-many-large)*8; err != nil || got != want {
		t.Errorf("find found %d files, want %d: %v", got, want, err)
	}
	out, err = exec.Command("grep", "-rlE", "^// [0-9]+ 3$", m.dir+"/example.com").Output()
	if got := bytes.Count(out, []byte("\n")); err != nil || got != modules {
		t.Errorf("grep found %d files, want %d: %v", got, modules, err)
	}
	m.noErrors()
	peak, now := resident(t, pid, "VmHWM"), resident(t, pid, "VmRSS")
	t.Logf("the daemon took %d MiB at most, and takes %d MiB: %+v", peak>>20, now>>20, m.status().Memory)
	if peak > maxResident {
		t.Errorf("the daemon took %d bytes of memory, more than %d", peak, maxResident)
	}
}

// resident is a field of /proc/PID/status in bytes.
func resident(t *testing.T, pid int, field string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, pid)
	return 0
}
