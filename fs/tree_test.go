package fs

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

var treeModule = module.Version{Path: "example.com/M", Version: "v1.0.0-RC1"}

// makeZip returns a zip of files in the order given, each with its name below M@V and its content; a name that ends in a
// slash is a directory.
func makeZip(tb testing.TB, m module.Version, files ...string) *zip.Reader {
	tb.Helper()
	return readZip(tb, makeRawZip(tb, m.Path+"@"+m.Version+"/", files...))
}

func makeRawZip(tb testing.TB, prefix string, files ...string) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for i := 0; i+1 < len(files); i += 2 {
		method := zip.Deflate
		if i%4 == 2 || strings.HasSuffix(files[i], "/") {
			method = zip.Store
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: prefix + files[i], Method: method})
		if err == nil && files[i+1] != "" {
			_, err = io.WriteString(f, files[i+1])
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func readZip(tb testing.TB, b []byte) *zip.Reader {
	tb.Helper()
	zr, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return zr
}

func mustTree(tb testing.TB, m module.Version, zr *zip.Reader, toolchain bool) *tree {
	tb.Helper()
	t, err := newTree(m, zr, 1<<30, digestsOf(tb, m, zr), toolchain)
	if err != nil {
		tb.Fatal(err)
	}
	checkTree(tb, t)
	return t
}

// digestsOf returns what the verification of a zip finds.
func digestsOf(tb testing.TB, m module.Version, zr *zip.Reader) digests {
	tb.Helper()
	d := digests{make(map[string]digest), make(map[string]digest)}
	for _, f := range zr.File {
		r, err := f.Open()
		if err != nil {
			tb.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			tb.Fatal(err)
		}
		r.Close()
		name := strings.TrimPrefix(f.Name, m.Path+"@"+m.Version+"/")
		d.files[name] = digestOf(data)
		if len(data) > headSize {
			d.heads[name] = digestOf(data[:headSize])
		}
	}
	return d
}

// checkTree verifies what every tree promises.
func checkTree(tb testing.TB, t *tree) {
	tb.Helper()
	next, unpacked := 1, int64(0)
	for i := range t.len() {
		first, end := t.children(i)
		unpacked += t.size(i)
		if !t.isDir(i) {
			if first != end || t.subdirs(i) != 0 {
				tb.Errorf("file %d has children", i)
			}
			continue
		}
		if first != next || end < first || i > 0 && end == first || t.exec(i) || t.data(i) != (fileData{}) {
			tb.Errorf("directory %d has children [%d, %d), want them from %d", i, first, end, next)
		}
		next = end
		subdirs := 0
		for c := first; c < end; c++ {
			if t.isDir(c) {
				subdirs++
			}
			if got, ok := t.lookup(i, t.name(c)); !ok || got != c || t.parent(c) != i {
				tb.Errorf("lookup(%d, %q) = %d, %v, want %d; its parent is %d", i, t.name(c), got, ok, c, t.parent(c))
			}
			if c > first && t.name(c-1) >= t.name(c) {
				tb.Errorf("%q before %q", t.name(c-1), t.name(c))
			}
		}
		if subdirs != t.subdirs(i) {
			tb.Errorf("directory %d has %d subdirectories, want %d", i, t.subdirs(i), subdirs)
		}
	}
	if next != t.len() || unpacked != t.unpacked || t.parent(0) != 0 || t.name(0) != "" {
		tb.Errorf("%d of %d entries reached, %d of %d bytes", next, t.len(), unpacked, t.unpacked)
	}
}

// pathOf returns the slash path of an entry.
func (t *tree) pathOf(i int) string {
	p := t.name(i)
	for i = t.parent(i); i != 0; i = t.parent(i) {
		p = t.name(i) + "/" + p
	}
	return p
}

// contents reads all files of a tree from the zip's bytes, by path, with an * after the path of an executable.
func contents(tb testing.TB, t *tree, raw []byte) map[string]string {
	tb.Helper()
	files := map[string]string{}
	for i := range t.len() {
		if t.isDir(i) {
			continue
		}
		d := t.data(i)
		var r io.Reader = bytes.NewReader(raw[d.offset : d.offset+d.packed])
		if d.method == zip.Deflate {
			r = flate.NewReader(r)
		}
		b, err := io.ReadAll(r)
		if err != nil || int64(len(b)) != d.size || d.size != t.size(i) || digestOf(b) != d.sum {
			tb.Errorf("%s: %d bytes, want %d, digest %x, want %x, err %v", t.pathOf(i), len(b), d.size, digestOf(b), d.sum, err)
		}
		name := t.pathOf(i)
		if t.exec(i) {
			name += "*"
		}
		files[name] = string(b)
	}
	return files
}

var treeFiles = []string{
	"go.mod", "module example.com/M\n", "LICENSE", "license", "a.go", "package a", "a/b.go", "package b", "a-b/c.go", "package c",
	"a/a/deep/er/file", strings.Repeat("x", 1000), "a/empty", "", "a/z", "z", "dir/", "", "z/ä b.txt", "umlaut", "a!b", "1", "a0", "2",
	"vendor/.hidden", "3", "Z/UPPER", "4",
}

func TestTree(t *testing.T) {
	raw := makeRawZip(t, "example.com/M@v1.0.0-RC1/", treeFiles...)
	tr := mustTree(t, treeModule, readZip(t, raw), false)

	want := map[string]string{}
	for i := 0; i < len(treeFiles); i += 2 {
		if !strings.HasSuffix(treeFiles[i], "/") { // the go command does not unpack empty directories
			want[treeFiles[i]] = treeFiles[i+1]
		}
	}
	if got := contents(t, tr, raw); !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	for name := range want {
		for p := name; p != "."; p = path.Dir(p) {
			i, ok := tr.find(p)
			if !ok || tr.pathOf(i) != p || tr.isDir(i) != (p != name) {
				t.Errorf("find(%q) = %d, %v, directory %v", p, i, ok, tr.isDir(i))
			}
		}
	}
	for _, p := range []string{"b", "a/", "/a", "a//b.go", "a.go/x", "dir", "a/b", "zz", "A", "\xff", "go.mod/"} {
		if i, ok := tr.find(p); ok && p != "a/" && p != "go.mod/" { // a slash at the end is not find's to judge
			t.Errorf("find(%q) = %d", p, i)
		}
	}
	if i, ok := tr.find(""); !ok || i != 0 {
		t.Errorf("find of the root = %d, %v", i, ok)
	}
	var root []string
	for first, end := tr.children(0); first < end; first++ {
		root = append(root, tr.name(first))
	}
	if want := []string{"LICENSE", "Z", "a", "a!b", "a-b", "a.go", "a0", "go.mod", "vendor", "z"}; !slices.Equal(root, want) {
		t.Errorf("root has %q, want %q", root, want)
	}
	if n := tr.subdirs(0); n != 5 {
		t.Errorf("root has %d subdirectories, want 5", n)
	}

	// The numbers are a function of the set of files: the order in the zip does not matter.
	shuffled := mustTree(t, treeModule, makeZip(t, treeModule, append([]string{"a0", "2"}, slices.DeleteFunc(slices.Clone(treeFiles),
		func(s string) bool { return s == "a0" || s == "2" })...)...), false)
	for i := range tr.len() {
		if tr.pathOf(i) != shuffled.pathOf(i) {
			t.Errorf("entry %d is %q and %q", i, tr.pathOf(i), shuffled.pathOf(i))
		}
	}
}

func TestTreeEmpty(t *testing.T) {
	tr := mustTree(t, treeModule, makeZip(t, treeModule), false)
	if tr.len() != 1 || !tr.isDir(0) {
		t.Errorf("%d entries", tr.len())
	}
	if _, err := decodeTree(tr.encode()); err != nil {
		t.Error(err)
	}
}

func TestTreeRefuses(t *testing.T) {
	for _, tt := range []struct{ files, want string }{
		{"a a", "twice"},
		{"a a/b", "both a file and a directory"},
		{"a/b a-c a", "both a file and a directory"},
		{"x/a/b x/a.c x/a", "both a file and a directory"},
		{"../a", "not a file name"},
		{"a/../b", "not a file name"},
		{"a//b", "not a file name"},
		{".", "not a file name"},
		{"a\x00b", "not a file name"},
		{"/a", "not a file name"},
		{strings.Repeat("n", maxName+1), "not a file name"},
	} {
		var files []string
		for name := range strings.FieldsSeq(tt.files) {
			files = append(files, name, "content")
		}
		zr := makeZip(t, treeModule, files...)
		_, err := newTree(treeModule, zr, 1<<30, digestsOf(t, treeModule, zr), false)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "example.com/M@v1.0.0-RC1: ") {
			t.Errorf("%q: err %v, want one with %q", tt.files, err, tt.want)
		}
	}
	other := readZip(t, makeRawZip(t, "example.com/M@v1.0.0/", "go.mod", "module x"))
	if _, err := newTree(treeModule, other, 1<<30, digests{}, false); err == nil || !strings.Contains(err.Error(), "not below") {
		t.Errorf("zip of another version: err %v", err)
	}
}

