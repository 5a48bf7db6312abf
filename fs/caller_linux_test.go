package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"modfs/fetch/proxytest"
)

// statIn runs a process in dir, with an environment, that looks up a path, and reports whether it was there.
func (m *rwMount) statIn(dir string, env []string, p string) bool {
	m.tb.Helper()
	test, err := exec.LookPath("test")
	if err != nil {
		m.tb.Skip("no command test")
	}
	cmd := exec.Command(test, "-e", m.path(p))
	cmd.Dir, cmd.Env = dir, env
	err = cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		m.tb.Fatal(err)
	}
	return err == nil
}

// TestWanted checks who is offered a module without ever having stored its go.mod.
func TestWanted(t *testing.T) {
	server := proxytest.New(t)
	work := filepath.Join(t.TempDir(), "work")
	sub := filepath.Join(work, "sub")
	if err := os.MkdirAll(sub, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte("module example.com/main\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("example.com/a v1.0.0 %s\nexample.com/a v1.0.0/go.mod %s\nexample.com/b v1.0.0/go.mod %s\n",
		server.ZipHash("example.com/a", "v1.0.0"), server.ModHash("example.com/a", "v1.0.0"), server.ModHash("example.com/b", "v1.0.0"))
	if err := os.WriteFile(filepath.Join(work, "go.sum"), []byte(sum), 0o666); err != nil {
		t.Fatal(err)
	}
	space := t.TempDir()
	for name, data := range map[string]string{
		"go.work": "go 1.20\nuse (\n\t./one\n\t" + work + "\n)\n", "one/go.mod": "module example.com/one\n", "go.mod": "module example.com/x\n",
	} {
		name = filepath.Join(space, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	same := server.Env()
	with := func(kv string) []string { return append(server.Env(), kv) }
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("GOPROXY=http://other.example\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	const a, b = "example.com/a@v1.0.0", "example.com/b@v1.0.0"
	for _, c := range []struct {
		name, dir string
		env       []string
		p         string
		want      bool
	}{
		{"go.sum has it", work, same, a, true},
		{"in a parent directory", sub, same, a + "/a.go", true},
		{"its hash", work, same, downloadA + "v1.0.0.ziphash", true},
		{"no go.sum", t.TempDir(), same, a, false},
		{"only its go.mod is in go.sum", work, same, b, false},
		{"in a workspace", filepath.Join(space, "one"), same, a, true},
		{"in a workspace elsewhere", t.TempDir(), with("GOWORK=" + filepath.Join(space, "go.work")), a, true},
		{"in no workspace", filepath.Join(space, "one"), with("GOWORK=off"), a, false},
		{"a pipe for the user's file", work, with("GOENV=" + pipe), a, true},
		{"another version", work, same, "example.com/a@v1.0.1", false},
		{"another proxy", work, with("GOPROXY=http://other.example"), a, false},
		{"another proxy after ours", work, with("GOPROXY=" + server.URL() + ",direct"), a, false},
		{"no proxy", work, with("GOPROXY=off"), a, false},
		{"another database", work, with("GOSUMDB=off"), a, false},
		{"private", work, with("GOPRIVATE=example.com"), a, false},
		{"not checked", work, with("GONOSUMDB=example.com"), a, false},
		{"another proxy in the user's file", work, []string{"GOENV=" + file, "GOSUMDB=" + server.SumDB()}, a, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mountRW(t, server, clientResolves)
			if got := m.statIn(c.dir, c.env, c.p); got != c.want {
				t.Errorf("offered: %v, want %v", got, c.want)
			}
			m.there(c.want, a) // once it is known it is there for all
			if n := m.server.Count("GET /example.com/a/@v/v1.0.0.zip"); n > 0 && !strings.HasSuffix(c.p, ".go") {
				t.Errorf("%d zips fetched", n)
			}
			server.ResetRequests()
		})
	}
}

// TestHasOpen checks who is shown an archive that nobody has opened yet: who holds the lock to download it.
func TestHasOpen(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	a := module1(t, "example.com/a@v1.0.0")
	m.storeMod(a)
	m.there(true, a.String())
	m.there(false, downloadA+"v1.0.0.zip")
	lock, err := os.OpenFile(m.path(downloadA+"v1.0.0.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	defer lock.Close()
	if m.statIn(t.TempDir(), nil, downloadA+"v1.0.0.zip") {
		t.Error("another process sees the archive")
	}
	m.there(true, downloadA+"v1.0.0.zip")
	m.there(false, downloadA+"v1.0.0.ziphash")
	hash, err := os.OpenFile(m.path(downloadA+"v1.0.0.ziphash"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	m.ok(hash.Truncate(ziphashSize))
	if dir := t.TempDir(); m.statIn(dir, nil, a.String()+"/a.go") && m.statIn(dir, nil, downloadA+"v1.0.0.ziphash") {
		t.Error("the module seems to be complete")
	}
	_, err = hash.WriteString(m.server.ZipHash(a.Path, a.Version))
	m.ok(err)
	m.ok(hash.Close())
	m.want(downloadA+"v1.0.0.ziphash", m.server.ZipHash(a.Path, a.Version))
	m.there(true, downloadA+"v1.0.0.zip", a.String())
	m.wantTree(a, a.String())
	if n := m.server.Count("GET /example.com/a/@v/v1.0.0.zip"); n != 1 {
		t.Errorf("%d zips fetched", n)
	}
}

// TestHashShown checks that V.ziphash does not go away once a client has seen it. A client that wants the archive then
// downloads it, and writes what is there already.
func TestHashShown(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	a := module1(t, "example.com/a@v1.0.0")
	m.storeMod(a)
	h1 := m.server.ZipHash(a.Path, a.Version)
	m.there(true, a.String(), downloadA+"v1.0.0.ziphash")
	lock, err := os.OpenFile(m.path(downloadA+"v1.0.0.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	defer lock.Close()
	m.there(false, downloadA+"v1.0.0.zip")
	m.there(true, a.String(), downloadA+"v1.0.0.ziphash")
	m.storeFile(downloadA+"v1.0.0.zip", string(m.server.ZipBytes(a.Path, a.Version)))
	hash, err := os.OpenFile(m.path(downloadA+"v1.0.0.ziphash"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	m.ok(hash.Truncate(0))
	m.want(downloadA+"v1.0.0.ziphash", h1)
	m.ok(hash.Truncate(ziphashSize))
	m.want(downloadA+"v1.0.0.ziphash", h1)
	_, err = hash.WriteString(h1)
	m.ok(err)
	m.ok(hash.Close())
	m.want(downloadA+"v1.0.0.ziphash", h1)
}
