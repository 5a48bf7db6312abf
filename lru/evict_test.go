package lru

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mib is the size of most files here.
const mib = 1 << 20

func key(i int) string { return fmt.Sprintf("d%d/%03d.zip", i%3, i) }

func TestEvictOldestFirst(t *testing.T) {
	var s *Store
	var evicted []string
	clk := newClock()
	s = open(t, Config{MaxSize: 20 * mib, Now: clk.now, OnEvict: func(e Eviction) {
		key := e.Key
		evicted = append(evicted, key)
		s.Usage() // no lock is held
		if has(s, key) {
			t.Errorf("%s is there in OnEvict", key)
		}
	}})
	for i := range 18 {
		fill(t, s, key(i), mib)
		clk.advance(time.Second)
	}
	s.Touch(key(0))
	if f, err := s.Get(key(1)); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	s.Pin(key(2), true)
	fill(t, s, key(18), mib)
	fill(t, s, key(19), mib) // over 98 %: down to 95 %
	if got, want := strings.Join(evicted, " "), key(3)+" "+key(4); got != want {
		t.Errorf("evicted %s, want %s", got, want)
	}
	u := s.Usage()
	if u.Bytes > 19*mib || u.Evictions != 2 || u.EvictedBytes < 2*mib || u.Files != 18 || u.Limit != 20*mib {
		t.Errorf("usage %+v", u)
	}
	s.Pin(key(2), false) // now it is the last
	s.Evict(0)
	if len(evicted) != 20 || evicted[19] != key(2) || s.Usage().Files != 0 {
		t.Errorf("evicted %s", evicted)
	}
	verify(t, s, 0)
}

func TestTooLarge(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	fill(t, s, "a", mib)
	_, err := s.Fill(t.Context(), "b", filler("b", 4*mib))
	wantErr(t, err, ErrTooLarge)
	_, err = s.Fill(t.Context(), "b", func(_ context.Context, tmp *Temp) error { return writeAll(tmp, "b", 4*mib) })
	wantErr(t, err, ErrTooLarge)
	wantErr(t, s.Put("b", make([]byte, 5*mib)), ErrTooLarge)
	// Unannounced, it had to make room while it could still have fitted.
	_, err = s.Fill(t.Context(), "c", filler("c", 3*mib+mib/2)) // fits alone
	if err != nil || has(s, "a") {
		t.Errorf("%v", err)
	}
}

func TestTooLargeEvictsNothing(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	fill(t, s, "a", 3*mib)
	_, err := s.Fill(t.Context(), "b", filler("b", 4*mib))
	wantErr(t, err, ErrTooLarge)
	if !has(s, "a") {
		t.Error("evicted in vain")
	}
	verify(t, s, 0)
}

func TestPermanentFilesFillTheLimit(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib, Evictable: func(key string) bool { return strings.HasSuffix(key, ".zip") }})
	fill(t, s, "a.zip", mib)
	fill(t, s, "b.mod", 2*mib)
	_, err := s.Fill(t.Context(), "c.zip", filler("c.zip", 2*mib))
	wantErr(t, err, ErrNoSpace)
	if err == nil || !strings.Contains(err.Error(), "may not be evicted") {
		t.Errorf("the error does not say why: %v", err)
	}
	if !has(s, "a.zip") {
		t.Error("evicted in vain")
	}
	wantErr(t, s.Put("d.mod", make([]byte, 3*mib/2+mib)), ErrNoSpace)
	mustPut(t, s, "d.mod", make([]byte, mib+mib/2)) // evicts the zip
	if has(s, "a.zip") {
		t.Error("zip is there")
	}
	verify(t, s, 0)
}

