package fs

import (
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestProbe holds each lock in turn: as long as that lasts, Probe does not return.
func TestProbe(t *testing.T) {
	f := unmounted(t, proxytest.New(t), func(o *Options) { o.ReadOnly = false })
	f.modules.intern(moduleA)
	f.Probe()
	if n := len(f.locks()); n < 19 { // of them all, one of a module
		t.Errorf("only %d locks", n)
	}
	for i, l := range f.locks() {
		if l == f.overlay.names.RLocker() {
			l = &f.overlay.names // another that reads is no obstacle
		}
		done := make(chan struct{})
		l.Lock()
		go func() {
			defer close(done)
			f.Probe()
		}()
		select {
		case <-done:
			t.Errorf("lock %d is held, and Probe returns", i)
		case <-time.After(20 * time.Millisecond):
		}
		l.Unlock()
		<-done
	}
}
