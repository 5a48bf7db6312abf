package fs

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// damages are what may happen to a file of a store.
var damages = map[string]func(store, name string) error{
	"flip": func(_, name string) error {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		data[len(data)/2] ^= 1
		return os.WriteFile(name, data, 0o600)
	},
	"flip near the end": func(_, name string) error {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		data[max(0, len(data)-30)] ^= 1
		return os.WriteFile(name, data, 0o600)
	},
	"half": func(_, name string) error {
		fi, err := os.Stat(name)
		if err != nil {
			return err
		}
		return os.Truncate(name, fi.Size()/2)
	},
	"empty": func(_, name string) error { return os.Truncate(name, 0) },
	"longer": func(_, name string) error {
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(name, append(data, "more"...), 0o600))
	},
	"garbage": func(_, name string) error {
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(name, slices.Repeat([]byte("x"), len(data)), 0o600))
	},
	// One that is whole, of the same kind.
	"another's": func(store, name string) error {
		other := filepath.Join(store, strings.ReplaceAll(strings.TrimPrefix(name, store+"/"), "/a", "/other"))
		if strings.Contains(name, "/big@") {
			other = filepath.Join(filepath.Dir(name), "other")
		}
		data, err := os.ReadFile(other)
		if errors.Is(err, os.ErrNotExist) {
			return nil // there is no such other
		}
		return errors.Join(err, os.WriteFile(name, data, 0o600))
	},
	"gone": func(_, name string) error { return os.Remove(name) },
	"directory": func(_, name string) error {
		return errors.Join(os.Remove(name), os.MkdirAll(filepath.Join(name, "d"), 0o700))
	},
	"fifo": func(_, name string) error { return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)) },
	"link": func(_, name string) error { return errors.Join(os.Remove(name), os.Symlink("/dev/zero", name)) },
}

// damageable are files of the store that verifyStore makes.
var damageable = []string{
	"cache/download/example.com/a/@v/v1.0.0.zip", "cache/download/example.com/a/@v/v1.0.0.mod", "cache/download/example.com/a/@v/v1.0.0.info",
	"cache/download/example.com/a/@v/list", "cache/download/example.com/a/@latest", "cache/download/example.com/big/@v/v1.0.0.zip",
	"index/example.com/a@v1.0.0", "spool/example.com/big@v1.0.0/*", "sumdb/*/latest", "sumdb/*/lookup/example.com/a@v1.0.0",
	"sumdb/*/tile/8/0/000.p/*", "pins",
}

// otherA is as example.com/a, and has other content of the same size.
func otherA(t *testing.T) proxytest.Module {
	m := module1(t, "example.com/a@v1.0.0")
	o := proxytest.Module{Path: "example.com/other", Version: m.Version, Files: make(map[string]string)}
	for name, data := range m.Files {
		o.Files[name] = strings.ReplaceAll(data, "hello", "HELLO")
	}
	return o
}

// wantAll reads all that the store is about, in all ways. What is not right must be one of the errors that may be.
func wantAll(t *testing.T, s *proxytest.Server, dir string, mods []proxytest.Module, may ...syscall.Errno) (failed int) {
	t.Helper()
	want := make(map[string]string)
	for _, m := range mods {
		for name, data := range m.Files {
			want[m.String()+"/"+name] = data
		}
		want[zipKey(version(m))] = string(s.ZipBytes(m.Path, m.Version))
		want[zipHashKey(version(m))] = s.ZipHash(m.Path, m.Version)
		want[modKey(version(m))] = m.Files["go.mod"]
	}
	want[infoKey(moduleA)] = `{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z"}`
	want[listKey(moduleA.Path)] = "v1.0.0\n"
	want[latestKey(moduleA.Path)] = want[infoKey(moduleA)]
	names := []string{}
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names) // a run is like the one before
	for _, name := range names {
		data, err := os.ReadFile(in(dir, name))
		var no syscall.Errno
		switch {
		case err == nil && string(data) == want[name]:
		case err == nil:
			t.Errorf("%s: wrong content: %d bytes %.60q, want %d %.60q", name, len(data), data, len(want[name]), want[name])
		case errors.As(err, &no) && slices.Contains(may, no):
			failed++
			if !slices.ContainsFunc(events(t, dir), func(e Event) bool { return e.Errno == unix.ErrnoName(no) }) {
				t.Errorf("%s: %v, and .modfs/errors does not say why", name, err)
			}
		default:
			t.Errorf("%s: %v; %+v", name, err, events(t, dir))
		}
	}
	lookup := "cache/download/sumdb/" + s.SumDBName() + "/lookup/example.com/a@v1.0.0"
	data, err := os.ReadFile(in(dir, lookup))
	var no syscall.Errno
	if err == nil && !strings.Contains(string(data), "example.com/a v1.0.0 "+s.ZipHash("example.com/a", "v1.0.0")+"\n") {
		t.Errorf("%s: wrong content %q", lookup, data)
	} else if err != nil && !(errors.As(err, &no) && slices.Contains(may, no)) {
		t.Errorf("%s: %v", lookup, err)
	}
	return failed
}

