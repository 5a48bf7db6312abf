package fs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
)

// These are tests of what clients could make grow without end.

func TestModulesBound(t *testing.T) {
	var ms modules
	ms.init()
	ms.max, ms.full = 100, 100
	v := func(i int) module.Version {
		return module.Version{Path: fmt.Sprintf("example.com/m%d", i), Version: "v1.0.0"}
	}
	known := ms.intern(v(0))
	ms.told(known) // the kernel has a node
	ms.told(known)
	removed := ms.intern(v(1))
	removed.removed = map[int]bool{1: true} // what a client did is remembered
	used := ms.intern(v(2))
	for i := 3; i < 1000; i++ {
		ms.intern(v(i))
		if n := ms.len(); n > 101 {
			t.Fatalf("%d modules are remembered, and %d at most are wanted", n, ms.max)
		}
	}
	if ms.intern(v(0)) != known || ms.get(known.slot) != known || ms.intern(v(1)) != removed {
		t.Error("a module is forgotten that must not be")
	}
	if ms.get(used.slot) != nil {
		t.Error("a module that nobody knows is remembered")
	}
	// One that somebody used meanwhile gets its slot back.
	ms.told(used)
	if ms.get(used.slot) != used {
		t.Error("the kernel knows a node of a module that is forgotten")
	}
	ms.forget(used.slot, 1)
	if ms.get(used.slot) != nil {
		t.Error("a module is remembered that the kernel has forgotten")
	}
	// One that was removed goes when the kernel has forgotten all of it.
	ms.retire(v(0))
	ms.forget(known.slot, 1)
	if again := ms.intern(v(0)); ms.get(known.slot) != known || again == known || again.slot == known.slot {
		t.Error("a module that was removed, and is still in use, has lost its slot, or kept it")
	}
	ms.forget(known.slot, 1)
	if ms.get(known.slot) != nil {
		t.Error("a module that was removed is remembered")
	}
	n := ms.len()
	ms.retire(v(1))
	if ms.len() != n-1 {
		t.Error("a module that was removed, and that the kernel does not know, is remembered")
	}
}

