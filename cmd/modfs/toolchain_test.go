package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestToolchain(t *testing.T) {
	for _, c := range []struct{ setting, version, goLine, line, want string }{
		{"auto", "go1.26.8", "1.21", "", ""},
		{"auto", "go1.26.8", "1.27", "", "go1.27.0"},
		{"auto", "go1.26.8", "1.27.3", "", "go1.27.3"},
		{"auto", "go1.26.8", "1.27rc1", "", "go1.27rc1"},
		{"auto", "go1.26.8", "1.21", "go1.99.1", "go1.99.1"},
		{"auto", "go1.26.8", "1.99.2", "go1.99.1", "go1.99.2"},
		{"auto", "go1.26.8", "1.21", "go1.22.0", ""},
		{"auto", "go1.26.8", "1.21", "default", ""},
		{"auto", "go1.26.8", "", "go1.99.1-custom", "go1.99.1-custom"},
		{"auto", "go1.26.8", "nonsense", "nonsense", ""},
		{"auto", "go1.26.8 X:nocoverageredesign", "1.26.8", "", ""},
		{"local", "go1.26.8", "1.99", "go1.99.1", ""},
		{"path", "go1.26.8", "1.99", "", ""},
		{"go1.24.1", "go1.26.8", "1.99", "", "go1.24.1"},
		{"go1.26.8", "go1.26.8", "1.99", "", ""},
		{"go1.24.1+auto", "go1.26.8", "1.21", "", "go1.24.1"},
		{"go1.24.1+auto", "go1.26.8", "1.99.0", "", "go1.99.0"},
		{"local+auto", "go1.26.8", "1.99.0", "", "go1.99.0"},
		{"go1.24.1+path", "go1.26.8", "1.99.0", "", "go1.24.1"},
		{"nonsense", "go1.26.8", "1.99.0", "", ""},
	} {
		g := localGo{version: c.version, os: "linux", arch: "amd64", setting: c.setting}
		if got := g.toolchain(c.goLine, c.line); got != c.want {
			t.Errorf("GOTOOLCHAIN=%s, %s: go %q, toolchain %q: %q, want %q", c.setting, c.version, c.goLine, c.line, got, c.want)
		}
	}
	if got := (localGo{os: "linux", arch: "arm64"}).toolchainVersion("go1.99.1"); got != "v0.0.1-go1.99.1.linux-arm64" {
		t.Error(got)
	}
}

// The setting is the environment's, else that of go env -w, else that of the installation.
func TestFindLocalGo(t *testing.T) {
	env := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(env, []byte("# a comment\nGOFLAGS=-x\nGOTOOLCHAIN=path\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOENV", env)
	for _, c := range []struct{ given, want string }{{"go1.99.1+auto", "go1.99.1+auto"}, {"", "path"}} {
		t.Setenv("GOTOOLCHAIN", c.given)
		g, err := findLocalGo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if g.setting != c.want || g.version == "" || g.os == "" || g.arch == "" {
			t.Errorf("%+v, want %s", g, c.want)
		}
	}
	t.Setenv("PATH", "")
	if _, err := findLocalGo(t.Context()); err == nil {
		t.Error("no go command, and no error")
	}
}
