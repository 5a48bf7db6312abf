package fs

import (
	"errors"
	iofs "io/fs"
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"modfs/fetch/proxytest"
)

// A request, as the test server notes it.
const (
	getInfo = "GET /example.com/a/@v/v1.0.0.info"
	getMod  = "GET /example.com/a/@v/v1.0.0.mod"
	getZip  = "GET /example.com/a/@v/v1.0.0.zip"
)

// layout is the table of docs/design.md: what a path is and what the first stat of it costs. The second costs nothing.
var layout = []struct {
	path string
	mode os.FileMode // 0: not there
	cost []string
}{
	{"example.com/a@v1.0.0/a.go", 0o444, []string{getInfo, getZip}},
	{"example.com/a@v1.0.0/sub", os.ModeDir | 0o555, []string{getInfo, getZip}},
	{"example.com/a@v1.0.0/missing.go", 0, []string{getInfo, getZip}},
	{"example.com/a@v1.0.0", os.ModeDir | 0o555, []string{getInfo}},
	{"example.com/!upper/!case@v1.0.0-!r!c.1", os.ModeDir | 0o555, []string{"GET /example.com/!upper/!case/@v/v1.0.0-!r!c.1.info"}},
	{"example.com/a@v1.0.9", 0, []string{"GET /example.com/a/@v/v1.0.9.info"}},
	{"example.com/a@v1.0.9/a.go", 0, []string{"GET /example.com/a/@v/v1.0.9.info"}},

	{"example.com", os.ModeDir | 0o555, nil},
	{"github.com/!burnt!sushi/toml", os.ModeDir | 0o555, nil},
	{"cache", os.ModeDir | 0o555, nil},
	{"cache/download", os.ModeDir | 0o555, nil},
	{"cache/download/example.com/none/@v", os.ModeDir | 0o555, nil},
	{"cache/download/sumdb", os.ModeDir | 0o555, nil},
	{"cache/download/sumdb/sum.example/tile/8", os.ModeDir | 0o555, nil},

	{"cache/download/example.com/a/@v/v1.0.0.info", 0o444, []string{getInfo}},
	{"cache/download/example.com/a/@v/v1.0.0.mod", 0o444, []string{getMod}},
	{"cache/download/example.com/a/@v/v1.0.0.ziphash", 0o444, []string{getInfo}},
	{"cache/download/example.com/a/@v/v1.0.0.zip", 0o444, []string{getInfo, "HEAD /example.com/a/@v/v1.0.0.zip"}},
	{"cache/download/example.com/a/@v/list", 0o444, []string{"GET /example.com/a/@v/list"}},
	{"cache/download/example.com/a/@latest", 0o444, []string{"GET /example.com/a/@latest"}},
	{"cache/download/example.com/none/@v/list", 0, []string{"GET /example.com/none/@v/list"}},
	{"cache/download/example.com/a/@v/v1.0.9.mod", 0, []string{"GET /example.com/a/@v/v1.0.9.mod"}},
	{"cache/download/sumdb/sum.example/supported", 0o444, nil},
	{"cache/download/sumdb/sum.example/lookup/example.com/a@v1.0.0", 0o444, nil},
	{"cache/download/sumdb/other.example/supported", 0, nil},

	{"cache/lock", 0, nil},
	{"cache/vcs", 0, nil},
	{"cache/download/example.com/a/@v/v1.0.0.lock", 0, nil},
	{"cache/download/example.com/a/@v/v1.0.0.partial", 0, nil},
	{"cache/download/example.com/a/@v/v1.0.0.zip123.tmp", 0, nil},
	{"cache/download/example.com/a/@v/v1.info", 0, nil},
	{"cache/download/example.com/a/@v/master.info", 0, []string{"GET /example.com/a/@v/master.info"}},
	{"cache/download/example.com/a/@v/v1.info", 0, nil},
	{"cache/download/example.com/a/@v/latest.info", 0, nil},
	{".modfs", os.ModeDir | 0o555, nil},
	{".modfs/status.json", 0o400, nil},
	{".modfs/errors", 0o444, nil},
	{".modfs/other", 0, nil},

	// What cannot be a module is known by its name alone.
	{"go.mod", 0, nil},
	{"go.work", 0, nil},
	{"vendor", 0, nil},
	{".git", 0, nil},
	{"example.com/go.mod", 0, nil},
	{"example.com/vendor", 0, nil},
	{"example.com/.git", 0, nil},
	{"Upper", 0, nil},
	{"example.com/a@latest", 0, nil},
	{"example.com/a@v1", 0, nil},
	{"example.com/a@v2.0.0", 0, nil},
	{"nodot@v1.0.0", 0, nil},
	{"example.com/con@v1.0.0", 0, nil},
}

func TestLayout(t *testing.T) {
	s := proxytest.New(t)
	for _, tt := range layout {
		t.Run(tt.path, func(t *testing.T) {
			s.ResetRequests()
			dir, f := mountTest(t, s, nil)
			for range 2 {
				fi, err := os.Lstat(in(dir, tt.path))
				switch {
				case tt.mode == 0 && !errors.Is(err, iofs.ErrNotExist):
					t.Errorf("%v, %v, want nothing there", fi, err)
				case tt.mode != 0 && (err != nil || fi.Mode() != tt.mode):
					t.Errorf("%v, %v, want mode %v", fi, err, tt.mode)
				}
				if tt.mode == 0 {
					break // for how long that is remembered is another test's
				}
			}
			wantAsked(t, s, tt.cost...)
			if n := f.errors.count(); n > 0 {
				t.Errorf("%d errors: %s", n, f.errors.lines())
			}
		})
	}
}

