package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
	"modfs/fs/fusetest"
)

// faultModule returns one of many modules: one with small files, one that does not deflate, whose archive is therefore
// preallocated, and some with one so large that it is served from disk.
func faultModule(i int) proxytest.Module {
	path := fmt.Sprintf("example.com/f%03d", i)
	r := rand.New(rand.NewPCG(uint64(i), 7))
	noise := make([]byte, 100<<10)
	for j := range noise {
		noise[j] = byte(' ' + r.IntN(64))
	}
	m := proxytest.Module{Path: path, Version: "v1.0.0", Files: map[string]string{
		"go.mod": "module " + path + "\n", "a.go": "// Package a is " + path + ".\npackage a\n",
		"sub/b.go": "package sub\n\nconst Number = " + fmt.Sprint(i) + "\n", "noise.txt": string(noise),
	}}
	if i%3 == 0 {
		m.Files["large.txt"] = path + strings.Repeat("\x00", 4<<20) + path
	}
	return m
}

// use reads all that a mount has of a module. Every answer must be right or one of the errors that may be, with its reason in
// .modfs/errors. It returns how many were not right.
func (m *mounted) use(proxy *proxytest.Server, mod proxytest.Module, may ...syscall.Errno) (failed int) {
	m.t.Helper()
	check := func(name string, err error, right func() bool) {
		m.t.Helper()
		if err == nil {
			if !right() {
				m.t.Errorf("%s: wrong content", name)
			}
			return
		}
		failed++
		var no syscall.Errno
		if errors.As(err, &no); !slices.Contains(may, no) {
			m.t.Errorf("%s: %v, want one of %v; events %+v", name, err, may, m.errors())
		} else if !slices.ContainsFunc(m.errors(), func(e modfs.Event) bool {
			return e.Module == mod.Path && e.Errno == unix.ErrnoName(no) || e.Module == "" && strings.Contains(e.Cause, mod.Path)
		}) {
			m.t.Errorf("%s: %v, and .modfs/errors does not say why: %+v", name, err, m.errors())
		}
	}
	read := func(name, want string) {
		m.t.Helper()
		data, err := m.read(name)
		check(name, err, func() bool { return string(data) == want })
	}
	v := "cache/download/" + mod.Path + "/@v/"
	read(v+"v1.0.0.info", `{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z"}`)
	read(v+"v1.0.0.mod", mod.Files["go.mod"])
	read(v+"v1.0.0.ziphash", proxy.ZipHash(mod.Path, mod.Version))
	names, err := os.ReadDir(m.path(mod.String()))
	check(mod.String(), err, func() bool { return len(names) == len(mod.Files) })
	for name, want := range mod.Files {
		read(mod.String()+"/"+name, want)
	}
	read(v+"v1.0.0.zip", string(proxy.ZipBytes(mod.Path, mod.Version)))
	sums := "cache/download/sumdb/" + proxy.SumDBName() + "/lookup/" + mod.String()
	record, err := m.read(sums)
	check(sums, err, func() bool { return strings.Contains(string(record), proxy.ZipHash(mod.Path, mod.Version)) })
	return failed
}

// inOrder checks what must hold of a store, whose directory is dir, when nobody uses it.
func (m *mounted) inOrder(dir string) {
	m.t.Helper()
	m.eventually("nothing is being written", func() bool {
		tmp, err := os.ReadDir(filepath.Join(dir, "tmp"))
		return (err == nil || errors.Is(err, os.ErrNotExist)) && len(tmp) == 0 && m.status().Store.InFlight == 0
	})
	u := m.status().Store
	n := storeUsage(m.t, dir)
	// The ledger has at least what there is, and it is off by no more than some blocks a file.
	if u.Bytes < n || u.Bytes-u.UnlinkedOpen > n+n/4+u.Files*8192+(64<<10) {
		m.t.Errorf("the store has %d bytes by its ledger (%d in files that are gone), and %d on disk", u.Bytes, u.UnlinkedOpen, n)
	}
}

