package lru

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestDu has many fillers compete for a small store while its directory is measured again and again.
//
// A walk takes time, so it could see more than there ever was at once. While it walks, therefore, no I/O that adds to what
// is there may begin. What has begun was charged before, so the walk must not find more than the limit.
func TestDu(t *testing.T) {
	const limit = 8 * mib
	s := open(t, Config{MaxSize: limit, Evictable: func(key string) bool { return key[0] == 'z' }})
	var gate sync.RWMutex
	s.hook = func(op, name string) error {
		gate.RLock()
		defer gate.RUnlock()
		return nil
	}
	done := make(chan struct{})
	var fillers, sampler sync.WaitGroup
	samples, most := 0, int64(0)
	sampler.Go(func() {
		for {
			gate.Lock()
			n := du(t, s.Dir())
			u := s.Usage()
			gate.Unlock()
			samples++
			most = max(most, n)
			if n > limit || u.Bytes > limit {
				t.Errorf("du shows %d bytes, the ledger has %d, the limit is %d", n, u.Bytes, limit)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for g := range 6 {
		fillers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			for i := range 25 {
				key := fmt.Sprintf("z%d/%d/%d.zip", r.IntN(4), g, i)
				n := r.IntN(mib)
				announce := r.IntN(2) == 0
				f, err := s.Fill(context.Background(), key, func(ctx context.Context, tmp *Temp) error {
					if announce {
						return filler(key, n)(ctx, tmp)
					}
					return writeAll(tmp, key, n)
				})
				if err != nil {
					t.Error(err)
					return
				}
				mustPut(t, s, fmt.Sprintf("mod/%d/%d", g, i), content(key, r.IntN(3000)))
				f.Close()
			}
		})
	}
	fillers.Wait()
	close(done)
	sampler.Wait()
	if most < limit/2 || s.Usage().Evictions == 0 {
		t.Errorf("nothing was proved: at most %d bytes in %d samples", most, samples)
	}
	verify(t, s, 0)
}

// TestManyFillers has 64 fillers and readers compete for a store that has room for a quarter of what they want, some of it larger
// than the limit. Each holds a file open that is soon evicted, which takes space that du does not show: with it, too, the limit
// holds at any moment, and nobody but those who want too much fails.
func TestManyFillers(t *testing.T) {
	const limit, fillers, rounds = 12 * mib, 64, 12 // and more rounds until the sampler has seen something
	s := open(t, Config{MaxSize: limit})
	var gate sync.RWMutex
	s.hook = func(op, name string) error {
		gate.RLock()
		defer gate.RUnlock()
		return nil
	}
	var mu sync.Mutex
	held := make(map[*File]bool)
	hold := func(f *File, on bool) {
		mu.Lock()
		defer mu.Unlock()
		if on {
			held[f] = true
		} else {
			delete(held, f)
		}
	}
	// unlinked is what du does not show. A file that is held twice counts once.
	unlinked := func() (n int64) {
		mu.Lock()
		defer mu.Unlock()
		seen := make(map[uint64]bool)
		for f := range held {
			fi, err := f.sh.f.Stat()
			if err != nil {
				t.Error(err)
			} else if nlink(fi) == 0 && !seen[inode(fi)] {
				seen[inode(fi)] = true
				n += allocated(fi)
			}
		}
		return n
	}
	done := make(chan struct{})
	var group, sampler sync.WaitGroup
	var most, mostUnlinked int64
	var proved atomic.Bool
	sampler.Go(func() {
		for {
			gate.Lock()
			u := unlinked() // before du: what is unlinked in between would count twice
			n := du(t, s.Dir())
			bytes := s.Usage().Bytes
			gate.Unlock()
			most, mostUnlinked = max(most, n+u), max(mostUnlinked, u)
			proved.Store(most >= limit/2 && mostUnlinked > 0)
			if n+u > limit || bytes > limit {
				t.Errorf("du shows %d bytes, %d are unlinked and open, the ledger has %d, the limit is %d", n, u, bytes, limit)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for g := range fillers {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			var mine *File
			for i := 0; i < rounds || i < 100*rounds && !proved.Load(); i++ {
				key := fmt.Sprintf("z/%d", r.IntN(fillers*rounds/4)) // others want it, too
				f, err := s.Fill(context.Background(), key, filler(key, 16<<10+len(key)*(16<<10)))
				if err != nil {
					t.Error(err)
					return
				}
				hold(f, true)
				if mine != nil {
					hold(mine, false)
					mine.Close()
				}
				mine = f
				if i%4 == 0 {
					_, err := s.Fill(context.Background(), fmt.Sprintf("large/%d", g), filler("large", limit))
					wantErr(t, err, ErrTooLarge)
				}
			}
			hold(mine, false)
			mine.Close()
		})
	}
	group.Wait()
	close(done)
	sampler.Wait()
	if !proved.Load() || s.Usage().Evictions == 0 {
		t.Errorf("nothing was proved: at most %d bytes, of which %d unlinked", most, mostUnlinked)
	}
	verify(t, s, 0)
}

// TestDirectories: directories with many long names take more than one block, and that counts too.
func TestDirectories(t *testing.T) {
	s := open(t, Config{})
	for i := range 1500 {
		mustPut(t, s, fmt.Sprintf("dir/a-name-of-some-length-so-that-the-directory-grows-%04d", i*7919%1500), []byte("x"))
	}
	verify(t, s, 0)
	for i := range 1499 {
		if err := s.Remove(fmt.Sprintf("dir/a-name-of-some-length-so-that-the-directory-grows-%04d", i)); err != nil {
			t.Fatal(err)
		}
	}
	verify(t, s, 0) // the directory did not shrink, nor did the account
	s.Evict(0)
	if n := s.Usage().Bytes; n != skeleton {
		t.Errorf("an empty store has %d bytes, want %d", n, skeleton)
	}
	verify(t, s, 0)
}
