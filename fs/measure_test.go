package fs

import (
	"math"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"modfs/fetch/proxytest"
)

func TestBucketOf(t *testing.T) {
	for i, bound := range RequestBounds {
		for _, d := range []struct {
			dur  time.Duration
			want int
		}{{bound - 1, i}, {bound, i}, {bound + 1, i + 1}} {
			if got := bucketOf(d.dur); got != d.want {
				t.Errorf("%v is in bucket %d, want %d", d.dur, got, d.want)
			}
		}
	}
	for d, want := range map[time.Duration]int{0: 0, 1: 0, math.MaxInt64: len(RequestBounds)} {
		if got := bucketOf(d); got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
	}
}

// TestRequestTimes has each kind of request sent by the kernel, and looks whether it was counted, once or more.
func TestRequestTimes(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, func(o *Options) { o.ReadOnly, o.Measure = false, true })
	try := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
	}
	readFile(t, in(dir, "example.com/a@v1.0.0/go.mod"))
	list(t, in(dir, "example.com/a@v1.0.0"))
	own := in(dir, "cache/vcs")
	try(os.MkdirAll(own, 0o777))
	file, err := os.Create(in(own, "f"))
	try(err)
	_, err = file.WriteString("x")
	try(err, file.Sync(), file.Close(), os.Chmod(in(own, "f"), 0o600))
	try(os.Link(in(own, "f"), in(own, "g")), os.Symlink("f", in(own, "l")))
	syscall.Mkfifo(in(own, "p"), 0o600) // which is refused
	_, err = os.Readlink(in(own, "l"))
	try(err, os.Rename(in(own, "g"), in(own, "h")), os.Remove(in(own, "h")), os.Mkdir(in(own, "d"), 0o777), os.Remove(in(own, "d")))
	var st syscall.Statfs_t
	try(syscall.Statfs(dir, &st))
	_, err = os.Stat(in(own, "f"))
	try(err)

	times, ok := f.RequestTimes()
	if !ok {
		t.Fatal("nothing is measured")
	}
	unseen := map[Request]bool{
		RequestReadDir:   true, // the kernel prefers READDIRPLUS
		RequestFallocate: true, // not every system has it
	}
	for kind := range requestKinds {
		rt := times[kind]
		if n := rt.Count(); n == 0 && !unseen[kind] {
			t.Errorf("no %v was counted", kind)
		} else if n > 0 && rt.Sum <= 0 {
			t.Errorf("%d requests of kind %v took %v", n, kind, rt.Sum)
		}
	}
	if got, want := int64(rtCount(times, RequestLookup)), f.stats.lookups.Load(); got != want {
		t.Errorf("%d lookups were measured, of %d", got, want)
	}
}

func rtCount(times map[Request]RequestTimes, kind Request) uint64 {
	rt := times[kind]
	return rt.Count()
}

// TestNotMeasured makes sure that a mount whose requests nobody wants to measure has no clock around them.
func TestNotMeasured(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	if raw := f.raw(); raw != fuse.RawFileSystem(f) {
		t.Errorf("requests are sent to a %T", raw)
	}
	if _, ok := f.RequestTimes(); ok {
		t.Error("there are times of requests")
	}
}

// TestMeasureConcurrently counts from several threads at a time: no request is lost.
func TestMeasureConcurrently(t *testing.T) {
	f := unmounted(t, proxytest.New(t), func(o *Options) { o.Measure = true })
	m := f.raw().(*measured)
	const threads, each = 20, 200
	var wg sync.WaitGroup
	for thread := range threads {
		wg.Go(func() {
			for range each {
				m.note(RequestRead, uint32(thread), m.now())
			}
		})
	}
	wg.Wait()
	times, _ := f.RequestTimes()
	if got := rtCount(times, RequestRead); got != threads*each {
		t.Errorf("%d requests were counted, of %d", got, threads*each)
	}
}

// BenchmarkMeasure is what measuring adds to a request, on one thread and on all cores at once.
func BenchmarkMeasure(b *testing.B) {
	m := &measured{epoch: time.Now()}
	b.Run("threads=1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.note(RequestLookup, 1, m.now())
		}
	})
	b.Run("threads=cores", func(b *testing.B) {
		b.ReportAllocs()
		var mu sync.Mutex
		next := uint32(0)
		b.RunParallel(func(pb *testing.PB) {
			mu.Lock()
			next++
			thread := next
			mu.Unlock()
			for pb.Next() {
				m.note(RequestLookup, thread, m.now())
			}
		})
	})
}
