package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mountHook is the file that the go command's test gets. Each script's mount is made before its first command, with its
// environment, and is gone after its last. No script may use a network that is not on this machine.
const mountHook = `package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cmd/internal/script"
)

var modfsOffline sync.Once

func modfsMount(t *testing.T, e *script.Engine, s *script.State) func() {
	modfsOffline.Do(func() {
		e.Conds["net"] = script.PrefixCondition("never", func(*script.State, string) (bool, error) { return false, nil })
	})
	at := os.Getenv("MODFS_MOUNT_AT")
	if at == "" {
		return func() {}
	}
	gopath, _ := s.LookupEnv("GOPATH")
	at = filepath.Join(gopath, at)
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	run := func(name string, args ...string) error {
		cmd := exec.Command(os.Getenv("MODFS_BIN"), args...)
		cmd.Env = s.Environ()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("modfs %s: %v\n%s", name, err, out)
		}
		return err
	}
	args := append(strings.Fields(os.Getenv("MODFS_MOUNT")), "--store", filepath.Join(store, "store"), at)
	if err := run("mount", args...); err != nil {
		t.Fatal(err)
	}
	return func() {
		for range 600 { // a process that the script started may be about to leave
			if err := run("unmount", "unmount", at); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		run("unmount", "unmount", "--lazy", at)
		t.Error("the mount is still in use")
	}
}
`

// suite is the go command's test of its scripts, built with modfsMount in it.
type suite struct {
	t      *testing.T
	goroot string
	bin    string
	dir    string // a copy of GOROOT/src/cmd/go, as far as it need not be links, in which the test runs
}

// newSuite builds the test of GOROOT's go command. In the scripts of the copy that it runs in, lines are made comments.
func newSuite(t *testing.T, goroot string) *suite {
	s := &suite{t: t, goroot: goroot, dir: t.TempDir()}
	src := s.source()
	original := filepath.Join(src, "script_test.go")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	at, call := findRun(t, original, text)
	patched := slices.Concat(text[:at], []byte("defer modfsMount("+call+")()\n"), text[at:])
	build := t.TempDir()
	replace := make(map[string]string)
	for name, data := range map[string][]byte{"script_test.go": patched, "modfs_test.go": []byte(mountHook)} {
		file := filepath.Join(build, name)
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(src, name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(build, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o666); err != nil {
		t.Fatal(err)
	}
	s.bin = filepath.Join(build, "go.test")
	cmd := exec.Command("go", "test", "-c", "-overlay", file, "-o", s.bin, "cmd/go")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test of cmd/go: %v\n%s", err, out)
	}
	s.link(src, s.dir, "testdata")
	s.link(filepath.Join(src, "testdata"), filepath.Join(s.dir, "testdata"), "script")
	s.link(s.scripts(src), s.scripts(s.dir))
	return s
}

func (s *suite) source() string                 { return filepath.Join(s.goroot, "src", "cmd", "go") }
func (s *suite) scripts(dir string) string      { return filepath.Join(dir, "testdata", "script") }
func (s *suite) script(dir, name string) string { return filepath.Join(s.scripts(dir), name+".txt") }

// link makes to a directory of links to all that is in from, but for one name.
func (s *suite) link(from, to string, but ...string) {
	des, err := os.ReadDir(from)
	if err == nil {
		err = os.MkdirAll(to, 0o777)
	}
	for _, d := range des {
		if err == nil && !slices.Contains(but, d.Name()) {
			err = os.Symlink(filepath.Join(from, d.Name()), filepath.Join(to, d.Name()))
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// leaveOut makes the commands of a script that are one of lines comments. It fails if one is not there: what a script asserts
// has then changed, and with it the reason to leave that out.
func (s *suite) leaveOut(name string, lines []string) {
	data, err := os.ReadFile(s.script(s.source(), name))
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.SplitAfter(string(data), "\n")
	for _, line := range lines {
		found := false
		for i, l := range text {
			if strings.HasPrefix(l, "-- ") && strings.HasSuffix(strings.TrimSpace(l), " --") {
				break // the files of the script begin
			}
			if strings.TrimSpace(l) == line {
				text[i], found = "# "+l, true
			}
		}
		if !found {
			s.t.Fatalf("script %s has no line %q: its exception must be adapted to this Go version", name, line)
		}
	}
	file := s.script(s.dir, name)
	if err := os.Remove(file); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Join(text, "")), 0o666); err != nil {
		s.t.Fatal(err)
	}
}

// names returns the scripts that match a pattern.
func (s *suite) names(pattern string) []string {
	re, err := regexp.Compile(pattern)
	if err != nil {
		s.t.Fatal("MODFS_CONFORMANCE: ", err)
	}
	files, err := filepath.Glob(s.script(s.source(), "*"))
	if err != nil || len(files) == 0 {
		s.t.Fatal("this GOROOT has no scripts: ", s.goroot)
	}
	var names []string
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".txt"); re.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		s.t.Fatalf("no script matches MODFS_CONFORMANCE=%s", pattern)
	}
	return names
}

