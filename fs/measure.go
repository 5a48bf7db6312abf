package fs

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// How long requests take is measured only where somebody asked for it (Options.Measure): the mount then serves a measured, which
// is the FS with a clock around each request. Without, there is none, and nothing to be paid for.
//
// There are tens of thousands of requests a second, so a request costs two looks at the clock and three additions, without a lock. A thread
// sends one request at a time, so its number says which of a few sets of counters is used, and two cores hardly ever want one
// cache line.

// Request is a kind of FUSE request that FS answers, by the kernel's name (linux/fuse.h) in lower case.
type Request uint8

// The kinds of requests. What the kernel sends besides (OPEN, ACCESS and such) is refused once, and then not sent any more.
const (
	RequestLookup Request = iota
	RequestGetAttr
	RequestSetAttr
	RequestRead
	RequestReadDir
	RequestReadDirPlus
	RequestStatFs
	RequestReadlink
	RequestCreate
	RequestWrite
	RequestMkdir
	RequestMknod
	RequestSymlink
	RequestLink
	RequestUnlink
	RequestRmdir
	RequestRename
	RequestFsync
	RequestFallocate
	requestKinds
)

var requestNames = [requestKinds]string{
	"lookup", "getattr", "setattr", "read", "readdir", "readdirplus", "statfs", "readlink", "create", "write", "mkdir", "mknod",
	"symlink", "link", "unlink", "rmdir", "rename", "fsync", "fallocate",
}

func (r Request) String() string { return requestNames[r] }

// RequestBounds are the upper bounds, inclusive, of the buckets in a RequestTimes. A request that is answered from memory takes
// some microseconds, one that waits for a download as long as that.
var RequestBounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond,
	250 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
	500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second, time.Minute,
}

const requestBuckets = len(RequestBounds) + 1

// firstBucket is the first bucket in which a duration of so many bits, in nanoseconds, may belong.
var firstBucket = func() (first [65]uint8) {
	for n := range first {
		for int(first[n]) < len(RequestBounds) && n > 0 && uint64(RequestBounds[first[n]]) < 1<<(n-1) {
			first[n]++
		}
	}
	return first
}()

func bucketOf(d time.Duration) int {
	i := int(firstBucket[bits.Len64(uint64(d))])
	for i < len(RequestBounds) && d > RequestBounds[i] {
		i++
	}
	return i
}

// RequestTimes says how long requests of one kind took: how many were in each bucket, the last of which is for those longer than
// all bounds, and how long all of them took together.
type RequestTimes struct {
	Counts [requestBuckets]uint64
	Sum    time.Duration
}

// Count is how many requests there were.
func (t *RequestTimes) Count() (n uint64) {
	for _, c := range t.Counts {
		n += c
	}
	return n
}

// requestSets is how many sets of counters there are, a power of two.
const requestSets = 8

// requestSet counts the requests of some threads.
type requestSet struct {
	kinds [requestKinds]struct {
		counts [requestBuckets]atomic.Uint64
		sum    atomic.Int64 // nanoseconds
	}
	_ [64]byte // the next one is in other cache lines
}

// measured is an FS whose requests are measured.
type measured struct {
	*FS
	epoch time.Time // what the clock is read against; reading the time of day as well would cost twice as much
	sets  [requestSets]requestSet
}

// raw returns what the kernel's requests are sent to.
func (f *FS) raw() fuse.RawFileSystem {
	if !f.opts.Measure {
		return f
	}
	f.measured = &measured{FS: f, epoch: time.Now()}
	return f.measured
}

// RequestTimes returns how long requests took since the mount, by their kind. ok is false without Options.Measure.
func (f *FS) RequestTimes() (times map[Request]RequestTimes, ok bool) {
	if f.measured == nil {
		return nil, false
	}
	times = make(map[Request]RequestTimes, requestKinds)
	for kind := range requestKinds {
		var t RequestTimes
		for s := range f.measured.sets {
			k := &f.measured.sets[s].kinds[kind]
			for i := range k.counts {
				t.Counts[i] += k.counts[i].Load()
			}
			t.Sum += time.Duration(k.sum.Load())
		}
		times[kind] = t
	}
	return times, true
}

func (m *measured) now() time.Duration { return time.Since(m.epoch) }

// note counts a request that a thread sent and whose work began at start.
func (m *measured) note(kind Request, thread uint32, start time.Duration) {
	d := m.now() - start
	k := &m.sets[thread%requestSets].kinds[kind]
	k.counts[bucketOf(d)].Add(1)
	k.sum.Add(int64(d))
}
