package fs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// heard collects what a listener gets until the test stops it.
type heard struct {
	mu   sync.Mutex
	all  []Activity
	stop func()
}

func listen(t *testing.T, f *FS) *heard {
	t.Helper()
	h := new(heard)
	l := f.Listen()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			a, err := l.Next(ctx)
			if err != nil {
				return
			}
			h.mu.Lock()
			h.all = append(h.all, a)
			h.mu.Unlock()
		}
	}()
	h.stop = sync.OnceFunc(func() { l.Close(); cancel(); <-done })
	t.Cleanup(h.stop)
	return h
}

// of returns the activities of a kind about a module.
func (h *heard) of(kind ActivityKind, path string) []Activity {
	h.mu.Lock()
	defer h.mu.Unlock()
	var of []Activity
	for _, a := range h.all {
		if a.Kind == kind && a.Module == path {
			of = append(of, a)
		}
	}
	return of
}

func TestActivities(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	h := listen(t, f)
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	eventually(t, "the reads were told", func() bool { return len(h.of(ActivityWait, moduleA.Path)) >= 2 })
	h.stop()

	size := int64(len(s.ZipBytes(moduleA.Path, moduleA.Version)))
	var kinds []ActivityKind
	for _, a := range h.all {
		if a.Module != moduleA.Path {
			continue
		}
		if a.Version != moduleA.Version || a.Time.IsZero() {
			t.Errorf("%+v", a)
		}
		if a.Kind != ActivityRequest && a.Kind != ActivityWait && a.File == "zip" {
			kinds = append(kinds, a.Kind)
		}
	}
	if want := []ActivityKind{ActivityFetch, ActivityDownloaded, ActivityVerified, ActivityFetched}; !slices.Equal(slices.DeleteFunc(kinds, func(k ActivityKind) bool { return k == ActivityProgress }), want) {
		t.Errorf("%v, want %v", kinds, want)
	}
	if a := h.of(ActivityFetched, moduleA.Path); a[0].Bytes != size || a[0].Seconds <= 0 || a[0].Ahead {
		t.Errorf("%+v, want %d bytes", a, size)
	}
	if a := h.of(ActivityVerified, moduleA.Path); a[0].H1 != s.ZipHash(moduleA.Path, moduleA.Version) || a[0].By != "checksum database "+s.SumDBName() {
		t.Errorf("%+v", a)
	}
	zip := slices.IndexFunc(h.of(ActivityRequest, moduleA.Path), func(a Activity) bool { return a.File == "example.com/a/@v/v1.0.0.zip" })
	if zip < 0 {
		t.Fatal("the request for the zip is not told")
	}
	if a := h.of(ActivityRequest, moduleA.Path)[zip]; a.Status != 200 || a.Bytes != size || a.Upstream != s.URL() {
		t.Errorf("%+v", a)
	}
	for _, a := range h.of(ActivityWait, moduleA.Path) {
		if a.Asker == nil || a.Asker.PID != os.Getpid() || a.Asker.Group != syscall.Getpgrp() || a.Asker.Name == "" {
			t.Errorf("asker %+v, want this process", a.Asker)
		}
	}
	// Who does not listen any more costs nothing.
	if f.stream.listening() {
		t.Error("somebody listens")
	}
}

func TestActivityFailed(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	h := listen(t, f)
	s.SetFault(func(string) string { return "tamper" })
	readErr(t, dir, "example.com/a@v1.0.0/a.go", syscall.EBADMSG)
	eventually(t, "the error was told", func() bool { return len(h.of(ActivityError, moduleA.Path)) > 0 })
	if a := h.of(ActivityFailed, moduleA.Path); len(a) != 1 || a[0].Class != "mismatch" || a[0].Error == "" {
		t.Errorf("%+v", a)
	}
	if a := h.of(ActivityError, moduleA.Path); a[0].Class != "mismatch" || a[0].Errno != "EBADMSG" {
		t.Errorf("%+v", a)
	}
}

// A listener that is too slow misses something and is told so; the file system does not wait for it.
func TestListenerTooSlow(t *testing.T) {
	f := new(FS)
	l := f.Listen()
	for range maxBehind + 7 {
		f.stream.send(Activity{Kind: ActivityFetched})
	}
	a, err := l.Next(t.Context())
	if err != nil || a.Kind != ActivityLost || a.Lost != 7 {
		t.Errorf("%+v, %v, want 7 lost", a, err)
	}
	for range maxBehind {
		if a, err := l.Next(t.Context()); err != nil || a.Kind != ActivityFetched {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	l.Close()
	l.Close()
	f.stream.send(Activity{Kind: ActivityFetched})
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("over"))
	defer cancel()
	if a, err := l.Next(ctx); err == nil || err.Error() != "over" {
		t.Errorf("%+v, %v after it was closed", a, err)
	}
}

// Who is told apart by an environment variable, which all that it starts inherits.
func TestAskerTrace(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	h := listen(t, f)
	cmd := exec.Command("sh", "-c", "cat "+in(dir, "example.com/a@v1.0.0/a.go")+" >/dev/null; true")
	cmd.Env = append(os.Environ(), TraceEnv+"=mine")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	readFile(t, in(dir, "example.com/b@v1.0.0/b.go"))
	eventually(t, "both were told", func() bool {
		return len(h.of(ActivityWait, "example.com/a")) > 0 && len(h.of(ActivityWait, "example.com/b")) > 0
	})
	for _, a := range h.of(ActivityWait, "example.com/a") {
		if a.Asker.Trace != "mine" || a.Asker.Name != "cat" || a.Asker.PID == os.Getpid() {
			t.Errorf("%+v, want the command's", a.Asker)
		}
	}
	for _, a := range h.of(ActivityWait, "example.com/b") {
		if a.Asker.Trace != "" {
			t.Errorf("%+v, want that of this process", a.Asker)
		}
	}
}

// The kernel remembers for days that a module's directory is there. Recheck has it ask again, and keep what it has of its content.
func TestRecheck(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	stat := func() {
		t.Helper()
		if _, err := os.Stat(in(dir, "example.com/a@v1.0.0")); err != nil {
			t.Fatal(err)
		}
	}
	stat()
	h := listen(t, f)
	heardMark := func(text string) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.ContainsFunc(h.all, func(a Activity) bool { return a.Kind == ActivityMark && a.File == text })
	}
	stat()
	f.Mark("before")
	eventually(t, "the first mark", func() bool { return heardMark("before") })
	if got := h.of(ActivityWait, moduleA.Path); len(got) > 0 {
		t.Fatalf("the kernel asks by itself, and this test shows nothing: %+v", got)
	}
	reads := f.stats.reads.Load()
	f.Recheck()
	stat()
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	f.Mark("after")
	eventually(t, "the second mark", func() bool { return heardMark("after") })
	if got := h.of(ActivityWait, moduleA.Path); len(got) == 0 {
		t.Error("the next user is not seen")
	}
	if got := f.stats.reads.Load(); got != reads {
		t.Errorf("%d files were read again", got-reads)
	}
}
