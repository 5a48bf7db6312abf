package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// catIn returns what a process in dir reads from a path.
func (m *rwMount) catIn(dir, p string) string {
	m.tb.Helper()
	cat, err := exec.LookPath("cat")
	if err != nil {
		m.tb.Skip("no command cat")
	}
	cmd := exec.Command(cat, m.path(p))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.tb.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// TestWanted checks who is offered a module without ever having stored its go.mod.
func TestWanted(t *testing.T) {
	server := proxytest.New(t)
	work := filepath.Join(t.TempDir(), "work")
	sub := filepath.Join(work, "sub")
	if err := os.MkdirAll(sub, 0o777); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("example.com/a v1.0.0 %s\nexample.com/a v1.0.0/go.mod %s\nexample.com/b v1.0.0/go.mod %s\n",
		server.ZipHash("example.com/a", "v1.0.0"), server.ModHash("example.com/a", "v1.0.0"), server.ModHash("example.com/b", "v1.0.0"))
	if err := os.WriteFile(filepath.Join(work, "go.sum"), []byte(sum), 0o666); err != nil {
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
	m.there(true, a.String(), downloadA+"v1.0.0.ziphash")
	m.there(false, downloadA+"v1.0.0.zip")
	lock, err := os.OpenFile(m.path(downloadA+"v1.0.0.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	defer lock.Close()
	if m.statIn(t.TempDir(), nil, downloadA+"v1.0.0.zip") {
		t.Error("another process sees the archive")
	}
	if !m.statIn(t.TempDir(), nil, downloadA+"v1.0.0.ziphash") {
		t.Error("another process does not see its hash")
	}
	m.there(true, downloadA+"v1.0.0.zip")
	m.there(false, downloadA+"v1.0.0.ziphash")
	hash, err := os.OpenFile(m.path(downloadA+"v1.0.0.ziphash"), os.O_CREATE|os.O_RDWR, 0o666)
	m.ok(err)
	for _, state := range []string{"created", "truncated"} {
		if state == "truncated" {
			m.ok(hash.Truncate(ziphashSize))
		}
		if got := m.catIn(t.TempDir(), downloadA+"v1.0.0.ziphash"); got != m.server.ZipHash(a.Path, a.Version) {
			t.Errorf("another process sees the hash that is only %s: %q", state, got)
		}
	}
	_, err = hash.WriteString(m.server.ZipHash(a.Path, a.Version))
	m.ok(err)
	m.ok(hash.Close())
	m.ok(lock.Close())
	m.want(downloadA+"v1.0.0.ziphash", m.server.ZipHash(a.Path, a.Version))
	m.there(true, downloadA+"v1.0.0.zip")
	m.wantTree(a, a.String())
	if n := m.server.Count("GET /example.com/a/@v/v1.0.0.zip"); n != 1 {
		t.Errorf("%d zips fetched", n)
	}
}
