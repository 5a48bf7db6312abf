package fs

import (
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

const downloadA = "cache/download/example.com/a/@v/"

// stored returns what the store's directory has of modules: neither the checksum database, nor pins or the overlay.
func (m *rwMount) stored() []string {
	m.tb.Helper()
	var names []string
	root := m.store.Dir()
	m.ok(filepath.WalkDir(root, func(p string, d iofs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		top, _, _ := strings.Cut(rel, "/")
		if err == nil && !d.IsDir() && slices.Contains([]string{"cache", "index", "spool", "quarantine"}, top) {
			names = append(names, rel)
		}
		return err
	}))
	return names
}

// unpack reads all of M@V, and its .info, .mod, .zip and .ziphash.
func (m *rwMount) unpack(mod proxytest.Module, dir string) {
	m.tb.Helper()
	m.wantTree(mod, dir)
	path, v, _ := strings.Cut(dir, "@")
	for _, ext := range []string{".info", ".mod", ".zip", ".ziphash"} {
		if _, err := os.ReadFile(m.path("cache/download/" + path + "/@v/" + v + ext)); err != nil {
			m.tb.Error(err)
		}
	}
}

// wantTree checks that a directory has just the files of mod.
func (m *rwMount) wantTree(mod proxytest.Module, dir string) {
	m.tb.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(m.path(dir), func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		rel, _ := filepath.Rel(m.path(dir), p)
		got[rel] = string(data)
		return err
	})
	if err != nil || !maps.Equal(got, mod.Files) {
		m.tb.Errorf("%s: %v, has %q, want %q", dir, err, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(mod.Files)))
	}
}

// module returns a module of the default set.
func module1(tb testing.TB, name string) proxytest.Module {
	tb.Helper()
	for _, mod := range proxytest.Modules() {
		if mod.String() == name {
			return mod
		}
	}
	tb.Fatalf("no module %s", name)
	return proxytest.Module{}
}

// TestLazyFilesRefuseChanges checks that nothing that a client does changes what is served.
func TestLazyFilesRefuseChanges(t *testing.T) {
	asRoot(t)
	m := mountRW(t, nil, nil)
	a := module1(t, "example.com/a@v1.0.0")
	m.unpack(a, "example.com/a@v1.0.0")
	for _, name := range []string{m.path("example.com/a@v1.0.0/a.go"), m.path("example.com/a@v1.0.0/sub/sub.go")} {
		before, err := os.ReadFile(name)
		m.ok(err)
		if f, err := os.OpenFile(name, os.O_RDWR, 0); err == nil {
			_, err = f.Write([]byte("changed"))
			m.fails(err, syscall.EROFS)
			m.fails(f.Truncate(0), syscall.EROFS)
			f.Close()
		} else {
			m.fails(err, syscall.EACCES)
		}
		m.fails(os.WriteFile(name, nil, 0o666), syscall.EROFS)
		m.fails(os.Rename(name, m.path("elsewhere")), syscall.EXDEV)
		m.fails(os.Link(name, m.path("elsewhere")), syscall.EPERM)
		m.fails(os.Lchown(name, 1, 1), syscall.EPERM)
		if after, err := os.ReadFile(name); err != nil || string(after) != string(before) {
			t.Errorf("%s: %d bytes instead of %d, %v", name, len(after), len(before), err)
		}
	}
	for _, dir := range []string{"example.com/a@v1.0.0", "example.com/a@v1.0.0/sub"} {
		m.fails(os.WriteFile(m.path(dir+"/new.go"), nil, 0o666), syscall.EROFS)
		m.fails(os.Mkdir(m.path(dir+"/new"), 0o777), syscall.EROFS)
		m.fails(os.Symlink("x", m.path(dir+"/new")), syscall.EROFS)
		m.fails(os.Rename(m.path(dir), m.path("elsewhere")), syscall.EXDEV)
		m.write("mine", "x")
		m.fails(os.Rename(m.path("mine"), m.path(dir+"/a.go")), syscall.EROFS)
	}
	m.fails(unix.Rename(m.path("mine"), m.path("example.com/a@v1.0.0")), syscall.EISDIR)
	m.mkdir("mydir")
	m.fails(unix.Rename(m.path("mydir"), m.path("example.com/a@v1.0.0")), syscall.ENOTEMPTY)
	m.fails(os.Rename(m.path("example.com"), m.path("elsewhere")), syscall.EXDEV)
	m.unpack(a, "example.com/a@v1.0.0")
}

