package fs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	"modfs/lru"
)

// depotOptions are those of a depot with a store of its own.
func depotOptions(t *testing.T, s *proxytest.Server) Options {
	t.Helper()
	return Options{
		Store: lru.Config{Dir: filepath.Join(t.TempDir(), "store")},
		Fetch: fetch.Config{Proxy: s.URL(), SumDB: s.SumDB()},
	}
}

func openDepot(t *testing.T, o Options) *Depot {
	t.Helper()
	d, err := OpenDepot(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// moved are what a Report was told.
type moved []Moved

func (m *moved) add(_ int, mv Moved) { *m = append(*m, mv) }

func (m moved) failed() (errs []error) {
	for _, mv := range m {
		if mv.Err != nil {
			errs = append(errs, mv.Err)
		}
	}
	return errs
}

// sumsOfServer is a go.sum of modules.
func sumsOfServer(s *proxytest.Server, ms ...module.Version) Sums {
	sums := make(Sums)
	for _, m := range ms {
		sums[m] = s.ZipHash(m.Path, m.Version)
		sums[module.Version{Path: m.Path, Version: m.Version + "/go.mod"}] = s.ModHash(m.Path, m.Version)
	}
	return sums
}

var (
	testA = module.Version{Path: "example.com/a", Version: "v1.0.0"}
	testB = module.Version{Path: "example.com/b", Version: "v1.0.0"}
)

// pack makes a bundle of a and b.
func pack(t *testing.T, s *proxytest.Server) []byte {
	t.Helper()
	var buf bytes.Buffer
	var got moved
	failed, err := openDepot(t, depotOptions(t, s)).WriteBundle(t.Context(), &buf, sumsOfServer(s, testA, testB), got.add)
	if failed > 0 || err != nil {
		t.Fatal(err, got.failed())
	}
	return buf.Bytes()
}

// entry is one of a tar file.
type tarEntry struct {
	tar.Header
	data []byte
}

func untar(t *testing.T, data []byte) (all []tarEntry) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tarEntry{*h, body})
	}
}

func retar(t *testing.T, all []tarEntry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range all {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		w.Write(e.data) // an entry that announces more than it has is what some tests are about
	}
	w.Flush() // likewise
	w.Close()
	return buf.Bytes()
}

// unpack imports a tar file, offline, into a store of its own.
func unpack(t *testing.T, s *proxytest.Server, data []byte) (store string, got moved, err error) {
	t.Helper()
	o := depotOptions(t, s)
	o.Fetch.Offline = true
	d, err := OpenBundleDepot(o, "bundle")
	if err != nil {
		t.Fatal(err)
	}
	err = d.ReadBundle(t.Context(), bytes.NewReader(data), got.add)
	if cerr := d.Close(); cerr != nil {
		t.Error(cerr)
	}
	return o.Store.Dir, got, err
}

// archives are the archives in a store.
func archives(t *testing.T, store string) (names []string) {
	t.Helper()
	filepath.WalkDir(store, func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".zip") {
			names = append(names, filepath.Base(filepath.Dir(filepath.Dir(p))))
		}
		return nil
	})
	return names
}

// Whatever order the entries of a tar file have, what proves them is found; and the same modules make the same bundle.
func TestBundle(t *testing.T) {
	s := proxytest.New(t)
	data := pack(t, s)
	all := untar(t, data)
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.Name
		if e.Mode != 0o644 || e.ModTime.Unix() != 0 || e.Uid != 0 || e.Uname != "" || e.Typeflag != tar.TypeReg {
			t.Errorf("header %+v depends on more than the modules", e.Header)
		}
	}
	if i, j := slices.Index(names, "sumdb/"+s.SumDBName()+"/latest"), slices.Index(names, "example.com/a/@v/v1.0.0.info"); i < 0 || j < i {
		t.Errorf("what proves the modules does not come before them: %q", names)
	}
	backward := slices.Clone(all)
	slices.Reverse(backward)
	prefixed := slices.Clone(all)
	for i := range prefixed {
		prefixed[i].Name = "./" + prefixed[i].Name
	}
	for name, all := range map[string][]tarEntry{"as it is": all, "backward": backward, "as tar names them": prefixed} {
		store, got, err := unpack(t, s, retar(t, all))
		if err != nil || len(got.failed()) > 0 || len(archives(t, store)) != 2 {
			t.Errorf("%s: %v, %v, %q", name, err, got.failed(), archives(t, store))
		}
		zips := 0
		for _, mv := range got {
			if mv.Unchecked {
				t.Errorf("%s: %+v: not checked", name, mv)
			}
			if mv.Parts&PartZip != 0 {
				zips++
			}
		}
		if zips != 2 {
			t.Errorf("%s: told of %d zips: %+v", name, zips, got)
		}
	}
}

