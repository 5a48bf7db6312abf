package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
	"modfs/lru"
)

// verifyStore makes a store with something of every kind in it, and returns its directory.
func verifyStore(t *testing.T, s *proxytest.Server, set func(*Options)) string {
	t.Helper()
	dir, f := mountTest(t, s, set)
	wantTree(t, s, dir, big())
	wantTree(t, s, dir, module1(t, "example.com/a@v1.0.0"))
	for _, key := range []string{modKey(moduleA), infoKey(moduleA), listKey(moduleA.Path), latestKey(moduleA.Path), zipHashKey(moduleA)} {
		readFile(t, in(dir, key))
	}
	store := f.store.Dir()
	shut(t, f)
	return store
}

// verified is Verify with the settings that s was mounted with.
func verified(t *testing.T, s *proxytest.Server, o VerifyOptions) (VerifySummary, []Finding) {
	t.Helper()
	var findings []Finding
	o.Fetch = testOptions(t, s, nil).Fetch
	o.Found = func(f Finding) { findings = append(findings, f) }
	var total, done int64
	o.Progress = func(all, more int64) { total, done = total+all, done+more }
	sum, err := Verify(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if total != done {
		t.Errorf("%d bytes of %d are done", done, total)
	}
	return sum, findings
}

// findFile returns the name of a file of a store: the first that matches pattern.
func findFile(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return names[0]
}

// invert damages the middle of a file.
func invert(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a revision stood for is a file of the store like others.
func TestVerifyRevision(t *testing.T) {
	branch := publish("example.com/m", "main")
	branch.Info = `{"Version":"v1.0.1-0.20200102030405-0123456789ab","Time":"2020-01-02T03:04:05Z"}`
	s := proxytest.New(t, branch)
	const key = "cache/download/example.com/m/@v/main.info"
	dir, f := mountTest(t, s, func(o *Options) { o.Fetch.SumDB = "off" })
	readFile(t, in(dir, key))
	store := f.store.Dir()
	shut(t, f)
	name := findFile(t, store, key)
	if _, findings := verified(t, s, VerifyOptions{Dir: store}); len(findings) != 0 {
		t.Errorf("before the damage: %+v", findings)
	}
	invert(t, name)
	_, findings := verified(t, s, VerifyOptions{Dir: store})
	if len(findings) != 1 || findings[0].File != key || findings[0].Problem != "it is not what was fetched" {
		t.Errorf("%+v", findings)
	}
}

// TestVerify damages each kind of file. Verify finds that and nothing else, repairs it, and then there is nothing to be found.
func TestVerify(t *testing.T) {
	s := proxytest.New(t, append(proxytest.Modules(), big())...)
	original := verifyStore(t, s, nil)
	for _, tt := range []struct{ file, module, problem, action string }{
		{"cache/download/example.com/a/@v/v1.0.0.zip", "example.com/a@v1.0.0", "", "fetched again"},
		{"cache/download/example.com/big/@v/v1.0.0.zip", "example.com/big@v1.0.0", "", "fetched again"},
		{"cache/download/example.com/a/@v/v1.0.0.mod", "example.com/a@v1.0.0", "its hash is", "fetched again"},
		{"cache/download/example.com/a/@v/v1.0.0.info", "example.com/a@v1.0.0", "not what was fetched", "fetched again"},
		{"cache/download/example.com/a/@v/list", "example.com/a@", "not what was fetched", "quarantined"},
		{"cache/download/example.com/a/@latest", "example.com/a@", "not what was fetched", "quarantined"},
		{"index/example.com/a@v1.0.0", "example.com/a@v1.0.0", "index", "quarantined"},
		{"spool/example.com/big@v1.0.0/*", "example.com/big@v1.0.0", "checksum of the block", "quarantined"},
		{"sumdb/*/latest", "@", "checksum", "quarantined"},
		{"sumdb/*/lookup/example.com/a@v1.0.0", "@", "checksum", "quarantined"},
		{"pins", "@", "1 of its lines", "removed"},
	} {
		t.Run(strings.ReplaceAll(tt.file, "/", "!"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
				t.Fatal(err)
			}
			sum, findings := verified(t, s, VerifyOptions{Dir: dir})
			if sum.Damaged != 0 || sum.Modules != 2 || sum.Files < 10 || sum.Unasked != 0 || sum.Uncovered != 0 {
				t.Fatalf("before the damage: %+v, %+v", sum, findings)
			}
			name := findFile(t, dir, tt.file)
			invert(t, name)
			file, err := filepath.Rel(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			want := func(repair, bad bool) {
				t.Helper()
				sum, findings := verified(t, s, VerifyOptions{Dir: dir, Repair: repair})
				if len(findings) != 1 || sum.Damaged != 1 || sum.Repaired != 1 != bad {
					t.Fatalf("%+v, %+v", sum, findings)
				}
				f := findings[0]
				if f.File != file || f.Module+"@"+f.Version != tt.module || f.Bad != bad || !strings.Contains(f.Problem, tt.problem) ||
					repair && !strings.Contains(f.Action, tt.action) || !repair && f.Action != "" {
					t.Errorf("%+v", f)
				}
			}
			want(false, true)
			want(true, false)
			if sum, findings := verified(t, s, VerifyOptions{Dir: dir}); sum.Damaged != 0 {
				t.Errorf("after the repair: %+v", findings)
			}
			// It serves the right content, and found nothing wrong with it.
			mnt, f := mountTest(t, s, func(o *Options) { o.Store.Dir = dir })
			wantTree(t, s, mnt, big())
			wantTree(t, s, mnt, module1(t, "example.com/a@v1.0.0"))
			if n := f.stats.damaged.Load(); n != 0 {
				t.Errorf("%d files were found damaged after the repair", n)
			}
		})
	}
}

// TestVerifyReplaced puts something else in the place of a file.
func TestVerifyReplaced(t *testing.T) {
	s := proxytest.New(t, append(proxytest.Modules(), big())...)
	original := verifyStore(t, s, nil)
	const zipA = "cache/download/example.com/a/@v/v1.0.0.zip"
	for name, replace := range map[string]func(dir, name string) error{
		"another module's zip": func(dir, name string) error {
			data, err := os.ReadFile(filepath.Join(dir, "cache/download/example.com/big/@v/v1.0.0.zip"))
			return errors.Join(err, os.WriteFile(name, data, 0o600))
		},
		"garbage": func(_, name string) error { return os.WriteFile(name, []byte("garbage"), 0o600) },
		"link":    func(dir, name string) error { return errors.Join(os.Remove(name), os.Symlink("/dev/zero", name)) },
		"fifo":    func(dir, name string) error { return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
				t.Fatal(err)
			}
			if err := replace(dir, filepath.Join(dir, zipA)); err != nil {
				t.Fatal(err)
			}
			for _, repair := range []bool{false, true} {
				sum, findings := verified(t, s, VerifyOptions{Dir: dir, Repair: repair})
				if len(findings) != 1 || findings[0].File != zipA || findings[0].Bad == repair {
					t.Errorf("repair %v: %+v, %+v", repair, sum, findings)
				}
			}
			if sum, findings := verified(t, s, VerifyOptions{Dir: dir}); sum.Damaged != 0 {
				t.Errorf("after the repair: %+v", findings)
			}
		})
	}
}

