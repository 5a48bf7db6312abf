package fs

import (
	"bytes"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/lru"
)

// What the hash of a zip says nothing of: the order and the places of its files, their CRC-32s and how they are packed. None of
// it may decide what is read.

const (
	archivePrefix = "example.com/z@v1.0.0/"
	archiveGoMod  = "module example.com/z\n"
	archiveText   = "package z // as it was hashed, and as it must be read\n"
)

// archiveModule returns a module with that zip.
func archiveModule(z proxytest.RawZip) proxytest.Module {
	return proxytest.Module{Path: "example.com/z", Version: "v1.0.0", Mod: archiveGoMod, Zip: z.Bytes(),
		Files: map[string]string{"go.mod": archiveGoMod, "z.go": archiveText}}
}

func archiveZip(entries ...proxytest.RawEntry) proxytest.RawZip {
	return proxytest.RawZip{Entries: entries}
}

var archiveFirst = archiveZip(proxytest.RawStored(archivePrefix+"go.mod", archiveGoMod), proxytest.RawStored(archivePrefix+"z.go", archiveText))

// hidden makes an entry that nobody is told of.
func hidden(e proxytest.RawEntry) proxytest.RawEntry {
	e.NoCentral = true
	return e
}

// forge returns data with its last four bytes changed so that its CRC-32 is crc.
func forge(data string, crc uint32) string {
	// Going back from the wanted state over four bytes, each step of the register is undone; what then differs from the state that
	// the data leads to is what the four bytes have to be.
	want := ^crc
	for range 4 {
		for i, v := range crc32.IEEETable {
			if v>>24 == want>>24 {
				want = (want^v)<<8 | uint32(i)
				break
			}
		}
	}
	b := []byte(data)
	have := ^crc32.ChecksumIEEE(b[:len(b)-4])
	for i := range 4 {
		b[len(b)-4+i] = byte((want ^ have) >> (8 * i))
	}
	return string(b)
}

// archiveForged has the same hash as archiveFirst, and at the place of z.go other content with the same size and CRC-32.
func archiveForged(t *testing.T) proxytest.RawZip {
	other := forge(strings.Repeat("evil", len(archiveText)/4+1)[:len(archiveText)], crc32.ChecksumIEEE([]byte(archiveText)))
	if crc32.ChecksumIEEE([]byte(other)) != crc32.ChecksumIEEE([]byte(archiveText)) {
		t.Fatal("not forged")
	}
	first := archiveFirst.Entries
	return archiveZip(hidden(first[0]), hidden(proxytest.RawStored(archivePrefix+"z.go", other)), first[0], first[1])
}

// An archive that was evicted comes back in another form, with the same hash. The index is that of the first one, and so is the
// size that the kernel knows.
func TestArchiveAnew(t *testing.T) {
	first := archiveFirst.Entries
	for name, second := range map[string]proxytest.RawZip{
		"the same": archiveFirst,
		"order":    archiveZip(first[1], first[0]),
		"packed":   archiveZip(proxytest.RawDeflated(archivePrefix+"go.mod", archiveGoMod), proxytest.RawDeflated(archivePrefix+"z.go", archiveText)),
		"forged":   archiveForged(t),
	} {
		t.Run(name, func(t *testing.T) {
			s := proxytest.New(t, archiveModule(archiveFirst))
			dir, f := mountTest(t, s, noMemory)
			walk(t, in(dir, archivePrefix)) // and nothing is read, so that the kernel has nothing
			m := archiveModule(second)
			zip := in(dir, "cache/download/example.com/z/@v/v1.0.0.zip")
			if fi, err := os.Stat(zip); err != nil || fi.Size() != int64(len(archiveFirst.Bytes())) {
				t.Errorf("the first zip: %v, %v", fi, err)
			}
			if err := s.Add(m); err != nil {
				t.Fatal(err)
			}
			if err := f.store.Remove(zipKey(version(m))); err != nil {
				t.Fatal(err)
			}
			f.evicted(lru.Eviction{Key: zipKey(version(m))})
			if got := readFile(t, in(dir, archivePrefix+"z.go")); got != archiveText { // the first one, with the old index
				t.Errorf("z.go has %q", got)
			}
			// It must not be cut, nor filled up, to the size of the first one. A lookup finds the new size soon.
			got, err := os.ReadFile(zip)
			if errors.Is(err, syscall.EIO) && len(got) == 0 && len(m.Zip) != len(archiveFirst.Bytes()) {
				eventually(t, "the kernel has forgotten the old size", func() bool {
					got, err = os.ReadFile(zip)
					return !errors.Is(err, syscall.EIO)
				})
			}
			if err != nil || !bytes.Equal(got, m.Zip) {
				t.Errorf("the second zip has %d bytes, want %d; %v", len(got), len(m.Zip), err)
			}
			wantTree(t, s, dir, m)
			if n := s.Count("GET /example.com/z/@v/v1.0.0.zip"); n != 2 {
				t.Errorf("the zip was fetched %d times, want 2", n)
			}
			wantDamage(t, f, 0, 0, 0)
		})
	}
}

