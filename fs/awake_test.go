package fs

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"modfs/fetch/proxytest"
)

// latencies is a device that notes what is written to it, and fails as it is told to.
type latencies struct {
	mu      sync.Mutex
	written []uint32
	err     error
	failed  chan<- struct{} // is told of each error, if not nil
}

func (l *latencies) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		if l.failed != nil {
			l.failed <- struct{}{}
		}
		return 0, l.err
	}
	l.written = append(l.written, binary.NativeEndian.Uint32(p))
	return len(p), nil
}

func (l *latencies) Close() error { return nil }

// TestAwakeWatch checks when processors are kept awake.
func TestAwakeWatch(t *testing.T) {
	const least = awakeLeast
	kept := []uint32{awakeLatency, asleepLatency}
	quiet := func(n uint64) []uint64 { return slices.Repeat([]uint64{n}, awakeQuiet) }
	for _, test := range []struct {
		name    string
		periods []uint64 // how many requests were in each
		want    []uint32 // what the device is told
	}{
		{"unmounted at once", nil, nil},
		{"no requests", quiet(0), nil},
		{"few", quiet(least - 1), nil},
		{"many", slices.Concat([]uint64{least, 1000, least}, quiet(least-1)), kept},
		{"with pauses", slices.Concat([]uint64{0, least}, quiet(0)[1:], []uint64{least}, quiet(0)), kept},
		{"unmounted while many come", []uint64{least, least}, kept},
		{"unmounted in a pause", []uint64{least, 0}, kept},
	} {
		var device latencies
		a := awake{device: &device}
		n, left := uint64(100), test.periods
		err := a.watch(n, func() (uint64, bool) {
			if len(left) == 0 {
				return 0, false
			}
			n += left[0]
			left = left[1:]
			return n, true
		})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if !slices.Equal(device.written, test.want) {
			t.Errorf("%s: the device was told %d, want %d", test.name, device.written, test.want)
		}
		if len(left) > 0 {
			t.Errorf("%s: it did not look at %d periods", test.name, len(left))
		}
	}
}

// TestAwakeError checks that a device that cannot be written to ends it.
func TestAwakeError(t *testing.T) {
	want := errors.New("broken")
	a := awake{device: &latencies{err: want}}
	var n uint64
	err := a.watch(0, func() (uint64, bool) {
		n += awakeLeast
		return n, n < 10*awakeLeast
	})
	if !errors.Is(err, want) || n != awakeLeast {
		t.Errorf("%v after %d requests", err, n)
	}
}

// TestAwakeStart checks that requests of a file system are counted, and that one goroutine at a time looks at how many there are.
func TestAwakeStart(t *testing.T) {
	looks, goOn := make(chan struct{}, 10), make(chan struct{})
	f := unmounted(t, proxytest.New(t), func(o *Options) {
		o.KeepAwake = KeepAwakeOff
		o.hook = func(what string) {
			if what == "keep awake" {
				looks <- struct{}{}
				<-goOn
			}
		}
	})
	request := func(n int) {
		for range n {
			f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: rootID}}, new(fuse.AttrOut))
		}
	}
	request(2 * awakeStart)
	if f.awake.requests.Load() > 0 {
		t.Fatal("requests are counted although processors are not to be kept awake")
	}
	f.awake.device = &latencies{}
	request(awakeStart - 1)
	if f.awake.watched.Load() {
		t.Fatal("looked at after fewer requests than it takes")
	}
	request(1)
	<-looks
	request(5 * awakeStart)
	close(goOn)
	for f.awake.watched.Load() { // until there are no more
		time.Sleep(time.Millisecond)
	}
	if n := len(looks); n > 0 {
		t.Errorf("%d more have looked at the same time", n)
	}
	request(awakeStart)
	<-looks
}

// TestAwakeBroken checks that a device that fails is not tried again.
func TestAwakeBroken(t *testing.T) {
	var looks atomic.Int32
	f := unmounted(t, proxytest.New(t), func(o *Options) {
		o.KeepAwake = KeepAwakeOff
		o.hook = func(what string) {
			if what == "keep awake" {
				looks.Add(1)
			}
		}
	})
	failed := make(chan struct{}, 10)
	f.awake.device = &latencies{err: errors.New("broken"), failed: failed}
	requests := func() {
		f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: rootID}}, new(fuse.AttrOut))
	}
	for len(failed) == 0 {
		requests()
	}
	for end := time.Now().Add(5 * awakePeriod); time.Now().Before(end); {
		requests()
	}
	if n := looks.Load(); n != 1 {
		t.Errorf("tried %d times", n)
	}
}
