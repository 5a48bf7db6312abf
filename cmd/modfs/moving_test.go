package main

import (
	"errors"
	"fmt"
	"testing"

	"modfs/lru"
)

func TestLockedHint(t *testing.T) {
	for holder, want := range map[string]string{
		"":             "store /s is in use by process 7: wait",
		"/mnt":         "store /s is in use by process 7, which serves /mnt: wait",
		"modfs verify": "store /s is in use by process 7 (modfs verify): wait",
	} {
		err := fmt.Errorf("open: %w", &lru.LockedError{Dir: "/s", PID: 7, Holder: holder})
		if got := lockedHint(err, "wait").Error(); got != want {
			t.Errorf("%q: %s, want %s", holder, got, want)
		}
	}
	other := errors.New("other")
	if got := lockedHint(other, "wait"); got != other {
		t.Errorf("%v, want it as it was", got)
	}
}