// TestVerifyPins: a pin that is not what the checksum database says is wrong, even if the archive is what is pinned. Where the
// database cannot be asked, or does not cover a module, that is told.
func TestVerifyPins(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, func(o *Options) { o.Fetch.Proxy, o.Fetch.SumDB = s.FaultURL("tamper"), "off" })
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	store := f.store.Dir()
	if sum, findings := verified(t, s, VerifyOptions{Dir: store}); sum.Damaged != 1 || findings[0].Version == "" ||
		!strings.Contains(findings[0].Problem, "checksum database has "+s.ZipHash("example.com/a", "v1.0.0")) {
		t.Errorf("%+v, %+v", sum, findings)
	}
	_, err := Verify(t.Context(), VerifyOptions{Dir: store, Repair: true})
	if _, ok := errors.AsType[*lru.LockedError](err); !ok {
		t.Errorf("repaired while it is served: %v", err)
	}
	for name, tt := range map[string]struct {
		set  func(*Options)
		want VerifySummary
	}{
		"off":     {func(o *Options) { o.Fetch.SumDB = "off" }, VerifySummary{Uncovered: 1}},
		"private": {func(o *Options) { o.Fetch.Private = "example.com" }, VerifySummary{Uncovered: 1}},
		"offline": {func(o *Options) { o.Fetch.Offline = true }, VerifySummary{Unasked: 1}},
	} {
		sum, err := Verify(t.Context(), VerifyOptions{Dir: store, Fetch: testOptions(t, s, tt.set).Fetch})
		if err != nil || sum.Damaged != 0 || sum.Uncovered != tt.want.Uncovered || sum.Unasked != tt.want.Unasked || (sum.Why == "") != (sum.Unasked == 0) {
			t.Errorf("%s: %+v, %v", name, sum, err)
		}
	}
}

