package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
)

// noises are modules of about size bytes each.
func noises(n, size int) (ms []proxytest.Module, versions []module.Version) {
	for i := range n {
		m := noise("example.com/noise"+string(rune('a'+i)), uint64(i+1), size)
		ms = append(ms, m)
		versions = append(versions, version(m))
	}
	return ms, versions
}

// fetchInto has archives come into the store.
func fetchInto(t *testing.T, f *FS, ms ...module.Version) {
	t.Helper()
	for _, m := range ms {
		h, err := f.openZip(t.Context(), f.modules.intern(m))
		if err != nil {
			t.Fatal(err)
		}
		f.zips.put(h)
		f.zips.drop(zipKey(m))
	}
}

func isResident(f *FS, m module.Version) bool {
	_, err := f.store.Stat(zipKey(m))
	return err == nil
}

// TestKept has a store evict all but what is pinned, also when it is opened anew with a lower limit.
func TestKept(t *testing.T) {
	ms, vs := noises(6, 1<<20)
	s := proxytest.New(t, ms...)
	store := t.TempDir()
	limit := int64(4 << 20)
	set := func(o *Options) { o.Store.Dir, o.Store.MaxSize = store, limit }
	f := unmounted(t, s, set)
	fetchInto(t, f, vs[0])
	if err := f.Pin([]module.Version{vs[0], vs[1]}); err != nil {
		t.Fatal(err)
	}
	fetchInto(t, f, vs...)
	fetchInto(t, f, vs[2:]...)
	for _, m := range vs[:2] { // one that was there, and one that came
		if !isResident(f, m) {
			t.Errorf("%s was evicted", m)
		}
	}
	if u := f.store.Usage(); u.Evictions == 0 {
		t.Fatalf("nothing was evicted: %+v", u)
	}
	f.GC(GCOptions{MaxSize: new(int64)})
	if r := f.Residents(); len(r) != 2 || !r[0].Pinned || !r[1].Pinned || r[0].Missing || r[0].Source != s.URL() || r[0].Size != int64(len(s.ZipBytes(vs[0].Path, vs[0].Version))) {
		t.Errorf("%+v, want the two that are pinned", r)
	}
	f.close()

	limit = 19 << 20 / 10 // too low for what is pinned: the store must be able to work
	f = unmounted(t, s, set)
	if r := f.Residents(); len(r) != 2 || r[0].Pinned == r[1].Pinned || r[0].Source != s.URL() {
		t.Errorf("%+v, want two, one of which is spared", r)
	}
	fetchInto(t, f, vs[2:]...)
	if !isResident(f, vs[0]) || isResident(f, vs[1]) {
		t.Errorf("%v and %v are there, want the first", isResident(f, vs[0]), isResident(f, vs[1]))
	}
	f.close()

	limit = 4 << 20
	f = unmounted(t, s, set)
	if err := f.Unpin([]module.Version{vs[0], vs[2]}); !errors.Is(err, ErrNotPinned) || !strings.Contains(err.Error(), vs[2].String()) {
		t.Errorf("unpin what is not pinned: %v", err)
	}
	if err := f.Unpin(vs[:2]); err != nil {
		t.Fatal(err)
	}
	f.GC(GCOptions{MaxSize: new(int64)})
	if r := f.Residents(); len(r) != 0 {
		t.Errorf("%+v are left", r)
	}
}

// TestKeptLimit pins more than there may be.
func TestKeptLimit(t *testing.T) {
	ms, vs := noises(4, 1<<20)
	s := proxytest.New(t, ms...)
	f := unmounted(t, s, func(o *Options) { o.Store.MaxSize = 4 << 20 })
	fetchInto(t, f, vs...)
	there := slices.DeleteFunc(slices.Clone(vs), func(m module.Version) bool { return !isResident(f, m) })
	size := int64(0)
	for _, m := range there {
		i, _ := f.store.Stat(zipKey(m))
		size += i.Disk
	}
	f.opts.Store.MaxSize = size // that of the store stays
	before, err := os.ReadFile(filepath.Join(f.store.Dir(), keptFile))
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%q, %v", before, err)
	}
	if err := f.Pin(there); !errors.Is(err, ErrPinsTooLarge) || !strings.Contains(err.Error(), "--max-size") {
		t.Errorf("all of them: %v", err)
	}
	if len(f.kept.all()) != 0 {
		t.Errorf("%v are pinned", f.kept.all())
	}
	if err := f.Pin(there[:1]); err != nil {
		t.Errorf("one of them: %v", err)
	}
	if err := f.Pin(there[1:]); !errors.Is(err, ErrPinsTooLarge) {
		t.Errorf("the others: %v", err)
	}
}

