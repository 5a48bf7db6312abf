package fs

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

func TestStatus(t *testing.T) {
	s := proxytest.New(t)
	before := time.Now()
	dir, f := mountTest(t, s, func(o *Options) { o.Store.MaxSize = 1 << 30 })
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	readFile(t, in(dir, "example.com/many@v1.0.0/d01/f00.go"))
	s.SetFault(func(string) string { return "403" })
	readErr(t, dir, "example.com/b@v1.0.0", syscall.EACCES)
	_, err := os.Stat(in(dir, "example.com/b@v1.1.0"))
	wantErr(t, err, syscall.EACCES)

	st, err := ReadStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mountpoint != dir || st.PID != os.Getpid() || !st.ReadOnly || st.Offline || st.Overlay != nil || st.Store.Dir != f.store.Dir() ||
		st.Since.Before(before) || st.Since.After(time.Now()) {
		t.Errorf("%+v", st)
	}
	if st.Modules != 2 || st.Errors != 2 || st.Nodes < 2 || st.Memory.Heap == 0 || st.Memory.Content == 0 || st.Memory.Trees == 0 {
		t.Errorf("%+v, want 2 modules, 2 errors, some nodes and memory", st)
	}
	if st.Store.Limit != 1<<30 || st.Store.Fills != 2 || st.Store.Bytes == 0 || st.Store.Total == 0 {
		t.Errorf("store %+v, want 2 fills", st.Store)
	}
	if len(st.Upstreams) == 0 || st.Upstreams[0].URL != s.URL() || st.Upstreams[0].Failures != 2 || st.Upstreams[0].LastError == "" {
		t.Errorf("upstreams %+v, want the proxy first, with 2 failures", st.Upstreams)
	}
	if got := st.ErrorsByErrno; len(got) != 1 || got["EACCES"] != 2 {
		t.Errorf("errors by errno: %v, want 2 of EACCES", got)
	}
	if got := f.Errors(); len(got) != 2 || got[0].Module != "example.com/b" || got[1].Errno != "EACCES" {
		t.Errorf("the last errors: %+v", got)
	}
	zips := int64(len(s.ZipBytes("example.com/a", "v1.0.0")) + len(s.ZipBytes("example.com/many", "v1.0.0")))
	if c := st.Counters; c["misses"] != 2 || c["fetched_bytes"] != zips || c["lookups"] == 0 || c["reads"] == 0 || c["damaged"] != 0 {
		t.Errorf("counters %v, want 2 misses, %d bytes", c, zips)
	}
	if _, err := ReadStatus(t.TempDir()); err == nil {
		t.Error("status of a directory that is no mount")
	}
}

// TestQueues looks at the queues while an archive does not come, that somebody waits for.
func TestQueues(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "stall"
		}
		return ""
	})
	read := make(chan error)
	go func() {
		_, err := os.ReadFile(in(dir, "example.com/a@v1.0.0/a.go"))
		read <- err
	}()
	for s.Stalled() == 0 {
		time.Sleep(time.Millisecond)
	}
	if got, want := f.Status().Queues, (QueueStatus{Wanted: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	s.Release()
	if err := <-read; err != nil {
		t.Error(err)
	}
	if got := f.Status().Queues; got != (QueueStatus{}) {
		t.Errorf("afterwards: %+v", got)
	}
	q := newQueueTest(0)
	q.add(numbered(1))
	q.add(numbered(2))
	if got := q.len(); got != 2 {
		t.Errorf("%d tasks wait, want 2", got)
	}
}

// TestStatusWhole reads the status in pieces while it changes: a reader sees one state.
func TestStatusWhole(t *testing.T) {
	s := proxytest.New(t)
	dir, _ := mountTest(t, s, nil)
	file, err := os.Open(in(dir, ".modfs/status.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	first := make([]byte, 100)
	if _, err := io.ReadFull(file, first); err != nil {
		t.Fatal(err)
	}
	together(8, func(int) {
		if _, err := os.ReadFile(in(dir, "example.com/many@v1.0.0/d01/f00.go")); err != nil {
			t.Error(err)
		}
		for range 20 {
			if _, err := ReadStatus(dir); err != nil {
				t.Error(err)
			}
		}
	})
	rest, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	var st Status
	if err := json.Unmarshal(append(first, rest...), &st); err != nil || st.Modules != 0 || st.Mountpoint != dir {
		t.Errorf("%+v, %v, want the state when it was opened", st, err)
	}
}

func TestErrorsFile(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	if got := events(t, dir); len(got) != 0 {
		t.Errorf("errors of a new mount: %+v", got)
	}
	s.SetFault(func(string) string { return "403" })
	for _, p := range []string{"example.com/a@v1.0.0", modKey(moduleA), listKey(moduleA.Path)} {
		readErr(t, dir, p, syscall.EACCES)
	}
	// What is only not there is no error.
	s.SetFault(nil)
	readErr(t, dir, "example.com/a@v1.0.9", syscall.ENOENT)
	got := events(t, dir)
	if len(got) != 3 || uint64(len(got)) != f.errors.count() {
		t.Fatalf("%+v, want 3 of %d", got, f.errors.count())
	}
	for i, op := range []string{"info", "mod", "list"} {
		e := got[i]
		if e.Op != op || e.Module != moduleA.Path || e.Errno != "EACCES" || e.Cause == "" || i > 0 && e.Time.Before(got[i-1].Time) {
			t.Errorf("error %d: %+v, want op %q", i, e, op)
		}
	}
}