// TestLazyDownloadReplaced writes to files of cache/download, which become the client's own, as if they were created anew.
func TestLazyDownloadReplaced(t *testing.T) {
	m := mountRW(t, nil, nil)
	a := module1(t, "example.com/a@v1.0.0")
	m.unpack(a, "example.com/a@v1.0.0")
	const zip, mod, ziphash = downloadA + "v1.0.0.zip", downloadA + "v1.0.0.mod", downloadA + "v1.0.0.ziphash"
	for _, name := range []string{zip, mod, ziphash} {
		m.fails(os.Rename(m.path(name), m.path("elsewhere")), syscall.EXDEV)
		m.fails(os.Link(m.path(name), m.path("elsewhere")), syscall.EPERM)
	}
	f, err := os.OpenFile(m.path(mod), os.O_APPEND|os.O_RDWR, 0)
	m.ok(err)
	_, err = f.WriteString("// more\n")
	m.ok(err)
	m.want(mod, goMod(a)+"// more\n")
	m.ok(f.Truncate(6))
	m.ok(f.Close())
	m.want(mod, "module")
	h1 := m.server.ZipHash(a.Path, a.Version)
	m.fails(os.WriteFile(m.path(ziphash), []byte("h1:x"), 0o666), syscall.EROFS)
	m.ok(os.WriteFile(m.path(ziphash), []byte(h1), 0o666))
	m.want(ziphash, h1)
	m.ok(os.WriteFile(m.path(zip), []byte("no zip"), 0o666))
	m.want(zip, "no zip")
	m.used(6 + 6)
	m.wantTree(a, "example.com/a@v1.0.0")
	m.remount()
	m.want(zip, "no zip")
	m.ok(os.Remove(m.path(zip)))
	m.used(6)
}

// TestLazyMmap checks that a mapping of a lazy file that was written to does not change what others read.
func TestLazyMmap(t *testing.T) {
	m := mountRW(t, nil, nil)
	file := m.path("example.com/a@v1.0.0/a.go")
	before, err := os.ReadFile(file)
	m.ok(err)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return // all the better
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, len(before), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return
	}
	copy(mem, "changed")
	if err := unix.Msync(mem, unix.MS_SYNC); err == nil {
		t.Error("the change was accepted")
	}
	m.ok(unix.Munmap(mem))
	eventually(t, "the page cache to be right again", func() bool {
		after, err := os.ReadFile(file)
		return err == nil && string(after) == string(before)
	})
}

// TestLazyChmod is chmod -R u+w, which many tools do before they remove or copy a tree.
func TestLazyChmod(t *testing.T) {
	m := mountRW(t, nil, nil)
	a := module1(t, "example.com/a@v1.0.0")
	m.unpack(a, "example.com/a@v1.0.0")
	m.ok(filepath.WalkDir(m.dir, func(p string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			err = os.Chmod(p, fi.Mode().Perm()|0o200)
		}
		return err
	}))
	if fi, err := os.Stat(m.path("example.com/a@v1.0.0/sub")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("directory: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(m.path("example.com/a@v1.0.0/a.go")); err != nil || fi.Mode().Perm() != 0o444 {
		t.Errorf("file: %v, %v", fi.Mode(), err)
	}
	m.unpack(a, "example.com/a@v1.0.0")
}

// TestRemoveModule removes a module's directory.
func TestRemoveModule(t *testing.T) {
	asRoot(t)
	a := module1(t, "example.com/a@v1.0.0")
	const dir = "example.com/a@v1.0.0"
	for _, client := range []bool{true, false} {
		m := mountRW(t, nil, func(o *Options) { o.ResolveClient = client })
		m.storeMod(a)
		m.wantTree(a, dir)
		m.names("example.com", "a@v1.0.0")
		open, err := os.Open(m.path(dir + "/a.go"))
		m.ok(err)
		defer open.Close()
		m.fails(unix.Rmdir(m.path(dir)), syscall.ENOTEMPTY)
		m.fails(unix.Rmdir(m.path(dir+"/sub")), syscall.ENOTEMPTY)
		m.fails(unix.Unlink(m.path(dir+"/sub")), syscall.EISDIR)
		m.fails(unix.Rmdir(m.path(dir+"/a.go")), syscall.ENOTDIR)

		m.ok(os.Remove(m.path(dir + "/sub/sub.go")))
		m.there(false, dir+"/sub/sub.go")
		m.names(dir + "/sub")
		m.ok(os.Remove(m.path(dir + "/sub")))
		m.there(false, dir+"/sub")
		m.names(dir, "LICENSE", "a.go", "go.mod", "testdata")
		m.ok(os.RemoveAll(m.path(dir)))
		m.names("example.com")
		for _, name := range m.stored() {
			if strings.HasSuffix(name, ".zip") || strings.HasPrefix(name, "index") {
				t.Errorf("client resolves: %v: store has %s", client, name)
			}
		}
		m.there(!client, dir) // by its name, where nobody but the daemon could get it
		if client {
			m.there(false, dir+"/a.go", downloadA+"v1.0.0.zip", downloadA+"v1.0.0.ziphash")
			m.there(true, downloadA+"v1.0.0.mod")
			m.ok(os.Remove(m.path(downloadA + "v1.0.0.mod")))
			m.storeMod(a)
		}
		m.wantTree(a, dir)
		m.unpack(a, dir)
		m.names("example.com", "a@v1.0.0")
	}
}

