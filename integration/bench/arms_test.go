package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"modfs/fs/fusetest"
)

// Each arm is empty when it is opened, and leaves nothing when it is closed.
func TestArms(t *testing.T) {
	p, err := startProxy(testTree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	tmp, err := realDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, store := filepath.Join(tmp, "mod"), filepath.Join(tmp, "store")
	bin := &trash{dir: filepath.Join(tmp, "trash")}
	for _, a := range []arm{&plain{dir, bin}, &mounted{dir: dir, store: store, trash: bin}} {
		t.Run(a.name(), func(t *testing.T) {
			if m, ok := a.(*mounted); ok {
				fusetest.Require(t)
				if m.bin, err = build(t.Context(), filepath.Join(tmp, "bin")); err != nil {
					t.Fatal(err)
				}
			}
			env := benchEnv(os.Environ(), "GOPROXY="+p.url, "GOSUMDB=off", "GOPATH="+filepath.Join(tmp, "go"))
			for range 2 {
				testArm(t, a, env, dir)
			}
			for _, name := range []string{dir, store} {
				if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is left: %v", name, err)
				}
			}
		})
	}
}

func testArm(t *testing.T, a arm, env []string, dir string) {
	t.Helper()
	modcache, err := a.open(t.Context(), env)
	defer func() {
		if err := a.close(); err != nil {
			t.Error("close:", err)
		}
	}()
	if err != nil || modcache != dir {
		t.Fatalf("open: %q, %v", modcache, err)
	}
	entries, err := os.ReadDir(modcache)
	if err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "cache" }) {
		t.Errorf("it is not empty: %v, %v", entries, err)
	}
	if _, err := a.disk(); err != nil {
		t.Error("disk:", err)
	}
	d, err := a.daemon()
	if err != nil {
		t.Error("daemon:", err)
	}
	if _, ok := a.(*mounted); ok && (d == nil || len(d.counters) == 0) {
		t.Errorf("daemon: %+v", d)
	}
}
