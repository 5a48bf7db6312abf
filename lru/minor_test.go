package lru

import (
	"fmt"
	"strings"
	"testing"
)

// TestMinor fills a store with small files that Evictable spares: they take a quarter of it, and all of them go rather than that a
// file does not fit.
func TestMinor(t *testing.T) {
	const max = 20 * mib
	c := Config{
		MaxSize:   max,
		Evictable: func(key string) bool { return strings.HasSuffix(key, ".zip") },
		Minor:     func(key string) bool { return strings.HasSuffix(key, ".mod") },
	}
	s := open(t, c)
	for i := range 4 {
		fill(t, s, key(i), mib)
	}
	mod := func(i int) string { return fmt.Sprintf("mods%d/%d.mod", i%50, i) }
	const n = 4000 // of a block each
	mustPut(t, s, "latest", []byte("x"))
	mustPut(t, s, mod(0), []byte("x"))
	for i := range n {
		if i == n/4 {
			s.ReadFile(mod(0), 1) // of those it is used last
		}
		mustPut(t, s, mod(i+1), []byte("x"))
	}
	for i := range 14 {
		fill(t, s, key(10+i), mib)
	}
	s.mu.Lock()
	if got := s.minorBytes + s.dirBytes; got > max/minorShare+mib || s.minorBytes < max/minorShare/2 {
		t.Errorf("%d bytes of small files, %d of directories, want about %d in all", s.minorBytes, s.dirBytes, max/minorShare)
	}
	s.mu.Unlock()
	if has(s, mod(1)) || !has(s, mod(n)) || !has(s, "latest") {
		t.Errorf("the oldest is there: %v; the newest: %v; what is not minor: %v", has(s, mod(1)), has(s, mod(n)), has(s, "latest"))
	}
	s.Evict(0) // the limit of small files is kept already
	if !has(s, mod(n)) || has(s, key(23)) {
		t.Error("Evict took what is minor, or left what is not")
	}
	verify(t, s, 0)

	// They go if nothing else can: for a file that needs nearly all of the store.
	fill(t, s, "large.zip", max-mib)
	s.mu.Lock()
	left := s.minorBytes
	s.mu.Unlock()
	if left > mib || !has(s, "latest") || !has(s, "large.zip") {
		t.Errorf("%d bytes of small files, latest: %v, the large file: %v", left, has(s, "latest"), has(s, "large.zip"))
	}
	verify(t, s, 0)
	dir := s.Dir()
	s.Close()

	// A lower limit takes them, too, when the store is opened.
	c.Dir, c.MaxSize = dir, 1<<20
	s = open(t, c)
	mustPut(t, s, mod(1), []byte("x"))
	verify(t, s, 0)
	if has(s, "large.zip") || !has(s, mod(1)) {
		t.Error("after a start with a lower limit")
	}
}
