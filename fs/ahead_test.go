package fs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
)

// shelves is a module with directories of 100 files that are no source files, and more of one.
func shelves() proxytest.Module {
	m := proxytest.Module{Path: "example.com/shelves", Version: "v1.0.0", Files: map[string]string{"go.mod": "module example.com/shelves\n"}}
	for d := range 5 {
		for i := range 100 {
			m.Files[fmt.Sprintf("d%d/%03d.txt", d, i)] = strings.Repeat(fmt.Sprintf("%d %d\n", d, i), 1+i*20)
		}
	}
	for i := range 50 {
		m.Files[fmt.Sprintf("single/%02d/one.txt", i)] = fmt.Sprint(i)
	}
	m.Files["d3/050.txt"] = ""
	m.Files["d3/051.txt"] = strings.Repeat("large\n", headSize)
	return m
}

// TestReadAhead checks that who reads all files of a module, in order, asks for few of them, and who reads some of them, for each.
func TestReadAhead(t *testing.T) {
	m := shelves()
	s := proxytest.New(t, m)
	for _, tc := range []struct {
		name  string
		files func() []string
		most  int64 // reads; 0: one for each
	}{
		// The first ones, one in 33 then, and one for each of the directories with one file.
		{"in order", func() []string { return slices.Sorted(maps.Keys(m.Files)) }, 80},
		{"every third", func() []string {
			var some []string
			for i, name := range slices.Sorted(maps.Keys(m.Files)) {
				if i%3 == 0 && len(m.Files[name]) <= headSize && !strings.HasPrefix(name, "single/") {
					some = append(some, name)
				}
			}
			return some
		}, 0},
		{"backwards", func() []string {
			all := slices.Sorted(maps.Keys(m.Files))
			all = slices.DeleteFunc(all, func(name string) bool { return len(m.Files[name]) == 0 || len(m.Files[name]) > headSize })
			slices.Reverse(all)
			return all
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, f := mountTest(t, s, nil)
			readFile(t, in(dir, m.String()+"/go.mod"))
			walk(t, in(dir, m.String())) // or the kernel would not know the files
			files := tc.files()
			seq := &f.modules.find(version(m)).sequence
			wait := func() { // until nothing is pushed, or it would be a race
				eventually(t, "all is pushed", func() bool {
					seq.mu.Lock()
					defer seq.mu.Unlock()
					return !seq.pushing
				})
			}
			before := f.stats.reads.Load()
			for _, name := range files {
				if got := readFile(t, in(dir, m.String()+"/"+name)); got != m.Files[name] {
					t.Errorf("%s: %d bytes, want %d", name, len(got), len(m.Files[name]))
				}
				wait()
			}
			reads, pushed := f.stats.reads.Load()-before, f.stats.pushed.Load()
			t.Logf("%d files, %d reads, %d pushed", len(files), reads, pushed)
			if tc.most > 0 && reads > tc.most {
				t.Errorf("%d reads of %d files", reads, len(files))
			}
			if tc.most == 0 && pushed > 0 {
				t.Errorf("%d files were pushed", pushed)
			}
			if n := f.errors.count(); n > 0 {
				t.Errorf("%d errors: %s", n, f.errors.lines())
			}
		})
	}
}

// TestReadAheadDamage checks that files which were pushed are right, also if the archive is damaged while they are read.
func TestReadAheadDamage(t *testing.T) {
	m := shelves()
	s := proxytest.New(t, m)
	dir, f := mountTest(t, s, func(o *Options) { o.MemoryLimit = 1 })
	readFile(t, in(dir, m.String()+"/go.mod"))
	walk(t, in(dir, m.String()))
	ix, i := entryOf(t, f, m, "d2/060.txt")
	for n, name := range slices.Sorted(maps.Keys(m.Files)) {
		if n == 10 {
			flip(t, f, zipKey(version(m)), ix.data(i).offset, 10)
		}
		if got := readFile(t, in(dir, m.String()+"/"+name)); got != m.Files[name] {
			t.Errorf("%s: %d bytes, want %d", name, len(got), len(m.Files[name]))
		}
	}
	if f.stats.pushed.Load() == 0 {
		t.Error("nothing was pushed")
	}
	if n := f.stats.repaired.Load(); n != 1 {
		t.Errorf("%d repairs, want 1", n)
	}
}

