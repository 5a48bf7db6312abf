package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"modfs/fetch/proxytest"
)

// flip inverts n bytes at off of a file of the store, in place: who has it open sees that too. A negative off is from the
// end.
func flip(tb testing.TB, f *FS, key string, off, n int64) {
	tb.Helper()
	name := filepath.Join(f.store.Dir(), filepath.FromSlash(key))
	data, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	if off < 0 {
		off += int64(len(data))
	}
	for i := off; i < off+n; i++ {
		data[i] ^= 0xff
	}
	if err := os.Chmod(name, 0o600); err != nil {
		tb.Fatal(err)
	}
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(data, 0); err != nil {
		tb.Fatal(err)
	}
}

// wantDamage checks the counters, and how many files are in quarantine.
func wantDamage(tb testing.TB, f *FS, damaged, repaired int64, quarantined int) {
	tb.Helper()
	if d, r := f.stats.damaged.Load(), f.stats.repaired.Load(); d != damaged || r != repaired {
		tb.Errorf("%d damaged, %d repaired, want %d, %d", d, r, damaged, repaired)
	}
	if q := list(tb, filepath.Join(f.store.Dir(), "quarantine")); len(q) != quarantined {
		tb.Errorf("in quarantine: %q, want %d files", q, quarantined)
	}
}

// entryOf returns the tree of a module and the entry of a file in it.
func entryOf(tb testing.TB, f *FS, m proxytest.Module, name string) (*indexed, int) {
	tb.Helper()
	ix, err := f.load(tb.Context(), f.modules.intern(version(m)))
	if err != nil {
		tb.Fatal(err)
	}
	i, ok := ix.find(name)
	if !ok {
		tb.Fatalf("%s: no %s", m, name)
	}
	return ix, i
}

// TestDamagedZip damages the packed data of files while the mount serves them.
func TestDamagedZip(t *testing.T) {
	s := proxytest.New(t, append(proxytest.Modules(), big())...)
	for _, tt := range []struct {
		m    proxytest.Module
		file string
	}{{module1(t, "example.com/many@v1.0.0"), "d03/f03.go"}, {big(), "medium.txt"}, {big(), "large.txt"}} {
		t.Run(tt.file, func(t *testing.T) {
			dir, f := mountTest(t, s, noMemory)
			m := tt.m
			readFile(t, in(dir, m.String()+"/go.mod"))
			s.ResetRequests()
			ix, i := entryOf(t, f, m, tt.file)
			d := ix.data(i)
			flip(t, f, zipKey(version(m)), d.offset+d.packed/3, d.packed/3)
			together(8, func(int) {
				if data, err := os.ReadFile(in(dir, m.String()+"/"+tt.file)); err != nil || string(data) != m.Files[tt.file] {
					t.Errorf("%d bytes, %v", len(data), err)
				}
			})
			if n := f.stats.repaired.Load(); n == 0 { // each read that tried again counts
				t.Error("nothing was repaired")
			}
			wantDamage(t, f, 1, f.stats.repaired.Load(), 1)
			wantAsked(t, s, "GET /"+zipKey(version(m))[len("cache/download/"):])
			readFile(t, in(dir, m.String()+"/go.mod"))
			if n := f.errors.count(); n != 0 {
				t.Errorf("clients saw %d errors: %s", n, f.errors.lines())
			}
		})
	}
}

// TestDamagedDirectory damages the part of a zip that says what is in it, which matters only to who has no index.
func TestDamagedDirectory(t *testing.T) {
	s := proxytest.New(t)
	for _, index := range []bool{true, false} {
		t.Run(fmt.Sprintf("index=%v", index), func(t *testing.T) {
			dir, f := mountTest(t, s, noMemory)
			m := module1(t, "example.com/a@v1.0.0")
			walk(t, in(dir, m.String()))
			shut(t, f)
			flip(t, f, zipKey(moduleA), -22, 22) // the record that ends it
			if !index {
				if err := os.Remove(filepath.Join(f.store.Dir(), indexKey(moduleA))); err != nil {
					t.Fatal(err)
				}
			}
			s.ResetRequests()
			dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
			wantTree(t, s, dir, m)
			if index {
				wantDamage(t, f, 0, 0, 0)
				wantAsked(t, s)
			} else {
				wantDamage(t, f, 1, 1, 1)
				wantAsked(t, s, getZip)
			}
		})
	}
}

// TestDamagedIndex damages every part of an index.
func TestDamagedIndex(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, noMemory)
	m := module1(t, "example.com/a@v1.0.0")
	want := snapshot(t, in(dir, m.String()))
	fi, err := os.Stat(in(dir, m.String()+"/a.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 3, 7, 8, 30, -30, -1} {
		shut(t, f)
		flip(t, f, indexKey(moduleA), off, 1)
		s.ResetRequests()
		dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
		if off == 30 {
			f.store.Evict(0)
		}
		for p, v := range snapshot(t, in(dir, m.String())) {
			if want[p] != v {
				t.Errorf("byte %d: %s: %q, want %q", off, p, v, want[p])
			}
		}
		if again, err := os.Stat(in(dir, m.String()+"/a.go")); err != nil || !again.ModTime().Equal(fi.ModTime()) {
			t.Errorf("byte %d: mtime %v, %v, want %v", off, again, err, fi.ModTime())
		}
		wantDamage(t, f, 1, 1, 0)
		if off == 30 {
			wantAsked(t, s, getZip)
		} else {
			wantAsked(t, s)
		}
	}
}

