package fs

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Both ways to look at what the overlay has say the same, and neither is led out of it.
func TestLstatBelow(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := openOverlay(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	for name, target := range map[string]string{
		"mod/out": "../../outside", "mod/abs": outside, "mod/up": "../..", "mod/in": "file", "mod/dir": ".", "mod/gone": "nothing",
	} {
		if err := o.root.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.root.WriteFile("mod/file", []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", "mod", "mod/file", "mod/nothing", "mod/file/x", "mod/out", "mod/abs", "mod/in", "mod/gone", "mod/dir/file", "mod/up/outside",
	} {
		want, wantErr := o.root.Lstat(overName(name))
		got, err := o.lstat(name)
		if (err == nil) != (wantErr == nil) || errors.Is(err, iofs.ErrNotExist) != errors.Is(wantErr, iofs.ErrNotExist) {
			t.Errorf("%q: %v, want %v", name, err, wantErr)
			continue
		}
		if err == nil && (got.Ino != want.Sys().(*syscall.Stat_t).Ino || got.Size != want.Size()) {
			t.Errorf("%q: %+v, want %+v", name, got, want.Sys())
		}
	}
	if st, ok, _ := lstatBelow(o.dir, "mod/file"); ok && st.Size != 4 {
		t.Errorf("mod/file: %+v", st)
	}
	if st, ok, err := lstatBelow(o.dir, "../outside"); ok {
		t.Errorf("above: %+v, %v", st, err)
	}
}
