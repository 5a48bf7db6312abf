package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/mod/module"
)

func newOrigins(dir string, has func(module.Version) bool) *origins {
	o := new(origins)
	o.open(dir, has)
	return o
}

// What is remembered of archives that are gone is bounded, in memory and on disk, and nothing else is lost by that.
func TestOriginsBounded(t *testing.T) {
	dir := t.TempDir()
	all := func(module.Version) bool { return true }
	o := newOrigins(dir, all)
	stays := module.Version{Path: "example.com/stays", Version: "v1.0.0"}
	o.note(stays, "https://proxy.example")
	for i := range 5 * spareOrigins {
		m := module.Version{Path: fmt.Sprintf("example.com/m%d", i), Version: "v1.0.0"}
		o.note(m, "https://proxy.example")
		o.forget(m)
	}
	if n := len(o.by); n != 1 {
		t.Errorf("%d archives are remembered, want 1", n)
	}
	o.close()
	data, err := os.ReadFile(filepath.Join(dir, originsFile))
	if n := bytes.Count(data, []byte("\n")); err != nil || n > 2+spareOrigins {
		t.Errorf("the file has %d lines, %v", n, err)
	}
	o = newOrigins(dir, all)
	defer o.close()
	if from := o.of(stays); from != "https://proxy.example" {
		t.Errorf("origin %q", from)
	}
}

// A line that a crash left incomplete does not spoil the next one.
func TestOriginsTorn(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, originsFile), []byte("example.com/a v1.0.0 direct\nexample.com/b v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := module.Version{Path: "example.com/b", Version: "v1.0.0"}
	o := newOrigins(dir, func(module.Version) bool { return true })
	o.note(b, "seed s")
	o.close()
	o = newOrigins(dir, func(m module.Version) bool { return m == b })
	defer o.close()
	if from := o.of(b); from != "seed s" {
		t.Errorf("origin %q", from)
	}
	if len(o.by) != 1 {
		t.Errorf("%v, want but the one that is there", o.by)
	}
}

// What is no file is not waited for: nothing depends on it.
func TestOriginsPipe(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, originsFile), 0o600); err != nil {
		t.Fatal(err)
	}
	a := module.Version{Path: "example.com/a", Version: "v1.0.0"}
	o := newOrigins(dir, func(module.Version) bool { return true })
	defer o.close()
	o.note(a, "direct")
	if from := o.of(a); from != "direct" {
		t.Errorf("origin %q", from)
	}
}
