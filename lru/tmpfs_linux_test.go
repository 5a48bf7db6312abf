package lru

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPartitionFull fills a real partition that is smaller than the store's limit.
func TestPartitionFull(t *testing.T) {
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=8m"); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
			t.Skip("cannot mount a small partition:", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, announce := range []bool{true, false} {
		s := open(t, Config{Dir: filepath.Join(mnt, "s"), MaxSize: 1 << 40})
		for i := range 20 {
			key := fmt.Sprintf("%v/%d", announce, i)
			f, err := s.Fill(t.Context(), key, filler(key, mib))
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		if u := s.Usage(); u.Evictions < 10 || u.Files < 4 || u.Total != 8*mib {
			t.Errorf("usage %+v", u)
		}
		verify(t, s, 0)
		_, err := s.Fill(t.Context(), "large", filler("large", 9*mib))
		wantErr(t, err, ErrNoSpace)
		verify(t, s, 0)
		s.Close()
	}
}
