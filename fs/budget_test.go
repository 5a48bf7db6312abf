package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"modfs/lru"
)

func TestBudget(t *testing.T) {
	const room = 4 * (entryOverhead + 100)
	b := newBudget[int, string](room)
	for i := range 4 {
		b.add(i, fmt.Sprint(i), 100)
	}
	if b.bytes() != room {
		t.Errorf("%d bytes, want %d", b.bytes(), room)
	}
	b.get(0) // 1 is now the one unused for longest
	b.add(4, "4", 100)
	for i, want := range []bool{true, false, true, true, true} {
		if v, ok := b.get(i); ok != want || ok && v != fmt.Sprint(i) {
			t.Errorf("%d: %q, %v, want %v", i, v, ok, want)
		}
	}
	b.add(2, "other", 50) // replaced: the old bytes are taken off
	if v, _ := b.get(2); v != "other" || b.bytes() != room-50 {
		t.Errorf("%q, %d bytes, want %d", v, b.bytes(), room-50)
	}
	b.add(2, "too large", room)
	if v, ok := b.get(2); ok || b.bytes() != 3*(entryOverhead+100) {
		t.Errorf("%q, %d bytes: the old value is not that of the key any more", v, b.bytes())
	}
	b.add(5, "all", room-entryOverhead)
	if _, ok := b.get(5); !ok || b.bytes() != room {
		t.Errorf("%v, %d bytes, want it alone", ok, b.bytes())
	}
	b.remove(5)
	b.remove(5)
	if b.bytes() != 0 {
		t.Errorf("%d bytes when empty", b.bytes())
	}
	tiny := newBudget[int, int](1)
	tiny.add(1, 1, 0)
	if _, ok := tiny.get(1); ok || tiny.bytes() != 0 {
		t.Error("kept without room for it")
	}
}

// TestBudgetInvariant checks after each of many steps that the bytes are those of what is there, and within the limit.
func TestBudgetInvariant(t *testing.T) {
	const room = 10 * entryOverhead
	b := newBudget[int, int64](room)
	for i := range 5000 {
		k, size := i*7919%23, int64(i*104729%(2*entryOverhead))
		switch i % 5 {
		case 0:
			b.remove(k)
		case 1:
			b.get(k)
		default:
			b.add(k, size, size)
		}
		sum := int64(0)
		for _, v := range b.lru.Values() {
			sum += v.value + entryOverhead
		}
		if b.bytes() != sum || sum > room {
			t.Fatalf("step %d: %d bytes, entries have %d, limit %d", i, b.bytes(), sum, room)
		}
	}
}

// storeFile puts a file into a store and returns it open.
func storeFile(tb testing.TB, s *lru.Store, key string) *lru.File {
	tb.Helper()
	if err := s.Put(key, []byte(key)); err != nil {
		tb.Fatal(err)
	}
	f, err := s.Get(key)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func openStoreTest(tb testing.TB) *lru.Store {
	tb.Helper()
	s, err := lru.Open(lru.Config{Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

// isOpen reports whether a handle's file can be read.
func isOpen(h *handle) bool {
	_, err := h.ReadAt(make([]byte, 1), 0)
	return !errors.Is(err, os.ErrClosed)
}

func TestHandles(t *testing.T) {
	s := openStoreTest(t)
	h := newHandles(maxHandles)
	if h.get("a") != nil {
		t.Error("a file in an empty table")
	}
	a := h.add("a", storeFile(t, s, "a"))
	if got := h.get("a"); got != a {
		t.Errorf("got %v, want %v", got, a)
	}
	h.put(a)
	h.drop("a")
	h.drop("a")
	if h.get("a") != nil || !isOpen(a) {
		t.Error("dropped while in use: want it gone, and readable")
	}
	h.put(a)
	if isOpen(a) {
		t.Error("open after its last use")
	}

	b := h.add("b", storeFile(t, s, "b"))
	h.put(b)
	if !isOpen(b) {
		t.Error("closed while in the table")
	}
	b2 := h.add("b", storeFile(t, s, "b"))
	if isOpen(b) || !isOpen(b2) {
		t.Error("replaced: want the old one closed")
	}
	h.closeAll()
	if !isOpen(b2) || h.get("b") != nil {
		t.Error("closed while in use")
	}
	h.put(b2)
	if isOpen(b2) {
		t.Error("open after all")
	}
}

// TestHandlesBound opens more files than may be open.
func TestHandlesBound(t *testing.T) {
	s := openStoreTest(t)
	h := newHandles(maxHandles)
	var all []*handle
	for i := range maxHandles + 10 {
		key := fmt.Sprint("f", i)
		all = append(all, h.add(key, storeFile(t, s, key)))
		if i != 5 { // who reads from it keeps it open
			h.put(all[i])
		}
		h.get("f0")
		h.put(all[0]) // always the one used last
	}
	for i, x := range all {
		if got, want := isOpen(x), i == 0 || i == 5 || i > 10; got != want {
			t.Errorf("file %d: open %v, want %v", i, got, want)
		}
	}
	h.put(all[5])
	h.closeAll()
	if slices.ContainsFunc(all, isOpen) {
		t.Error("a file is open after all")
	}
}

// TestKeepOpen checks that a file which was evicted before it came into the table of open files does not stay there: its
// bytes would never be free.
func TestKeepOpen(t *testing.T) {
	s := openStoreTest(t)
	f := &FS{store: s, zips: newHandles(maxHandles)}
	file := storeFile(t, s, "a.zip")
	if err := s.Remove("a.zip"); err != nil {
		t.Fatal(err)
	}
	h := f.keepOpen("a.zip", file)
	if !isOpen(h) || f.zips.get("a.zip") != nil {
		t.Error("want it open for its reader, and for nobody else")
	}
	f.zips.put(h)
	if n := s.Usage().UnlinkedOpen; n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "a.zip")); err == nil {
		t.Error("it is there")
	}
}

func TestAnswers(t *testing.T) {
	a := newAnswers()
	if _, ok := a.get("q"); ok {
		t.Error("an answer to what was never asked")
	}
	kept := a.keep("q", nil)
	got, ok := a.get("q")
	if !ok || got.data == nil || len(got.data) != 0 || got.at.IsZero() || !got.at.Equal(kept.at) {
		t.Errorf("%+v, %t: want an answer that is empty and not nil, as old as %v", got, ok, kept.at)
	}
	a.by.add("old", answer{[]byte("x"), time.Now().Add(-answerTimeout)}, 1)
	if _, ok := a.get("old"); ok {
		t.Error("an answer that is too old")
	}
	large := make([]byte, answersMemory/10)
	for i := range 100 {
		a.keep(fmt.Sprint(i), large)
		if n := a.by.bytes(); n > answersMemory {
			t.Fatalf("%d bytes of answers are remembered", n)
		}
	}
}
