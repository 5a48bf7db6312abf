package fs

import (
	"maps"
	"strings"
	"sync"
	"time"

	"modfs/lru"
)

// A store is too small for its work if what it evicts is soon wanted again: then it evicts, and fetches, the same modules over and
// over. That is told from the modules that were fetched again within an hour after they had been evicted to make room. Evictions
// alone say nothing: a store that is full evicts something for each module that is new.

const (
	// churnWindow is how long an evicted module is remembered, and what the rates are of.
	churnWindow = time.Hour

	// churnFew is how many modules must have been fetched again, and churnShare which share of the bytes that were fetched they
	// must have been (one in so many), for a store to be called too small.
	churnFew   = 3
	churnShare = 10
)

// maxEvicted bounds how many evicted modules are remembered.
const maxEvicted = 1 << 14

// ChurnStatus is what was evicted and fetched in the last hour, or since the mount if that is later. Modules are module versions.
type ChurnStatus struct {
	Evicted        int64 `json:"evicted"` // modules whose archive was evicted to make room
	EvictedBytes   int64 `json:"evicted_bytes"`
	Fetched        int64 `json:"fetched"` // archives
	FetchedBytes   int64 `json:"fetched_bytes"`
	Refetched      int64 `json:"refetched"` // of Fetched: within an hour after they were evicted to make room
	RefetchedBytes int64 `json:"refetched_bytes"`

	// TooSmall says that the store is too small for its work: three or more archives were fetched again, and they were a tenth of the
	// bytes fetched, or more. Wanted is the size of a store that would have kept them, in bytes.
	TooSmall bool  `json:"too_small"`
	Wanted   int64 `json:"wanted,omitempty"`
}

// zipSuffix ends the keys of archives, and of nothing else.
const zipSuffix = ".zip"

// churn counts that. Its zero value is ready.
type churn struct {
	mu      sync.Mutex
	gone    map[string]eviction // by key of the archive
	pruned  time.Time           // when the old ones were last forgotten
	minutes [churnWindow / time.Minute]churnMinute
}

type eviction struct {
	at        time.Time
	refetched int64 // bytes, if it was fetched again since
}

// churnMinute is what happened in one minute.
type churnMinute struct {
	minute int64 // since 1970
	ChurnStatus
}

// at returns the counters of the minute of now. c.mu is held.
func (c *churn) at(now time.Time) *churnMinute {
	minute := now.Unix() / 60
	m := &c.minutes[minute%int64(len(c.minutes))]
	if m.minute != minute {
		*m = churnMinute{minute: minute}
	}
	return m
}

// evicted notes that a file was evicted.
func (c *churn) evicted(e lru.Eviction, now time.Time) {
	if e.Why != lru.ForRoom || !strings.HasSuffix(e.Key, zipSuffix) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.at(now)
	m.Evicted++
	m.EvictedBytes += e.Size
	if len(c.gone) >= maxEvicted && now.Sub(c.pruned) >= time.Minute { // it is not cheap
		c.prune(now)
	}
	if len(c.gone) < maxEvicted {
		set(&c.gone, e.Key, eviction{at: now, refetched: c.gone[e.Key].refetched})
	}
}

// fetched notes that an archive of so many bytes was fetched.
func (c *churn) fetched(key string, size int64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.at(now)
	m.Fetched++
	m.FetchedBytes += size
	if e, ok := c.gone[key]; ok && now.Sub(e.at) < churnWindow {
		m.Refetched++
		m.RefetchedBytes += size
		c.gone[key] = eviction{at: e.at, refetched: size}
	}
}

// prune forgets what was evicted long ago. c.mu is held.
func (c *churn) prune(now time.Time) {
	c.pruned = now
	maps.DeleteFunc(c.gone, func(_ string, e eviction) bool { return now.Sub(e.at) >= churnWindow })
}

// status returns what happened in the hour before now, in a store of so many bytes.
func (c *churn) status(now time.Time, used int64) ChurnStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prune(now)
	var s ChurnStatus
	oldest := now.Add(-churnWindow).Unix()/60 + 1
	for i := range c.minutes {
		if m := &c.minutes[i]; m.minute >= oldest {
			s.Evicted += m.Evicted
			s.EvictedBytes += m.EvictedBytes
			s.Fetched += m.Fetched
			s.FetchedBytes += m.FetchedBytes
			s.Refetched += m.Refetched
			s.RefetchedBytes += m.RefetchedBytes
		}
	}
	if s.TooSmall = s.Refetched >= churnFew && s.RefetchedBytes*churnShare >= s.FetchedBytes; s.TooSmall {
		s.Wanted = used
		for _, e := range c.gone {
			s.Wanted += e.refetched // each module once, however often it went and came
		}
	}
	return s
}
