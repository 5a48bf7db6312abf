package lru

import (
	"bytes"
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestFillOnce(t *testing.T) {
	s := open(t, Config{})
	const n = 64
	var calls atomic.Int64
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			f, err := s.Fill(context.Background(), "k", func(ctx context.Context, tmp *Temp) error {
				calls.Add(1)
				<-release
				return filler("k", 50_000)(ctx, tmp)
			})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			got := make([]byte, f.Size())
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content("k", 50_000)) {
				t.Errorf("content differs: %v", err)
			}
		})
	}
	await(t, "all to wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.flights["k"] != nil && s.flights["k"].waiters == n
	})
	if has(s, "k") {
		t.Error("there before it is filled")
	}
	close(release)
	wg.Wait()
	if calls.Load() != 1 || s.Usage().Fills != 1 {
		t.Errorf("%d calls, %d fills", calls.Load(), s.Usage().Fills)
	}
	fill(t, s, "k", 50_000) // is there: no call
	if s.Usage().Fills != 1 {
		t.Error("filled again")
	}
	verify(t, s, 0)
}

func TestFillFails(t *testing.T) {
	s := open(t, Config{})
	bad := errors.New("bad")
	for what, f := range map[string]func(context.Context, *Temp) error{
		"error":  func(_ context.Context, tmp *Temp) error { tmp.Write([]byte("x")); return bad },
		"panic":  func(_ context.Context, tmp *Temp) error { tmp.Reserve(1 << 20); panic("no") },
		"goexit": func(context.Context, *Temp) error { runtime.Goexit(); return nil },
	} {
		_, err := s.Fill(t.Context(), "a/"+what, f)
		if err == nil || what == "error" && !errors.Is(err, bad) || what != "error" && !strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: got %v", what, err)
		}
		if _, err := s.Get("a/" + what); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
		verify(t, s, 0)
	}
	fill(t, s, "a/error", 10) // the next one tries again
	verify(t, s, 0)
}

func TestFillOutlivesItsWaiters(t *testing.T) {
	s := open(t, Config{})
	ctx, cancel := context.WithCancelCause(context.Background())
	release, begun := make(chan struct{}), make(chan struct{})
	leave := errors.New("left")
	go func() {
		<-begun
		cancel(leave)
	}()
	_, err := s.Fill(ctx, "k", func(ctx context.Context, tmp *Temp) error {
		close(begun)
		<-release
		if ctx.Err() != nil {
			t.Error("the fill was canceled with its waiter")
		}
		return filler("k", 100)(ctx, tmp)
	})
	wantErr(t, err, leave)
	if has(s, "k") {
		t.Error("there already")
	}
	close(release)
	await(t, "the fill", func() bool { return has(s, "k") })
	if _, err := s.Fill(ctx, "other", nil); !errors.Is(err, leave) {
		t.Errorf("canceled before the start: %v", err)
	}
	s.Close() // waits for its end
	verify(t, s, 0)
}

func TestCloseEndsFills(t *testing.T) {
	s := open(t, Config{})
	begun := make(chan struct{})
	result := make(chan error)
	go func() {
		_, err := s.Fill(context.Background(), "k", func(ctx context.Context, tmp *Temp) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		})
		result <- err
	}()
	<-begun
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantErr(t, <-result, context.Canceled)
	verify(t, s, 0)
}

func TestTemp(t *testing.T) {
	s := open(t, Config{MaxSize: 16 << 20})
	var leaked *Temp
	f, err := s.Fill(t.Context(), "k", func(_ context.Context, tmp *Temp) error {
		leaked = tmp
		wantErr(t, tmp.Reserve(17<<20), ErrTooLarge)
		if err := tmp.Reserve(8 << 20); err != nil {
			return err
		}
		if n := s.Usage().InFlight; n < 8<<20 {
			t.Errorf("%d bytes in flight after Reserve", n)
		}
		tmp.Write([]byte("abcdef"))
		wantErr(t, tmp.Truncate(7), os.ErrInvalid)
		if err := tmp.Truncate(2); err != nil {
			return err
		}
		tmp.Write([]byte("CDEFGH"))
		got := make([]byte, 8)
		if _, err := tmp.ReadAt(got, 0); err != nil || string(got) != "abCDEFGH" || tmp.Size() != 8 {
			t.Errorf("got %q, %d, %v", got, tmp.Size(), err)
		}
		return tmp.Reserve(0) // less than is there
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaked.Write([]byte("late"))
	wantErr(t, err, errSealed)
	wantErr(t, leaked.Truncate(0), errSealed)
	wantErr(t, leaked.Reserve(1), errSealed)
	if f.Size() != 8 {
		t.Errorf("size %d", f.Size())
	}
	f.Close()
	// What was announced and not used is given back, by the disk as well.
	if f, err = s.Fill(t.Context(), "big", func(_ context.Context, tmp *Temp) error {
		if err := tmp.Reserve(8 << 20); err != nil {
			return err
		}
		return writeAll(tmp, "big", 1<<20)
	}); err != nil {
		t.Fatal(err)
	}
	if i, _ := s.Stat("big"); i.Disk > 1<<20+16*block {
		t.Errorf("1 MiB takes %d bytes", i.Disk)
	}
	f.Close()
	verify(t, s, 0)
}