// An archive in the store is another one with the same hash than that which was indexed: a power failure took the newer index.
func TestArchiveOfOtherIndex(t *testing.T) {
	s := proxytest.New(t, archiveModule(archiveFirst))
	dir, f := mountTest(t, s, noMemory)
	walk(t, in(dir, archivePrefix))
	shut(t, f)
	m := archiveModule(archiveForged(t))
	if err := s.Add(m); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(f.store.Dir(), zipKey(version(m)))
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, m.Zip, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
	wantTree(t, s, dir, m)
	wantDamage(t, f, 1, f.stats.repaired.Load(), 1)
}

// A CRC-32 of 0 means that the packer gave none. Damage is found all the same.
func TestArchiveWithoutCRC(t *testing.T) {
	for name, z := range map[string]proxytest.RawEntry{
		"stored":   proxytest.RawStored(archivePrefix+"z.go", archiveText),
		"deflated": proxytest.RawDeflated(archivePrefix+"z.go", archiveText),
	} {
		t.Run(name, func(t *testing.T) {
			z = z.Both(func(h *proxytest.RawHeader) { h.CRC = 0 })
			m := archiveModule(archiveZip(archiveFirst.Entries[0], z))
			s := proxytest.New(t, m)
			dir, f := mountTest(t, s, noMemory)
			walk(t, in(dir, archivePrefix))
			ix, i := entryOf(t, f, m, "z.go")
			d := ix.data(i)
			flip(t, f, zipKey(version(m)), d.offset+d.packed-8, 1)
			wantTree(t, s, dir, m)
			wantDamage(t, f, 1, f.stats.repaired.Load(), 1)
		})
	}
}

// Without its index, an archive is verified again: its directory may be damaged as anything else.
func TestArchiveWithoutIndex(t *testing.T) {
	for name, damage := range map[string]bool{"whole": false, "damaged": true} {
		t.Run(name, func(t *testing.T) {
			m := archiveModule(archiveFirst)
			s := proxytest.New(t, m)
			dir, f := mountTest(t, s, noMemory)
			walk(t, in(dir, archivePrefix))
			shut(t, f)
			if damage {
				flip(t, f, zipKey(version(m)), int64(bytes.LastIndex(m.Zip, []byte("z.go"))), 1)
			}
			if err := os.Remove(filepath.Join(f.store.Dir(), indexKey(version(m)))); err != nil {
				t.Fatal(err)
			}
			dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
			together(4, func(int) { wantTree(t, s, dir, m) })
			if damage {
				wantDamage(t, f, 1, f.stats.repaired.Load(), 1)
			} else {
				wantDamage(t, f, 0, 0, 0)
			}
			if n, want := s.Count(".zip"), 1; !damage && n != want {
				t.Errorf("the zip was fetched %d times, want %d", n, want)
			}
		})
	}
}

// A toolchain's _go.mod takes the place of a go.mod. What was kept in memory while the zip was verified is that of the go.mod.
func TestArchiveOfToolchain(t *testing.T) {
	long := "module other\n" + strings.Repeat("// a long comment\n", headSize/10)
	for name, mod := range map[string]string{"small": "module std\n", "large": strings.ReplaceAll(long, "long", "short")} {
		t.Run(name, func(t *testing.T) {
			m := proxytest.Toolchain("1.99.0", "linux", "amd64", map[string]string{
				"bin/go": "#!/bin/sh\n", "go.mod": long, "_go.mod": mod, "src/_go.mod": "module std\n",
			})
			s := proxytest.New(t, m)
			dir, f := mountTest(t, s, nil)
			for _, name := range []string{"go.mod", "_go.mod"} {
				if got := readFile(t, in(dir, moduleDir(version(m))+"/"+name)); got != mod {
					t.Errorf("%s has %d bytes %.30q…, want %d", name, len(got), got, len(mod))
				}
			}
			wantDamage(t, f, 0, 0, 0)
		})
	}
}