// TestKeptFile reads what a crash, or somebody else, left in the file.
func TestKeptFile(t *testing.T) {
	dir := t.TempDir()
	const text = "example.com/a v1.0.0\n\nexample.com/b\nexample.com/../c v1.0.0\nexample.com/b v1.0.0 x\nexample.com/b v1.1.0\nexample.com/"
	if err := os.WriteFile(filepath.Join(dir, keptFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := loadKept(dir)
	want := []module.Version{moduleA, {Path: "example.com/b", Version: "v1.1.0"}}
	if err != nil || !slices.Equal(k.all(), want) {
		t.Errorf("%v, %v, want %v", k.all(), err, want)
	}
	if err := os.Remove(filepath.Join(dir, keptFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, keptFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKept(dir); err == nil {
		t.Error("a directory was read")
	}
}

func TestEvictModules(t *testing.T) {
	ms, vs := noises(3, 1<<16)
	s := proxytest.New(t, append(ms, proxytest.Modules()...)...)
	f := unmounted(t, s, nil)
	fetchInto(t, f, append(vs, moduleA)...)
	if err := f.Pin(vs[:1]); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		m    module.Version
		want error
	}{
		{vs[0], ErrPinned},
		{module.Version{Path: vs[0].Path}, ErrPinned},
		{module.Version{Path: "example.com/none"}, ErrNotResident},
		{module.Version{Path: vs[1].Path, Version: "v9.9.9"}, ErrNotResident},
	} {
		if got, err := f.Evict([]module.Version{vs[1], tt.m}); !errors.Is(err, tt.want) || len(got) != 0 {
			t.Errorf("%v: %v, %v, want %v", tt.m, got, err, tt.want)
		}
	}
	if !isResident(f, vs[1]) {
		t.Error("evicted, although another could not be")
	}
	got, err := f.Evict([]module.Version{vs[1], {Path: vs[1].Path}, moduleA})
	if err != nil || len(got) != 2 || isResident(f, vs[1]) || isResident(f, moduleA) || !isResident(f, vs[2]) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := f.exists(t.Context(), moduleA); err != nil {
		t.Errorf("what was evicted is forgotten: %v", err)
	}
	if c := f.Status().LastHour; c.Evicted != 0 {
		t.Errorf("counted as evicted for lack of room: %+v", c)
	}
}

func TestGC(t *testing.T) {
	ms, vs := noises(2, 1<<16)
	s := proxytest.New(t, ms...)
	now := time.Now()
	f := unmounted(t, s, func(o *Options) { o.Store.Now = func() time.Time { return now } })
	fetchInto(t, f, vs[0])
	now = now.Add(time.Hour)
	fetchInto(t, f, vs[1])
	if err := f.store.Put("spool/x", make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	if err := f.store.Put(infoKey(moduleA), []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if err := f.store.Quarantine(infoKey(moduleA)); err != nil {
		t.Fatal(err)
	}
	if r := f.GC(GCOptions{}); r.Modules != 0 || r.Freed < 1<<16+4096 || r.Used != f.store.Usage().Bytes {
		t.Errorf("%+v, want the spool and the quarantine to go", r)
	}
	if names, err := os.ReadDir(filepath.Join(f.store.Dir(), "quarantine")); err != nil || len(names) != 0 {
		t.Errorf("quarantine has %v, %v", names, err)
	}
	if r := f.GC(GCOptions{Before: now.Add(-time.Minute)}); r.Modules != 1 || isResident(f, vs[0]) || !isResident(f, vs[1]) {
		t.Errorf("%+v, want the one that was not used lately to go", r)
	}
	if r := f.GC(GCOptions{MaxSize: new(int64)}); r.Modules != 1 || isResident(f, vs[1]) {
		t.Errorf("%+v, want all to go", r)
	}
}

// TestOrigins reads and writes where archives came from.
func TestOrigins(t *testing.T) {
	dir := t.TempDir()
	b := module.Version{Path: "example.com/b", Version: "v1.0.0"}
	all := func(module.Version) bool { return true }
	o := newOrigins(dir, all)
	o.note(moduleA, "https://proxy.example.com")
	o.note(moduleA, "seed a b\nc")
	o.note(b, "direct")
	o.note(b, "")
	o.close()
	file := filepath.Join(dir, originsFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, "example.com/b v1.0.0\nno"...), 0o600); err != nil {
		t.Fatal(err)
	}
	o = newOrigins(dir, all)
	if o.of(moduleA) != "seed a b c" || o.of(b) != "direct" {
		t.Errorf("%q, %q", o.of(moduleA), o.of(b))
	}
	const line = "example.com/b v1.0.0 direct\n"
	for i := range 3 * spareOrigins {
		o.note(b, []string{"direct", "other"}[i%2])
	}
	o.close()
	o = newOrigins(dir, func(m module.Version) bool { return m == b })
	defer o.close()
	if fi, err := os.Stat(file); err != nil || fi.Size() > int64((spareOrigins+4)*len(line)) || o.of(b) != "other" || o.of(moduleA) != "" {
		t.Errorf("%+v, %v: want %d lines at most; %q, %q", fi, err, spareOrigins+4, o.of(b), o.of(moduleA))
	}
}