func TestTreeToolchain(t *testing.T) {
	m := module.Version{Path: "golang.org/toolchain", Version: "v0.0.1-go1.24.1.linux-amd64"}
	prefix := m.Path + "@" + m.Version + "/"
	files := []string{
		"bin/go", "the go command", "bin/gofmt", "gofmt", "pkg/tool/linux_amd64/vet", "vet", "pkg/tool/README", "text", "pkg/include/x.h", "h",
		"lib/wasm/go_js_wasm_exec", "#!", "lib/wasm/go_exec", "no", "lib/go_android_arm_exec", "#!", "misc/go_js_wasm_exec", "no",
		"src/_go.mod", "module std", "src/cmd/_go.mod", "module cmd", "src/x/_go.mod", "module x, new", "src/x/go.mod", "module x",
		"src/y/_go.mod", "module y", "src/y/go.mod", "as long.", "src/binary/bin/x", "no",
	}
	raw := makeRawZip(t, prefix, files...)
	got := contents(t, mustTree(t, m, readZip(t, raw), true), raw)
	want := map[string]string{
		"bin/go*": "the go command", "bin/gofmt*": "gofmt", "pkg/tool/linux_amd64/vet*": "vet", "pkg/tool/README*": "text", "pkg/include/x.h": "h",
		"lib/wasm/go_js_wasm_exec*": "#!", "lib/wasm/go_exec": "no", "lib/go_android_arm_exec*": "#!", "misc/go_js_wasm_exec": "no",
		"src/_go.mod": "module std", "src/go.mod": "module std", "src/cmd/_go.mod": "module cmd", "src/cmd/go.mod": "module cmd",
		"src/x/_go.mod": "module x, new", "src/x/go.mod": "module x, new", "src/y/_go.mod": "module y", "src/y/go.mod": "as long.", // by its size the go command would think it a copy

		"src/binary/bin/x": "no",
	}
	if !maps.Equal(got, want) {
		t.Errorf("files %q\nwant  %q", got, want)
	}

	// Without src/_go.mod the go command copies nothing, and without bin/go it sets no bits.
	raw = makeRawZip(t, prefix, "bin/go.exe", "x", "src/cmd/_go.mod", "module cmd")
	got = contents(t, mustTree(t, m, readZip(t, raw), true), raw)
	if want := map[string]string{"bin/go.exe": "x", "src/cmd/_go.mod": "module cmd"}; !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}

	// Any other module is left as it is.
	raw = makeRawZip(t, prefix, files...)
	tr := mustTree(t, m, readZip(t, raw), false)
	if _, ok := tr.find("src/go.mod"); ok {
		t.Error("a copy without being asked")
	}
	if i, _ := tr.find("bin/go"); tr.exec(i) {
		t.Error("a bit without being asked")
	}
}

