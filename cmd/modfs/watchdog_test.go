package main

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchdog has a mount that works for a while and then hangs: as long as it works its supervisor hears that, and never again.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every, limit = time.Second, 4
		var checks, alive atomic.Int64
		hang := make(chan struct{})
		w := &watchdog{every: every, limit: limit, alive: func() { alive.Add(1) }, check: func() {
			if checks.Add(1) > 10 {
				<-hang
			}
		}}
		start := time.Now()
		if !w.run(nil) {
			t.Error("it has not noticed")
		}
		if checks.Load() != 11 || alive.Load() != 10 {
			t.Errorf("%d checks, alive %d times", checks.Load(), alive.Load())
		}
		if d := time.Since(start); d != (11+limit)*every {
			t.Errorf("it took %v", d)
		}
		close(hang)
	})
}

// TestWatchdogPatient has a mount that takes its time, but not longer than there is patience for; and one without a limit that hangs.
func TestWatchdogPatient(t *testing.T) {
	for limit, check := range map[int]time.Duration{4: 3500 * time.Millisecond, 0: time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			stop := make(chan struct{})
			time.AfterFunc(20*time.Minute, func() { close(stop) })
			alive := 0
			w := &watchdog{every: time.Second, limit: limit, alive: func() { alive++ }, check: func() { time.Sleep(check) }}
			hangs := w.run(stop)
			time.Sleep(check) // for the last check
			if hangs {
				t.Errorf("limit %d: it takes a check of %v for a hang", limit, check)
			}
			if (alive == 0) != (limit == 0) {
				t.Errorf("limit %d: alive %d times", limit, alive)
			}
		})
	}
}

// TestNewWatchdog checks how often a mount is looked at.
func TestNewWatchdog(t *testing.T) {
	for _, tt := range []struct {
		supervisor, patience, every time.Duration
		limit                       int
	}{
		{0, 2 * time.Minute, 30 * time.Second, 4},
		{30 * time.Second, 2 * time.Minute, 10 * time.Second, 12},
		{30 * time.Second, 0, 10 * time.Second, 0},
		{time.Hour, time.Minute, 15 * time.Second, 4},
	} {
		w := newWatchdog(nil, &notifier{watchdog: tt.supervisor}, tt.patience)
		if w.every != tt.every || w.limit != tt.limit {
			t.Errorf("%+v: every %v, limit %d", tt, w.every, w.limit)
		}
	}
	if w := newWatchdog(nil, nil, 0); w != nil {
		t.Errorf("nobody wants it, and there is %+v", w)
	}
}