// storeUsage is what du shows of a store, without what its ledger leaves out.
func storeUsage(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		switch rel, _ := filepath.Rel(dir, p); rel {
		case "overlay":
			return filepath.SkipDir
		case "pins", "kept", "kept.new", "origins", "modfs.log", "modfs.log.old":
			return nil
		}
		if fi, err := d.Info(); err == nil {
			n += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// faultCases calls try with each fault of an operation in turn: the nth one, and each from the nth one on, until n is more than
// there are. try returns how many operations failed.
func faultCases(t *testing.T, f fault, most int, try func(t *testing.T, f fault) (hits int)) {
	for _, every := range []bool{false, true} {
		for n := 1; n <= most || nightly; n++ {
			f.nth, f.every = n, every
			hits := 0
			how := f.how
			if f.lie == nil {
				how = unix.ErrnoName(f.errno)
			}
			t.Run(fmt.Sprintf("%s=%s/nth=%d/every=%v", f.op, how, n, every), func(t *testing.T) { hits = try(t, f) })
			if hits == 0 || t.Failed() {
				break
			}
			if every && n == 2 && !nightly {
				break
			}
		}
	}
}

// TestDiskWriteFaults has each operation that writes to the store fail, in turn, while a module is fetched and others are evicted for
// it.
func TestDiskWriteFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: each operation that writes fails in turn: some seconds")
	}
	disk := newFaultFS(t)
	proxy := proxytest.New(t, faultModule(0))
	m := mountStore(t, proxy, disk.store(), "--read-only", "--max-size", "11MiB", "--min-free", "0")
	i := 0
	for _, op := range []string{"create", "write", "fsync", "fallocate", "rename", "mkdir", "unlink"} {
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
			most := 3
			if errno == syscall.EROFS {
				most = 1
			}
			faultCases(t, fault{op: op, errno: errno}, most, func(t *testing.T, f fault) int {
				defer func(of *testing.T) { m.t = of }(m.t)
				m.t = t
				i++
				mod := faultModule(i)
				if err := proxy.Add(mod); err != nil {
					t.Fatal(err)
				}
				disk.set(f)
				m.use(proxy, mod, syscall.ENOSPC, syscall.EIO)
				hits := disk.set(fault{})
				if n := m.use(proxy, mod); n != 0 {
					t.Errorf("%d reads fail although nothing is wrong any more", n)
				}
				m.inOrder(disk.behind())
				return hits
			})
		}
	}
	if s := m.status(); s.Store.Evictions == 0 || s.Errors == 0 {
		t.Errorf("nothing was proved: %+v", s)
	}
}

// TestDiskReadFaults has each operation that reads from the store fail, or give less or other than there is, in turn, in a mount that
// has not read it yet.
func TestDiskReadFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: each operation that reads fails in turn: some seconds")
	}
	disk := newFaultFS(t)
	proxy := proxytest.New(t, faultModule(0))
	const most = 7
	cases := []fault{
		{op: "open", errno: syscall.EIO},
		{op: "read", errno: syscall.EIO},
		{op: "read", how: "short", lie: func(data []byte) []byte { return data[:len(data)/2] }},
		{op: "read", how: "flip", lie: func(data []byte) []byte {
			if len(data) > 0 {
				data[len(data)/3] ^= 0x10
			}
			return data
		}},
	}
	modules := len(cases) * 2 * most
	if nightly {
		modules = len(cases) * 2 * 60
	}
	m := mountStore(t, proxy, disk.store(), "--read-only", "--max-size", "0", "--min-free", "0", "--memory", "1B")
	for i := range modules {
		mod := faultModule(i)
		if err := proxy.Add(mod); err != nil {
			t.Fatal(err)
		}
		m.use(proxy, mod)
	}
	if out, err := m.modfs("unmount", m.dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.start()
	i := 0
	for _, f := range cases {
		faultCases(t, f, most, func(t *testing.T, f fault) int {
			defer func(of *testing.T) { m.t = of }(m.t)
			m.t = t
			mod := faultModule(i)
			i++
			disk.set(f)
			m.use(proxy, mod, syscall.EIO, syscall.EBADMSG)
			hits := disk.set(fault{})
			if n := m.use(proxy, mod); n != 0 {
				t.Errorf("%d reads fail although nothing is wrong any more", n)
			}
			m.inOrder(disk.behind())
			return hits
		})
	}
	c := m.status().Counters
	if c["damaged"] == 0 || c["repaired"] == 0 || c["repaired"] > c["damaged"] {
		t.Errorf("%d damaged, %d repaired", c["damaged"], c["repaired"])
	}
	t.Logf("%d damaged, %d repaired", c["damaged"], c["repaired"])
}

