package fs

import (
	"fmt"
	"testing"
	"time"

	"modfs/lru"
)

func TestChurn(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	const size, used = 1 << 20, 100 << 20
	key := func(i int) string { return fmt.Sprintf("cache/download/example.com/m%d/@v/v1.0.0.zip", i) }
	evict := func(c *churn, i int, why lru.Cause, at time.Duration) {
		c.evicted(lru.Eviction{Key: key(i), Size: size, Why: why}, start.Add(at))
	}
	for _, tt := range []struct {
		name string
		do   func(c *churn)
		at   time.Duration // when it is looked at
		want ChurnStatus
	}{
		{"nothing", func(*churn) {}, 0, ChurnStatus{}},
		{"evicted and not missed", func(c *churn) {
			for i := range 9 {
				evict(c, i, lru.ForRoom, 0)
				c.fetched(key(100+i), size, start)
			}
		}, time.Minute, ChurnStatus{Evicted: 9, EvictedBytes: 9 * size, Fetched: 9, FetchedBytes: 9 * size}},
		{"fetched again", func(c *churn) {
			for i := range 4 {
				evict(c, i, lru.ForRoom, 0)
				c.fetched(key(i), size, start.Add(59*time.Minute))
			}
		}, 59 * time.Minute, ChurnStatus{Evicted: 4, EvictedBytes: 4 * size, Fetched: 4, FetchedBytes: 4 * size,
			Refetched: 4, RefetchedBytes: 4 * size, TooSmall: true, Wanted: used + 4*size}},
		{"one, again and again", func(c *churn) {
			for i := range 3 {
				evict(c, 1, lru.ForRoom, time.Duration(i)*time.Minute)
				c.fetched(key(1), size, start.Add(time.Duration(i)*time.Minute))
			}
			evict(c, 1, lru.ForRoom, 3*time.Minute)
		}, 3 * time.Minute, ChurnStatus{Evicted: 4, EvictedBytes: 4 * size, Fetched: 3, FetchedBytes: 3 * size,
			Refetched: 3, RefetchedBytes: 3 * size, TooSmall: true, Wanted: used + size}},
		{"fetched again, too late", func(c *churn) {
			for i := range 4 {
				evict(c, i, lru.ForRoom, 0)
			}
			for i := range 4 {
				c.fetched(key(i), size, start.Add(time.Hour))
			}
		}, time.Hour, ChurnStatus{Fetched: 4, FetchedBytes: 4 * size}},
		{"a few", func(c *churn) {
			for i := range churnFew - 1 {
				evict(c, i, lru.ForRoom, 0)
				c.fetched(key(i), size, start)
			}
		}, 0, ChurnStatus{Evicted: 2, EvictedBytes: 2 * size, Fetched: 2, FetchedBytes: 2 * size, Refetched: 2, RefetchedBytes: 2 * size}},
		{"a small share", func(c *churn) {
			for i := range 3 {
				evict(c, i, lru.ForRoom, 0)
				c.fetched(key(i), size, start)
			}
			c.fetched(key(10), 28*size, start)
		}, 0, ChurnStatus{Evicted: 3, EvictedBytes: 3 * size, Fetched: 4, FetchedBytes: 31 * size, Refetched: 3, RefetchedBytes: 3 * size}},
		{"not for lack of room", func(c *churn) {
			for i := range 9 {
				evict(c, i, []lru.Cause{lru.ForAge, lru.OnDemand, lru.Lost}[i%3], 0)
				c.fetched(key(i), size, start)
			}
			c.evicted(lru.Eviction{Key: "spool/x", Size: size}, start)
		}, 0, ChurnStatus{Fetched: 9, FetchedBytes: 9 * size}},
		{"an hour ago", func(c *churn) {
			evict(c, 1, lru.ForRoom, 0)
			c.fetched(key(2), size, start)
		}, time.Hour + time.Minute, ChurnStatus{}},
	} {
		var c churn
		tt.do(&c)
		if got := c.status(start.Add(tt.at), used); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestChurnBounded is of a store that evicts without end.
func TestChurnBounded(t *testing.T) {
	var c churn
	start := time.Unix(1_700_000_000, 0)
	for i := range 2 * maxEvicted {
		c.evicted(lru.Eviction{Key: fmt.Sprintf("%d.zip", i), Size: 1}, start)
	}
	if len(c.gone) != maxEvicted {
		t.Errorf("%d are remembered, want %d", len(c.gone), maxEvicted)
	}
	c.evicted(lru.Eviction{Key: "new.zip", Size: 1}, start.Add(churnWindow))
	if len(c.gone) != 1 {
		t.Errorf("%d are remembered after an hour, want 1", len(c.gone))
	}
}
