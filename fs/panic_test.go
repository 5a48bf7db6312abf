package fs

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// mistake is a hook that panics when something happens, until it is mended. Once is not enough: the kernel reads ahead, and
// when that fails it reads again.
type mistake struct {
	what   string
	before func() // called before that, if not nil
	mended atomic.Bool
	made   atomic.Int64
}

func (p *mistake) at(what string) {
	if what != p.what || p.mended.Load() {
		return
	}
	if p.before != nil {
		p.before()
	}
	p.made.Add(1)
	panic("a mistake in " + what)
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// soonDone runs do, which waits for the mount, and fails the test if it hangs: a lock that a panic left.
func soonDone(t *testing.T, what string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatalf("%s hangs", what)
		return nil
	}
}

// TestPanic has the file system panic in the middle of things: that costs the request or work that it happens in, EIO, and
// nothing else. It is logged, counted and told.
func TestPanic(t *testing.T) {
	const file = "example.com/a@v1.0.0/a.go"
	rw := func(o *Options) { o.ReadOnly = false }
	read := func(p string) func(string, *FS) error {
		return func(dir string, _ *FS) error {
			_, err := os.ReadFile(in(dir, p))
			return err
		}
	}
	for _, tt := range []struct {
		what  string
		set   func(*Options)
		do    func(dir string, f *FS) error
		quiet bool // nobody waits for it, so do succeeds
	}{
		{what: "lookup", do: func(dir string, _ *FS) error { _, err := os.Lstat(in(dir, "example.com")); return err }},
		{what: "read", do: read(file)},
		{what: "list", do: func(dir string, _ *FS) error { _, err := os.ReadDir(in(dir, "example.com/a@v1.0.0")); return err }},
		{what: "once", do: read(modKey(moduleA))},
		{what: "fill", do: read(file)},
		{what: "change", set: rw, do: func(dir string, _ *FS) error { return os.MkdirAll(in(dir, "mine"), 0o755) }},
		{what: "open", set: rw, do: func(dir string, f *FS) error {
			if err := os.WriteFile(in(dir, "file"), []byte("mine"), 0o644); err != nil {
				return err
			}
			return os.Truncate(in(dir, "file"), 1)
		}},
		{what: "evicted", quiet: true, do: func(dir string, f *FS) error {
			if err := read(file)(dir, f); err != nil {
				return err
			}
			f.store.Evict(0)
			return nil
		}},
		{
			what: "prefetch", quiet: true, set: func(o *Options) { o.NoPrefetch = false },
			do: read(zipHashKey(moduleA)), // is about to be opened
		},
		{what: "background", quiet: true, do: func(_ string, f *FS) error {
			f.background(func() { f.at("background") })
			return nil
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t)
			var log syncBuffer
			hook := &mistake{what: tt.what}
			dir, f := mountTest(t, s, func(o *Options) {
				o.hook = hook.at
				o.Log = slog.New(slog.NewTextHandler(&log, nil))
				if tt.set != nil {
					tt.set(o)
				}
			})
			do := func() error { return tt.do(dir, f) }
			if err := soonDone(t, "what panics", do); tt.quiet && err != nil || !tt.quiet && !errors.Is(err, syscall.EIO) {
				t.Errorf("what panics returns %v", err)
			}
			eventually(t, "the panic", func() bool { return f.stats.panics.Load() > 0 })
			hook.mended.Store(true)
			if err := soonDone(t, "what follows", do); err != nil {
				t.Errorf("after the panic: %v", err)
			}
			if err := soonDone(t, "a change of names", func() error { return os.Mkdir(in(dir, "another"), 0o755) }); tt.set != nil && !f.opts.ReadOnly && err != nil {
				t.Error(err)
			}
			wantTree(t, s, dir, module1(t, "example.com/a@v1.0.0"))
			st, err := ReadStatus(dir)
			if err != nil {
				t.Fatal(err)
			}
			if n := st.Counters["panics"]; n != hook.made.Load() {
				t.Errorf("%d panics are counted, want %d", n, hook.made.Load())
			}
			told := 0
			for _, e := range events(t, dir) {
				if e.Errno != "EIO" {
					t.Errorf("told: %+v", e)
				}
				if e.Cause == "panic: a mistake in "+tt.what {
					told++
				}
			}
			if told == 0 {
				t.Errorf("it is not told:\n%s", readFile(t, in(dir, ".modfs/errors")))
			}
			// The stack says where: it has the function that panicked.
			if text := log.String(); !strings.Contains(text, "mistake).at") || !strings.Contains(text, "stack=") {
				t.Errorf("the log has no stack:\n%s", text)
			}
		})
	}
}

// TestPanicInFill has many wait for an archive whose fill panics: all are told, and nothing of it is kept.
func TestPanicInFill(t *testing.T) {
	const readers = 5
	s := proxytest.New(t)
	md := make(chan *mod, 1)
	var f *FS
	waiting := func() {
		// Whoever asks for the module while this waits, waits for this.
		m := <-md
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			f.turns.mu.Lock()
			n := f.turns.waiters[m]
			f.turns.mu.Unlock()
			if n == readers {
				return
			}
		}
	}
	hook := &mistake{what: "fill", before: waiting}
	dir, f := mountTest(t, s, func(o *Options) { o.hook = hook.at })
	md <- f.modules.intern(moduleA)
	names := []string{"a.go", "go.mod", "LICENSE", "sub/sub.go", "a_test.go"}
	errs := make(chan error, readers)
	for i := range readers {
		go func() {
			fd, err := syscall.Open(in(dir, "example.com/a@v1.0.0/"+names[i%len(names)]), syscall.O_RDONLY, 0)
			if err == nil {
				syscall.Close(fd)
			}
			errs <- err
		}()
	}
	for range readers {
		if err := soonDone(t, "a reader", func() error { return <-errs }); !errors.Is(err, syscall.EIO) {
			t.Errorf("a reader got %v", err)
		}
	}
	wantNothingStored(t, f)
	hook.mended.Store(true)
	wantTree(t, s, dir, module1(t, "example.com/a@v1.0.0"))
}
