package main

import (
	"bytes"
	"errors"
	"testing"

	modfs "modfs/fs"
)

// TestStatusGone has a mount end between the moment when all are listed and the one when it is asked.
func TestStatusGone(t *testing.T) {
	gone := modfs.Found{Mountpoint: t.TempDir(), Store: t.TempDir()}
	var out bytes.Buffer
	if err := printMounts(&out, []modfs.Found{gone, gone}, false, false); err != nil || out.Len() > 0 {
		t.Errorf("of all that are mounted: %v, %q", err, &out)
	}
	if err := printMounts(&out, []modfs.Found{gone}, false, false); !errors.Is(err, modfs.ErrNotMounted) {
		t.Errorf("of the only one: %v, want that it is not mounted", err)
	}
}
