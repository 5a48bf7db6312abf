package lru

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// model is what the store should be: contents, and evictable keys in order of use.
type model struct {
	files map[string][]byte
	order []string // oldest first
}

func (m *model) use(key string) {
	m.order = slices.DeleteFunc(m.order, func(k string) bool { return k == key })
	if m.files[key] != nil && !strings.HasSuffix(key, ".mod") {
		m.order = append(m.order, key)
	}
}

func (m *model) remove(key string) {
	delete(m.files, key)
	m.use(key)
}

// TestModel does random things to a store, one after the other, and compares it with the model after each.
func TestModel(t *testing.T) {
	clk := newClock()
	m := &model{files: make(map[string][]byte)}
	var evicted []string
	c := Config{
		Dir: filepath.Join(t.TempDir(), "s"), MaxSize: 2 * mib, Now: clk.now,
		Evictable: func(key string) bool { return !strings.HasSuffix(key, ".mod") },
		OnEvict:   func(e Eviction) { evicted = append(evicted, e.Key) },
	}
	s := open(t, c)
	r := rand.New(rand.NewPCG(3, 4))
	newKey := func() string {
		return fmt.Sprintf("%c/%d/%d.%s", 'a'+r.IntN(3), r.IntN(3), r.IntN(5), []string{"zip", "zip", "mod"}[r.IntN(3)])
	}
	// evictions takes from the model what the store says it evicted, which must have been the oldest.
	evictions := func() {
		t.Helper()
		for i, key := range evicted {
			if key != m.order[0] {
				t.Fatalf("evicted %s as number %d, the oldest is %s", key, i, m.order[0])
			}
			m.remove(key)
		}
		evicted = nil
	}
	for step := range 1500 {
		key := newKey()
		n := r.IntN(20_000)
		if strings.HasSuffix(key, ".zip") {
			n = 1 + r.IntN(300_000)
		}
		clk.advance(time.Second)
		op := r.IntN(10)
		switch op {
		case 0, 1, 2:
			f, err := s.Fill(t.Context(), key, filler(key, n))
			if err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			f.Close()
			evictions()
			if m.files[key] == nil {
				m.files[key] = content(key, n)
			}
			m.use(key)
		case 3:
			data := content(fmt.Sprint(step), n+1)
			if err := s.Put(key, data); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			evictions()
			m.files[key] = data
			m.use(key)
		case 4, 5:
			got, err := s.ReadFile(key, mib)
			if want := m.files[key]; want == nil && !errors.Is(err, iofs.ErrNotExist) || want != nil && (err != nil || !bytes.Equal(got, want)) {
				t.Fatalf("step %d: %s: %d bytes, %v, want %d", step, key, len(got), err, len(want))
			}
			m.use(key)
		case 6:
			s.Touch(key)
			m.use(key)
		case 7:
			if err := s.Remove(key); err != nil {
				t.Fatal(err)
			}
			m.remove(key)
		case 8:
			if err := s.Quarantine(key); err != nil {
				t.Fatal(err)
			}
			evictions()
			m.remove(key)
		case 9:
			switch r.IntN(10) {
			case 0:
				s.Evict(s.Usage().Bytes / 2)
				evictions()
			case 1:
				s.Close()
				clk.advance(2 * refresh) // so that each use is one for the mtime
				s = open(t, c)
				evictions()
				// Recency is that of the mtimes, which are off by the refresh interval.
				m.order = s.lru.Keys()
			}
		}
		if got, want := s.lru.Keys(), m.order; !slices.Equal(got, want) {
			t.Fatalf("step %d, op %d %s: order is\n%s, want\n%s", step, op, key, got, want)
		}
		if len(s.entries) != len(m.files) {
			t.Fatalf("step %d, op %d %s: %d files, want %d", step, op, key, len(s.entries), len(m.files))
		}
		if step%50 == 0 {
			verify(t, s, 0)
		}
		if t.Failed() {
			t.Fatalf("step %d, op %d %s", step, op, key)
		}
	}
	verify(t, s, 0)
}

// TestConcurrent does random things from many goroutines. Whoever gets a file must find the content of its key in it.
func TestConcurrent(t *testing.T) {
	s := open(t, Config{MaxSize: 3 * mib, Evictable: func(key string) bool { return !strings.HasSuffix(key, ".mod") }})
	var wg sync.WaitGroup
	check := func(key string, f *File, err error) {
		if err != nil {
			if !errors.Is(err, iofs.ErrNotExist) {
				t.Error(err)
			}
			return
		}
		got := make([]byte, f.Size())
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content(key, len(got))) {
			t.Errorf("%s: other content: %v", key, err)
		}
		f.Close()
	}
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 5))
			for range 150 {
				key := fmt.Sprintf("%c/%d.%s", 'a'+r.IntN(4), r.IntN(8), []string{"zip", "zip", "mod"}[r.IntN(3)])
				n := 1 + r.IntN(5000)
				if strings.HasSuffix(key, ".zip") {
					n = 1 + r.IntN(200_000)
				}
				switch r.IntN(10) {
				case 0, 1, 2:
					f, err := s.Fill(context.Background(), key, filler(key, n))
					check(key, f, err)
				case 3, 4:
					mustPut(t, s, key, content(key, n))
				case 5, 6:
					f, err := s.Get(key)
					check(key, f, err)
				case 7:
					if err := s.Remove(key); err != nil {
						t.Error(err)
					}
				case 8:
					if err := s.Quarantine(key); err != nil {
						t.Error(err)
					}
				case 9:
					s.Pin(key, true)
					s.Evict(mib)
					s.ReadDir(key[:1])
					s.Usage()
					s.Pin(key, false)
				}
			}
		})
	}
	wg.Wait()
	verify(t, s, 0)
}
