package fs

import (
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// journal remembers, for some time, how module versions were resolved: what was asked for where, what was answered, and what
// became of it. It is for people who want to know why. What is looked up is up to clients, so it has a fixed size: the steps of
// each module version are bounded, and so are the bytes of all of them; what nobody has touched for longest goes. Its zero value
// is ready.
type journal struct {
	mu    sync.Mutex
	by    *simplelru.LRU[string, []Activity] // by subject
	bytes int64
	max   int64 // bytes; 0 means journalMemory
}

const (
	journalMemory = 4 << 20 // bytes
	maxSteps      = 32      // of a module version: the last ones
	maxStepText   = 600     // bytes of an error
)

// subject is what an activity is remembered under: M@V, or M for what is asked about all of its versions; "" for nothing.
func subject(path, version string) string {
	if version == "" {
		return path
	}
	return path + "@" + version
}

// stepMemory is about how many bytes a step takes.
func stepMemory(a *Activity) int64 {
	return int64(unsafe.Sizeof(*a)) + int64(len(a.File)+len(a.Upstream)+len(a.H1)+len(a.By)+len(a.Error))
}

// add remembers a step. One that is the same as the last one, but for time, is counted with that: who looks for what is not there
// may do so all day.
func (j *journal) add(a Activity) {
	if a.Module == "" {
		return
	}
	if len(a.Error) > maxStepText {
		a.Error = strings.ToValidUTF8(a.Error[:maxStepText], "") + "…"
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.by == nil {
		if j.max == 0 {
			j.max = journalMemory
		}
		// The number of subjects is bounded by their bytes; the error is for sizes below 1 only.
		j.by, _ = simplelru.NewLRU(int(j.max/entryOverhead)+1, func(_ string, steps []Activity) {
			j.bytes -= entryOverhead
			for i := range steps {
				j.bytes -= stepMemory(&steps[i])
			}
		})
	}
	key := subject(a.Module, a.Version)
	steps, ok := j.by.Get(key)
	if n := len(steps); n > 0 && sameStep(&steps[n-1], &a) {
		last := &steps[n-1]
		last.Repeats++
		last.Time, last.Seconds = a.Time, a.Seconds
		return
	}
	if !ok {
		key = strings.Clone(key)
		j.bytes += entryOverhead
	}
	if len(steps) == maxSteps {
		j.bytes -= stepMemory(&steps[0])
		steps = append(steps[:0], steps[1:]...)
	}
	// The strings may be parts of a request's buffer.
	a.Module, a.Version, a.File = "", "", strings.Clone(a.File)
	j.bytes += stepMemory(&a)
	j.by.Add(key, append(steps, a))
	for j.bytes > j.max && j.by.Len() > 0 {
		j.by.RemoveOldest()
	}
}

func sameStep(a, b *Activity) bool {
	return a.Kind == b.Kind && a.File == b.File && a.Upstream == b.Upstream && a.Method == b.Method && a.Status == b.Status &&
		a.Error == b.Error && a.Errno == b.Errno && a.H1 == b.H1 && a.Bytes == b.Bytes
}

// of returns the steps of a subject, oldest first.
func (j *journal) of(path, version string) []Activity {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.by == nil {
		return nil
	}
	steps, _ := j.by.Peek(subject(path, version))
	return slices.Clone(steps)
}
