package fs

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// turnLog runs verifications of some files each, and notes in which order they come.
type turnLog struct {
	t  turns
	mu sync.Mutex
	at []string
}

func (l *turnLog) add(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = append(l.at, what)
}

// verify takes a second for each of n files.
func (l *turnLog) verify(md *mod, n int) {
	for range n {
		l.t.verify(context.Background(), md)
		l.add(md.Path)
		time.Sleep(time.Second)
	}
	l.t.verified(md)
}

func newTurnMod(name string) *mod {
	md := new(mod)
	md.Path = name
	return md
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l turnLog
		a, b, now := newTurnMod("a"), newTurnMod("b"), newTurnMod("now")
		var wg sync.WaitGroup
		wg.Go(func() { l.verify(a, 4) })
		time.Sleep(time.Millisecond)
		wg.Go(func() { l.verify(b, 2) }) // one after the other
		time.Sleep(1500 * time.Millisecond)
		// What somebody waits for is next, whatever has begun.
		wg.Go(func() {
			defer l.t.want(now)()
			l.verify(now, 3)
		})
		wg.Wait()
		if want := []string{"a", "a", "now", "now", "now", "a", "a", "b", "b"}; !slices.Equal(l.at, want) {
			t.Errorf("%q, want %q", l.at, want)
		}
		if len(l.t.verifying) > 0 || len(l.t.waiters) > 0 {
			t.Errorf("%+v", &l.t)
		}
	})
}

// Whoever is waited for while it waits goes on at once.
func TestTurnsPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l turnLog
		a, b, now := newTurnMod("a"), newTurnMod("b"), newTurnMod("now")
		done := l.t.want(now)
		go l.verify(now, 10)
		time.Sleep(100 * time.Millisecond)
		var wg sync.WaitGroup
		for _, md := range []*mod{a, b} {
			wg.Go(func() { l.verify(md, 1) })
		}
		synctest.Wait()
		if want := []string{"now"}; !slices.Equal(l.at, want) {
			t.Errorf("%q, want %q", l.at, want)
		}
		doneB := l.t.want(b)
		synctest.Wait()
		if want := []string{"now", "b"}; !slices.Equal(l.at, want) {
			t.Errorf("%q, want %q", l.at, want)
		}
		doneB()
		// Nobody waits any more for what is being verified: it is one of those fetched ahead, and the first of them.
		done()
		wg.Wait()
		if l.at[len(l.at)-1] != "a" || len(l.at) != 12 {
			t.Errorf("%q", l.at)
		}
	})
}

// What is fetched ahead is verified when nobody has waited for a while, on some of the cores.
func TestTurnsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := turnLog{t: turns{cores: 3}}
		a, now := newTurnMod("a"), newTurnMod("now")
		done := l.t.want(now)
		if cores := l.t.verify(t.Context(), now); cores != 0 {
			t.Errorf("%d cores, want all", cores)
		}
		l.t.verified(now)
		done()
		start := time.Now()
		if cores := l.t.verify(t.Context(), a); cores != 3 {
			t.Errorf("%d cores, want 3", cores)
		}
		if waited := time.Since(start); waited != quiet {
			t.Errorf("after %v, want %v", waited, quiet)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.t.verify(ctx, newTurnMod("b")) // a is not done
		if ctx.Err() == nil {
			t.Error("two at a time")
		}
	})
}

func TestTurnsDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tu turns
		md := newTurnMod("a")
		for range zipsAhead {
			if !tu.download(t.Context(), newTurnMod("")) {
				t.Fatal("not downloaded")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if tu.download(ctx, md) {
			t.Error("one too many")
		}
		begun := false
		go func() { begun = tu.download(t.Context(), md) }()
		synctest.Wait()
		if begun {
			t.Error("one too many")
		}
		defer tu.want(md)() // then it waits for none
		synctest.Wait()
		if !begun || tu.ahead != zipsAhead+1 {
			t.Errorf("%v, %d at a time", begun, tu.ahead)
		}
		tu.downloaded()
		tu.downloaded()
		if !tu.download(t.Context(), newTurnMod("")) {
			t.Error("not downloaded")
		}
	})
}