// TestKernelMayRely checks for how long the kernel may believe an answer.
func TestKernelMayRely(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, nil)
	for _, tt := range []struct {
		path string
		time time.Duration
	}{
		{"go.mod", forever},
		{"example.com/a@v1.0.9", missingTimeout},
		{"cache/download/example.com/a/@v/v1.0.9.info", missingTimeout},
		{"example.com", forever},
		{"example.com/a@v1.0.0", moduleTimeout},
		{"example.com/a@v1.0.0/a.go", forever},
		{"example.com/a@v1.0.0/sub/none", forever},
		{"cache/download/example.com/a/@v/v1.0.0.mod", forever},
		{"cache/download/example.com/a/@v/v1.0.0.zip", moduleTimeout},
		{"cache/download/example.com/a/@v/list", answerTimeout},
		{"cache/download/example.com/a/@latest", answerTimeout},
		{"cache/download/sumdb/sum.example/lookup/example.com/a@v1.0.0", forever},
		{".modfs/status.json", 0},
	} {
		out, status := lookup(f, tt.path)
		got := time.Duration(out.EntryValid)*time.Second + time.Duration(out.EntryValidNsec)
		if status != fuse.OK || got != tt.time {
			t.Errorf("%s: %v, for %v, want %v", tt.path, status, got, tt.time)
		}
	}
	s.SetFault(func(string) string { return "403" })
	if out, status := lookup(f, "example.com/b@v1.0.0"); status != fuse.EACCES || out.EntryValid != 0 {
		t.Errorf("%v for %d s, want EACCES, and no time", status, out.EntryValid)
	}
}

// TestPublished looks for a version before and after it is published.
func TestPublished(t *testing.T) {
	s := proxytest.New(t)
	f := unmounted(t, s, nil)
	const p = "example.com/a@v1.0.1"
	if out, status := lookup(f, p); status != fuse.OK || out.NodeId != 0 {
		t.Fatalf("%v, node %d before it is there", status, out.NodeId)
	}
	if err := s.Add(proxytest.Module{Path: "example.com/a", Version: "v1.0.1", Files: map[string]string{"a.go": "package a\n"}}); err != nil {
		t.Fatal(err)
	}
	if out, status := lookup(f, p+"/a.go"); status != fuse.OK || out.NodeId == 0 || out.Size != 10 {
		t.Errorf("%v, %+v, want it to be there", status, out)
	}
	if got := f.stats.notFound.Load(); got != 1 {
		t.Errorf("%d answers that there is no such version, want 1", got)
	}
}

// TestUnknownNodes plays a kernel that asks for what it was never told.
func TestUnknownNodes(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	file, _ := lookup(f, "example.com/a@v1.0.0/a.go")
	_, index, _ := moduleEntry(file.NodeId)
	slot := f.modules.intern(moduleA).slot
	stale := fuse.Status(errStale)
	for node, want := range map[uint64]fuse.Status{
		12345:                        stale,
		moduleNode(99, 0):            stale,
		moduleNode(maxSlots, 1):      stale,
		moduleNode(slot, 1000):       stale,
		moduleNode(slot, 0):          fuse.OK,
		moduleNode(slot, index):      fuse.OK,
		rootID:                       fuse.OK,
		moduleNode(0, indexMask):     stale,
		uint64(1)<<63 | moduleBit:    stale,
		moduleNode(slot, 1<<24-1):    stale,
		moduleNode(slot+1, index):    stale,
		moduleNode(slot, index) >> 1: stale,
	} {
		var out fuse.AttrOut
		if got := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node}}, &out); got != want {
			t.Errorf("getattr %#x: %v, want %v", node, got, want)
		}
		if _, got := f.Read(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: node}}, make([]byte, 10)); (got == fuse.OK) != (node == moduleNode(slot, index)) {
			t.Errorf("read %#x: %v", node, got)
		}
	}
	if status := f.Lookup(nil, &fuse.InHeader{NodeId: file.NodeId}, "x", new(fuse.EntryOut)); status != fuse.ENOTDIR {
		t.Errorf("lookup in a file: %v", status)
	}
}

// TestForget checks that the table of nodes is empty when the kernel has forgotten all of them.
func TestForget(t *testing.T) {
	f := unmounted(t, proxytest.New(t), nil)
	before := f.nodes.len()
	counts := make(map[uint64]uint64)
	for range 3 {
		for _, p := range []string{"example.com", "cache", "cache/download", "cache/download/example.com/a/@v/list", ".modfs/errors"} {
			// lookup asks for each directory on the way, so each prefix has as many lookups as it has paths.
			for end, c := range p + "/" {
				if c == '/' {
					out, _ := lookup(f, p[:end])
					counts[out.NodeId]++
				}
			}
		}
	}
	if f.nodes.len() == before {
		t.Fatal("no nodes")
	}
	f.nodes.mu.Lock()
	total := make(map[uint64]uint64)
	for id, n := range f.nodes.byID {
		total[id] = *n.lookups
	}
	f.nodes.mu.Unlock()
	for id, n := range total {
		if counts[id] > n {
			t.Errorf("node %d: %d lookups, want at least %d", id, n, counts[id])
		}
		if n > 1 {
			f.Forget(id, n-1)
			if id != rootID && f.nodes.get(id) == nil {
				t.Errorf("node %d is forgotten too early", id)
			}
		}
		f.Forget(id, 1)
	}
	if n := f.nodes.len(); n != before {
		t.Errorf("%d nodes after all were forgotten, want %d", n, before)
	}
}
