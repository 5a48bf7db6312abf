package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"modfs/fetch/proxytest"
)

// together runs do n times at once and returns when all are done.
func together(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

// TestFetchedOnce has many clients want the same module at once.
func TestFetchedOnce(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	m := module1(t, "example.com/many@v1.0.0")
	together(64, func(i int) {
		name := fmt.Sprintf("d%02d/f%02d.go", (i+1)%20, (i+1)/20)
		for p, want := range map[string]string{
			m.String() + "/" + name:                             m.Files[name],
			"cache/download/example.com/many/@v/v1.0.0.mod":     m.Mod,
			"cache/download/example.com/many/@v/v1.0.0.ziphash": s.ZipHash(m.Path, m.Version),
		} {
			if data, err := os.ReadFile(in(dir, p)); err != nil || string(data) != want {
				t.Errorf("%s: %q, %v", p, data, err)
			}
		}
	})
	const at = "GET /example.com/many/@v/v1.0.0."
	wantAsked(t, s, at+"info", at+"mod", at+"zip")
	if hits, misses := f.stats.hits.Load(), f.stats.misses.Load(); misses != 1 {
		t.Errorf("%d hits, %d misses, want 1 miss", hits, misses)
	}
}

// TestMetadataOnce is TestFetchedOnce below the kernel, which would let one lookup of a name wait for another.
func TestMetadataOnce(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, nil)
	var want []string
	for _, m := range proxytest.Modules() {
		v := version(m)
		together(16, func(int) {
			_, infoErr := f.info(f.ctx, v)
			_, modErr := f.mod(f.ctx, v)
			if err := errors.Join(infoErr, modErr); err != nil {
				t.Error(err)
			}
		})
		at := "GET /" + strings.TrimPrefix(infoKey(v), "cache/download/")
		want = append(want, at, strings.TrimSuffix(at, "info")+"mod")
	}
	wantAsked(t, s, want...)
}

// TestOtherMount checks that what a store has, no later mount asks for.
func TestOtherMount(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	want := make(map[string]map[string]string)
	for _, m := range proxytest.Modules() {
		if m.Path == "example.com/large" {
			continue // it takes its time, and differs in nothing but that
		}
		want[moduleDir(version(m))] = snapshot(t, in(dir, moduleDir(version(m))))
		for _, key := range []string{infoKey(version(m)), modKey(version(m)), zipHashKey(version(m))} {
			want[key] = snapshot(t, in(dir, key))
		}
	}
	shut(t, f)
	s.ResetRequests()
	for _, set := range []func(*Options){
		sameStore(f),
		func(o *Options) { sameStore(f)(o); o.Fetch.Offline = true },
		func(o *Options) { sameStore(f)(o); o.Fetch.Proxy, o.Fetch.SumDB = "off", "off" },
	} {
		dir, f := mountTest(t, s, set)
		for p, old := range want {
			for name, data := range snapshot(t, in(dir, p)) {
				if old[name] != data {
					t.Errorf("%s/%s: %.40q, was %.40q", p, name, data, old[name])
				}
			}
		}
		shut(t, f)
	}
	if all := s.Requests(); len(all) > 0 {
		t.Errorf("asked for %q", all)
	}
}

// noise returns a module of size bytes that don't deflate well, in files of 128 KiB.
func noise(path string, seed uint64, size int) proxytest.Module {
	r := rand.New(rand.NewPCG(seed, seed))
	m := proxytest.Module{Path: path, Version: "v1.0.0", Files: map[string]string{"go.mod": "module " + path + "\n"}}
	for n := 0; size > 0; n++ {
		b := make([]byte, min(size, 128<<10))
		for i := range b {
			b[i] = byte(' ' + r.IntN(64))
		}
		m.Files[fmt.Sprintf("f%d.txt", n)] = string(b)
		size -= len(b)
	}
	return m
}

// big is a module with a file that is served from memory and one that is served from the spool. No two lines of them are the
// same, and yet they deflate fast.
var big = sync.OnceValue(func() proxytest.Module {
	text := func(size int) string {
		var b strings.Builder
		for b.Len() < size {
			fmt.Fprintf(&b, "this is one of many lines, the one that begins at byte %d\n", b.Len())
		}
		return b.String()[:size]
	}
	return proxytest.Module{Path: "example.com/big", Version: "v1.0.0", Files: map[string]string{
		"go.mod": "module example.com/big\n", "large.txt": text(maxInMemory + 1<<20), "medium.txt": text(300 << 10),
	}}
})

// TestEvictedModule checks what is left of a module when its zip is gone.
func TestEvictedModule(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, noMemory)
	m := module1(t, "example.com/many@v1.0.0")
	v := version(m)
	walk(t, in(dir, m.String()))
	readFile(t, in(dir, modKey(v)))
	s.ResetRequests()
	for round := range 2 {
		f.store.Evict(0)
		if _, err := f.store.Stat(zipKey(v)); !errors.Is(err, iofs.ErrNotExist) {
			t.Fatalf("not evicted: %v", err)
		}
		if n := walk(t, in(dir, m.String())); n != 221 {
			t.Errorf("%d names", n)
		}
		if fi, err := os.Stat(in(dir, zipKey(v))); err != nil || fi.Size() != int64(len(s.ZipBytes(m.Path, m.Version))) {
			t.Errorf("stat of the zip: %v, %v", fi, err)
		}
		readFile(t, in(dir, modKey(v)))
		readFile(t, in(dir, infoKey(v)))
		readFile(t, in(dir, zipHashKey(v)))
		wantAsked(t, s)
		wantTree(t, s, dir, m)
		wantAsked(t, s, "GET /example.com/many/@v/v1.0.0.zip")
		if round == 0 {
			// Once more, in a mount that has read nothing but the store.
			shut(t, f)
			dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
		}
	}
}