// TestRemoveAll empties the mount, as go clean -modcache does.
func TestRemoveAll(t *testing.T) {
	for _, client := range []bool{true, false} {
		m := mountRW(t, nil, func(o *Options) { o.ResolveClient = client })
		var mods []proxytest.Module
		for _, name := range []string{"example.com/a@v1.0.0", "example.com/b@v1.1.0", "example.com/two/v2@v2.1.0"} {
			mod := module1(t, name)
			mods = append(mods, mod)
			m.storeMod(mod)
			m.unpack(mod, name)
		}
		large := module1(t, "example.com/large@v1.0.0") // one that is served from the spool
		m.storeMod(large)
		_, err := os.ReadFile(m.path("example.com/large@v1.0.0/large.txt"))
		m.ok(err)
		m.write("cache/lock", "")
		m.write("cache/vcs/x/objects/f", "x")
		for _, order := range []string{"once", "again"} {
			m.clean()
			m.names("")
			if left := m.stored(); len(left) > 0 {
				t.Errorf("client resolves: %v, %s: store has %q", client, order, left)
			}
			m.used(0)
			for _, mod := range mods {
				m.storeMod(mod)
				m.unpack(mod, mod.String())
			}
		}
	}
}

// clean is what go clean -modcache does but for removing the mountpoint (modfetch.RemoveAll).
func (m *rwMount) clean() {
	m.tb.Helper()
	m.ok(filepath.WalkDir(m.dir, func(p string, d iofs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o777)
		}
		return err
	}))
	des, err := os.ReadDir(m.dir)
	m.ok(err)
	for _, d := range des {
		m.ok(os.RemoveAll(m.path(d.Name())))
	}
}

// TestRemovedStaysRemoved checks that making one module anew does not bring back others.
func TestRemovedStaysRemoved(t *testing.T) {
	asRoot(t)
	m := mountRW(t, nil, clientResolves)
	a, b := module1(t, "example.com/a@v1.0.0"), module1(t, "example.com/b@v1.0.0")
	m.storeMod(a)
	m.storeMod(b)
	m.unpack(a, a.String())
	m.unpack(b, b.String())
	m.ok(os.RemoveAll(m.path("example.com")))
	m.there(false, "example.com", a.String(), b.String())
	m.write("example.com/own/f", "x")
	m.names("example.com", "own")
	m.there(false, a.String(), b.String())
	m.ok(os.Remove(m.path(downloadA + "v1.0.0.mod")))
	m.storeMod(a)
	m.unpack(a, a.String())
	m.there(false, b.String())
	m.names("example.com", "a@v1.0.0", "own")
}

// TestRemoveDownloads removes files of cache/download.
func TestRemoveDownloads(t *testing.T) {
	asRoot(t)
	m := mountRW(t, nil, clientResolves)
	a := module1(t, "example.com/a@v1.0.0")
	m.storeMod(a)
	m.unpack(a, a.String())
	m.names(downloadA, "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "v1.0.0.ziphash")
	m.ok(os.Remove(m.path(downloadA + "v1.0.0.zip")))
	m.there(false, downloadA+"v1.0.0.zip")
	m.names(downloadA, "v1.0.0.info", "v1.0.0.mod", "v1.0.0.ziphash")
	if slices.Contains(m.stored(), downloadA+"v1.0.0.zip") {
		t.Error("the zip is still in the store")
	}
	m.fails(os.Remove(m.path(downloadA+"v1.0.0.zip")), os.ErrNotExist)
	m.write(downloadA+"v1.0.0.zip", "the client's own")
	m.want(downloadA+"v1.0.0.zip", "the client's own")
	m.wantTree(a, a.String())
	m.ok(os.RemoveAll(m.path("cache")))
	m.there(false, "cache", downloadA)
	m.wantTree(a, a.String())
	m.ok(os.RemoveAll(m.path("example.com")))
	if left := m.stored(); len(left) > 0 {
		t.Errorf("store has %q", left)
	}
}
