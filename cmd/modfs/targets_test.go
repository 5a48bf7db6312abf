package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	modfs "modfs/fs"
)

// project makes a directory of files, and makes it the current one.
func project(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("GOWORK", "")
	for name, data := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	hashA = "h1:" + strings.Repeat("A", 43) + "="
	hashB = "h1:" + strings.Repeat("B", 42) + "A="
)

func TestTargets(t *testing.T) {
	project(t, map[string]string{
		"go.work":    "go 1.21\n\nuse ./one\nuse ./two\n",
		"one/go.mod": "module example.com/one\n\nrequire example.com/a v1.0.0\n",
		"one/go.sum": "example.com/a v1.0.0 " + hashA + "\nexample.com/a v1.0.0/go.mod " + hashB + "\nexample.com/c v1.0.0/go.mod " + hashB + "\n",
		"two/go.mod": "module example.com/two\n\nrequire example.com/b v1.0.0\n",
		"x/y/z":      "",
	})
	a := modfs.Wanted{Path: "example.com/a", Version: "v1.0.0", Sum: hashA, ModSum: hashB}
	b := modfs.Wanted{Path: "example.com/b", Version: "v1.0.0"}
	c := modfs.Wanted{Path: "example.com/c", Version: "v1.0.0", ModOnly: true, ModSum: hashB}
	for _, tc := range []struct {
		args  []string
		work  string // GOWORK
		want  []modfs.Wanted
		notes int
	}{
		{nil, "", []modfs.Wanted{a, c, b}, 1},
		{[]string{"x/y"}, "", []modfs.Wanted{a, c, b}, 1},
		{[]string{"one"}, "off", []modfs.Wanted{a, c}, 0},
		{[]string{"one/go.sum"}, "", []modfs.Wanted{a, c}, 0},
		{[]string{"one/go.mod", "one/go.sum", "one"}, "off", []modfs.Wanted{a, c}, 0},
		{[]string{"two/go.mod"}, "", []modfs.Wanted{b}, 1},
		{[]string{"one/go.sum", "example.com/c@v1.0.0"}, "", []modfs.Wanted{a, {Path: c.Path, Version: c.Version, ModSum: hashB}}, 0},
		{[]string{"example.com/b@master", "example.com/b@<v2"}, "", []modfs.Wanted{{Path: b.Path, Version: "master"}, {Path: b.Path, Version: "<v2"}}, 0},
	} {
		t.Setenv("GOWORK", tc.work)
		got, err := readTargets(t.Context(), tc.args)
		if err != nil {
			t.Errorf("%q: %v", tc.args, err)
		} else if !slices.Equal(got.wanted, tc.want) || len(got.notes) != tc.notes {
			t.Errorf("%q: %+v, %q; want %+v, and %d notes", tc.args, got.wanted, got.notes, tc.want, tc.notes)
		}
	}
}

func TestTargetsBad(t *testing.T) {
	project(t, map[string]string{
		"a.sum": "example.com/a v1.0.0 " + hashA + "\n", "b.sum": "example.com/a v1.0.0 " + hashB + "\n",
		"bad.sum": "a b\n", "bad.mod": "bad\n", "bad.work": "bad\n", "dir.sum/x": "", "x.txt": "", "empty/x": "",
	})
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{""}, "an argument is empty"},
		{[]string{"empty"}, "has a go.work or go.mod file"},
		{[]string{"missing/go.sum"}, "missing/go.sum cannot be read: no such file or directory"},
		{[]string{"example.com/a"}, "example.com/a@latest"},
		{[]string{"example.com/a@"}, "the version is empty"},
		{[]string{"not a path@v1"}, "malformed module path"},
		{[]string{"x.txt"}, "none of go.sum, go.mod and go.work"},
		{[]string{"bad.sum"}, "bad.sum: line 1"},
		{[]string{"bad.mod"}, "bad.mod:1"},
		{[]string{"bad.work"}, "bad.work:1"},
		{[]string{"a.sum", "b.sum"}, "b.sum: example.com/a@v1.0.0: its hash is " + hashB + " here, and " + hashA + " in another file"},
	} {
		if _, err := readTargets(t.Context(), tc.args); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v; want %q", tc.args, err, tc.want)
		}
	}
	// What it would have to be looked up for on a machine without a go command is not known, which is no error.
	tg := &targets{by: make(map[string]int), local: func() (localGo, error) { return localGo{}, errors.New("no go command") }}
	if err := tg.toolchain("go.mod", "1.99", ""); err != nil || len(tg.wanted) > 0 || len(tg.notes) != 1 {
		t.Errorf("%v, %+v, %q", err, tg.wanted, tg.notes)
	}
}
