package lru

import (
	"errors"
	"testing"
)

// A hold counts as what it is, makes room for itself, and gives all of it back.
func TestHold(t *testing.T) {
	s := open(t, Config{MaxSize: 1 << 20})
	for _, key := range []string{"a", "b", "c"} {
		if err := s.Put(key, make([]byte, 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.Usage()
	h := s.NewHold()
	if err := h.Resize(t.Context(), 100<<10, 50<<10); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Bytes != before.Bytes+100<<10 || u.Evictions != 0 {
		t.Errorf("with 100 KiB held: %+v, before: %+v", u, before)
	}
	if p := s.pending.Load(); p != 50<<10 {
		t.Errorf("%d bytes pending, want 50 KiB", p)
	}
	if err := h.Resize(t.Context(), 700<<10, 700<<10); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Evictions == 0 || u.Bytes > 1<<20 {
		t.Errorf("with 700 KiB held: %+v", u)
	}
	if err := h.Resize(t.Context(), 2<<20, 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2 MiB of 1 MiB: %v", err)
	}
	if err := h.Resize(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.InFlight != 0 || s.pending.Load() != 0 {
		t.Errorf("after the hold: %+v, %d pending", u, s.pending.Load())
	}
}