// TestDamagedFiles does everything to every kind of file, while the store is mounted and between two mounts. With a proxy,
// all that clients read is right; without, it is right or an error, and right when the proxy is back.
func TestDamagedFiles(t *testing.T) {
	other := otherA(t)
	s := proxytest.New(t, append(proxytest.Modules(), big(), other)...)
	original := verifyStore(t, s, func(o *Options) {})
	dir, f := mountTest(t, s, func(o *Options) { o.Store.Dir = original })
	readFile(t, in(dir, "example.com/other@v1.0.0/a.go"))
	for _, key := range []string{modKey(version(other)), listKey(other.Path), latestKey(other.Path)} {
		readFile(t, in(dir, key))
	}
	shut(t, f)
	all := os.Getenv("MODFS_NIGHTLY") == "1" // every combination
	for _, file := range damageable {
		for name, damage := range damages {
			for _, live := range []bool{true, false} {
				for _, down := range []bool{false, true} {
					usual := live && !down // the others for the most likely of all only, unless there is all night
					if !all && !(name == "flip" && live != down) && !(usual && (name == "flip" || name == "fifo" || !testing.Short())) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/live=%v/down=%v", strings.ReplaceAll(file, "/", "!"), name, live, down), func(t *testing.T) {
						testDamagedFile(t, s, original, file, damage, live, down)
					})
				}
			}
		}
	}
}

func testDamagedFile(t *testing.T, s *proxytest.Server, original, file string, damage func(store, name string) error, live, down bool) {
	store := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(store, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	hurt := func() {
		if err := damage(store, findFile(t, store, file)); err != nil {
			t.Fatal(err)
		}
	}
	mods := []proxytest.Module{module1(t, "example.com/a@v1.0.0")}
	if strings.Contains(file, "big") || file == "pins" {
		mods = append(mods, big())
	}
	if !live {
		hurt()
	}
	dir, f := mountTest(t, s, func(o *Options) { noMemory(o); o.Store.Dir = store })
	if live {
		hurt()
	}
	if down {
		s.SetFault(func(string) string { return "403" })
		wantAll(t, s, dir, mods, syscall.EBADMSG, syscall.EIO, syscall.EACCES)
		s.SetFault(nil)
		f.answers.by.mu.Lock()
		f.answers.by.lru.Purge()
		f.answers.by.mu.Unlock()
	}
	if failed := wantAll(t, s, dir, mods); failed > 0 {
		t.Errorf("%d reads failed", failed)
	}
	if d, r := f.stats.damaged.Load(), f.stats.repaired.Load(); r > d {
		t.Errorf("%d damaged, %d repaired", d, r)
	}
	shut(t, f)
	// It was repaired for good.
	dir, f = mountTest(t, s, func(o *Options) { noMemory(o); o.Store.Dir = store })
	if failed := wantAll(t, s, dir, mods); failed > 0 {
		t.Errorf("%d reads failed in the next mount", failed)
	}
	if n := f.stats.damaged.Load(); n != 0 && file != "pins" { // a .mod that has lost its pin is not believed
		t.Errorf("%d files are damaged in the next mount", n)
	}
	shut(t, f)
}

// TestLostIndex: what an archive says of itself is believed only after it was verified. Here it is a whole one, of the right module,
// with other content than was verified, and there is no index any more that would tell.
func TestLostIndex(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, noMemory)
	m := module1(t, "example.com/a@v1.0.0")
	walk(t, in(dir, m.String()))
	shut(t, f)
	resp, err := http.Get(s.FaultURL("tamper") + "/example.com/a/@v/v1.0.0.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	tampered, err := io.ReadAll(resp.Body)
	store := f.store.Dir()
	err = errors.Join(err, os.WriteFile(filepath.Join(store, zipKey(moduleA)), tampered, 0o600), os.Remove(filepath.Join(store, indexKey(moduleA))))
	if err != nil {
		t.Fatal(err)
	}
	dir, f = mountTest(t, s, func(o *Options) { noMemory(o); sameStore(f)(o) })
	wantTree(t, s, dir, m)
	wantDamage(t, f, 1, 1, 1)
}

// TestDamagedTime: an .info file whose damage makes another valid one is not believed either.
func TestDamagedTime(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, noMemory)
	want := readFile(t, in(dir, infoKey(moduleA)))
	shut(t, f)
	name := filepath.Join(f.store.Dir(), infoKey(moduleA))
	if err := os.WriteFile(name, []byte(strings.Replace(want, "2020-", "2021-", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, f = mountTest(t, s, sameStore(f))
	if got := readFile(t, in(dir, infoKey(moduleA))); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	wantDamage(t, f, 1, 1, 0)
}