// smallDisk mounts a partition of its own for a store.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	fusetest.Require(t)
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("MODFS_REQUIRE_FUSE") == "1" && os.Geteuid() == 0 {
			t.Fatal("cannot mount a small partition:", err)
		}
		t.Skip("cannot mount a small partition:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp writes a file until the partition that it lies on is full.
func fillUp(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n > 0; n /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// TestDiskFull: the store's partition is full of somebody else's files. What can be evicted makes room, else clients are told that
// there is none; and when there is, all is well.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "4m")
	mods := []proxytest.Module{faultModule(1), faultModule(2), faultModule(4), faultModule(5)}
	var more []proxytest.Module
	for i := range 16 {
		more = append(more, faultModule(3*i+100))
	}
	proxy := proxytest.New(t, slices.Concat(mods, more)...)
	m := mountStore(t, proxy, filepath.Join(disk, "store"), "--read-only", "--min-free", "0")
	if n := m.use(proxy, mods[0]) + m.use(proxy, mods[3]); n != 0 {
		t.Fatalf("%d reads failed", n)
	}
	strangers := filepath.Join(disk, "strangers")
	fillUp(t, strangers)
	// Others have to go for it.
	if n := m.use(proxy, mods[1], syscall.ENOSPC); n != 0 {
		t.Errorf("%d reads failed although there is something to be evicted: %+v", n, m.errors())
	}
	if s := m.status(); s.Store.Evictions == 0 {
		t.Errorf("nothing was evicted: %+v", s.Store)
	}
	// Now strangers take all that the store gives back, until it has nothing left to give.
	taken := []string{strangers}
	full := func() bool {
		for i, mod := range more {
			for _, zip := range m.kept(".zip") {
				if err := os.Remove(filepath.Join(m.store, zip)); err != nil {
					t.Fatal(err)
				}
			}
			taken = append(taken, fmt.Sprint(strangers, i))
			fillUp(t, taken[len(taken)-1])
			if m.use(proxy, mod, syscall.ENOSPC) == 0 {
				continue
			}
			if _, err := m.read(mod.String() + "/noise.txt"); err != nil {
				m.wantErrno(err, syscall.ENOSPC, "no space", mod.Path)
				return true
			}
		}
		return false
	}
	if !full() {
		t.Error("the partition is full, and there is always room for one more module")
	}
	for _, name := range taken {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, mod := range slices.Concat(mods, more) {
		if n := m.use(proxy, mod); n != 0 {
			t.Errorf("%s: %d reads fail although there is space again", mod.Path, n)
		}
	}
	m.inOrder(m.store)
}

// TestDiskManyReaders has many clients read more than the store, or its partition, has room for, each with a file held open, and some
// of them a module that can never fit: with a limit only those fail, and it is never exceeded.
func TestDiskManyReaders(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: 24 readers of a store of 2 MiB: some seconds")
	}
	const readers, limit = 24, 2 << 20
	large := faultModule(999)
	large.Files["noise2.txt"] = strings.Repeat(large.Files["noise.txt"], 1)
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	large.Files["noise2.txt"] = string(noise)
	var mods []proxytest.Module
	for i := range readers {
		mods = append(mods, faultModule(3*i+1)) // none with a file that is served from disk
	}
	proxy := proxytest.New(t, append(mods, large)...)
	for name, tt := range map[string]struct {
		flags []string
		disk  string
		errno syscall.Errno
	}{
		"limit":     {[]string{"--max-size", fmt.Sprint(limit), "--min-free", "0"}, "64m", syscall.EFBIG},
		"partition": {[]string{"--max-size", "0", "--min-free", "0"}, fmt.Sprint(limit), syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			store := filepath.Join(smallDisk(t, tt.disk), "store")
			m := mountStore(t, proxy, store, append(tt.flags, "--read-only", "--memory", "1B")...)
			// Its own account, since a walk over what comes and goes meanwhile may count a file that is gone and the one that took
			// its place; package lru tests that there is no more on disk than that. A partition has its own limit.
			done := make(chan struct{})
			var group, sampler sync.WaitGroup
			sampler.Go(func() {
				for {
					s, err := modfs.ReadStatus(m.dir)
					if err != nil {
						t.Error(err)
						return
					}
					if s.Store.Limit > 0 && s.Store.Bytes > s.Store.Limit {
						t.Errorf("the store has %d bytes, more than %d", s.Store.Bytes, s.Store.Limit)
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
			for i := range readers {
				group.Go(func() {
					for round := range 3 {
						mod := mods[(i+7*round)%len(mods)]
						f, err := os.Open(m.path(mod.String() + "/noise.txt"))
						if errors.Is(err, syscall.ENOSPC) && name == "partition" {
							continue // without a limit, all that is there may be what others are just writing
						}
						if err != nil {
							t.Error(err)
							return
						}
						defer f.Close()
						data := make([]byte, len(mod.Files["noise.txt"]))
						if _, err := f.ReadAt(data, 0); err != nil || string(data) != mod.Files["noise.txt"] {
							t.Errorf("%s: %d bytes, %v; %+v", mod.Path, len(data), err, m.errors())
							return
						}
					}
				})
			}
			group.Go(func() {
				_, err := m.read(large.String() + "/a.go")
				if !errors.Is(err, tt.errno) {
					t.Errorf("a module larger than all: %v, want %v", err, tt.errno)
				}
			})
			group.Wait()
			close(done)
			sampler.Wait()
			for _, mod := range mods {
				if data, err := m.read(mod.String() + "/noise.txt"); err != nil || string(data) != mod.Files["noise.txt"] {
					t.Errorf("%s: %d bytes, %v", mod.Path, len(data), err)
				}
			}
			if n := storeUsage(t, store); n > limit {
				t.Errorf("the store takes %d bytes, more than %d", n, limit)
			}
			if !slices.ContainsFunc(m.errors(), func(e modfs.Event) bool { return e.Module == large.Path && e.Errno == unix.ErrnoName(tt.errno) }) {
				t.Errorf("no reason is given: %+v", m.errors())
			}
			if m.status().Store.Evictions == 0 {
				t.Error("nothing was evicted: nothing was proved")
			}
			m.inOrder(store)
		})
	}
}

// TestDiskReadOnly: the store's file system becomes read-only, as Linux makes one that has errors. What is there is served, what is
// not is an error, and when it can be written to again all is served.
func TestDiskReadOnly(t *testing.T) {
	t.Parallel()
	disk := newFaultFS(t)
	mods := []proxytest.Module{faultModule(1), faultModule(2), faultModule(4)}
	proxy := proxytest.New(t, mods...)
	m := mountStore(t, proxy, disk.store(), "--read-only")
	if n := m.use(proxy, mods[0]); n != 0 {
		t.Fatalf("%d reads failed", n)
	}
	disk.set(fault{op: writing, nth: 1, every: true, errno: syscall.EROFS})
	if n := m.use(proxy, mods[0]); n != 0 {
		t.Errorf("%d reads of what is in the store failed", n)
	}
	m.use(proxy, mods[1], syscall.EIO)
	_, err := m.read(mods[1].String() + "/a.go")
	m.wantErrno(err, syscall.EIO, "read-only file system", mods[1].Path)
	disk.set(fault{})
	for _, mod := range mods {
		if n := m.use(proxy, mod); n != 0 {
			t.Errorf("%s: %d reads fail although it can be written again", mod.Path, n)
		}
	}
	m.inOrder(disk.behind())
}

// TestDiskOverlay: what clients write to a mount whose disk fails gets the errno of the disk, and is not there. Then it can be
// written.
func TestDiskOverlay(t *testing.T) {
	t.Parallel()
	disk := newFaultFS(t)
	proxy := proxytest.New(t, faultModule(1))
	m := mountStore(t, proxy, disk.store())
	content := strings.Repeat("x", 10000)
	for i, op := range []string{"create", "mkdir", "write", "rename", "unlink", "fsync", writing} {
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
			t.Run(fmt.Sprintf("%s/%v", op, errno), func(t *testing.T) {
				defer func(of *testing.T) { m.t = of }(m.t)
				m.t = t
				dir := fmt.Sprintf("cache/vcs/%d-%d/sub", i, errno)
				name, other := dir+"/file", dir+"/other"
				// Whether what is done works, and what is there after it.
				steps := func() (err error) {
					if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
						return err
					}
					f, err := os.OpenFile(m.path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
					if err != nil {
						return err
					}
					_, err = f.WriteString(content)
					if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
						return err
					}
					if err := os.Rename(m.path(name), m.path(other)); err != nil {
						return err
					}
					return os.Remove(m.path(other))
				}
				disk.set(fault{op: op, nth: 1, every: true, errno: errno})
				m.wantErrno(steps(), errno)
				_, errName := os.Stat(m.path(name))
				_, errOther := os.Stat(m.path(other))
				_, errBehind := os.Stat(filepath.Join(disk.behind(), "overlay/mod", name))
				if errName == nil && errOther == nil || (errName == nil) != (errBehind == nil) {
					t.Errorf("there are %v, %v, on disk %v", errName, errOther, errBehind)
				}
				if hits := disk.set(fault{}); hits == 0 {
					t.Error("nothing failed: nothing was proved")
				}
				if err := steps(); err != nil {
					t.Errorf("when nothing is wrong any more: %v", err)
				}
			})
		}
	}
}

// TestDiskRemoved: somebody removes the store, or what is in it, while it is mounted. The mount goes on; and its daemon still has
// the store, which is made anew.
func TestDiskRemoved(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(store string) error{
		"store": os.RemoveAll,
		"content": func(store string) error {
			names, err := filepath.Glob(filepath.Join(store, "*"))
			for _, name := range names {
				err = errors.Join(err, os.RemoveAll(name))
			}
			return err
		},
		"zips": func(store string) error { return os.RemoveAll(filepath.Join(store, "cache")) },
		"a file in its place": func(store string) error {
			return errors.Join(os.RemoveAll(filepath.Join(store, "cache")), os.WriteFile(filepath.Join(store, "cache"), []byte("x"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			mods := []proxytest.Module{faultModule(1), faultModule(2), faultModule(4)}
			proxy := proxytest.New(t, mods...)
			m := mount(t, proxy)
			if err := os.WriteFile(m.path("mine"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			m.args = append(m.args, "--resolve", "daemon")
			if out, err := m.modfs("unmount", m.dir); err != nil {
				t.Fatal(err, out)
			}
			m.start()
			m.use(proxy, mods[0])
			if err := remove(m.store); err != nil {
				t.Fatal(err)
			}
			// What was being read may be an error once, when it finds out.
			m.use(proxy, mods[1], syscall.EIO)
			for _, mod := range mods {
				if n := m.use(proxy, mod); n != 0 {
					t.Errorf("%s: %d reads failed", mod.Path, n)
				}
			}
			m.inOrder(m.store)
			if out, err := m.modfs("mount", "--background", "--store", m.store, t.TempDir()); err == nil || !strings.Contains(out, "is locked by process") {
				t.Errorf("another daemon took the store: %v\n%s", err, out)
			}
			err := os.WriteFile(m.path("mine2"), []byte("x"), 0o600)
			if gone := name == "store" || name == "content"; gone {
				m.wantErrno(err, syscall.EIO, "the writable layer was removed", "mount again")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
