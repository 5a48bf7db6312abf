package fs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
)

// TestTransfers looks at a download that does not come on, and at who waits for it.
func TestTransfers(t *testing.T) {
	m := noise("example.com/noise", 1, 1<<20)
	s := proxytest.New(t, m)
	dir, f := mountTest(t, s, nil)
	if under, queued := f.Transfers(); len(under) != 0 || queued != 0 {
		t.Errorf("before anything: %+v, %d", under, queued)
	}
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "stall"
		}
		return ""
	})
	done := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(in(dir, m.String()+"/go.mod"))
		done <- err
	}()
	var got Transfer
	eventually(t, "it is being fetched, and somebody waits", func() bool {
		under, _ := f.Transfers()
		if len(under) == 1 {
			got = under[0]
		}
		return len(got.For) > 0 && s.Stalled() == 1
	})
	if got.Module != m.Path || got.Version != m.Version || got.Phase != PhaseDownload || got.Ahead || got.Since.Before(f.started) {
		t.Errorf("%+v", got)
	}
	if p := got.For[0]; p.PID != os.Getpid() || p.Command != filepath.Base(os.Args[0]) {
		t.Errorf("it is for %+v, want this process", p)
	}
	if st := f.Status(); len(st.Transfers) != 1 {
		t.Errorf("status has %+v", st.Transfers)
	}
	s.SetFault(nil)
	s.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is fetched", func() bool {
		under, _ := f.Transfers()
		return len(under) == 0
	})
	if st := f.Status(); st.Counters["saved_bytes"] != 0 || st.Resident.Modules != 1 || st.Resident.Bytes < int64(len(s.ZipBytes(m.Path, m.Version))) || st.LastHour.Fetched != 1 {
		t.Errorf("%+v", st)
	}
}

// TestSaved counts what the store has spared, once for each module.
func TestSaved(t *testing.T) {
	s := proxytest.New(t)
	store := t.TempDir()
	keep := func(o *Options) { o.Store.Dir = store }
	dir, f := mountTest(t, s, keep)
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	shut(t, f)
	f = unmounted(t, s, keep)
	for range 2 {
		h, err := f.openZip(t.Context(), f.modules.intern(moduleA))
		if err != nil {
			t.Fatal(err)
		}
		f.zips.put(h)
		f.zips.drop(zipKey(moduleA))
	}
	if got, want := f.stats.saved.Load(), int64(len(s.ZipBytes("example.com/a", "v1.0.0"))); got != want {
		t.Errorf("%d bytes were spared, want %d", got, want)
	}
}

func TestDescribe(t *testing.T) {
	if p := process(0).describe(); p != (Process{}) {
		t.Errorf("of no process: %+v", p)
	}
	if got, want := printable("go\x1b[2J\n\u00e4"), "go?[2J??"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := printable(string(make([]byte, 100))); len(got) != 40 {
		t.Errorf("%d bytes", len(got))
	}
}
