package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// TestTellLate checks that a wait is told of once, when it is long, and not after its end.
func TestTellLate(t *testing.T) {
	for _, c := range []struct {
		lasts time.Duration
		want  string
	}{
		{latePatience - 1, ""},
		{10 * latePatience, "modfs: waiting\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var say bytes.Buffer
			stop := tellLate(latePatience, &say, "waiting")
			time.Sleep(c.lasts)
			stop()
			time.Sleep(10 * latePatience)
			if say.String() != c.want {
				t.Errorf("%v: %q, want %q", c.lasts, &say, c.want)
			}
		})
	}
}
