package fs

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestLostRequest loses the work that a request waits for, in the middle of each of the places where there is some: the request is
// answered all the same, with ETIMEDOUT and a reason, and its goroutines are in the log.
func TestLostRequest(t *testing.T) {
	for _, where := range []string{"once", "fill"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			lost := make(chan struct{})
			var log syncBuffer
			dir, f := mountTest(t, proxytest.New(t), func(o *Options) {
				o.Fetch.Timeout = 200 * time.Millisecond // of which three make the limit
				o.Log = slog.New(slog.NewTextHandler(&log, nil))
				o.hook = func(what string) {
					if what == where {
						<-lost
					}
				}
			})
			found := sync.OnceFunc(func() { close(lost) })
			defer found()
			err := soonDone(t, "who waits for it", func() error {
				_, err := os.ReadFile(in(dir, "example.com/a@v1.0.0/a.go"))
				return err
			})
			wantErr(t, err, syscall.ETIMEDOUT)
			if es := events(t, dir); len(es) == 0 || !strings.Contains(es[0].Cause, "no answer in 600ms") || es[0].Errno != "ETIMEDOUT" {
				t.Errorf(".modfs/errors: %+v", es)
			}
			if n := f.stats.late.Load(); n == 0 {
				t.Error("it is not counted")
			}
			if s := log.String(); strings.Count(s, "given up") == 0 || strings.Count(s, " stacks=") != 1 || !strings.Contains(s, "TestLostRequest") {
				t.Errorf("log:\n%s", s)
			}
			found()
			// Nothing else was lost with it.
			eventually(t, "the file can be read", func() bool {
				_, err := os.ReadFile(in(dir, "example.com/a@v1.0.0/a.go"))
				return err == nil
			})
		})
	}
}

// TestStuckRequest has a handler hang by itself, as in a system call: that is not to be answered, but Status tells of it, the log
// does, and others are served.
func TestStuckRequest(t *testing.T) {
	stuck := make(chan struct{})
	var log syncBuffer
	f := unmounted(t, proxytest.New(t), func(o *Options) {
		o.Fetch.Timeout = 500 * time.Millisecond
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, done := f.request(make(chan struct{}), 1)
		defer done()
		<-stuck
	}()
	defer func() { <-ended }()
	defer close(stuck)
	eventually(t, "it is told of", func() bool {
		s := f.Status()
		return s.Requests.Slow == 1 && s.Requests.Oldest >= 1.5 && s.Counters["late"] == 1 && strings.Contains(log.String(), "TestStuckRequest")
	})
	if _, err := f.info(t.Context(), moduleA); err != nil {
		t.Error(err)
	}
}

// TestWaiting adds and removes requests in any order: the list knows which are left, and which of them is the oldest.
func TestWaiting(t *testing.T) {
	var w waiting
	var all []*waiter
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		if len(all) > 0 && rnd.IntN(2) == 0 {
			i := rnd.IntN(len(all))
			w.remove(all[i])
			all = append(all[:i], all[i+1:]...)
		} else {
			r := &waiter{thread: rnd.Uint32()}
			w.add(r)
			all = append(all, r)
		}
		now := time.Now().Add(time.Hour)
		s := w.status(now)
		if s.Slow != len(all) {
			t.Fatalf("%d wait, not %d", s.Slow, len(all))
		}
		if len(all) > 0 && s.Oldest != now.Sub(all[0].since).Seconds() {
			t.Fatalf("the oldest has waited for %v s, not %v", s.Oldest, now.Sub(all[0].since))
		}
	}
	now := time.Now().Add(time.Hour)
	if n := len(w.late(now, 2*time.Hour)); n != 0 {
		t.Errorf("%d are late before their time", n)
	}
	for _, want := range []int{len(all), 0} {
		if n := len(w.late(now, time.Minute)); n != want {
			t.Errorf("%d are late, not %d", n, want)
		}
	}
	if s := w.status(time.Now()); s != (RequestStatus{}) {
		t.Errorf("%+v of requests that have just come", s)
	}
}

// BenchmarkWaiting is what it costs a request to be known as one that waits.
func BenchmarkWaiting(b *testing.B) {
	w := new(waiting)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		thread := rand.Uint32()
		for pb.Next() {
			r := &waiter{thread: thread}
			w.add(r)
			w.remove(r)
		}
	})
}

// BenchmarkRequest is all that a request costs that may wait.
func BenchmarkRequest(b *testing.B) {
	f := unmounted(b, proxytest.New(b), nil)
	cancel := make(chan struct{})
	b.ReportAllocs()
	for b.Loop() {
		_, done := f.request(cancel, 1)
		done()
	}
}
