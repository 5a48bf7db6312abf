package fetch

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch/proxytest"
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
	// A directory for each would take longer than all the rest.
	f, err := os.CreateTemp("", "modfs-verify-*.zip")
	if err != nil {
		t.Fatal(err)
	}
	name := f.Name()
	defer os.Remove(name)
	defer f.Close()
	if _, err := f.Write(data); err != nil {
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

// accept returns the hash of a zip that verify accepts.
func accept(t testing.TB, data []byte) (string, error) {
	v, err := verify(t.Context(), verifyMod, bytes.NewReader(data), int64(len(data)), runtime.GOMAXPROCS(0), Watch{})
	if err == nil {
		err = v.invalid
	}
	if err != nil {
		return "", err
	}
	return v.h1, nil
}

// agree fails the test unless verify and the reference say the same of a zip.
func agree(t *testing.T, what string, data []byte) {
	t.Helper()
	want, wantErr := reference(t, data)
	got, err := accept(t, data)
	if got != want || (err == nil) != (wantErr == nil) {
		t.Errorf("%s: verify = %q, %v; the go command: %q, %v", what, got, err, want, wantErr)
	}
	if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrBadAnswer) {
		t.Errorf("%s: %v is of no class", what, err)
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
	for _, z := range proxytest.RawSeeds(verifyPrefix) {
		f.Add(z.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, "fuzz", data) })
}

// FuzzVerifyEntries changes what headers say, not bytes: what it makes are zips most of the time.
func FuzzVerifyEntries(f *testing.F) {
	for i := range 64 {
		f.Add(bytes.Repeat([]byte{byte(i), byte(i / 4), 1, byte(i * 5)}, 12))
	}
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, "fuzz", proxytest.RawFrom(verifyPrefix, data).Bytes()) })
}

// The hand-made zips, and each of them with one byte changed.
func TestVerifySeeds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for i, z := range proxytest.RawSeeds(verifyPrefix) {
		data := z.Bytes()
		agree(t, fmt.Sprintf("seed %d", i), data)
		for range 30 {
			bad := bytes.Clone(data)
			bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
			agree(t, fmt.Sprintf("seed %d, changed: %x", i, bad), bad)
		}
	}
}

// What a zip says must not cost more memory than it has bytes, by far, however deep its directories are.
func TestVerifyDeep(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("A/", n) + "x" } // capitals: nothing can be shared between name and key
	var entries []proxytest.RawEntry
	for i := range 20 {
		entries = append(entries, proxytest.RawStored(fmt.Sprintf("%sd%d/%s", verifyPrefix, i, deep(30_000)), ""))
	}
	data := proxytest.RawZip{Entries: entries}.Bytes()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := accept(t, data); err != nil { // whether it can be opened is not for us to say
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
		t.Errorf("%d bytes allocated for a zip of %d", n, len(data))
	}
	// More of them than there may be.
	entries = entries[:0]
	for i := range maxPaths/30_000 + 1 {
		entries = append(entries, proxytest.RawStored(fmt.Sprintf("%sd%d/%s", verifyPrefix, i, deep(30_000)), ""))
	}
	if _, err := accept(t, proxytest.RawZip{Entries: entries}.Bytes()); !errors.Is(err, ErrTooLarge) || len(err.Error()) > 3*maxText {
		t.Errorf("with too many directories: %v", err)
	}
}

// entry is the header and the content of a zip entry.
type entry struct {
	zip.FileHeader
	data string
}

// packRaw makes a zip of entries whose headers say whatever they say.
func packRaw(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		f, err := w.CreateRaw(&e.FileHeader)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, e.data) // memory does not fail
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func stored(name, data string) entry {
	return entry{zip.FileHeader{
		Name: name, Method: zip.Store, CRC32: crc32.ChecksumIEEE([]byte(data)),
		CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
	}, data}
}