// TestEvictedWhileRead reads files in pieces while the store gets rid of what they come from.
func TestEvictedWhileRead(t *testing.T) {
	m := big()
	s := proxytest.New(t, m)
	dir, f := mountTest(t, s, noMemory)
	for _, name := range []string{"large.txt", "medium.txt"} { // from the spool, and from the zip
		file, err := os.Open(in(dir, m.String()+"/"+name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		want := m.Files[name]
		const pieces = 4
		for i := range pieces {
			buf := make([]byte, len(want)/pieces)
			off := i * len(buf)
			if _, err := file.ReadAt(buf, int64(off)); err != nil || string(buf) != want[off:off+len(buf)] {
				t.Fatalf("%s: piece %d: %v", name, i, err)
			}
			f.store.Evict(0)
		}
	}
	if n := s.Count("GET /example.com/big/@v/v1.0.0.zip"); n < 2 {
		t.Errorf("the zip was fetched %d times: nothing was evicted", n)
	}
}

// TestSmallStore works on more than the store has room for.
func TestSmallStore(t *testing.T) {
	const limit, size = 5 << 18, 1 << 19
	var mods []proxytest.Module
	for i := range 5 {
		mods = append(mods, noise(fmt.Sprintf("example.com/noise%d", i), uint64(i), size))
	}
	s := proxytest.New(t, mods...)
	dir, f := mountTest(t, s, func(o *Options) { noMemory(o); o.Store.MaxSize = limit })
	together(2, func(i int) {
		for j := range mods {
			m := mods[(i+j)%len(mods)]
			for name, want := range m.Files {
				if data, err := os.ReadFile(in(dir, m.String()+"/"+name)); err != nil || string(data) != want {
					t.Errorf("%s/%s: %d bytes, %v", m, name, len(data), err)
				}
				if u := f.store.Usage(); u.Bytes > limit {
					t.Errorf("the store has %d bytes", u.Bytes)
				}
			}
		}
	})
	u := f.store.Usage()
	if u.Evictions == 0 {
		t.Error("nothing was evicted")
	}
	if u.InFlight != 0 {
		t.Errorf("when all is done, %d bytes are in flight", u.InFlight)
	}
}

// TestPrefetch checks that who reads a .ziphash gets the zip started, unless that is not wanted.
func TestPrefetch(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, func(o *Options) { o.NoPrefetch = false })
	m := module1(t, "example.com/a@v1.0.0")
	together(8, func(int) {
		if data, err := os.ReadFile(in(dir, zipHashKey(moduleA))); err != nil || string(data) != s.ZipHash(m.Path, m.Version) {
			t.Errorf("%q, %v", data, err)
		}
	})
	eventually(t, "the zip to come", func() bool { return f.stats.prefetched.Load() > 0 })
	wantTree(t, s, dir, m)
	wantAsked(t, s, getInfo, getZip)

	dir, _ = mountTest(t, s, nil)
	readFile(t, in(dir, zipHashKey(moduleA)))
	wantAsked(t, s, getInfo)
}

// TestWaitingEnds checks that who no longer wants to wait need not, and that the work goes on.
func TestWaitingEnds(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, nil)
	s.SetFault(func(path string) string {
		if strings.HasPrefix(path, "/example.com/a/") {
			return "stall"
		}
		return ""
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	md := f.modules.intern(moduleA)
	waits := map[string]func() error{
		"info": func() error { _, err := f.info(ctx, moduleA); return err },
		"mod":  func() error { _, err := f.mod(ctx, moduleA); return err },
		"zip":  func() error { _, err := f.openZip(ctx, md); return err },
	}
	errs := make(chan error)
	for _, wait := range waits {
		go func() { errs <- wait() }()
	}
	eventually(t, "the proxy to be asked for all", func() bool { return s.Stalled() == len(waits) })
	cancel(errInterrupted)
	for range waits {
		if err := <-errs; !errors.Is(err, errInterrupted) {
			t.Errorf("got %v", err)
		}
	}
	s.SetFault(nil)
	s.Release()
	eventually(t, "all to be in the store", func() bool {
		for _, key := range []string{infoKey(moduleA), modKey(moduleA), zipKey(moduleA)} {
			if _, err := f.store.Stat(key); err != nil {
				return false
			}
		}
		return true
	})
	for _, ext := range []string{"info", "mod", "zip"} {
		if n := s.Count("GET /example.com/a/@v/v1.0.0." + ext); n != 1 {
			t.Errorf("%s was asked for %d times", ext, n)
		}
	}
}
