package fs

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func TestJournal(t *testing.T) {
	j := journal{max: 64 << 10}
	step := func(n int, text string) Activity {
		return Activity{Kind: ActivityRequest, Module: "example.com/a", Version: "v1.0.0", File: fmt.Sprint(n), Error: text, Time: time.Unix(int64(n), 0)}
	}
	if got := j.of("example.com/a", "v1.0.0"); got != nil {
		t.Errorf("of a new journal: %v", got)
	}
	// The same step again is counted.
	j.add(step(1, ""))
	again := step(1, "")
	again.Time = time.Unix(9, 0)
	j.add(again)
	got := j.of("example.com/a", "v1.0.0")
	if len(got) != 1 || got[0].Repeats != 1 || got[0].Time.Unix() != 9 || got[0].File != "1" {
		t.Errorf("twice the same: %+v", got)
	}
	// The last steps of a module stay, and no text is longer than it may be.
	for n := range 2 * maxSteps {
		j.add(step(n, strings.Repeat("x", 10*maxStepText)))
	}
	got = j.of("example.com/a", "v1.0.0")
	if len(got) != maxSteps || got[0].File != fmt.Sprint(maxSteps) || len(got[0].Error) > maxStepText+10 {
		t.Errorf("%d steps, the first %s with %d bytes of text", len(got), got[0].File, len(got[0].Error))
	}
	// What is known by a client's word is bounded, and what was touched last stays.
	for n := range 10000 {
		j.add(Activity{Kind: ActivityError, Module: fmt.Sprintf("example.com/m%d", n), Version: "v1.0.0", Error: "not found"})
	}
	if j.bytes > j.max || j.bytes < j.max/2 {
		t.Errorf("%d bytes are kept, of %d", j.bytes, j.max)
	}
	if j.of("example.com/m9999", "v1.0.0") == nil || j.of("example.com/a", "v1.0.0") != nil {
		t.Error("what was touched last does not stay, or what was first does")
	}
	j.add(Activity{Kind: ActivityRequest, File: "tile/8/0/000"})
	if j.of("", "") != nil {
		t.Error("something is remembered of no module")
	}
	// The account is right: with nothing in it there are no bytes.
	for j.by.Len() > 0 {
		j.by.RemoveOldest()
	}
	if j.bytes != 0 {
		t.Errorf("%d bytes of nothing", j.bytes)
	}
	// A step is what it is said to take; with 32 of them a module takes less than a page or two.
	if n := unsafe.Sizeof(Activity{}); n > 512 {
		t.Errorf("a step takes %d bytes", n)
	}
}