// A tar file may be anything. What is not a module's file ends the import; what is one and does not have the right hash is not
// imported; and no more is read into memory than a file may have.
func TestHostileBundle(t *testing.T) {
	s := proxytest.New(t)
	good := untar(t, pack(t, s))
	at := func(suffix string) int {
		return slices.IndexFunc(good, func(e tarEntry) bool { return strings.HasSuffix(e.Name, suffix) })
	}
	plus := func(h tar.Header, data string) []tarEntry {
		h.Size, h.Mode = max(h.Size, int64(len(data))), 0o644
		return append(slices.Clone(good), tarEntry{h, []byte(data)})
	}
	change := func(i int, f func(e *tarEntry)) []tarEntry {
		all := slices.Clone(good)
		f(&all[i])
		return all
	}
	bad := s.FaultURL("tamper")
	forged := func(ext string) []byte {
		var dst bytes.Buffer
		c, err := fetch.New(fetch.Config{Proxy: bad, SumDB: "off"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if ext == ".mod" {
			data, _, err := c.Mod(t.Context(), testA, "")
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		if _, err := c.Zip(t.Context(), testA, "", &memory{buf: &dst}, fetch.Watch{}); err != nil {
			t.Fatal(err)
		}
		return dst.Bytes()
	}
	for _, test := range []struct {
		name    string
		all     []tarEntry
		wantErr string   // of the tar file
		wantBad error    // of a module
		have    []string // modules that are there in the end
	}{
		{name: "link", all: plus(tar.Header{Typeflag: tar.TypeSymlink, Name: "example.com/c/@v/v1.0.0.zip", Linkname: "/etc/passwd"}, ""), wantErr: "not a regular file", have: []string{"a", "b"}},
		{name: "hard link", all: plus(tar.Header{Typeflag: tar.TypeLink, Name: "example.com/c/@v/v1.0.0.zip", Linkname: "example.com/a/@v/v1.0.0.zip"}, ""), wantErr: "not a regular file", have: []string{"a", "b"}},
		{name: "device", all: plus(tar.Header{Typeflag: tar.TypeChar, Name: "example.com/c/@v/v1.0.0.zip"}, ""), wantErr: "not a regular file", have: []string{"a", "b"}},
		{name: "fifo", all: plus(tar.Header{Typeflag: tar.TypeFifo, Name: "example.com/c/@v/v1.0.0.zip"}, ""), wantErr: "not a regular file", have: []string{"a", "b"}},
		{name: "up", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "../../etc/passwd"}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "up in a module", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/../@v/v1.0.0.mod"}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "absolute", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "not escaped", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/Upper/@v/v1.0.0.mod"}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "not canonical", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/a/@v/v1.mod"}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "the store's own", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "pins"}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "empty name", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: ""}, "x"), wantErr: "no file of a module proxy", have: []string{"a", "b"}},
		{name: "twice", all: append(slices.Clone(good), good[at("a/@v/v1.0.0.mod")]), wantErr: "twice", have: []string{"a", "b"}},
		{name: "twice, with a dot", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "./example.com/a/@v/v1.0.0.mod"}, "x"), wantErr: "twice", have: []string{"a", "b"}},
		{name: "huge .info", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/c/@v/v1.0.0.info", Size: 1 << 40}, "x"), wantErr: "too large", have: []string{"a", "b"}},
		{name: "huge .mod", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/c/@v/v1.0.0.mod", Size: 1 << 40}, "x"), wantErr: "too large", have: []string{"a", "b"}},
		{name: "huge record", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "sumdb/x/latest", Size: 1 << 40}, "x"), wantErr: "too large", have: []string{"a", "b"}},
		{name: "huge zip", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/c/@v/v1.0.0.zip", Size: 1 << 40}, "x"), wantErr: "unexpected EOF", wantBad: fetch.ErrTooLarge, have: []string{"a", "b"}},
		{name: "no zip", all: plus(tar.Header{Typeflag: tar.TypeReg, Name: "example.com/c/@v/v1.0.0.zip"}, "not a zip"), wantBad: fetch.ErrBadAnswer, have: []string{"a", "b"}},
		{name: "forged zip", all: change(at("a/@v/v1.0.0.zip"), func(e *tarEntry) { e.data = forged(".zip"); e.Size = int64(len(e.data)) }), wantBad: fetch.ErrMismatch, have: []string{"b"}},
		{name: "forged go.mod", all: change(at("a/@v/v1.0.0.mod"), func(e *tarEntry) { e.data = forged(".mod"); e.Size = int64(len(e.data)) }), wantBad: fetch.ErrMismatch, have: []string{"a", "b"}},
		{name: "another's zip", all: change(at("a/@v/v1.0.0.zip"), func(e *tarEntry) { b := good[at("b/@v/v1.0.0.zip")]; e.data, e.Size = b.data, b.Size }), wantBad: fetch.ErrMismatch, have: []string{"b"}},
		{name: "forged record", all: change(at("lookup/example.com/a@v1.0.0"), func(e *tarEntry) {
			e.data = []byte(strings.Replace(string(e.data), "h1:", "h1:A", 1))
			e.Size = int64(len(e.data))
		}), wantBad: fetch.ErrSumDB, have: []string{"b"}},
		{name: "another version's .info", all: change(at("a/@v/v1.0.0.info"), func(e *tarEntry) { e.data = []byte(`{"Version":"v2.0.0"}`); e.Size = int64(len(e.data)) }), wantBad: errors.ErrUnsupported, have: []string{"a", "b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			store, got, err := unpack(t, s, retar(t, test.all))
			if text := ""; err != nil || test.wantErr != "" {
				if err != nil {
					text = err.Error()
				}
				if test.wantErr == "" || !strings.Contains(text, test.wantErr) {
					t.Errorf("error %v, want %q", err, test.wantErr)
				}
			}
			errs := got.failed()
			if test.wantBad == nil && len(errs) > 0 || test.wantBad != nil && len(errs) == 0 {
				t.Errorf("errors %v, want %v", errs, test.wantBad)
			}
			for _, err := range errs {
				if test.wantBad != errors.ErrUnsupported && !errors.Is(err, test.wantBad) { // which stands for an error of no class
					t.Errorf("error %v, want %v", err, test.wantBad)
				}
			}
			if have := archives(t, store); !slices.Equal(have, test.have) {
				t.Errorf("imported %q, want %q", have, test.have)
			}
			for _, mv := range got {
				if mv.Err == nil && mv.Unchecked {
					t.Errorf("%+v: not checked", mv)
				}
			}
		})
	}
}

// memory is a fetch.Dst.
type memory struct{ buf *bytes.Buffer }

func (m *memory) Write(p []byte) (int, error) { return m.buf.Write(p) }
func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.buf.Bytes()).ReadAt(p, off)
}
func (m *memory) Truncate(int64) error { m.buf.Reset(); return nil }
func (m *memory) Reserve(int64) error  { return nil }