func TestOpenReader(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	f, err := s.Fill(t.Context(), "a", filler("a", 2*mib))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, "b", mib)
	fill(t, s, "c", mib) // a goes, and since that frees nothing, b as well
	if has(s, "a") || has(s, "b") || !has(s, "c") {
		t.Error("a and b should be evicted, and c be there")
	}
	u := s.Usage()
	if u.UnlinkedOpen < 2*mib || u.Bytes > 4*mib {
		t.Errorf("usage %+v", u)
	}
	verify(t, s, u.UnlinkedOpen)
	got := make([]byte, 2*mib)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content("a", 2*mib)) {
		t.Errorf("reader disturbed: %v", err)
	}
	// d fits only when the reader of a is gone, for which it waits.
	waiting := make(chan error)
	go func() {
		_, err := s.Fill(context.Background(), "d", filler("d", 2*mib+mib/2))
		waiting <- err
	}()
	await(t, "the fill to wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting == 1
	})
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if n := s.Usage().UnlinkedOpen; n != 0 {
		t.Errorf("%d bytes unlinked and open", n)
	}
}

// TestNobodyLeaves: a reader who never closes does not hang those who want space for ever, and neither does Close.
func TestNobodyLeaves(t *testing.T) {
	for _, how := range []string{"patience", "close"} {
		t.Run(how, func(t *testing.T) {
			s := open(t, Config{MaxSize: 4 * mib})
			if how == "patience" {
				s.patience = time.Millisecond
			} else {
				s.patience = time.Hour
			}
			f, err := s.Fill(t.Context(), "a", filler("a", 3*mib))
			if err != nil {
				t.Fatal(err)
			}
			result := make(chan error)
			go func() {
				_, err := s.Fill(context.Background(), "b", filler("b", 2*mib))
				result <- err
			}()
			want := ErrNoSpace
			if how == "close" {
				want = ErrClosed
				await(t, "the fill to wait", func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.waiting == 1
				})
				s.Close()
			}
			wantErr(t, <-result, want)
			if how == "patience" {
				verify(t, s, s.Usage().UnlinkedOpen)
			}
			f.Close()
		})
	}
}

// TestFillsWaitForEachOther: of two fills that fit only one after the other, the second waits for the first to become evictable.
func TestFillsWaitForEachOther(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	s.patience = time.Hour
	announced, waiting := make(chan struct{}), make(chan struct{})
	result := make(chan error)
	go func() {
		f, err := s.Fill(context.Background(), "a", func(ctx context.Context, tmp *Temp) error {
			if err := tmp.Reserve(3 * mib); err != nil {
				return err
			}
			close(announced)
			<-waiting
			return writeAll(tmp, "a", 3*mib)
		})
		if err == nil {
			err = f.Close()
		}
		result <- err
	}()
	<-announced
	go func() {
		f, err := s.Fill(context.Background(), "b", filler("b", 2*mib))
		if err == nil {
			err = f.Close()
		}
		result <- err
	}()
	await(t, "b to wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting == 1
	})
	close(waiting)
	for range 2 {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	if has(s, "a") || !has(s, "b") {
		t.Error("b came after a, and there is no room for both")
	}
	verify(t, s, 0)
}

// TestDeadlockIsBroken: when two fills have begun to write and neither can go on, one gives up.
func TestDeadlockIsBroken(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	s.patience = time.Hour
	var begun sync.WaitGroup
	begun.Add(2)
	results := make(chan error, 2)
	for _, k := range []string{"a", "b"} {
		go func() {
			f, err := s.Fill(context.Background(), k, func(_ context.Context, tmp *Temp) error {
				if err := writeAll(tmp, k, mib+mib/2); err != nil {
					return err
				}
				begun.Done()
				begun.Wait() // both have 1.5 MiB, and want as much again
				return writeAll(tmp, k, mib+mib/2)
			})
			if err == nil {
				f.Close()
			}
			results <- err
		}()
	}
	one, two := <-results, <-results
	if (one == nil) == (two == nil) {
		t.Errorf("want one to succeed: %v, %v", one, two)
	}
	wantErr(t, errors.Join(one, two), ErrNoSpace)
	verify(t, s, 0)
}