func TestTreeEncode(t *testing.T) {
	long := strings.Repeat("x", headSize+1)
	raw := makeRawZip(t, "example.com/M@v1.0.0-RC1/", append(slices.Clone(treeFiles), "large/a", long, "large/b", long, "large/c", long)...)
	zr := readZip(t, raw)
	sums := digestsOf(t, treeModule, zr)
	delete(sums.heads, "large/c") // not known
	tr, err := newTree(treeModule, zr, int64(len(raw)), sums, false)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := tr.find("large/a"); len(tr.heads) != 2 || tr.heads[0] != (head{uint32(a), digestOf([]byte(long[:headSize]))}) {
		t.Fatalf("heads: %+v", tr.heads)
	}
	b := tr.encode()
	got, err := decodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, tr) {
		t.Errorf("decoded %+v, want %+v", got, tr)
	}

	// No single damaged byte and no missing end goes unnoticed.
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 0x10
		if _, err := decodeTree(bad); err == nil {
			t.Errorf("byte %d of %d damaged: no error", i, len(b))
		}
		if _, err := decodeTree(b[:i]); err == nil {
			t.Errorf("cut to %d of %d bytes: no error", i, len(b))
		}
	}
	if _, err := decodeTree(append(slices.Clone(b), 0)); err == nil {
		t.Error("a byte too many: no error")
	}
}