// Headers that lie, methods that nobody knows, directories that are none.
func TestVerifyHeaders(t *testing.T) {
	const p = verifyPrefix
	change := func(f func(e *entry)) entry {
		e := stored(p+"a", "some text")
		f(&e)
		return e
	}
	for what, e := range map[string]entry{
		"good":             stored(p+"a", "some text"),
		"no crc":           change(func(e *entry) { e.CRC32 = 0 }),
		"other crc":        change(func(e *entry) { e.CRC32++ }),
		"longer":           change(func(e *entry) { e.UncompressedSize64-- }),
		"shorter":          change(func(e *entry) { e.UncompressedSize64++ }),
		"method":           change(func(e *entry) { e.Method = 99 }),
		"not deflated":     change(func(e *entry) { e.Method = zip.Deflate }),
		"beyond the file":  change(func(e *entry) { e.CompressedSize64 = 1 << 20; e.UncompressedSize64 = 1 << 20 }),
		"huge":             change(func(e *entry) { e.UncompressedSize64 = 501 << 20 }),
		"negative":         change(func(e *entry) { e.UncompressedSize64 = 1 << 63 }),
		"descriptor":       change(func(e *entry) { e.Flags |= 8 }),
		"no descriptor":    change(func(e *entry) { e.Flags |= 8; e.CRC32 = 0 }),
		"directory":        change(func(e *entry) { e.Name = p + "d/" }),
		"huge LICENSE":     change(func(e *entry) { e.Name = p + "LICENSE"; e.UncompressedSize64 = 17 << 20 }),
		"huge go.mod":      change(func(e *entry) { e.Name = p + "go.mod"; e.UncompressedSize64 = 17 << 20 }),
		"packed directory": {zip.FileHeader{Name: p + "d/", Method: zip.Deflate, CompressedSize64: 2}, "\x03\x00"},
		"packed root":      {zip.FileHeader{Name: p, Method: zip.Deflate, CompressedSize64: 2}, "\x03\x00"},
	} {
		agree(t, what, packRaw(t, e))
	}
	// What cannot be read is no answer; what can be and breaks a rule is a module that nobody may have.
	for what, want := range map[string]struct {
		e   entry
		err error
	}{
		"other crc":    {change(func(e *entry) { e.CRC32++ }), ErrBadAnswer},
		"not deflated": {change(func(e *entry) { e.Method = zip.Deflate }), ErrBadAnswer},
		"method":       {change(func(e *entry) { e.Method = 99 }), ErrBadAnswer},
		"name":         {change(func(e *entry) { e.Name = p + "../a" }), ErrInvalid},
		"prefix":       {change(func(e *entry) { e.Name = "a" }), ErrInvalid},
	} {
		if _, err := accept(t, packRaw(t, want.e)); !errors.Is(err, want.err) {
			t.Errorf("%s: %v, want %v", what, err, want.err)
		}
	}
	bad := stored(p+"d/", "x")
	agree(t, "bad directory, twice", packRaw(t, bad, bad))
	agree(t, "bad directory, then a good one", packRaw(t, bad, stored(p+"d/", "")))
	huge := stored(p+"d/", "")
	huge.UncompressedSize64 = 600 << 20
	agree(t, "huge directory, then a good one", packRaw(t, huge, stored(p+"d/", "")))
	agree(t, "good directory, then a bad one", packRaw(t, stored(p+"d/", ""), bad))
	agree(t, "not at the start", append([]byte("#!/bin/sh\n"), pack(t, p+"a")...))
	agree(t, "not at the end", append(pack(t, p+"a"), "trailing"...))
}

// A file that inflates to more than the directory says does not pass, and is not inflated to its end.
func TestVerifyBomb(t *testing.T) {
	data := bigZip(t, 8<<20, true)
	// The uncompressed size is 24 bytes into its only header of the directory.
	at := bytes.LastIndex(data, []byte("PK\x01\x02")) + 24
	for _, size := range []uint32{0, 1, 1 << 16, maxKeep, maxKeep + 1, 8<<20 - 1, 8<<20 + 1} {
		binary.LittleEndian.PutUint32(data[at:], size)
		if _, err := accept(t, data); !errors.Is(err, ErrBadAnswer) {
			t.Errorf("said to have %d bytes: %v", size, err)
		}
	}
	binary.LittleEndian.PutUint32(data[at:], 8<<20)
	agree(t, "honest", data)
}

// bigZip makes a zip of one file: of zeros, deflated, or of noise, stored, and then a second one with text, deflated.
func bigZip(t testing.TB, size int, zeros bool) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	add := func(name string, method uint16, data []byte) {
		f, err := w.CreateHeader(&zip.FileHeader{Name: verifyPrefix + name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		f.Write(data) // memory does not fail
	}
	data := make([]byte, size)
	if zeros {
		add("big", zip.Deflate, data)
	} else {
		rand.NewChaCha8([32]byte{}).Read(data)
		add("big", zip.Store, data)
		add("text", zip.Deflate, bytes.Repeat([]byte("some words "), maxKeep/10))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Zips that are not read into memory first, and files that are not either.
func TestVerifyLarge(t *testing.T) {
	data := bigZip(t, inMemory+1, false)
	agree(t, "large", data)
	data[len(data)/2] ^= 1
	agree(t, "large and damaged", data)
}

// The directory of a zip may be all of it.
func TestVerifyDirectory(t *testing.T) {
	r := &source{r: bytes.NewReader(make([]byte, 100))}
	r.limit(10, errDirectory)
	buf := make([]byte, 8)
	if _, err := r.ReadAt(buf, 0); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := r.ReadAt(buf, 0); !errors.Is(err, ErrTooLarge) {
			t.Errorf("beyond the limit: %v", err)
		}
	}
	if err := r.explain(zip.ErrFormat); !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid) {
		t.Errorf("explained: %v", err)
	}
}

// brokenReader fails after a while.
type brokenReader struct {
	io.ReaderAt
	mu   sync.Mutex
	left int
}

var errDisk = errors.New("disk on fire")

func (r *brokenReader) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left--; r.left < 0 {
		return 0, errDisk
	}
	return r.ReaderAt.ReadAt(p, off)
}