// TestSequence checks what is read ahead, by the entries that are read one after the other.
func TestSequence(t *testing.T) {
	var files []string
	for i := range 100 {
		files = append(files, fmt.Sprintf("a/%02d", i), "x")
	}
	for i := range 10 {
		files = append(files, fmt.Sprintf("b/%d", i), "x", fmt.Sprintf("b/%d+/c", i), "x", fmt.Sprintf("b/%d-", i), "")
	}
	raw := makeRawZip(t, "example.com/M@v1.0.0/", files...)
	tr := mustTree(t, module.Version{Path: "example.com/M", Version: "v1.0.0"}, readZip(t, raw), false)
	at := func(p string) int {
		i, ok := tr.find(p)
		if !ok {
			t.Fatalf("no file %s", p)
		}
		return i
	}
	for _, tc := range []struct {
		name string
		read string // names, and after = what is pushed then
	}{
		{"in order", "a/00 a/01 a/02 a/03=a/04..a/35 a/36=a/37..a/68 a/69=a/70..a/99"},
		{"from the middle", "a/50 a/51 a/52 a/53=a/54..a/85"},
		{"gaps", "a/00 a/01 a/02 a/04 a/05 a/06 a/08 a/09 a/10 a/12"},
		{"again", "a/00 a/01 a/02 a/03=a/04..a/35 a/20 a/20 a/36=a/37..a/68 a/00=a/01..a/32 a/33=a/34..a/65"},
		{"empty files and directories between", "b/0 b/1 b/2 b/3=b/4..b/9"},
		{"down and up again", "b/0 b/0+/c b/1 b/1+/c b/2 b/2+/c b/3=b/4..b/9 b/3+/c b/4+/c"},
		{"the next directory", "a/00 a/01 a/02 a/03=a/04..a/35 b/0=b/1..b/9"},
		{"the middle of the next directory", "a/00 a/01 a/02 a/03=a/04..a/35 b/5 b/6 b/7 b/8=b/9..b/9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s sequence
			for word := range strings.FieldsSeq(tc.read) {
				name, want, _ := strings.Cut(word, "=")
				got := ""
				if first, end := s.read(tr, at(name)); first < end {
					var pushed []string
					for i := first; i < end; i++ {
						if tr.size(i) > 0 {
							pushed = append(pushed, tr.pathOf(i))
						}
					}
					got = pushed[0] + ".." + pushed[len(pushed)-1]
					s.pushed(false)
				}
				if got != want {
					t.Errorf("after %s %q is pushed, want %q", name, got, want)
				}
			}
		})
	}
	var s sequence
	for i, name := range []string{"a/00", "a/01", "a/02", "a/03"} {
		first, end := s.read(tr, at(name))
		if (first < end) != (i == 3) {
			t.Errorf("after %s: %d, %d", name, first, end)
		}
	}
	end := at("a/36")
	if next := s.overtaken(at("a/04"), end); next != at("a/04") {
		t.Errorf("%s is pushed first", tr.pathOf(next))
	}
	for _, name := range []string{"a/04", "a/05", "a/36"} {
		if first, end := s.read(tr, at(name)); first < end {
			t.Errorf("after %s: %d, %d, and what was begun before is not over", name, first, end)
		}
	}
	if next := s.overtaken(at("a/05"), end); next != at("a/07") {
		t.Errorf("%s is pushed after a/04, when a/05 is being read", tr.pathOf(next))
	}
	s.reader = at("b/5") // of another directory
	if next := s.overtaken(at("a/08"), end); next != at("a/08") {
		t.Errorf("%s is pushed after a/07", tr.pathOf(next))
	}
	s.pushed(true)
	for i, name := range []string{"a/37", "a/38", "a/39"} {
		first, end := s.read(tr, at(name))
		if (first < end) != (i == 2) {
			t.Errorf("after a push in vain, after %s: %d, %d", name, first, end)
		}
	}
}

// BenchmarkReadAhead reads all files of a module that the kernel does not have, in order, or in none.
func BenchmarkReadAhead(b *testing.B) {
	m := shelves()
	s := proxytest.New(b, m)
	for _, shuffled := range []bool{false, true} {
		b.Run(fmt.Sprintf("shuffled=%v", shuffled), func(b *testing.B) {
			files := slices.Sorted(maps.Keys(m.Files))
			if shuffled {
				rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
			}
			for b.Loop() {
				b.StopTimer()
				dir, _ := mountTest(b, s, nil)
				walk(b, in(dir, m.String()))
				b.StartTimer()
				for _, name := range files {
					readFile(b, in(dir, m.String()+"/"+name))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(files)), "µs/file")
		})
	}
}
