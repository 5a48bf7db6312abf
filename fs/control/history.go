package control

import (
	"sync"
	"time"

	modfs "modfs/fs"
)

// Samples are taken so often, and so many are kept: an hour of them.
const (
	samplePause = 5 * time.Second
	maxSamples  = 720
)

// sample is the state of a mount at one moment. Counters are since the mount.
type sample struct {
	Time     int64 `json:"t"`        // Unix milliseconds
	Store    int64 `json:"store"`    // bytes
	Limit    int64 `json:"limit"`    // bytes; 0: none
	Hits     int64 `json:"hits"`     // counter
	Misses   int64 `json:"misses"`   // counter
	Received int64 `json:"received"` // counter, bytes from upstreams
	Served   int64 `json:"served"`   // counter, bytes to clients
	Requests int64 `json:"requests"` // counter, of the kernel
	Errors   int64 `json:"errors"`   // counter
}

// sampleOf takes a sample from a state.
func sampleOf(s *modfs.Status, now time.Time) sample {
	c := s.Counters
	p := sample{
		Time: now.UnixMilli(), Store: s.Store.Bytes, Limit: s.Store.Limit, Hits: c["hits"], Misses: c["misses"], Served: c["served_bytes"],
		Requests: c["lookups"] + c["reads"] + c["listings"] + c["getattrs"], Errors: int64(s.Errors),
	}
	for _, u := range s.Upstreams {
		p.Received += u.Bytes
	}
	return p
}

// history keeps the last samples. Its zero value is empty.
type history struct {
	mu   sync.Mutex
	ring []sample // at most maxSamples
	next int      // where the next one goes, once the ring is full
}

func (h *history) add(p sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < maxSamples {
		h.ring = append(h.ring, p)
		return
	}
	h.ring[h.next] = p
	h.next = (h.next + 1) % maxSamples
}

// since returns the samples that are younger than a time in Unix milliseconds, oldest first.
func (h *history) since(ms int64) []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]sample, 0, len(h.ring))
	for i := range h.ring {
		if p := h.ring[(h.next+i)%len(h.ring)]; p.Time > ms {
			all = append(all, p)
		}
	}
	return all
}

// fill takes samples until stop is closed.
func (h *history) fill(f *modfs.FS, stop <-chan struct{}) {
	tick := time.NewTicker(samplePause)
	defer tick.Stop()
	for {
		h.add(sampleOf(f.Status(), time.Now()))
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}