// A disk that cannot be read says nothing about the zip.
func TestVerifyDisk(t *testing.T) {
	for _, data := range [][]byte{pack(t, verifyPrefix+"a"), bigZip(t, inMemory+1, false)} {
		for left := 0; ; left = left*3/2 + 1 {
			r := &brokenReader{ReaderAt: bytes.NewReader(data), left: left}
			_, err := verify(t.Context(), verifyMod, r, int64(len(data)), runtime.GOMAXPROCS(0), Watch{})
			if err == nil {
				break
			}
			if !errors.Is(err, errDisk) || errors.Is(err, ErrInvalid) {
				t.Fatalf("after %d reads: %v", left, err)
			}
		}
	}
}

func TestVerifyCancel(t *testing.T) {
	cause := errors.New("no more")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, data := range [][]byte{pack(t, verifyPrefix+"a"), bigZip(t, inMemory+1, false)} {
		if _, err := verify(ctx, verifyMod, bytes.NewReader(data), int64(len(data)), runtime.GOMAXPROCS(0), Watch{}); !errors.Is(err, cause) {
			t.Errorf("verify: %v", err)
		}
	}
}

// Watch.File is told of each file once, with its first MiB.
func TestVerifyWatch(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	want, sizes := make(map[string][sha256.Size]byte), make(map[string]int64)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, size := range []int{0, 1, 100, 70000, maxKeep - 1, maxKeep, maxKeep + 1, 3*maxKeep + 5} {
		for j := range 3 {
			name := fmt.Sprintf("d%d/f%d", i, j)
			f, err := w.Create(verifyPrefix + name)
			if err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat(fmt.Appendf(nil, "%d ", rnd.Uint64()), size/10+1)[:size]
			f.Write(data)
			want[name] = sha256.Sum256(data[:min(size, maxKeep)])
			sizes[name] = int64(size)
		}
	}
	w.Create(verifyPrefix + "empty/")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	agree(t, "many sizes", b.Bytes())
	var mu sync.Mutex
	got := make(map[string][]byte)
	_, err := verify(t.Context(), verifyMod, bytes.NewReader(b.Bytes()), int64(b.Len()), runtime.GOMAXPROCS(0), Watch{File: func(name string, head []byte, size int64) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := got[name]; ok {
			t.Errorf("%s: told twice", name)
		}
		if size != sizes[name] {
			t.Errorf("%s: %d bytes, want %d", name, size, sizes[name])
		}
		got[name] = bytes.Clone(head)
	}})
	if err != nil || len(got) != len(want) {
		t.Fatalf("told of %d files of %d, %v", len(got), len(want), err)
	}
	for name, sum := range want {
		if sha256.Sum256(got[name]) != sum {
			t.Errorf("%s: told other bytes", name)
		}
	}
}

// Files that overlap must not make us read the same bytes for ever: each of these is a mebibyte and inflates to nothing.
func TestVerifyOverlap(t *testing.T) {
	overlap := func(n int) []byte {
		e := proxytest.RawDeflated(verifyPrefix+"0", "")
		e.Packed = append(e.Packed, bytes.Repeat([]byte{'x'}, 1<<20-len(e.Packed))...)
		e.Central.Packed = 1 << 20
		entries := []proxytest.RawEntry{e}
		for i := range n - 1 {
			e := e
			e.At, e.Central.Name = 1, fmt.Sprint(verifyPrefix, i+1)
			entries = append(entries, e)
		}
		return proxytest.RawZip{Entries: entries}.Bytes()
	}
	agree(t, "a hundred", overlap(100))
	if _, err := accept(t, overlap(maxRead>>20+100)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than 1000: %v", err)
	}
}

// A hundred broken rules are not a hundred lines.
func TestVerifyInvalidText(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("elsewhere/%d", i))
	}
	_, err := accept(t, pack(t, names...))
	if err == nil || !strings.HasSuffix(err.Error(), "; and 97 more") || strings.Count(err.Error(), "elsewhere") != 3 {
		t.Errorf("error: %v", err)
	}
}

func TestFold(t *testing.T) {
	words := []string{"", "a", "A", "straße", "STRASSE", "STRAẞE", "\u212a", "k", "K", "ſ", "s", "S", "İ", "i", "ı", "I", "Σ", "σ", "ς", "日本"}
	for _, a := range words {
		for _, b := range words {
			if (fold(a) == fold(b)) != strings.EqualFold(a, b) {
				t.Errorf("fold(%q) = %q, fold(%q) = %q", a, fold(a), b, fold(b))
			}
		}
	}
}
