package fetch

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// BenchmarkVerify compares one pass over a zip of source files with what the go command does to hash it. It then inflates
// them once more to unpack them.
func BenchmarkVerify(b *testing.B) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	rnd := rand.New(rand.NewPCG(1, 2))
	total := int64(0)
	for i := range 500 {
		f, err := w.Create(fmt.Sprintf("%sdir%d/file%d.go", verifyPrefix, i%20, i))
		if err != nil {
			b.Fatal(err)
		}
		for range 400 {
			n, _ := fmt.Fprintf(f, "func f%d() int { return %d } // and some words\n", rnd.IntN(1000), rnd.IntN(1<<30))
			total += int64(n)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "zip")
	if err := os.WriteFile(name, buf.Bytes(), 0o666); err != nil {
		b.Fatal(err)
	}
	benchmarkVerify(b, verifyMod, name, total)
}

// BenchmarkVerifyFile is BenchmarkVerify for the module zip that MODFS_BENCH_ZIP names, as PATH@VERSION=FILE.
func BenchmarkVerifyFile(b *testing.B) {
	mv, name, ok := strings.Cut(os.Getenv("MODFS_BENCH_ZIP"), "=")
	if !ok {
		b.Skip("MODFS_BENCH_ZIP is not set")
	}
	zr, err := zip.OpenReader(name)
	if err != nil {
		b.Fatal(err)
	}
	total := int64(0)
	for _, f := range zr.File {
		total += int64(f.UncompressedSize64)
	}
	zr.Close()
	path, version, _ := strings.Cut(mv, "@")
	benchmarkVerify(b, module.Version{Path: path, Version: version}, name, total)
}

func benchmarkVerify(b *testing.B, m module.Version, name string, total int64) {
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	for _, arm := range []struct {
		name string
		run  func() error
	}{
		{"modfs", func() error {
			v, err := verify(context.Background(), m, f, fi.Size(), runtime.GOMAXPROCS(0), Watch{})
			return errors.Join(err, v.invalid)
		}},
		{"modfs-keep", func() error {
			v, err := verify(context.Background(), m, f, fi.Size(), runtime.GOMAXPROCS(0), Watch{File: func(string, []byte, int64) {}})
			return errors.Join(err, v.invalid)
		}},
		{"dirhash", func() error {
			_, err := dirhash.HashZip(name, dirhash.Hash1)
			return err
		}},
	} {
		b.Run("by="+arm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(total)
			for b.Loop() {
				if err := arm.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
