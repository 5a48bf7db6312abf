package fetch

import (
	"archive/zip"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"
)

var verifyMod = module.Version{Path: "example.com/m", Version: "v1.0.0"}

const verifyPrefix = "example.com/m@v1.0.0/"

// pack makes a zip of names, each file holding its name.
func pack(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range names {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if name[len(name)-1] != '/' {
			fmt.Fprint(f, name)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// reference is what the go command does with a zip: check it, then hash it.
func reference(t testing.TB, data []byte) (string, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "zip")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	cf, err := modzip.CheckZip(verifyMod, name)
	if err == nil {
		err = cf.Err()
	}
	if err != nil {
		return "", err
	}
	return dirhash.HashZip(name, dirhash.Hash1)
}

// agree fails the test unless verifyZip and the reference say the same of a zip.
func agree(t *testing.T, what string, data []byte) {
	t.Helper()
	want, wantErr := reference(t, data)
	got, err := verifyZip(verifyMod, bytes.NewReader(data), int64(len(data)), nil)
	if got != want || (err == nil) != (wantErr == nil) {
		t.Errorf("%s: verifyZip = %q, %v; the go command: %q, %v", what, got, err, want, wantErr)
	}
}

func TestVerifyNames(t *testing.T) {
	p := verifyPrefix
	for _, names := range [][]string{
		{p + "go.mod", p + "a.go", p + "d/b.go"},
		{},
		{p},
		{p, p + "d/", p + "d/x"},
		{p + "../x"}, {p + "/x"}, {p + "a//b"}, {p + "./a"}, {"/etc/passwd"}, {p + `a\b`}, {p + "a:b"},
		{"example.com/m@v1.0.1/x"}, {"x"}, {p + "x", "y"},
		{p + "a", p + "A"}, {p + "a", p + "a"}, {p + "d/a", p + "D/b"}, {p + "d", p + "d/a"}, {p + "d/a", p + "d"},
		{p + "\u212a", p + "k"}, {p + "stra\u00dfe", p + "STRASSE"}, {p + "d/", p + "d/"}, {p + "ſ", p + "s"},
		{p + "sub/go.mod"}, {p + "GO.MOD"}, {p + "sub/Go.Mod"}, {p + "go.mod/"},
		{p + "CON"}, {p + "a."}, {p + "with space", p + "日本"}, {p + ".hidden"}, {p + "a\nb"}, {p + "vendor/x/y.go"},
	} {
		agree(t, fmt.Sprintf("%q", names), pack(t, names...))
	}
}

// Whatever one byte of a zip is changed to, both accept it with the same hash, or neither does.
func TestVerifyDamage(t *testing.T) {
	good := pack(t, verifyPrefix+"go.mod", verifyPrefix+"a.go", verifyPrefix+"d/b.go")
	agree(t, "whole", good)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << rnd.IntN(8)
		// The local header repeats what the directory says; archive/zip ignores it, as we do. So only the outcome counts.
		agree(t, fmt.Sprintf("byte %d", i), bad)
	}
	for _, n := range []int{0, 1, 21, len(good) / 2, len(good) - 1} {
		agree(t, fmt.Sprintf("first %d bytes", n), good[:n])
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(pack(f, verifyPrefix+"go.mod", verifyPrefix+"a.go"))
	f.Add(pack(f, verifyPrefix+"d/", verifyPrefix+"d/x"))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, "fuzz", data) })
}

// A file that inflates to more than the directory says does not pass, nor does it take more memory than that.
func TestVerifyBomb(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(verifyPrefix + "bomb")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(make([]byte, 8<<20))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data := b.Bytes()
	// The uncompressed size in the central directory: 24 bytes into its only header.
	i := bytes.LastIndex(data, []byte("PK\x01\x02")) + 24
	copy(data[i:], []byte{0, 0, 1, 0})
	if _, err := verifyZip(verifyMod, bytes.NewReader(data), int64(len(data)), nil); err == nil {
		t.Error("accepted")
	}
}

// BenchmarkVerify compares one pass over a zip with what the go command does.
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
	data := buf.Bytes()
	name := filepath.Join(b.TempDir(), "zip")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		b.Fatal(err)
	}
	b.Run("by=modfs", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(total)
		for b.Loop() {
			if _, err := verifyZip(verifyMod, bytes.NewReader(data), int64(len(data)), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by=dirhash", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(total)
		for b.Loop() {
			if _, err := dirhash.HashZip(name, dirhash.Hash1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
