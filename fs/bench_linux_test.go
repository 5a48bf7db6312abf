package fs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// arms are a mount and a plain directory with the same modules in it. A benchmark runs each of its cases on both, one after
// the other, so that a ratio is that of one moment.
func arms(b *testing.B, mods ...proxytest.Module) (names []string, dirs map[string]string) {
	b.Helper()
	s := proxytest.New(b, mods...)
	dir, _ := mountTest(b, s, func(o *Options) { o.MemoryLimit = 256 << 20 })
	plain := b.TempDir()
	for _, m := range mods {
		walk(b, in(dir, m.String()))
		to := in(plain, m.String())
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			b.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(unzipped(b, s, m))); err != nil {
			b.Fatal(err)
		}
	}
	return []string{"plain", "modfs"}, map[string]string{"plain": plain, "modfs": dir}
}

// sizes are files of the default modules.
var sizes = []struct{ name, module, file string }{
	{"48B", "example.com/large@v1.0.0", "large.go"},
	{"300KiB", "example.com/large@v1.0.0", "medium.txt"},
	{"5MiB", "example.com/large@v1.0.0", "large.txt"},
}

// BenchmarkOpen opens and closes files whose names the kernel knows.
func BenchmarkOpen(b *testing.B) {
	m := module1(b, "example.com/many@v1.0.0")
	names, dirs := arms(b, m)
	var files []string
	for f := range m.Files {
		files = append(files, f)
	}
	for _, fs := range names {
		b.Run("fs="+fs+"/cache=warm", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f, err := os.Open(in(dirs[fs], m.String()+"/"+files[i%len(files)]))
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

// BenchmarkRead reads whole files: warm from the kernel's page cache, cold from whoever has them if that has forgotten.
func BenchmarkRead(b *testing.B) {
	names, dirs := arms(b, module1(b, "example.com/large@v1.0.0"))
	for _, cache := range []string{"warm", "cold"} {
		for _, size := range sizes {
			for _, fs := range names {
				b.Run("cache="+cache+"/size="+size.name+"/fs="+fs, func(b *testing.B) {
					benchmarkRead(b, in(dirs[fs], size.module+"/"+size.file), cache == "cold")
				})
			}
		}
	}
}

func benchmarkRead(b *testing.B, name string, cold bool) {
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, fi.Size())
	if _, err := f.ReadAt(buf, 0); err != nil { // warms
		b.Fatal(err)
	}
	b.SetBytes(fi.Size())
	b.ReportAllocs()
	for b.Loop() {
		if cold {
			// Pages that were never written drop at once. What a disk has is then in the cache of nothing above it.
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := f.ReadAt(buf, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList lists directories, and walks a module with a stat of each file.
func BenchmarkList(b *testing.B) {
	m := module1(b, "example.com/many@v1.0.0")
	names, dirs := arms(b, m)
	for _, fs := range names {
		b.Run("op=readdir/fs="+fs, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := len(list(b, in(dirs[fs], m.String()+"/d01"))); n != 10 {
					b.Fatalf("%d names", n)
				}
			}
		})
	}
	for _, fs := range names {
		b.Run("op=walk/fs="+fs, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := walk(b, in(dirs[fs], m.String())); n != 221 {
					b.Fatalf("%d names", n)
				}
			}
		})
	}
}