// findRun returns the offset of the statement scripttest.Run(t, engine, state, …) in TestScript, and these arguments. A Go
// version that does it differently fails the test, so that nobody believes that the scripts ran on a mount.
func findRun(t *testing.T, name string, text []byte) (offset int, call string) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		stmt, ok := n.(*ast.ExprStmt)
		if !ok {
			return true
		}
		c, ok := stmt.X.(*ast.CallExpr)
		if !ok || len(c.Args) < 3 {
			return true
		}
		fun, ok := c.Fun.(*ast.SelectorExpr)
		if !ok || fun.Sel.Name != "Run" || fmt.Sprint(fun.X) != "scripttest" {
			return true
		}
		if offset != 0 {
			t.Fatalf("%s has more than one statement scripttest.Run(…): this test must be adapted to this Go version", name)
		}
		offset = fset.Position(stmt.Pos()).Offset
		call = fmt.Sprintf("%v, %v, %v", c.Args[0], c.Args[1], c.Args[2])
		return true
	})
	if offset == 0 {
		t.Fatalf("%s has no statement scripttest.Run(t, engine, state, …): this test must be adapted to this Go version", name)
	}
	return offset, call
}

// arm is a way to have a module cache. The zero value is a plain directory.
type arm struct {
	at    string // where it is mounted, below GOPATH
	mount string // the command
}

// result is the outcome of a script, PASS, FAIL or SKIP, and what it printed.
type result struct{ outcome, output string }

// run runs scripts: as they are with a plain directory, else without the lines that were left out.
func (s *suite) run(a arm, scripts []string) map[string]result {
	if len(scripts) == 0 {
		return nil
	}
	cmd := exec.Command("go", "tool", "test2json", s.bin, "-test.v=test2json", "-test.timeout=30m",
		"-test.run=TestScript/^("+strings.Join(scripts, "|")+")$")
	cmd.Dir = s.dir
	if a.at == "" {
		cmd.Dir = s.source()
	}
	cmd.Env = append(os.Environ(), "MODFS_MOUNT="+a.mount, "MODFS_MOUNT_AT="+a.at, "MODFS_BIN="+filepath.Join(bin, "modfs"),
		"GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=off", "TMPDIR="+s.t.TempDir())
	out, err := cmd.Output()
	results := make(map[string]result)
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e struct{ Action, Test, Output string }
		name, ok := "", false
		if json.Unmarshal(in.Bytes(), &e) == nil {
			name, ok = strings.CutPrefix(e.Test, "TestScript/")
		}
		if !ok || strings.Contains(name, "/") {
			continue
		}
		r := results[name]
		switch e.Action {
		case "output":
			r.output += e.Output
		case "pass", "fail", "skip":
			r.outcome = strings.ToUpper(e.Action)
		}
		results[name] = r
	}
	if log := os.Getenv("MODFS_CONFORMANCE_LOG"); log != "" {
		s.log(log, a, results)
	}
	for _, name := range scripts {
		if results[name].outcome == "" {
			s.t.Fatalf("script %s did not run: %v\n%s", name, err, out[max(0, len(out)-4000):])
		}
	}
	return results
}

// log appends what the scripts printed to a file, for the person who asked for it.
func (s *suite) log(name string, a arm, results map[string]result) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		s.t.Fatal("MODFS_CONFORMANCE_LOG: ", err)
	}
	defer f.Close()
	for _, script := range slices.Sorted(maps.Keys(results)) {
		r := results[script]
		fmt.Fprintf(f, "=== %s, modfs %q: %s\n%s", script, a.mount, r.outcome, r.output)
	}
}