// TestVerifySome checks only what is asked for, and says if there is no such thing.
func TestVerifySome(t *testing.T) {
	s := proxytest.New(t, append(proxytest.Modules(), big())...)
	dir := verifyStore(t, s, nil)
	invert(t, filepath.Join(dir, "cache/download/example.com/big/@v/v1.0.0.zip"))
	none := module.Version{Path: "example.com/none", Version: "v1.0.0"}
	sum, findings := verified(t, s, VerifyOptions{Dir: dir, Modules: []module.Version{moduleA, none}})
	if sum.Modules != 1 || len(findings) != 1 || findings[0].Module != none.Path || !findings[0].Bad {
		t.Errorf("%+v, %+v", sum, findings)
	}
	if _, err := Verify(t.Context(), VerifyOptions{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "not a store") {
		t.Errorf("verified what is no store: %v", err)
	}
}

// TestVerifyOffline: without a proxy what is damaged is at least taken out of use.
func TestVerifyOffline(t *testing.T) {
	s := proxytest.New(t, append(proxytest.Modules(), big())...)
	dir := verifyStore(t, s, nil)
	invert(t, filepath.Join(dir, zipKey(moduleA)))
	c := testOptions(t, s, nil).Fetch
	c.Offline = true
	var got []Finding
	sum, err := Verify(t.Context(), VerifyOptions{Dir: dir, Fetch: c, Repair: true, Found: func(f Finding) { got = append(got, f) }})
	if err != nil || len(got) != 1 || got[0].Action != "quarantined" || sum.Repaired != 1 {
		t.Errorf("%+v, %+v, %v", sum, got, err)
	}
	s.ResetRequests()
	if sum, findings := verified(t, s, VerifyOptions{Dir: dir}); sum.Damaged != 0 {
		t.Errorf("%+v", findings)
	}
}

// TestVerifyInUse verifies a store whose modules come and go.
func TestVerifyInUse(t *testing.T) {
	var mods []proxytest.Module
	for i := range 8 {
		mods = append(mods, noise(fmt.Sprintf("example.com/n%d", i), uint64(i), 100<<10))
	}
	s := proxytest.New(t, mods...)
	_, f := mountTest(t, s, func(o *Options) { o.Store.MaxSize = 700 << 10 })
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i = (i + 1) % len(mods) {
			z, err := f.openZip(t.Context(), f.modules.intern(version(mods[i]))) // a client's kernel would ask once only
			if err != nil {
				t.Error(err)
				return
			}
			f.zips.put(z)
		}
	}()
	for i := 0; i < 20 || f.store.Usage().Evictions < 20; i++ {
		if sum, findings := verified(t, s, VerifyOptions{Dir: f.store.Dir(), Modules: nil}); sum.Damaged != 0 {
			t.Errorf("%+v", findings)
		}
	}
	stop.Store(true)
	<-done
	if f.store.Usage().Evictions == 0 || !slices.Contains(list(t, f.store.Dir()), "pins") {
		t.Error("nothing was evicted")
	}
}

// TestVerifyInterrupted: who is told to stop has not said that all is well.
func TestVerifyInterrupted(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sum, err := Verify(ctx, VerifyOptions{Dir: f.store.Dir(), Fetch: testOptions(t, s, nil).Fetch})
	if !errors.Is(err, context.Canceled) || sum.Damaged != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}
