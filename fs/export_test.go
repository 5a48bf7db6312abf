package fs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// filled returns the directory of a store that has a and b, and the options of an export of it.
func filledStore(t *testing.T, s *proxytest.Server) ExportOptions {
	t.Helper()
	o := depotOptions(t, s)
	d := openDepot(t, o)
	for _, m := range []module.Version{testA, testB} {
		if mv := d.take(t.Context(), m, PartInfo|PartMod|PartZip); mv.Err != nil {
			t.Fatal(mv.Err)
		}
	}
	return ExportOptions{Store: o.Store.Dir, Dir: filepath.Join(t.TempDir(), "tree"), Fetch: o.Fetch, Report: func(int, Moved) {}}
}

// exportAll exports, while the store is in use, and returns what was reported.
func exportAll(t *testing.T, o ExportOptions) (got moved, failed int) {
	t.Helper()
	o.Report = got.add
	failed, unproven, err := Export(t.Context(), o)
	if err != nil || unproven > 0 {
		t.Fatal(err, unproven)
	}
	return got, failed
}

// What is exported is a copy, not the store's file by another name, and what an interrupted export left is no hindrance.
func TestExport(t *testing.T) {
	s := proxytest.New(t)
	o := filledStore(t, s)
	left := filepath.Join(o.Dir, "example.com/a/@v", tempPrefix+"v1.0.0.zip")
	if err := os.MkdirAll(filepath.Dir(left), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got, failed := exportAll(t, o); failed > 0 || len(got) != 2 {
		t.Fatal(got)
	}
	files := 0
	err := filepath.WalkDir(o.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(p, "sumdb") {
			return err
		}
		if strings.HasPrefix(d.Name(), tempPrefix) {
			t.Errorf("%s was left", p)
		}
		if d.Name() == "list" {
			return nil
		}
		files++
		rel, _ := filepath.Rel(o.Dir, p)
		ours, err := os.Stat(filepath.Join(o.Store, "cache/download", rel))
		if err != nil {
			return err
		}
		theirs, err := os.Stat(p)
		if err != nil {
			return err
		}
		if os.SameFile(ours, theirs) {
			t.Errorf("%s is the store's file", rel)
		}
		return nil
	})
	if err != nil || files != 6 {
		t.Errorf("%d files, %v", files, err)
	}
	if again, _ := exportAll(t, o); !again[0].Kept || !again[1].Kept {
		t.Errorf("again: %+v, want nothing done", again)
	}
	// What is there and is not right is replaced.
	zip := filepath.Join(o.Dir, "example.com/a/@v/v1.0.0.zip")
	if err := os.Truncate(zip, 10); err != nil {
		t.Fatal(err)
	}
	exportAll(t, o)
	if data, err := os.ReadFile(zip); err != nil || string(data) != string(s.ZipBytes(testA.Path, testA.Version)) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// An archive in the store that is whole, and not the one that was verified, is not exported.
func TestExportForged(t *testing.T) {
	s := proxytest.New(t)
	o := filledStore(t, s)
	bad := openDepot(t, func() Options {
		o := depotOptions(t, s)
		o.Fetch.Proxy, o.Fetch.SumDB = s.FaultURL("tamper"), "off"
		return o
	}())
	if mv := bad.take(t.Context(), testA, PartMod|PartZip); mv.Err != nil {
		t.Fatal(mv.Err)
	}
	for _, key := range []string{zipKey(testA), modKey(testA)} {
		data, err := os.ReadFile(filepath.Join(bad.f.store.Dir(), key))
		if err == nil {
			err = os.WriteFile(filepath.Join(o.Store, key), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got, failed := exportAll(t, o)
	if failed != 1 || !errors.Is(got[0].Err, errDamaged) || got[1].Err != nil {
		t.Errorf("%d failed: %+v", failed, got)
	}
	for _, name := range []string{"v1.0.0.zip", "v1.0.0.mod"} {
		if _, err := os.Stat(filepath.Join(o.Dir, "example.com/a/@v", name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there", name)
		}
	}
}

// Who can write to the directory cannot have the exporter, which may be root, write elsewhere.
func TestExportLinks(t *testing.T) {
	s := proxytest.New(t)
	o := filledStore(t, s)
	out := t.TempDir()
	if err := os.MkdirAll(filepath.Join(o.Dir, "example.com"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(out, filepath.Join(o.Dir, "example.com/a")); err != nil {
		t.Fatal(err)
	}
	got, failed := moved{}, 0
	o.Report = got.add
	failed, _, err := Export(t.Context(), o)
	if failed == 0 && err == nil {
		t.Error("no error")
	}
	if des, err := os.ReadDir(out); err != nil || len(des) > 0 {
		t.Errorf("%v was written outside: %v", des, err)
	}
}

// What was never verified is not exported, and what the database was not asked about is exported as such.
func TestExportUnverified(t *testing.T) {
	s := proxytest.New(t)
	o := filledStore(t, s)
	if err := os.Remove(filepath.Join(o.Store, pinsFile)); err != nil {
		t.Fatal(err)
	}
	if got, failed := exportAll(t, o); failed != 2 || !strings.Contains(got[0].Err.Error(), "never verified") {
		t.Errorf("%d failed: %+v", failed, got)
	}
	all := untar(t, pack(t, s))
	var bare []tarEntry
	for _, e := range all {
		if !strings.HasPrefix(e.Name, "sumdb/") {
			bare = append(bare, e)
		}
	}
	store, _, err := unpack(t, s, retar(t, bare))
	if err != nil {
		t.Fatal(err)
	}
	o.Store, o.Dir = store, filepath.Join(t.TempDir(), "tree")
	var got moved
	o.Report = got.add
	failed, unproven, err := Export(t.Context(), o)
	if failed > 0 || err != nil || unproven != 2 || len(got) != 2 || !got[0].Deferred {
		t.Errorf("%d failed, %d unproven, %v: %+v", failed, unproven, err, got)
	}
}

// An export that is interrupted leaves whole files only.
func TestInterruptedExport(t *testing.T) {
	s := proxytest.New(t)
	o := filledStore(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	o.Report = func(int, Moved) { cancel() }
	if _, _, err := Export(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "example.com/b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it went on: %v", err)
	}
}

// An unchecked pin is good for as long as nobody can say otherwise. When the database can be asked it becomes one like any other, or
// what it stands for goes.
func TestDoubt(t *testing.T) {
	s := proxytest.New(t)
	for name, forge := range map[string]bool{"good": false, "forged": true} {
		t.Run(name, func(t *testing.T) {
			o := depotOptions(t, s)
			from := o
			if forge {
				from.Fetch.Proxy, from.Fetch.SumDB = s.FaultURL("tamper"), "off"
			}
			from.Store.Dir = filepath.Join(t.TempDir(), "from")
			d := openDepot(t, from)
			if mv := d.take(t.Context(), testB, PartInfo|PartMod|PartZip); mv.Err != nil {
				t.Fatal(mv.Err)
			}
			d.Close()
			seed, err := fetch.OpenSeed(from.Store.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer seed.Close()
			off := o
			off.Fetch.Offline, off.Fetch.Seeds = true, []*fetch.Seed{seed}
			d = openDepot(t, off)
			mv := d.take(t.Context(), testB, PartInfo|PartMod|PartZip)
			if mv.Err != nil || !mv.Unchecked || !mv.Deferred {
				t.Fatalf("offline: %+v", mv)
			}
			if d.f.pins.inDoubt(testB) == "" || d.f.pins.zip(testB) == "" {
				t.Error("not in doubt")
			}
			d.Close()
			s.ResetRequests()
			d = openDepot(t, o)
			mv = d.take(t.Context(), testB, PartInfo|PartMod|PartZip)
			if mv.Err != nil || mv.Unchecked {
				t.Errorf("online: %+v", mv)
			}
			if d.f.pins.inDoubt(testB) != "" || d.f.pins.zip(testB) != s.ZipHash(testB.Path, testB.Version) || d.f.pins.mod(testB) != s.ModHash(testB.Path, testB.Version) {
				t.Error("the pins are not the database's")
			}
			want := map[bool]int{false: 0, true: 1}[forge]
			if got := s.Count("b/@v/v1.0.0.zip"); got != want {
				t.Errorf("%d requests for the zip, want %d", got, want)
			}
			if got := d.f.stats.refuted.Load(); got != int64(2*want) {
				t.Errorf("%d files refuted, want %d", got, 2*want)
			}
			d.Close()
			// It is remembered.
			d = openDepot(t, o)
			if d.f.pins.inDoubt(testB) != "" {
				t.Error("in doubt again")
			}
		})
	}
}

// FuzzBundle imports anything: what is in the store afterwards is the server's, or in doubt.
func FuzzBundle(f *testing.F) {
	s, err := proxytest.Start(proxytest.Modules()...)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, edit []byte) {
		data := pack(t, s)
		for i := 0; i+2 < len(edit); i += 3 { // each three bytes are a place and what is put there
			data[(int(edit[i])<<8|int(edit[i+1]))%len(data)] = edit[i+2]
		}
		store, _, _ := unpack(t, s, data)
		checkStore(t, s, store)
	})
}
