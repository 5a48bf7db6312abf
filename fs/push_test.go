package fs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"modfs/fetch/proxytest"
)

// source is a module with source files of many sizes, and others.
func source() proxytest.Module {
	m := proxytest.Module{Path: "example.com/source", Version: "v1.0.0", Files: map[string]string{
		"go.mod":           "module example.com/source\n",
		"README.md":        "# source\n",
		"empty.go":         "",
		"_old.go":          "package old\n",
		"p/testdata/in.go": "package in\n",
		"p/asm.s":          "TEXT ·f(SB)\n",
	}}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, size := range []int{1, 4095, 4096, 4097, pushSize, pushSize + 1, headSize, headSize + 1, 3*headSize + 7, 1<<20 + 1} {
		var b strings.Builder
		for b.Len() < size {
			fmt.Fprintf(&b, "// %x\n", rnd.Uint64())
		}
		m.Files[fmt.Sprintf("p/f%d.go", i)] = b.String()[:size]
	}
	return m
}

// listAs lists a directory of the mount in a process whose command line begins with argv0.
func listAs(tb testing.TB, argv0, dir string) {
	tb.Helper()
	ls, err := exec.LookPath("ls")
	if err != nil {
		tb.Skip("no command ls")
	}
	cmd := &exec.Cmd{Path: ls, Args: []string{argv0, dir}}
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

// TestPush checks that a go command which lists a directory need not ask for the source files in it, and that they are right.
func TestPush(t *testing.T) {
	m := source()
	s := proxytest.New(t, m)
	for _, memory := range []int64{0, 1} { // what was inflated when the module was verified is there, or is not
		for argv0, want := range map[string]int64{"go": 11, "ls": 0} {
			t.Run(fmt.Sprintf("memory=%d/by=%s", memory, argv0), func(t *testing.T) {
				dir, f := mountTest(t, s, func(o *Options) { o.MemoryLimit = memory })
				readFile(t, in(dir, m.String()+"/go.mod"))
				listAs(t, argv0, in(dir, m.String()+"/p"))
				if n := f.stats.pushed.Load(); n != want {
					t.Errorf("%d files were pushed, want %d", n, want)
				}
				reads := f.stats.reads.Load()
				small := 0
				for _, name := range slices.Backward(slices.Sorted(maps.Keys(m.Files))) { // or some would be read ahead
					data := m.Files[name]
					if strings.HasPrefix(name, "p/f") && len(data) <= headSize {
						if got := readFile(t, in(dir, m.String()+"/"+name)); got != data {
							t.Errorf("%s: %d bytes, want %d", name, len(got), len(data))
						}
						small++
					}
				}
				switch n := f.stats.reads.Load() - reads; {
				case argv0 == "go" && n != 0:
					t.Errorf("%d reads of files that were pushed", n)
				case argv0 != "go" && n < int64(small):
					t.Errorf("%d reads of %d files that were not pushed", n, small)
				}
				wantTree(t, s, dir, m)
				if n := f.errors.count(); n > 0 {
					t.Errorf("%d errors: %s", n, f.errors.lines())
				}
			})
		}
	}
}

// TestPushLarge checks that a listing of a large directory does not wait for more than the first files, and that the others come
// while somebody reads them, also when more directories are listed than may have files pushed afterwards.
func TestPushLarge(t *testing.T) {
	const files, dirs = 5 * pushFirst, maxPushers + 3
	m := proxytest.Module{Path: "example.com/source", Version: "v1.0.0", Files: map[string]string{"go.mod": "module example.com/source\n"}}
	name := func(d, i int) string { return fmt.Sprintf("d%02d/f%03d.go", d, i) }
	for d := range dirs {
		for i := range files {
			m.Files[name(d, i)] = fmt.Sprintf("package d%d // %s\n", d, strings.Repeat(fmt.Sprint(i), 1000))
		}
	}
	s := proxytest.New(t, m)
	reading := make(chan struct{})
	dir, f := mountTest(t, s, func(o *Options) {
		o.hook = func(what string) {
			if what == "push later" {
				<-reading
			}
		}
	})
	release := sync.OnceFunc(func() { close(reading) })
	defer release() // or the mount would not end
	readFile(t, in(dir, m.String()+"/go.mod"))
	listed := func(d int) { listAs(t, "go", in(dir, fmt.Sprintf("%s/d%02d", m, d))) }
	listed(0)
	if n := f.stats.pushed.Load(); n != pushFirst {
		t.Errorf("%d files were pushed when the listing ended, want %d", n, pushFirst)
	}
	if n := f.pushers.Load(); n != 1 {
		t.Errorf("%d directories have files to be pushed, want 1", n)
	}
	for d := 1; d < dirs; d++ {
		listed(d)
	}
	if n := f.pushers.Load(); n != maxPushers {
		t.Errorf("%d directories have files to be pushed, want %d", n, maxPushers)
	}
	release()
	var wg sync.WaitGroup
	for d := range dirs {
		wg.Go(func() {
			for i := range files {
				if got := readFile(t, in(dir, m.String()+"/"+name(d, i))); got != m.Files[name(d, i)] {
					t.Errorf("%s: %d bytes, want %d", name(d, i), len(got), len(m.Files[name(d, i)]))
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "nobody pushes any more", func() bool { return f.pushers.Load() == 0 })
}

// TestHead checks that who reads only how a large file begins has no more of it inflated, and that this is checked, too.
func TestHead(t *testing.T) {
	m := source()
	s := proxytest.New(t, m)
	const name = "p/f9.go" // of 1 MiB and more
	first := func(tb testing.TB, dir string) string {
		file, err := os.Open(in(dir, m.String()+"/"+name))
		if err != nil {
			tb.Fatal(err)
		}
		defer file.Close()
		buf := make([]byte, 4096)
		if _, err := file.ReadAt(buf, 0); err != nil {
			tb.Fatal(err)
		}
		return string(buf)
	}
	for _, damage := range []string{"", "head", "tail"} {
		t.Run("damage="+damage, func(t *testing.T) {
			dir, f := mountTest(t, s, noMemory)
			readFile(t, in(dir, m.String()+"/go.mod"))
			ix, i := entryOf(t, f, m, name)
			d := ix.data(i)
			switch damage {
			case "head":
				flip(t, f, zipKey(version(m)), d.offset+100, 100)
			case "tail":
				flip(t, f, zipKey(version(m)), d.offset+d.packed-1000, 100)
			}
			before := f.stats.inflated.Load()
			if got := first(t, dir); got != m.Files[name][:4096] {
				t.Errorf("other bytes: %.60q", got)
			}
			if n := f.stats.inflated.Load() - before; damage == "" && n != headSize {
				t.Errorf("%d bytes were inflated, want %d", n, headSize)
			}
			repaired := f.stats.repaired.Load()
			if (repaired > 0) != (damage == "head") {
				t.Errorf("%d repairs after reading the beginning", repaired)
			}
			if got := readFile(t, in(dir, m.String()+"/"+name)); got != m.Files[name] {
				t.Errorf("%d bytes, want %d", len(got), len(m.Files[name]))
			}
			if n := f.stats.repaired.Load(); (n > 0) != (damage != "") {
				t.Errorf("%d repairs", n)
			}
		})
	}
}

func TestIsSource(t *testing.T) {
	for name, want := range map[string]bool{
		"a.go": true, "d/a.s": true, "d/a.h": true, "go.mod": true, "a_test.go": true,
		"d/go.mod": false, "a.md": false, "_a.go": false, ".a.go": false, "testdata/a.go": false, "d/testdata/x/a.go": false,
		"_d/a.go": false, ".d/a.go": false, "go": false, "": false,
	} {
		if isSource(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
