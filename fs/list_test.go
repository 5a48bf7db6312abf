package fs

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// walk stats all that is below dir, as find(1) does, and returns how many names there are.
func walk(tb testing.TB, dir string) (n int) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(_ string, d iofs.DirEntry, err error) error {
		n++
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
	if err != nil {
		tb.Error(err)
	}
	return n
}

// wantList waits until a directory lists what it should: the kernel may keep a listing for as long as it keeps the mtime of
// the directory.
func wantList(tb testing.TB, dir string, want ...string) {
	tb.Helper()
	var got []string
	eventually(tb, fmt.Sprintf("%s to list %q", dir, want), func() bool {
		got = list(tb, dir)
		return slices.Equal(got, want)
	})
}

// TestListingFetchesNothing walks a mount that nobody has used, and again when somebody has.
func TestListingFetchesNothing(t *testing.T) {
	s := proxytest.New(t)
	dir, _ := mountTest(t, s, nil)
	if n := walk(t, dir); n != 4 { // the root, cache/download/sumdb
		t.Errorf("a new mount has %d names", n)
	}
	wantAsked(t, s)
	wantList(t, dir, "cache")
	wantList(t, in(dir, "example.com"))
	wantList(t, in(dir, "cache/download"), "sumdb")
	wantList(t, in(dir, "cache/download/example.com/a/@v"))
	wantAsked(t, s)

	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	readFile(t, in(dir, "example.com/!upper/!case@v1.0.0-!r!c.1/Case.go"))
	wantList(t, dir, "cache", "example.com")
	wantList(t, in(dir, "example.com"), "!upper", "a@v1.0.0")
	wantList(t, in(dir, "example.com/!upper"), "!case@v1.0.0-!r!c.1")
	wantList(t, in(dir, "cache/download"), "example.com", "sumdb")
	wantList(t, in(dir, "cache/download/example.com/a"), "@v")
	wantList(t, in(dir, "cache/download/example.com/a/@v"), "v1.0.0.info", "v1.0.0.zip")

	for _, ext := range []string{"mod", "ziphash"} {
		readFile(t, in(dir, "cache/download/example.com/a/@v/v1.0.0."+ext))
	}
	readFile(t, in(dir, "cache/download/example.com/a/@v/list"))
	readFile(t, in(dir, "cache/download/example.com/a/@latest"))
	wantList(t, in(dir, "cache/download/example.com/a"), "@latest", "@v")
	wantList(t, in(dir, "cache/download/example.com/a/@v"), "list", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "v1.0.0.ziphash")
	wantList(t, in(dir, "cache/download/sumdb"), "sum.example")

	// What was only looked for is in no listing.
	if _, err := os.Stat(in(dir, "example.com/b@v9.0.0")); err == nil {
		t.Error("b@v9.0.0 is there")
	}
	os.Stat(in(dir, "other.example/x"))
	wantList(t, dir, "cache", "example.com")

	s.ResetRequests()
	walk(t, in(dir, "example.com"))
	walk(t, in(dir, "cache/download/sumdb"))
	wantAsked(t, s)
}

