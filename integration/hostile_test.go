package integration

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// hostileZip is a zip that nobody should make, or should be able to make use of. Whether it is accepted is up to the go command.
type hostileZip struct {
	name string
	make func(p string) []byte // p is M@V/
	ok   bool                  // whether it is accepted: so that a test in which all is refused fails
	slow bool                  // only with MODFS_NIGHTLY=1: the go command writes gigabytes, or tens of thousands of files
}

const hostileText = "package a // and some more, so that there is something to compress, to compress, to compress\n"

// hostileZips are the cases. Each has a good file besides, unless the file is what it is about.
func hostileZips() []hostileZip {
	type entry = proxytest.RawEntry
	type header = proxytest.RawHeader
	stored, deflated, zeros := proxytest.RawStored, proxytest.RawDeflated, proxytest.RawZeros
	raw := func(entries ...entry) []byte { return proxytest.RawZip{Entries: entries}.Bytes() }
	var cases []hostileZip
	add := func(name string, ok bool, make func(p string) []byte) {
		cases = append(cases, hostileZip{name: name, ok: ok, make: make})
	}
	slow := func(name string, ok bool, make func(p string) []byte) {
		add(name, ok, make)
		cases[len(cases)-1].slow = true
	}
	// with is a good file and one with that name; names is for several.
	with := func(name string, ok bool, file string) {
		add(name, ok, func(p string) []byte { return raw(stored(p+"ok.go", hostileText), stored(p+file, "x")) })
	}
	names := func(name string, ok bool, files ...string) {
		add(name, ok, func(p string) []byte {
			var es []entry
			for i, f := range files {
				es = append(es, deflated(p+f, fmt.Sprint("content ", i)))
			}
			return raw(es...)
		})
	}
	central := func(name string, ok bool, change func(h *header)) {
		add(name, ok, func(p string) []byte {
			e := deflated(p+"a.go", hostileText)
			change(&e.Central)
			return raw(stored(p+"ok.go", hostileText), e)
		})
	}
	local := func(name string, ok bool, change func(h *header)) {
		add(name, ok, func(p string) []byte {
			e := deflated(p+"a.go", hostileText)
			change(&e.Local)
			return raw(stored(p+"ok.go", hostileText), e)
		})
	}
	both := func(name string, ok bool, change func(h *header)) {
		add(name, ok, func(p string) []byte { return raw(deflated(p+"a.go", hostileText).Both(change)) })
	}

	// Names.
	with("name-dotdot", false, "../x")
	with("name-dotdot-inside", false, "d/../../x")
	with("name-dot", false, "./x")
	with("name-slashes", false, "a//b")
	with("name-absolute-below", false, "/x")
	with("name-backslash", false, `a\b`)
	with("name-backslash-dotdot", false, `..\..\x`)
	with("name-drive", false, "C:x")
	with("name-nul", false, "a\x00b")
	with("name-newline", false, "a\nb")
	with("name-control", false, "a\x1b[2Jb")
	with("name-star", false, "a*")
	with("name-windows", false, "aux.txt")
	with("name-dot-at-end", false, "a.")
	with("name-utf8", false, "a\xffb")
	with("name-unicode", true, "日本/ä b.txt")
	with("name-git", true, ".git/config")
	with("name-vendor", true, "vendor/example.com/x/x.go")
	with("name-modules-txt", true, "vendor/modules.txt")
	with("name-modfs", true, ".modfs/errors")
	with("name-at", true, "sub@v1.0.0/x.go")
	with("name-255", true, strings.Repeat("n", 255))
	with("name-256", false, strings.Repeat("n", 256))
	with("name-5000", false, strings.Repeat("long/", 1000)+"x")
	with("name-deep", true, strings.Repeat("d/", 1500)+"x")
	with("name-deeper", false, strings.Repeat("D/", 10_000)+"x")
	names("prefix-with-content", false, "")
	for name, prefix := range map[string]string{"none": "", "absolute": "/", "other-version": "hostile.example/m@v1.0.1/", "dotdot": "../", "drive": `C:\`} {
		add("prefix-"+name, false, func(p string) []byte { return raw(stored(p+"ok.go", hostileText), stored(prefix+"x", "x")) })
	}
	add("prefix-version", false, func(p string) []byte { return raw(stored(strings.TrimSuffix(p, "v1.0.0/")+"v1.0.1/x", "x")) })
	add("prefix-no-slash", false, func(p string) []byte { return raw(stored(strings.TrimSuffix(p, "/"), "x")) })
	names("twice", false, "a", "a")
	names("case", false, "a", "A")
	names("case-directory", false, "d/a", "D/b")
	names("case-kelvin", false, "k", "\u212a")
	names("case-long-s", false, "s", "ſ")
	names("case-sharp-s", true, "straße", "strasse")
	names("file-and-directory", false, "a", "a/b")
	names("directory-and-file", false, "a/b", "a")
	names("file-and-entry-for-directory", false, "a", "a/")

	// What is in the way of the go command.
	names("gomod-only", true, "go.mod")
	names("gomod-below", false, "ok.go", "d/go.mod")
	names("gomod-capitals", false, "GO.MOD")
	names("gomod-capitals-below", false, "ok.go", "d/Go.Mod")
	names("gomod-directory", true, "ok.go", "go.mod/x") // in the way of go mod download, which has unpacked it by then
	add("gomod-large", false, func(p string) []byte { return raw(zeros(p+"go.mod", 17<<20)) })
	add("gomod-at-limit", true, func(p string) []byte { return raw(zeros(p+"go.mod", 16<<20)) })
	add("license-large", false, func(p string) []byte { return raw(zeros(p+"LICENSE", 17<<20)) })
	add("license-below", true, func(p string) []byte { return raw(zeros(p+"d/LICENSE", 17<<20)) })
	for name, mode := range map[string]uint32{"symlink": 0o120777, "fifo": 0o010644, "device": 0o060644, "socket": 0o140644, "setuid": 0o104755, "exec": 0o100755, "none": 0o100000} {
		both("mode-"+name, true, func(h *header) { h.Attrs = mode << 16 })
	}
	add("directory-entries", true, func(p string) []byte {
		return raw(stored(p, ""), stored(p+"d/", ""), stored(p+"d/x", "x"), stored(p+"empty/", ""))
	})
	add("directory-entry-twice", true, func(p string) []byte { return raw(stored(p+"d/", ""), stored(p+"d/", ""), stored(p+"d/x", "x")) })
	add("directory-with-content", false, func(p string) []byte { return raw(stored(p+"ok.go", hostileText), stored(p+"d/", "content")) })
	add("directory-with-packed-nothing", true, func(p string) []byte { return raw(stored(p+"ok.go", hostileText), deflated(p+"d/", "")) })

	// Sizes and sums that lie. Local headers are read by nobody.
	central("central-crc", false, func(h *header) { h.CRC++ })
	central("central-crc-0", true, func(h *header) { h.CRC = 0 })
	central("central-size-0", false, func(h *header) { h.Size = 0 })
	central("central-size-less", false, func(h *header) { h.Size-- })
	central("central-size-more", false, func(h *header) { h.Size++ })
	central("central-size-4g", false, func(h *header) { h.Size = 0xfffffffe })
	central("central-packed-0", false, func(h *header) { h.Packed = 0 })
	central("central-packed-less", false, func(h *header) { h.Packed-- })
	central("central-packed-more", true, func(h *header) { h.Packed += 5 })
	central("central-packed-4g", true, func(h *header) { h.Packed = 0xfffffffe })
	central("central-method", false, func(h *header) { h.Method = 0 })
	central("central-offset", false, func(h *header) { h.Shift = 1 })
	central("central-offset-beyond", false, func(h *header) { h.Shift = 1 << 30 })
	central("central-name", true, func(h *header) { h.Name = strings.Replace(h.Name, "a.go", "other/b.go", 1) })
	local("local-crc", true, func(h *header) { h.CRC++ })
	local("local-size", true, func(h *header) { h.Size, h.Packed = 0, 1 })
	local("local-method", true, func(h *header) { h.Method = 99 })
	local("local-name", true, func(h *header) { h.Name = "../../../etc/passwd" })
	local("local-name-empty", true, func(h *header) { h.Name = "" })
	local("local-flags", true, func(h *header) { h.Flags = 0xffff &^ 8 })
	for name, method := range map[string]uint16{"bzip2": 12, "zstd": 93, "aes": 99, "shrunk": 1, "deflate64": 9} {
		both("method-"+name, false, func(h *header) { h.Method = method })
	}
	both("encrypted", true, func(h *header) { h.Flags |= 1 })
	add("stored-two-sizes", false, func(p string) []byte {
		return raw(stored(p+"a", "content").Both(func(h *header) { h.Size = 3 }), stored(p+"ok.go", hostileText))
	})
	add("stored-two-sizes-more", false, func(p string) []byte {
		return raw(stored(p+"a", "content").Both(func(h *header) { h.Packed = 3 }), stored(p+"ok.go", hostileText))
	})
	add("stored-as-deflated", false, func(p string) []byte { return raw(stored(p+"a", hostileText).Both(func(h *header) { h.Method = 8 })) })
	describe := func(name string, ok bool, sig bool, crc, size uint32) {
		add("descriptor-"+name, ok, func(p string) []byte {
			e := deflated(p+"a.go", hostileText)
			var d []byte
			if sig {
				d = binary.LittleEndian.AppendUint32(d, 0x08074b50)
			}
			d = binary.LittleEndian.AppendUint32(d, e.Central.CRC+crc)
			d = binary.LittleEndian.AppendUint32(d, e.Central.Packed+size)
			d = binary.LittleEndian.AppendUint32(d, e.Central.Size+size)
			e.Descriptor = d
			e = e.Both(func(h *header) { h.Flags |= 8 })
			e.Local.CRC, e.Local.Packed, e.Local.Size = 0, 0, 0
			return raw(e, stored(p+"ok.go", hostileText))
		})
	}
	describe("signature", true, true, 0, 0)
	describe("no-signature", true, false, 0, 0)
	describe("wrong-crc", false, true, 1, 0)
	describe("wrong-size", true, true, 0, 1)
	both("descriptor-missing", false, func(h *header) { h.Flags |= 8 })
	both("extra-unicode-path", true, func(h *header) { h.Extra = proxytest.RawExtra(0x7075, append([]byte{1, 0, 0, 0, 0}, "../evil"...)...) })
	both("extra-broken", true, func(h *header) { h.Extra = []byte{1, 2, 3} })
	size64 := func(name string, ok bool, size, packed uint64) {
		add("zip64-"+name, ok, func(p string) []byte {
			e := stored(p+"a.go", hostileText)
			extra := binary.LittleEndian.AppendUint64(nil, size)
			e.Central.Extra = proxytest.RawExtra(1, binary.LittleEndian.AppendUint64(extra, packed)...)
			e.Central.Size, e.Central.Packed = 0xffffffff, 0xffffffff
			return raw(stored(p+"ok.go", hostileText), e)
		})
	}
	n := uint64(len(hostileText))
	size64("extra", true, n, n)
	size64("extra-more", false, n+1, n+1)
	size64("extra-huge", false, 1<<40, n)
	size64("extra-negative", false, 1<<63, n)
	size64("extra-packed-negative", false, n, 1<<63)
	size64("extra-packed-huge", false, n, 1<<50)
	both("zip64-extra-missing", false, func(h *header) { h.Size, h.Packed = 0xffffffff, 0xffffffff })

	// The whole file.
	whole := func(name string, ok bool, z func(p string) proxytest.RawZip) {
		add("file-"+name, ok, func(p string) []byte { return z(p).Bytes() })
	}
	good := func(p string) []entry { return []entry{deflated(p+"a.go", hostileText), stored(p+"b.go", hostileText)} }
	add("file-good", true, func(p string) []byte { return raw(good(p)...) })
	add("file-nothing", false, func(p string) []byte { return []byte{} })
	add("file-empty", true, func(p string) []byte { return raw() })
	add("file-text", false, func(p string) []byte { return []byte(strings.Repeat("this is no zip\n", 1000)) })
	add("file-cut", false, func(p string) []byte { b := raw(good(p)...); return b[:len(b)-1] })
	add("file-half", false, func(p string) []byte { b := raw(good(p)...); return b[:len(b)/2] })
	add("file-no-beginning", false, func(p string) []byte { return raw(good(p)...)[20:] })
	whole("trailing", true, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Entries: good(p), After: []byte("trailing garbage")}
	})
	whole("trailing-zip", true, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Entries: []entry{stored(p+"first", "x")}, After: raw(good(p)...)}
	})
	whole("leading", true, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Before: []byte("#!/bin/sh\nexec unzip $0\n"), Entries: good(p)}
	})
	whole("comment", true, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Entries: good(p), End: proxytest.RawEnd{Comment: bytes.Repeat([]byte("c"), 65535)}}
	})
	whole("comment-zip", true, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Entries: good(p), End: proxytest.RawEnd{Comment: raw(stored(p+"other", "x"))}}
	})
	whole("comment-end", false, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Entries: good(p), End: proxytest.RawEnd{Comment: append([]byte("PK\x05\x06"), bytes.Repeat([]byte{1}, 18)...)}}
	})
	for what, end := range map[string]proxytest.RawEnd{"entries-more": {Entries: 1}, "entries-less": {Entries: -1}, "offset": {Offset: 1 << 20}, "offset-less": {Offset: -1}} {
		whole("end-"+what, false, func(p string) proxytest.RawZip { return proxytest.RawZip{Entries: good(p), End: end} })
	}
	whole("zip64", true, func(p string) proxytest.RawZip {
		return proxytest.RawZip{Entries: good(p), End: proxytest.RawEnd{Zip64: true}}
	})
	whole("hidden", true, func(p string) proxytest.RawZip {
		h := stored(p+"a.go", "what nobody is told of")
		h.NoCentral = true
		return proxytest.RawZip{Entries: append([]entry{h}, good(p)...)}
	})

	// Bombs. That of two levels is how the kernel of David Fifield's overlapping one is quoted by more and more files.
	shared := func(n, size int) func(p string) []byte {
		return func(p string) []byte {
			es := []entry{zeros(p+"f0", size)}
			for i := range n - 1 {
				e := es[0]
				e.At = 1
				e.Central.Name = fmt.Sprintf("%sf%d", p, i+1)
				es = append(es, e)
			}
			return raw(es...)
		}
	}
	add("overlap", true, shared(10, 1<<20))
	add("overlap-bomb", false, shared(1000, 1<<20))
	add("overlap-quoted", true, func(p string) []byte { return quotedZip(p) })
	add("bomb-501", false, func(p string) []byte { return raw(zeros(p+"big", 501<<20)) })
	add("bomb-sum", false, func(p string) []byte { return raw(zeros(p+"a", 250<<20), zeros(p+"b", 251<<20)) })
	add("bomb-says-less", false, func(p string) []byte {
		return raw(zeros(p+"big", 600<<20).Both(func(h *header) { h.Size = 1 << 20 }))
	})
	slow("bomb-499", true, func(p string) []byte { return raw(zeros(p+"big", 499<<20)) })
	slow("entries-70000", true, func(p string) []byte {
		var es []entry
		for i := range 70_000 {
			es = append(es, stored(fmt.Sprintf("%sd%d/f%d", p, i%100, i), ""))
		}
		return raw(es...)
	})
	return cases
}

// quotedZip is a file that quotes the header of the next one, and then goes on with the same compressed data.
func quotedZip(p string) []byte {
	inner := proxytest.RawZeros(p+"inner", 1<<20)
	quote := proxytest.RawZip{Entries: []proxytest.RawEntry{{Local: inner.Local, NoCentral: true}}}.Bytes()
	quote = quote[:len(quote)-22] // only the local header
	block := binary.LittleEndian.AppendUint16([]byte{0}, uint16(len(quote)))
	block = binary.LittleEndian.AppendUint16(block, ^uint16(len(quote)))
	outer := proxytest.RawStored(p+"outer", string(quote)+strings.Repeat("\x00", 1<<20))
	outer = outer.Both(func(h *proxytest.RawHeader) {
		h.Method, h.Packed = 8, uint32(len(block)+len(quote)+len(inner.Packed))
	})
	outer.Packed = slices.Concat(block, quote, inner.Packed)
	inner.At, inner.Central.Shift = 1, 30+len(p+"outer")+len(block)
	return proxytest.RawZip{Entries: []proxytest.RawEntry{outer, inner}}.Bytes()
}

// downloaded is what `go mod download -json` says of a module.
type downloaded struct{ Path, Version, Error, Dir, Zip, Sum string }

// goDownload runs `go mod download` for modules, and returns what it says by module path.
func goDownload(t *testing.T, env, mods []string) map[string]downloaded {
	t.Helper()
	cmd := exec.Command("go", append([]string{"mod", "download", "-json"}, mods...)...)
	cmd.Dir, cmd.Env = t.TempDir(), env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output() // an error if any of them is one
	all := make(map[string]downloaded)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var d downloaded
		if err := dec.Decode(&d); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("go mod download: %v\n%s", err, out)
		}
		all[d.Path] = d
	}
	if len(all) != len(mods) {
		t.Fatalf("go mod download told of %d modules of %d: %v\n%s", len(all), len(mods), err, &stderr)
	}
	return all
}

// Whatever a zip is like: what the go command refuses is refused, what it accepts is served as it unpacks it.
func TestHostileZips(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("-race: it takes long, and what checks zips is tested with it in package fetch")
	}
	fusetest.Require(t)
	proxy := proxytest.New(t)
	paths := make(map[string]string) // of modules, by case
	var cases []hostileZip
	var mods []string
	for _, c := range hostileZips() {
		if c.slow && !nightly {
			continue
		}
		m := proxytest.Module{Path: "hostile.example/" + c.name, Version: "v1.0.0"}
		m.Zip = c.make(m.String() + "/")
		if err := proxy.Add(m); err != nil {
			t.Fatal(err)
		}
		if proxy.ZipHash(m.Path, m.Version) == "" { // the database has no record of what cannot be hashed
			m.Path = "nosum.example/" + c.name
			m.Zip = c.make(m.String() + "/")
			if err := proxy.Add(m); err != nil {
				t.Fatal(err)
			}
		}
		paths[c.name] = m.Path
		cases = append(cases, c)
		mods = append(mods, m.String())
	}

	plain := t.TempDir()
	t.Cleanup(func() { makeWritable(plain) })
	m := mount(t, proxy, "--read-only", "--nosumdb", "nosum.example")
	env := append(slices.Clone(m.env), "GONOSUMDB=nosum.example")
	truth := goDownload(t, append(slices.Clone(env), "GOMODCACHE="+plain), mods)

	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := *m
			m.t = t
			path := paths[c.name]
			_, err := os.Stat(filepath.Join(plain, path+"@v1.0.0"))
			if c.ok != (err == nil) {
				t.Errorf("the go command says %q of it; was it to be accepted: %v", truth[path].Error, c.ok)
			}
			if err == nil {
				m.wantServed(plain, path)
			} else {
				m.wantRefused(path)
			}
		})
	}
	wantSame := func(how string, mods []string, got map[string]downloaded) {
		for _, mod := range mods {
			path, _, _ := strings.Cut(mod, "@")
			want := truth[path]
			if got := got[path]; (got.Error == "") != (want.Error == "") || got.Sum != want.Sum && want.Error == "" {
				t.Errorf("%s: go mod download says of %s %q, %s; with a plain directory %q, %s", how, path, got.Error, got.Sum, want.Error, want.Sum)
			}
		}
	}
	// On a read-only mount the go command finds a module there, with the hash that the database has for it, and opens nothing: that
	// it is refused is seen by who does. On a read-write mount it is not offered, and the go command refuses it by itself.
	accepted := slices.DeleteFunc(slices.Clone(mods), func(mod string) bool {
		path, _, _ := strings.Cut(mod, "@")
		return truth[path].Error != ""
	})
	wantSame("read-only", accepted, goDownload(t, env, accepted))
	if testing.Short() {
		return
	}
	rw := mount(t, proxy, "--nosumdb", "nosum.example")
	var some []string // as it does much, and does the same with each
	for i, mod := range mods {
		if i%8 == 0 && !cases[i].slow {
			some = append(some, mod)
		}
	}
	wantSame("read-write", some, goDownload(t, append(slices.Clone(rw.env), "GONOSUMDB=nosum.example"), some))
}

// wantServed fails the test unless the mount has of a module what the go command has unpacked into the module cache plain.
func (m *mounted) wantServed(plain, path string) {
	m.t.Helper()
	rel := path + "@v1.0.0"
	want, got := treeOf(m.t, filepath.Join(plain, rel)), treeOf(m.t, m.path(rel))
	if !maps.Equal(want, got) {
		m.t.Errorf("names and sizes are\n%v, want\n%v", got, want)
	}
	for name, size := range want {
		if size >= 0 && size < 64<<20 {
			sameFile(m.t, filepath.Join(plain, rel, name), filepath.Join(m.dir, rel, name))
		} else if size >= 0 {
			m.wantZeros(filepath.Join(rel, name), size)
		}
	}
	zip := "cache/download/" + path + "/@v/v1.0.0.zip"
	sameFile(m.t, filepath.Join(plain, zip), m.path(zip))
	sameFile(m.t, filepath.Join(plain, zip+"hash"), m.path(zip+"hash"))
}

// treeOf returns the sizes of the files in a directory, -1 of directories.
func treeOf(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	files := make(map[string]int64)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		files[rel] = -1
		if !d.IsDir() {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			files[rel] = fi.Size()
			if !d.Type().IsRegular() {
				t.Errorf("%s is %v", rel, d.Type())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// wantZeros reads a large file of zeros.
func (m *mounted) wantZeros(name string, size int64) {
	m.t.Helper()
	f, err := os.Open(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	buf, zero, n := make([]byte, 1<<20), make([]byte, 1<<20), int64(0)
	for {
		k, err := f.Read(buf)
		if n += int64(k); !bytes.Equal(buf[:k], zero[:k]) {
			m.t.Fatalf("%s has something else than zeros", name)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	if n != size {
		m.t.Errorf("%s has %d bytes, want %d", name, n, size)
	}
}

// wantRefused fails the test unless nothing can be seen of a module, nothing is kept of it, and .modfs/errors says why.
func (m *mounted) wantRefused(path string) {
	m.t.Helper()
	dir := path + "@v1.0.0"
	// What nobody can read is not said to be missing: another proxy may have a whole one.
	want := syscall.ENOENT
	if strings.HasPrefix(path, "nosum.example/") && !strings.HasSuffix(path, "newline") { // of which the go command can read all but the hash
		want = syscall.EIO
	}
	if names, err := os.ReadDir(m.path(dir)); len(names) > 0 || !errors.Is(err, want) && !errors.Is(err, syscall.EFBIG) && !errors.Is(err, syscall.EBADMSG) {
		m.t.Errorf("%s lists %v, %v; want %v", dir, names, err, want)
	}
	zip := "cache/download/" + path + "/@v/v1.0.0.zip"
	for _, name := range []string{dir + "/go.mod", dir + "/ok.go", dir + "/a", zip} {
		if data, err := m.read(name); err == nil {
			m.t.Errorf("%s can be read: %.40q", name, data)
		}
	}
	told := false
	for _, e := range m.errors() {
		if e.Module == path {
			told = true
			if e.Cause == "" || len(e.Cause) > 4000 {
				m.t.Errorf("%d bytes of cause in .modfs/errors: %+v", len(e.Cause), e)
			}
		}
	}
	if !told {
		m.t.Error("nothing of it in .modfs/errors")
	}
	if kept := m.kept("/"+filepath.Base(path)+"/@v/v1.0.0.zip", "index/"+dir); len(kept) > 0 {
		m.t.Errorf("kept: %q", kept)
	}
	if err := filepath.WalkDir(filepath.Join(m.store, "tmp"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			m.t.Errorf("%s was left", p)
		}
		return nil
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Error(err)
	}
}