// TestDamagedMetadata damages the small files, in place and between two mounts.
func TestDamagedMetadata(t *testing.T) {
	s := proxytest.New(t)
	m := module1(t, "example.com/a@v1.0.0")
	for key, want := range map[string]string{infoKey(moduleA): m.Info, modKey(moduleA): m.Mod} {
		dir, f := mountTest(t, s, nil)
		if _, err := os.Stat(in(dir, key)); err != nil {
			t.Fatal(err)
		}
		s.ResetRequests()
		request := "GET /" + key[len("cache/download/"):]
		flip(t, f, key, 0, 1)
		if got := readFile(t, in(dir, key)); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
		wantDamage(t, f, 1, 1, 0)
		wantAsked(t, s, request)

		for name, damage := range map[string]func(data []byte) []byte{
			"cut":     func(data []byte) []byte { return data[:len(data)/2] },
			"empty":   func([]byte) []byte { return nil },
			"longer":  func(data []byte) []byte { return append(data, "more"...) },
			"zeros":   func(data []byte) []byte { return make([]byte, len(data)) },
			"another": func(data []byte) []byte { return bytes.ReplaceAll(data, []byte("1"), []byte("2")) },
		} {
			shut(t, f)
			file := filepath.Join(f.store.Dir(), key)
			data, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, damage(data), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			dir, f = mountTest(t, s, sameStore(f))
			if got := readFile(t, in(dir, key)); got != want {
				t.Errorf("%s, %s: %q, want %q", key, name, got, want)
			}
			if name != "empty" { // that is what a power failure leaves, and no news
				wantDamage(t, f, 1, 1, 0)
			}
			wantAsked(t, s, request)
		}
		shut(t, f)
	}
}

// TestDamagedPins checks that a damaged pin is not believed: the checksum database is asked again.
func TestDamagedPins(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, noMemory)
	m := module1(t, "example.com/a@v1.0.0")
	wantTree(t, s, dir, m)
	mod := readFile(t, in(dir, modKey(moduleA)))
	shut(t, f)
	file := filepath.Join(f.store.Dir(), pinsFile)
	pins, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again := 0 // bytes that are pinned anew
	for _, version := range []string{" v1.0.0 h1:", " v1.0.0/go.mod h1:"} {
		i := bytes.Index(pins, []byte(version))
		flip(t, f, pinsFile, int64(i+len(version)+5), 1)
		again += len("example.com/a") + len(version) - len("h1:") + len(" 12345678\n") + ziphashSize
	}
	dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
	f.store.Evict(0)
	s.ResetRequests()
	wantTree(t, s, dir, m)
	if got := readFile(t, in(dir, modKey(moduleA))); got != mod {
		t.Errorf(".mod %q, want %q", got, mod)
	}
	if got, want := readFile(t, in(dir, zipHashKey(moduleA))), s.ZipHash(m.Path, m.Version); got != want {
		t.Errorf(".ziphash %q, want %q", got, want)
	}
	if s.Count("/sumdb-direct/") == 0 {
		// What was verified of the database is in the store too, so it need not be asked again.
		if h1, err := f.client.ZipHash(t.Context(), moduleA); err != nil || f.pins.zip(moduleA) != h1 {
			t.Errorf("pinned %q, the database says %q, %v", f.pins.zip(moduleA), h1, err)
		}
	}
	shut(t, f)
	if after, err := os.ReadFile(file); err != nil || len(after) != len(pins)+again {
		t.Errorf("the pins have %d bytes, %v, want %d: both are pinned anew", len(after), err, len(pins)+again)
	}
}

// TestLostPins removes all pins of a store whose modules no checksum database covers: what it has is fetched again, as if it
// were the first time.
func TestLostPins(t *testing.T) {
	s := proxytest.New(t)
	off := func(o *Options) { o.Fetch.SumDB = "off" }
	dir, f := mountTest(t, s, off)
	m := module1(t, "example.com/a@v1.0.0")
	wantTree(t, s, dir, m)
	shut(t, f)
	if err := os.Remove(filepath.Join(f.store.Dir(), pinsFile)); err != nil {
		t.Fatal(err)
	}
	dir, f = mountTest(t, s, func(o *Options) { off(o); sameStore(f)(o) })
	for range 2 {
		if got, want := readFile(t, in(dir, zipHashKey(moduleA))), s.ZipHash(m.Path, m.Version); got != want {
			t.Errorf(".ziphash %q, want %q", got, want)
		}
	}
	if got := f.pins.zip(moduleA); got != s.ZipHash(m.Path, m.Version) {
		t.Errorf("pinned %q", got)
	}
	wantTree(t, s, dir, m)
}
