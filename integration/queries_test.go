package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/fetch/vcstest"
)

// The mount as the only proxy of a go command answers all that can be asked of one: versions, words and prefixes for them, branches
// and commits, also of modules that come from version control; and what it knew, when there is no network.
func TestFileProxyQueries(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it runs some forty go commands")
	}
	s := vcstest.New(t)
	lib := s.Repo("lib", map[string]string{
		"go.mod":       "module vanity.test/lib\n\ngo 1.21\n",
		"lib.go":       "package lib\n",
		"cmd/x/x.go":   "package main\n\nfunc main() { println(\"x\") }\n",
		"cmd/x/doc.go": "package main\n",
	}, "v1.0.0", "v1.0.1")
	lib.Commit(map[string]string{"go.mod": "module vanity.test/lib\n\ngo 1.21\n\nretract v1.0.1\n"}, "v1.1.0")
	hash := lib.Commit(map[string]string{"lib.go": "package lib // main\n"})
	s.Import("vanity.test/lib", "git "+lib.URL())
	useGit(t, s)
	mods := proxytest.Modules()
	for _, v := range []string{"v1.0.0", "v1.0.1", "v1.1.0", "v1.2.0-rc.1"} {
		mods = append(mods, proxytest.Module{Path: "example.com/q", Version: v, Files: map[string]string{"go.mod": "module example.com/q\n\ngo 1.21\n", "q.go": "package q\n"}})
	}
	m := mount(t, proxytest.New(t, mods...), "--read-only", "--private", "vanity.test")

	work, gopath := t.TempDir(), t.TempDir()
	env := []string{"GOPROXY=file://" + m.path("cache/download"), "GOPATH=" + gopath, "GOMODCACHE=" + filepath.Join(gopath, "pkg/mod"),
		"GOFLAGS=-mod=mod -modcacherw", "GONOSUMDB=vanity.test", "GOBIN=" + filepath.Join(gopath, "bin")}
	fresh := func(require ...string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(gopath, "pkg")); err != nil {
			t.Fatal(err)
		}
		text := "module example.com/prog\n\ngo 1.21\n"
		for _, r := range require {
			text += "\nrequire " + strings.Replace(r, "@", " ", 1) + "\n"
		}
		os.Remove(filepath.Join(work, "go.sum")) // there may be none
		if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	pseudo := "v1.1.1-0.20210203040506-" + hash[:12]
	ask := func(offline bool) {
		for _, test := range []struct {
			have, query, want string
			offline           bool // ask again without a network
		}{
			{"", "example.com/q@latest", "v1.1.0", true},
			{"", "example.com/q", "v1.1.0", false},
			{"", "example.com/q@v1", "v1.1.0", false},
			{"", "example.com/q@v1.0", "v1.0.1", true},
			{"", "example.com/q@<v1.1.0", "v1.0.1", false},
			{"example.com/q@v1.0.0", "example.com/q@patch", "v1.0.1", false},
			{"example.com/q@v1.0.0", "example.com/q@upgrade", "v1.1.0", true},
			{"example.com/q@v1.2.0-rc.1", "example.com/q@upgrade", "v1.2.0-rc.1", false},
			{"", "vanity.test/lib@latest", "v1.1.0", true},
			{"", "vanity.test/lib@v1.0", "v1.0.0", false}, // v1.0.1 is retracted
			{"", "vanity.test/lib@main", pseudo, true},
			{"", "vanity.test/lib@" + hash, pseudo, false},
			{"", "vanity.test/lib@" + hash[:8], pseudo, true},
		} {
			if offline && !test.offline {
				continue
			}
			fresh(strings.Fields(test.have)...)
			m.goRun(work, env, "get", test.query)
			mod, _, _ := strings.Cut(test.query, "@")
			if got := strings.TrimSpace(m.goRun(work, env, "list", "-m", "-f", "{{.Version}}", mod)); got != test.want {
				t.Errorf("go get %s, with %q before: %s, want %s", test.query, test.have, got, test.want)
			}
		}
		for _, test := range []struct {
			args []string
			want string
		}{
			{[]string{"list", "-m", "-versions", "example.com/q"}, "example.com/q v1.0.0 v1.0.1 v1.1.0 v1.2.0-rc.1"},
			{[]string{"list", "-m", "-versions", "vanity.test/lib"}, "vanity.test/lib v1.0.0 v1.1.0"},
			{[]string{"list", "-m", "-versions", "-retracted", "vanity.test/lib"}, "vanity.test/lib v1.0.0 v1.0.1 v1.1.0"},
			{[]string{"list", "-m", "-u", "all"}, "example.com/prog\nexample.com/q v1.0.0 [v1.1.0]\nvanity.test/lib v1.0.1 (retracted) [v1.1.0]"},
		} {
			fresh("example.com/q@v1.0.0", "vanity.test/lib@v1.0.1")
			if got := strings.TrimSpace(m.goRun(work, env, test.args...)); got != test.want {
				t.Errorf("go %s: %s\nwant %s", strings.Join(test.args, " "), got, test.want)
			}
		}
		if offline {
			return // that there is no module vanity.test/lib/cmd is not known then
		}
		fresh()
		m.goRun(work, env, "install", "vanity.test/lib/cmd/x@latest")
		if err := os.Remove(filepath.Join(gopath, "bin", "x")); err != nil {
			t.Error(err)
		}
		cmd := m.goCommand(work, "get", "vanity.test/lib@nobranch")
		cmd.Env = append(cmd.Env, env...)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("go get of a branch that is not there: %s", out)
		}
	}
	ask(false)
	if out, err := m.modfs("unmount", m.dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.args = append(m.args, "--offline")
	m.start()
	ask(true)
}