// TestListedAsLookedUp compares what a listing says with what a lookup of each name does.
func TestListedAsLookedUp(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	readFile(t, in(dir, "example.com/many@v1.0.0/d01/f00.go"))
	readFile(t, in(dir, "cache/download/example.com/many/@v/v1.0.0.mod"))
	shut(t, f)
	for _, p := range []string{"", "example.com", "example.com/many@v1.0.0", "example.com/many@v1.0.0/d01", "cache/download/example.com/many/@v"} {
		// Two mounts: the kernel of one has only listed, that of the other only looked up.
		dir, f := mountTest(t, s, sameStore(f))
		listed := make(map[string]string)
		des, err := os.ReadDir(in(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range des {
			fi, err := d.Info()
			if err != nil {
				t.Error(err)
				continue
			}
			if fi.Mode().Type() != d.Type() {
				t.Errorf("%s/%s: type %v, stat says %v", p, d.Name(), d.Type(), fi.Mode())
			}
			listed[d.Name()] = fmt.Sprint(fi.Mode(), fi.Size(), fi.IsDir())
		}
		shut(t, f)
		dir, f = mountTest(t, s, sameStore(f))
		for name, want := range listed {
			fi, err := os.Lstat(in(dir, p+"/"+name))
			if err != nil {
				t.Error(err)
				continue
			}
			if got := fmt.Sprint(fi.Mode(), fi.Size(), fi.IsDir()); got != want {
				t.Errorf("%s/%s: listed as %s, looked up as %s", p, name, want, got)
			}
		}
		if len(listed) == 0 {
			t.Errorf("%s lists nothing", p)
		}
		shut(t, f)
	}
}

// TestControlNotListed checks that tools which walk the mount don't find the daemon's own files.
func TestControlNotListed(t *testing.T) {
	dir, _ := mountTest(t, proxytest.New(t), nil)
	readFile(t, in(dir, ".modfs/status.json"))
	if got := list(t, dir); !slices.Equal(got, []string{"cache"}) {
		t.Errorf("the root lists %q", got)
	}
	if got := list(t, in(dir, ".modfs")); len(got) != 0 {
		t.Errorf(".modfs lists %q", got)
	}
}

// TestListWhileChanging reads a large directory in many pieces while names come and go: what stays is listed once.
func TestListWhileChanging(t *testing.T) {
	const stable = 2100
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	// The content of an index does not matter to a listing of the directory that it is in.
	name := func(i int) string { return fmt.Sprintf("module%04d@v1.0.0", i) }
	for i := range stable {
		if err := f.store.Put("index/example.com/large/"+name(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	change := make(chan int)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(change)
	wg.Go(func() {
		volatile := func(i int) string { return fmt.Sprintf("index/example.com/large/volatile%d@v1.0.0", i) }
		for i := range change {
			// Each name is there for a while, and a few are at any time.
			if err := errors.Join(f.store.Put(volatile(i), []byte("x")), f.store.Remove(volatile((i+45)%50))); err != nil {
				t.Error(err)
			}
			f.touch()
		}
	})
	d, err := os.Open(in(dir, "example.com/large"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	before := f.stats.listings.Load()
	seen := make(map[string]int)
	for i := 0; ; i++ {
		change <- i % 50
		names, err := d.Readdirnames(50)
		for _, n := range names {
			seen[n]++
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range stable {
		if n := seen[name(i)]; n != 1 {
			t.Errorf("%s is listed %d times", name(i), n)
		}
	}
	for n := range seen {
		if !strings.HasPrefix(n, "module") && !strings.HasPrefix(n, "volatile") {
			t.Errorf("%q is listed", n)
		}
	}
	if n := f.stats.listings.Load() - before; n < 5 {
		t.Errorf("it took %d requests: too few to change anything in between", n)
	}
	wantAsked(t, s)
}

// TestLongUnchanged checks that listings are right although the kernel may believe for a minute what had not changed for an
// hour.
func TestLongUnchanged(t *testing.T) {
	asRoot(t)
	m := mountRW(t, nil, clientResolves)
	m.storeMod(module1(t, "example.com/a@v1.0.0"))
	readFile(t, m.path("example.com/a@v1.0.0/a.go"))
	long := func() {
		m.changed.Store(time.Now().Add(-time.Hour).UnixNano())
		for _, p := range []string{"", "example.com", "cache/download/example.com", "cache/download/example.com/a/@v"} {
			if _, err := os.ReadDir(m.path(p)); err != nil {
				t.Fatal(err)
			}
		}
	}
	long()
	m.names("example.com", "a@v1.0.0")
	m.storeMod(module1(t, "example.com/b@v1.0.0"))
	m.names("example.com", "a@v1.0.0") // what nobody has opened is not listed
	readFile(t, m.path("example.com/b@v1.0.0/b.go"))
	m.names("example.com", "a@v1.0.0", "b@v1.0.0")
	m.names("cache/download/example.com", "a", "b")

	long()
	m.ok(os.RemoveAll(m.path("example.com/b@v1.0.0")))
	m.names("example.com", "a@v1.0.0")
	long()
	m.ok(os.Remove(m.path(zipKey(moduleA))))
	m.names("cache/download/example.com/a/@v", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.ziphash")
	long()
	m.store.Evict(0)
	m.write("mine", "text")
	m.names("", "cache", "example.com", "mine")
}

func TestDirTimeout(t *testing.T) {
	for _, test := range []struct{ told, unchanged, want time.Duration }{
		{-time.Hour, -time.Hour, minDirTimeout},
		{0, 0, minDirTimeout},
		{2 * time.Second, 0, 2 * time.Second},
		{20 * time.Second, 20 * time.Second, 20 * time.Second},
		{time.Hour, 0, busyDirTimeout},
		{time.Hour, 20 * time.Second, 20 * time.Second},
		{time.Hour, time.Hour, maxDirTimeout},
		{0, time.Hour, minDirTimeout},
	} {
		if got := dirTimeout(test.told, test.unchanged); got != test.want {
			t.Errorf("told %v ago, all unchanged for %v: %v, want %v", test.told, test.unchanged, got, test.want)
		}
	}
}

// TestChanged checks which directories are told of what comes and goes below them.
func TestChanged(t *testing.T) {
	var nodes nodes
	nodes.init("")
	dirs := []string{"", "a", "a/b", "a/b/c"}
	for _, p := range dirs[1:] {
		nodes.lookup(node{path: p, Path: Path{Kind: KindPrefix}})
	}
	told := func(came bool, paths ...string) string {
		var names []string
		for _, id := range nodes.changed(time.Now(), came, paths) {
			names = append(names, "/"+nodes.path(id))
		}
		return strings.Join(names, " ")
	}
	const all = "/a/b/c /a/b /a /"
	for i, step := range []struct {
		came bool
		path string
		want string
	}{
		{true, "a/b/c/1", all},            // they are told that it is there
		{true, "a/b/c/2", "/a/b/c"},       // which they know by now
		{true, "a/b/x/y/1", "/a/b"},       // x, which the kernel has not asked for, may be new to it
		{false, "a/b/c/1", all},           // it may have been the last
		{true, "a/b/c/1", all},            //
		{true, "a/b/c/2", "/a/b/c"},       //
		{false, "a/b/c", "/a/b /a /"},     // c itself has gone
		{true, "a/b/c/1", all},            // and is there again
		{false, "a/b/d", "/a/b /a /"},     // nothing of c has gone, but perhaps of those above it
		{true, "a/b/c/2", "/a/b/c"},       //
		{true, "a/b/e", "/a/b /a /"},      //
		{true, "elsewhere/f", "/"},        //
		{true, "", ""},                    // nothing is above the root
		{false, "a/b/c/1", all},           //
		{true, "a/b/c/1", all},            //
		{true, "a/b/c/d/e/f/g", "/a/b/c"}, //
	} {
		if got := told(step.came, step.path); got != step.want {
			t.Errorf("step %d, %+v: told %s, want %s", i, step, got, step.want)
		}
	}
	before := time.Now()
	told(true, "a/b/c/1", "a/2")
	for _, p := range dirs {
		id, _ := nodes.id(p)
		want := p == "a/b/c" || p == "a"
		if got := !nodes.lastChanged(nodes.get(id)).Before(before); got != want {
			t.Errorf("/%s is marked as changed: %v, want %v", p, got, want)
		}
	}
}