// seal gives damaged bytes a right checksum, to get at what is behind it.
func seal(b []byte) []byte {
	b = append([]byte(treeMagic), b...)
	sum := crc32.Checksum(b, castagnoli)
	return append(b, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}

func TestDecodeTreeRefuses(t *testing.T) {
	// Bytes are themselves, strings names or digests.
	enc := func(parts ...any) []byte {
		var b []byte
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = append(b, byte(p))
			case string:
				b = append(b, p...)
			}
		}
		return b
	}
	sum := strings.Repeat("s", len(digest{}))
	const dir = flagDir
	file := enc(0, 1, 0, 0, 0, sum)                                                          // stored, one byte of name, empty
	large := func(n int) []byte { return enc(0, 1, 0, n, 0x80, 3+n&1, n, 0x80, 3+n&1, sum) } // of headSize+1 bytes, if n is 0x81
	for name, b := range map[string][]byte{
		"nothing":          {},
		"no entries":       {0, 0, 0},
		"too many":         {0, 0xff, 0xff, 0xff, 7, 0, flagDir, 0, 0},
		"root is a file":   enc(0, 1, 0, 0, 0, 0, 0, sum, 0),
		"unreached":        enc(0, 2, 1, dir, 0, dir, 1, 0, "a", 0),
		"empty directory":  enc(0, 2, 1, dir, 1, dir, 1, 0, "a", 0),
		"own child":        enc(0, 2, 1, dir, 1, dir, 1, 1, "a", 0),
		"wrong flags":      enc(0, 2, 1, dir, 1, 0x80, 1, 0, 0, 0, sum, "a", 0),
		"exec directory":   enc(0, 2, 1, dir, 1, dir|flagExec, 1, 0, "a", 0),
		"no name":          enc(0, 2, 0, dir, 1, 0, 0, 0, 0, 0, sum, 0),
		"stored otherwise": enc(0, 2, 1, dir, 1, 0, 1, 0, 1, 2, sum, "a", 0),
		"beyond the zip":   enc(9, 2, 1, dir, 1, 0, 1, 5, 5, 5, sum, "a", 0),
		"slash":            enc(0, 2, 1, dir, 1, string(file), "/", 0),
		"dot":              enc(0, 2, 1, dir, 1, string(file), ".", 0),
		"names missing":    enc(0, 2, 0, dir, 1, string(file), 0),
		"names too long":   enc(0, 2, 2, dir, 1, string(file), "ab", 0),
		"twice":            enc(0, 3, 2, dir, 2, string(file), string(file), "aa", 0),
		"half a digest":    enc(0, 2, 1, dir, 1, 0, 1, 0, 0, 0, sum[1:], "a", 0),
		"no heads":         enc(0, 2, 1, dir, 1, string(file), "a"),
		"head of nothing":  enc(0, 2, 1, dir, 1, string(large(0x81)), "a", 1, 3, sum),
		"head of the root": enc(0, 2, 1, dir, 1, string(large(0x81)), "a", 1, 1, sum),
		"head of a small":  enc(0, 2, 1, dir, 1, string(large(0x80)), "a", 1, 2, sum),
		"head twice":       enc(0, 2, 1, dir, 1, string(large(0x81)), "a", 2, 2, sum, 0, sum),
		"half a head":      enc(0, 2, 1, dir, 1, string(large(0x81)), "a", 1, 2, sum[1:]),
		"behind the heads": enc(0, 2, 1, dir, 1, string(large(0x81)), "a", 1, 2, sum, 0),
		"endless number":   {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, flagDir, 0},
	} {
		if tr, err := decodeTree(seal(b)); err == nil {
			t.Errorf("%s: decoded as %+v", name, tr)
		}
	}
	if _, err := decodeTree(seal(enc(9, 2, 1, dir, 1, flagDeflate, 1, 4, 5, 50, sum, "a", 0))); err != nil {
		t.Errorf("a right one: %v", err)
	}
	tr, err := decodeTree(seal(enc(0, 2, 1, dir, 1, string(large(0x81)), "a", 1, 2, sum)))
	if err != nil {
		t.Fatalf("one with a head: %v", err)
	}
	if got, ok := tr.head(1); !ok || string(got[:]) != sum {
		t.Errorf("head %x, %v", got, ok)
	}
}