// TestScan looks up what does not exist.
func TestScan(t *testing.T) {
	for name, set := range map[string]func(*Options){
		"read-only": func(*Options) {},
		"client":    func(o *Options) { o.ReadOnly = false; clientResolves(o) },
		"daemon":    func(o *Options) { o.ReadOnly = false },
	} {
		t.Run(name, func(t *testing.T) {
			dir, f := mountTest(t, proxytest.New(t), set)
			if !f.opts.ReadOnly { // where clients resolve, only what is there leads to modules
				for _, d := range []string{"example.com", "cache/download/example.com/a/@v"} {
					if err := os.MkdirAll(in(dir, d), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range 300 {
				for _, p := range []string{
					fmt.Sprintf("example.com/a@v1.1.%d", i), fmt.Sprintf("example.com/a@v1.1.%d/a.go", i),
					fmt.Sprintf("cache/download/example.com/a/@v/v1.1.%d.info", i), fmt.Sprintf("cache/download/example.com/a/@v/v1.1.%d.zip", i),
				} {
					if _, err := os.Lstat(in(dir, p)); !errors.Is(err, os.ErrNotExist) {
						t.Fatalf("%s: %v", p, err)
					}
				}
			}
			if s := f.Status(); s.Modules > 0 || s.Nodes > 10 || s.Store.Files > 20 {
				t.Errorf("after a scan there are %d modules, %d nodes and %d files", s.Modules, s.Nodes, s.Store.Files)
			}
		})
	}
}

// TestTrim looks up many names that are there, as all prefixes of module paths are.
func TestTrim(t *testing.T) {
	dir, f := mountTest(t, proxytest.New(t), nil)
	f.nodes.mu.Lock()
	f.nodes.max = 100 << 10
	f.nodes.mu.Unlock()
	wd, err := os.Open(in(dir, "example.com"))
	if err != nil {
		t.Fatal(err)
	}
	defer wd.Close()
	for i := range 3000 {
		if fi, err := os.Lstat(in(dir, fmt.Sprintf("host%d.example/x", i))); err != nil || !fi.IsDir() {
			t.Fatal(fi, err)
		}
	}
	more := 0
	eventually(t, "the kernel forgets nodes", func() bool {
		more++
		os.Lstat(in(dir, fmt.Sprintf("more%d.example", more))) // it is asked to forget when it asks for more
		return f.nodes.len() < 500
	})
	// What is in use is still there, and what was forgotten is found anew.
	if _, err := wd.Readdirnames(-1); err != nil {
		t.Error(err)
	}
	if got := readFile(t, in(dir, "example.com/a@v1.0.0/a.go")); !strings.Contains(got, "package a") {
		t.Errorf("%q", got)
	}
	f.nodes.mu.Lock()
	defer f.nodes.mu.Unlock()
	sum := int64(0)
	for _, n := range f.nodes.byID {
		sum += n.memory
	}
	if sum != f.nodes.bytes {
		t.Errorf("nodes of %d bytes are counted as %d", sum, f.nodes.bytes)
	}
}

// TestInflatingBound takes all the memory that there is for inflating: who wants some waits until it is given back.
func TestInflatingBound(t *testing.T) {
	dir, f := mountTest(t, proxytest.New(t), noMemory)
	readFile(t, in(dir, "example.com/large@v1.0.0/go.mod"))
	if !f.inflating.TryAcquire(maxInflating) {
		t.Fatal("some is taken already")
	}
	done := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(in(dir, "example.com/large@v1.0.0/medium.txt"))
		done <- err
	}()
	eventually(t, "the reader waits", func() bool {
		select {
		case err := <-done:
			t.Fatal("the reader did not wait: ", err)
		default:
		}
		return f.waiting.status(time.Now()).Slow > 0
	})
	f.inflating.Release(maxInflating)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !f.inflating.TryAcquire(maxInflating) {
		t.Error("not all was given back")
	}
	f.inflating.Release(maxInflating)
}

// TestInflatingHuge inflates a file that is larger than all the memory that there is for that.
func TestInflatingHuge(t *testing.T) {
	m := proxytest.Module{Path: "example.com/huge", Version: "v1.0.0", Files: map[string]string{
		"go.mod": "module example.com/huge\n", "huge.go": "package p\n" + strings.Repeat(" ", maxInflating),
	}}
	dir, f := mountTest(t, proxytest.New(t, m), nil)
	readFile(t, in(dir, m.String()+"/go.mod"))
	md := f.modules.find(version(m))
	ix, err := f.load(t.Context(), md)
	if err != nil {
		t.Fatal(err)
	}
	i, ok := ix.find("huge.go")
	if !ok {
		t.Fatal("the file is not there")
	}
	if err := soonDone(t, "inflating", func() error {
		c, err := f.inflateToMemory(t.Context(), md, ix, i)
		if err == nil && len(c.data) != len(m.Files["huge.go"]) {
			t.Errorf("%d bytes", len(c.data))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestTrimBusy: nodes below a directory in which the kernel looks something up are not forgotten now, but later.
func TestTrimBusy(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	const n = 10
	for i := range n {
		p := inMod(fmt.Sprintf("host%d.example", i))
		f.nodes.lookup(node{path: p, Path: ParsePath(storeKey(p))})
	}
	root, _ := f.nodes.id(modRoot)
	done := f.nodes.lookingIn(root)
	if old := f.nodes.oldest(); len(old) > 0 {
		t.Errorf("while something is looked up: %v", old)
	}
	if _, known, idle := f.nodes.idle(modRoot); !known || idle {
		t.Error("the directory is idle")
	}
	done()
	if old := f.nodes.oldest(); len(old) != n {
		t.Errorf("afterwards: %v", old)
	}
	if _, known, idle := f.nodes.idle(modRoot); !known || !idle {
		t.Error("the directory is not idle")
	}
}

// TestStatusOfStranger: who may not read the state of the daemon makes it collect nothing, and keep nothing.
func TestStatusOfStranger(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	look := func(uid uint32) (id, size uint64) {
		var out fuse.EntryOut
		if status := f.lookupControl(inMod(".modfs/status.json"), ParsePath(".modfs/status.json"), uid, &out); status != fuse.OK {
			t.Fatal(status)
		}
		return out.NodeId, out.Size
	}
	stranger := f.owner.Uid + 1
	id, size := look(stranger)
	if again, _ := look(stranger); again != id || size != 0 {
		t.Errorf("%d bytes, node %d and then %d", size, id, again)
	}
	if _, size := look(f.owner.Uid); size == 0 {
		t.Error("nothing for the owner")
	}
}

// TestEvictedAtStart: a store that is over its limit when it is opened drops archives before all else is there.
func TestEvictedAtStart(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	readFile(t, in(dir, "example.com/large@v1.0.0/large.go"))
	readFile(t, in(dir, "example.com/a@v1.0.0/a.go"))
	shut(t, f)
	f = unmounted(t, s, func(o *Options) { sameStore(f)(o); o.Store.MaxSize = 1 << 20 })
	if n := f.stats.panics.Load(); n != 0 || f.store.Usage().Evictions == 0 {
		t.Errorf("%d panics: %s, %+v", n, f.errors.lines(), f.store.Usage())
	}
}

func TestRemovalsBound(t *testing.T) {
	var r removals
	for i := range maxRemovals + 10 {
		r.add(fmt.Sprint(i))
	}
	if r.paths.Len() > maxRemovals || r.has("0") || !r.has(fmt.Sprint(maxRemovals)) {
		t.Errorf("%d removals", r.paths.Len())
	}
}

func TestCauseBound(t *testing.T) {
	dir, f := mountTest(t, proxytest.New(t), nil)
	f.fail("test", moduleA, errors.New(f.store.Dir()+"/pins: "+strings.Repeat("ä", 1<<20)))
	es := events(t, dir)
	if len(es) != 1 || len(es[0].Cause) > maxCause+10 || !strings.HasPrefix(es[0].Cause, "pins: ä") || !strings.HasSuffix(es[0].Cause, "ä…") {
		t.Errorf("%.100v", es)
	}
}

// TestTreeMemory compares what a tree is counted as with what the runtime says that it takes: of a module of 10,000 files, less than
// a MiB.
func TestTreeMemory(t *testing.T) {
	files := make([]treeFile, 10_000)
	for i := range files {
		files[i] = treeFile{name: fmt.Sprintf("directory%02d/some_file_%05d.go", i%100, i), data: fileData{size: 100, packed: 100}}
	}
	slices.SortFunc(files, func(a, b treeFile) int { return comparePaths(a.name, b.name) })
	t0, err := buildTree(files)
	if err != nil {
		t.Fatal(err)
	}
	m := module.Version{Path: "example.com/m", Version: "v1.0.0"}
	data := (&indexed{tree: t0, time: noTime, sums: &blockSums{}}).encode(m)
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		return int64(mem.HeapAlloc)
	}
	const n = 20
	trees := make([]*indexed, n)
	before := heap()
	for i := range trees {
		if trees[i], err = decodeIndex(m, data); err != nil {
			t.Fatal(err)
		}
	}
	took := (heap() - before) / n
	counted := trees[0].memory()
	runtime.KeepAlive(data)
	runtime.KeepAlive(trees)
	if took > 1<<20 || counted < took*3/4 || counted > took*5/4 {
		t.Errorf("a tree of 10,000 files takes %d bytes and is counted as %d", took, counted)
	}
}

// TestMetadataBound has a reader ask for all versions of modules, which the store keeps something of. Archives fit all the same.
func TestMetadataBound(t *testing.T) {
	large := big()
	s := proxytest.New(t, large)
	const versions = 400
	var mods []proxytest.Module
	for i := range versions {
		p := fmt.Sprintf("example.com/many/m%d", i)
		mods = append(mods, proxytest.Module{Path: p, Version: "v1.0.0", Files: map[string]string{"go.mod": "module " + p + "\n"}})
	}
	if err := s.Add(mods...); err != nil {
		t.Fatal(err)
	}
	size := int64(len(s.ZipBytes(large.Path, large.Version)))
	limit := size + size/2 + 1<<20
	dir, f := mountTest(t, s, func(o *Options) { noMemory(o); o.Store.MaxSize = limit })
	for _, m := range mods {
		for _, key := range []string{infoKey(version(m)), modKey(version(m)), listKey(m.Path), latestKey(m.Path)} {
			readFile(t, in(dir, key))
		}
	}
	if u := f.Status().Store; u.Bytes > limit {
		t.Errorf("the store has %d bytes, and its limit is %d", u.Bytes, limit)
	}
	got := readFile(t, in(dir, large.String()+"/medium.txt"))
	if got != large.Files["medium.txt"] {
		t.Errorf("%d bytes, want %d", len(got), len(large.Files["medium.txt"]))
	}
	if n := f.errors.count(); n > 0 {
		t.Errorf("%d errors: %s", n, f.errors.lines())
	}
	if _, err := f.store.Stat("sumdb/" + s.SumDBName() + "/latest"); err != nil {
		t.Errorf("the head of the checksum database: %v", err)
	}
	for _, m := range mods { // it is still there, wherever it now is
		if got := readFile(t, in(dir, modKey(version(m)))); got != m.Files["go.mod"] {
			t.Fatalf("%s: %q", m, got)
		}
	}
}
