package lru

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// TestPinnedFromStart opens a store with a lower limit: what is pinned stays although it was unused for longest.
func TestPinnedFromStart(t *testing.T) {
	clk := newClock()
	dir := t.TempDir()
	c := Config{Dir: dir, Now: clk.now}
	s := open(t, c)
	for _, key := range []string{"a", "b", "c"} {
		fill(t, s, key, 1<<20)
		clk.advance(time.Hour)
	}
	s.Close()
	c.MaxSize, c.Pinned = 2<<20+1<<19, []string{"a", "none"}
	s = open(t, c)
	if !has(s, "a") || has(s, "b") || !has(s, "c") {
		t.Errorf("a %v, b %v, c %v: want b evicted", has(s, "a"), has(s, "b"), has(s, "c"))
	}
	if i, err := s.Stat("a"); err != nil || !i.Pinned {
		t.Errorf("%+v, %v", i, err)
	}
	s.Pin("a", false)
	s.Evict(0)
	if has(s, "a") {
		t.Error("a cannot be unpinned")
	}
}

// TestCauses checks that the owner is told why each file goes.
func TestCauses(t *testing.T) {
	clk := newClock()
	var told []string
	s := open(t, Config{MaxSize: 4 << 20, MaxAge: 24 * time.Hour, Now: clk.now, OnEvict: func(e Eviction) {
		told = append(told, fmt.Sprintf("%s %d %d", e.Key, e.Size, e.Why))
	}})
	want := func(what string, evictions ...string) {
		t.Helper()
		if !slices.Equal(told, evictions) {
			t.Errorf("%s: %v, want %v", what, told, evictions)
		}
		told = nil
	}
	fill(t, s, "old", 1<<20)
	clk.advance(25 * time.Hour)
	fill(t, s, "a", 1<<20)
	s.maintain()
	want("after a day", fmt.Sprintf("old %d %d", 1<<20, ForAge))
	clk.advance(time.Hour)
	fill(t, s, "b", 1<<20)
	if freed := s.EvictUnused(clk.now()); freed < 1<<20 {
		t.Errorf("%d bytes freed", freed)
	}
	want("unused", fmt.Sprintf("a %d %d", 1<<20, OnDemand))
	s.Evict(0)
	want("to a size", fmt.Sprintf("b %d %d", 1<<20, OnDemand))
	fill(t, s, "c", 3<<20)
	fill(t, s, "d", 3<<20)
	want("for room", fmt.Sprintf("c %d %d", 3<<20, ForRoom))
	if err := os.Remove(s.path("d")); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	want("gone", fmt.Sprintf("d %d %d", 3<<20, Lost))
}

func TestSweep(t *testing.T) {
	s := open(t, Config{})
	fill(t, s, "a", 1<<16)
	fill(t, s, "b", 1<<16)
	if err := s.Quarantine("a"); err != nil {
		t.Fatal(err)
	}
	if freed := s.Sweep(); freed < 1<<16 {
		t.Errorf("%d bytes freed", freed)
	}
	if names, err := os.ReadDir(s.path(quarantineDir)); err != nil || len(names) != 0 || !has(s, "b") {
		t.Errorf("quarantine has %v, %v; b is there: %v", names, err, has(s, "b"))
	}
	if got := s.All("b"); len(got) != 1 || got["b"].Size != 1<<16 {
		t.Errorf("%+v, want b", got)
	}
}