// TestPutInFills: fills that have all the room put small files, which neither waits for: each would wait for the other.
func TestPutInFills(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	s.patience = time.Hour
	var begun, put sync.WaitGroup
	begun.Add(2)
	put.Add(2)
	results := make(chan error, 2)
	for _, k := range []string{"a", "b"} {
		go func() {
			f, err := s.Fill(context.Background(), k, func(_ context.Context, tmp *Temp) error {
				defer put.Done()
				if err := writeAll(tmp, k, 2*mib-16*block); err != nil {
					return err
				}
				begun.Done()
				begun.Wait()
				wantErr(t, s.Put("small/"+k, make([]byte, 64*block)), ErrNoSpace)
				return nil
			})
			put.Wait()
			if err == nil {
				f.Close()
			}
			results <- err
		}()
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	verify(t, s, 0)
}

// TestPutWaitsForReaders: where what was unlinked is still open, a small file waits for it to be closed, but not for long.
func TestPutWaitsForReaders(t *testing.T) {
	s := open(t, Config{MaxSize: 4 * mib})
	s.patience = time.Hour
	f, err := s.Fill(t.Context(), "a", filler("a", 3*mib))
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.Put("b", make([]byte, 2*mib)), ErrNoSpace) // now a has no name
	result := make(chan error)
	go func() { result <- s.Put("b", make([]byte, 2*mib)) }()
	f.Close()
	if err := <-result; err != nil {
		t.Error(err)
	}
	verify(t, s, 0)
}

func TestMaxAge(t *testing.T) {
	clk := newClock()
	c := Config{Dir: t.TempDir() + "/s", MaxAge: time.Hour, Now: clk.now}
	s := open(t, c)
	for _, k := range []string{"a", "b", "pinned", "c"} {
		fill(t, s, k, 100)
	}
	s.Pin("pinned", true)
	clk.advance(50 * time.Minute)
	s.Touch("b")
	clk.advance(20 * time.Minute)
	s.maintain()
	if has(s, "a") || !has(s, "b") || has(s, "c") || !has(s, "pinned") {
		t.Errorf("usage %+v", s.Usage())
	}
	verify(t, s, 0)
	s.Close()
	clk.advance(time.Hour)
	s = open(t, c)
	if n := s.Usage().Files; n != 0 {
		t.Errorf("%d files are too old", n)
	}
	verify(t, s, 0)
}

func TestMinFree(t *testing.T) {
	clk := newClock()
	s := open(t, Config{MinFreePercent: 10, Now: clk.now})
	const total = 100 * mib
	others := int64(70 * mib) // what other programs have on the partition
	s.measure = func() (partition, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		// What is in flight has not been written when the store asks.
		return partition{free: total - others - (s.used() - s.temps), total: total}, nil
	}
	for i := range 15 {
		fill(t, s, key(i), mib)
		clk.advance(time.Second)
	}
	if u := s.Usage(); u.Evictions != 0 || u.Total != total {
		t.Errorf("usage %+v", u)
	}
	for i := range 15 {
		fill(t, s, key(15+i), mib)
		if u := s.Usage(); u.Free < 10*mib {
			t.Errorf("%d bytes free after %d fills", u.Free, i)
		}
	}
	if !has(s, key(29)) || has(s, key(0)) || s.Usage().Evictions == 0 {
		t.Errorf("usage %+v", s.Usage())
	}
	others += 5 * mib // somebody else takes more: maintenance gives way
	s.maintain()
	if u := s.Usage(); u.Free < 10*mib || u.Files == 0 {
		t.Errorf("usage %+v", u)
	}
	n := s.Usage().Files
	_, err := s.Fill(t.Context(), "big", filler("big", 30*mib))
	wantErr(t, err, ErrNoSpace)
	if err == nil || !strings.Contains(err.Error(), "stay free") {
		t.Errorf("the error does not say why: %v", err)
	}
	if s.Usage().Files != n {
		t.Error("evicted in vain")
	}
	verify(t, s, 0)
}