func FuzzDecodeTree(f *testing.F) {
	b := mustTree(f, treeModule, makeZip(f, treeModule, treeFiles...), false).encode()
	f.Add(b[len(treeMagic) : len(b)-checksumSize])
	f.Add(append(append([]byte{9, 2, 1, flagDir, 1, flagDeflate, 1, 4, 5, 50}, make([]byte, len(digest{}))...), 'a', 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeTree(b); err == nil && !bytes.HasPrefix(b, []byte(treeMagic)) {
			t.Error("decoded without a header")
		}
		tr, err := decodeTree(seal(b))
		if err != nil {
			return
		}
		checkTree(t, tr)
		for i := range tr.len() {
			if name := tr.name(i); i > 0 && (!iofs.ValidPath(strings.ToValidUTF8(name, "?")) || strings.Contains(name, "/")) {
				t.Errorf("name %q", name)
			}
			tr.data(i)
		}
		again, err := decodeTree(tr.encode())
		if err != nil || !reflect.DeepEqual(again, tr) {
			t.Errorf("not the same after encoding: %v", err)
		}
	})
}

// FuzzNewTree makes trees of whatever zips are accepted: they must have what the zip has, all of it and nothing else.
func FuzzNewTree(f *testing.F) {
	prefix := treeModule.Path + "@" + treeModule.Version + "/"
	f.Add(makeRawZip(f, prefix, treeFiles...), false)
	for _, z := range proxytest.RawSeeds(prefix) {
		f.Add(z.Bytes(), false)
	}
	for i := range 64 {
		f.Add(bytes.Repeat([]byte{byte(i), byte(i / 4), 1, byte(i * 5)}, 12), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, made bool) {
		if made {
			raw = proxytest.RawFrom(prefix, raw).Bytes()
		}
		kept := keeper{allowance: &allowance{}}
		if _, err := fetch.HashZip(t.Context(), treeModule, bytes.NewReader(raw), int64(len(raw)), 1, fetch.Watch{File: kept.add, Sum: kept.sum}); err != nil {
			return
		}
		zr := readZip(t, raw)
		tr, err := newTree(treeModule, zr, int64(len(raw)), kept.sums, false)
		if errors.Is(err, fetch.ErrInvalid) && slices.ContainsFunc(zr.File, func(f *zip.File) bool { return len(f.Name) > maxName }) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		checkTree(t, tr)
		want := map[string]string{}
		for _, file := range zr.File {
			if strings.HasSuffix(file.Name, "/") {
				continue
			}
			r, err := file.Open()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			want[strings.TrimPrefix(file.Name, prefix)] = string(data)
		}
		if got := contents(t, tr, raw); !maps.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
		for name := range want {
			if i, ok := tr.find(name); !ok || tr.pathOf(i) != name {
				t.Errorf("find(%q) = %d, %v", name, i, ok)
			}
		}
		if again, err := decodeTree(tr.encode()); err != nil || !reflect.DeepEqual(again, tr) {
			t.Errorf("not the same after encoding: %v", err)
		}
	})
}

// largeZip is like that of a large module: n files, 30 to a directory.
func largeZip(tb testing.TB, n int) *zip.Reader {
	files := make([]string, 0, 2*n)
	for i := range n {
		files = append(files, fmt.Sprintf("internal/services/service%d/file_%03d_generated.go", i/30, i%30), "package x\n")
	}
	return makeZip(tb, treeModule, files...)
}

func BenchmarkNewTree(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		zr := largeZip(b, n)
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			sums := digestsOf(b, treeModule, zr)
			for b.Loop() {
				if _, err := newTree(treeModule, zr, 1<<30, sums, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeTree(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		enc := mustTree(b, treeModule, largeZip(b, n), false).encode()
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(enc)))
			for b.Loop() {
				if _, err := decodeTree(enc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTreeLookup(b *testing.B) {
	t := mustTree(b, treeModule, largeZip(b, 10_000), false)
	dir, ok := t.find("internal/services")
	if !ok {
		b.Fatal("no such directory")
	}
	first, end := t.children(dir)
	names := make([]string, 256)
	for i := range names {
		names[i] = t.name(first + rand.IntN(end-first))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := t.lookup(dir, names[i&255]); !ok {
			b.Fatal(names[i&255])
		}
		i++
	}
}

func TestTreeLookupAllocates(t *testing.T) {
	tr := mustTree(t, treeModule, makeZip(t, treeModule, treeFiles...), false)
	if n := testing.AllocsPerRun(100, func() { tr.find("a/a/deep/er/file"); tr.lookup(0, "missing") }); n != 0 {
		t.Errorf("a lookup allocates %v times", n)
	}
}