// Each byte of a bundle that is cut short, or has a bit flipped, costs at most what it belongs to; nothing that is not verified
// is in the store.
func TestDamagedBundle(t *testing.T) {
	s := proxytest.New(t)
	data := pack(t, s)
	for _, cut := range []int{0, 1, 511, 512, len(data) / 3, len(data) / 2, len(data) - 1100} {
		store, got, _ := unpack(t, s, data[:cut])
		for _, mv := range got {
			if mv.Err == nil && mv.Unchecked {
				t.Errorf("cut at %d: %+v: not checked", cut, mv)
			}
		}
		checkStore(t, s, store)
	}
	step := len(data) / 40
	if testing.Short() {
		step *= 4
	}
	for i := 13; i < len(data); i += step {
		flipped := slices.Clone(data)
		flipped[i] ^= 4
		store, _, _ := unpack(t, s, flipped)
		checkStore(t, s, store)
	}
}

// checkStore fails the test unless each archive and go.mod file of a store is the server's, or is only known by an unchecked pin.
func checkStore(t *testing.T, s *proxytest.Server, store string) {
	t.Helper()
	h1, err := pinsIn(store)
	if err != nil {
		t.Fatal(err)
	}
	for m, got := range h1 {
		if strings.HasSuffix(m.Version, infoSuffix) || strings.HasSuffix(m.Version, doubtSuffix) {
			continue
		}
		v, isMod := strings.CutSuffix(m.Version, modSuffix)
		want := s.ZipHash(m.Path, v)
		if isMod {
			want = s.ModHash(m.Path, v)
		}
		if got != want {
			t.Errorf("%s is pinned as %s, want %s", m, got, want)
		}
	}
}

// An import that is interrupted ends, and what it took is whole.
func TestInterruptedImport(t *testing.T) {
	s := proxytest.New(t)
	data := pack(t, s)
	o := depotOptions(t, s)
	o.Fetch.Offline = true
	d, err := OpenBundleDepot(o, "bundle")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got moved
	err = d.ReadBundle(ctx, bytes.NewReader(data), func(n int, mv Moved) {
		got.add(n, mv)
		cancel()
	})
	if !errors.Is(err, context.Canceled) || len(got) != 1 {
		t.Errorf("error %v after %d modules", err, len(got))
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if have := archives(t, o.Store.Dir); !slices.Equal(have, []string{"a"}) {
		t.Errorf("imported %q", have)
	}
}

func TestParseGoSum(t *testing.T) {
	const h1 = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	for text, want := range map[string]int{
		"": 0, "\n\n": 0,
		"example.com/a v1.0.0 " + h1: 1,
		"example.com/a v1.0.0 " + h1 + "\nexample.com/a v1.0.0/go.mod " + h1 + "\n": 2,
		"example.com/a v1.0.0 " + h1 + "\nexample.com/a v1.0.0 " + h1 + "\n":        1,
		"example.com/a v1.0.0 h2:whatever\n":                                        0,
		"example.com/a v1.0.0\n":                                                    -1,
		"example.com/a v1 " + h1:                                                    -1,
		"../a v1.0.0 " + h1:                                                         -1,
		"example.com/a v1.0.0 " + h1 + "\nexample.com/a v1.0.0 h1:" + strings.Repeat("A", 43) + "=\n": -1,
	} {
		s, err := ParseSums([]byte(text))
		if (err == nil) != (want >= 0) || err == nil && len(s) != want {
			t.Errorf("ParseSums(%q) = %v, %v, want %d", text, s, err, want)
		}
	}
}