// TestFull injects ENOSPC into each kind of I/O that allocates, and into all at once.
func TestFull(t *testing.T) {
	for _, op := range []string{"mkdir", "create", "preallocate", "write", "sync", "rename", "all"} {
		t.Run(op, func(t *testing.T) {
			s := open(t, Config{})
			for i := range 10 {
				fill(t, s, key(i), 10*block)
			}
			var mu sync.Mutex
			left := 2 // operations that fail
			s.hook = func(o, name string) error {
				mu.Lock()
				defer mu.Unlock()
				if left == 0 || o == "unlink" || o == "open" || op != "all" && o != op {
					return nil
				}
				left--
				return &iofs.PathError{Op: o, Path: name, Err: syscall.ENOSPC}
			}
			for op == "sync" && left > 0 { // what was written is lost
				_, err := s.Fill(t.Context(), "new/dir/file", filler("new/dir/file", 20*block))
				wantErr(t, err, ErrNoSpace)
			}
			fill(t, s, "new/dir/file", 20*block)
			if s.Usage().Evictions == 0 || left != 0 {
				t.Errorf("usage %+v, %d failures left", s.Usage(), left)
			}
			left = 1 << 30
			_, err := s.Fill(t.Context(), "another/dir/file", filler("another/dir/file", mib))
			wantErr(t, err, ErrNoSpace)
			wantErr(t, err, syscall.ENOSPC)
			if n := s.Usage().Files; n != 0 {
				t.Errorf("%d files left", n)
			}
			left = 0
			fill(t, s, "another/dir/file", mib)
			verify(t, s, 0)
		})
	}
}

func TestUnlinkFails(t *testing.T) {
	s := open(t, Config{})
	fill(t, s, "a", 100)
	fill(t, s, "b", 100)
	s.hook = func(op, name string) error {
		if op == "unlink" && name == "a" {
			return syscall.EIO
		}
		return nil
	}
	s.Evict(0)
	wantErr(t, s.Remove("a"), syscall.EIO)
	if got, err := s.ReadFile("a", 100); err != nil || len(got) != 100 || has(s, "b") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s.hook = nil
	verify(t, s, 0)
}

func TestCallbacksPanic(t *testing.T) {
	s := open(t, Config{
		MaxSize:   4 * mib,
		OnEvict:   func(Eviction) { panic("OnEvict") },
		Evictable: func(key string) bool { return key != "panic" || 1/len(key[5:]) > 0 },
	})
	fill(t, s, "panic", 100) // not evictable, to be safe
	fill(t, s, "a", 3*mib)
	fill(t, s, "b", 3*mib)
	s.Evict(0)
	if !has(s, "panic") {
		t.Error("evicted")
	}
	verify(t, s, 0)
}

func TestSpare(t *testing.T) {
	clk := newClock()
	s := open(t, Config{MaxSize: 20 * mib, Now: clk.now})
	for i := range 18 {
		fill(t, s, key(i), mib)
		clk.advance(time.Second)
	}
	since := clk.now().Add(-15 * time.Second) // the first three were not used since
	spare := func(announce bool) func(context.Context, *Temp) error {
		return func(_ context.Context, tmp *Temp) error {
			tmp.Spare(since)
			if announce {
				if err := tmp.Reserve(mib); err != nil {
					return err
				}
			}
			return writeAll(tmp, "x", mib)
		}
	}
	n := 18
	for ; n < 100; n++ {
		f, err := s.Fill(t.Context(), key(n), spare(n%2 == 0))
		if err != nil {
			wantErr(t, err, ErrNoSpace)
			break
		}
		f.Close()
		clk.advance(time.Second)
	}
	if n < 20 || n > 22 {
		t.Errorf("%d were filled", n-18)
	}
	for i := 3; i < n; i++ {
		if !has(s, key(i)) {
			t.Errorf("%s is gone", key(i))
		}
	}
	if has(s, key(0)) || has(s, key(n)) {
		t.Error("what was not used since is still there, or what found no room is")
	}
	_, err := s.Fill(t.Context(), key(n), spare(false))
	wantErr(t, err, ErrNoSpace)
	fill(t, s, key(n), mib) // which spares nothing
	if has(s, key(3)) {
		t.Errorf("%s is still there", key(3))
	}
	verify(t, s, 0)
}
