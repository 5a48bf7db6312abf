package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The conformance test runs the go command's own scripts (GOROOT/src/cmd/go/testdata/script), each once with a plain
// directory and once with its module cache on a mount, and wants the same outcome. Nothing of Go's source is kept here: the
// test of the scripts is taken from the GOROOT at hand and given one more line, which mounts.
//
// It takes minutes, so it runs only if MODFS_CONFORMANCE is set, to a regular expression of scripts' names.

// exceptions are the scripts whose very assertion a lazy module cache contradicts, with the reason.
var exceptions = map[string]string{
	"mod_list":                 "wants a module that nobody downloaded to have no directory",
	"mod_doc":                  "wants a module that nobody downloaded to have no directory",
	"mod_verify":               "wants a module that nobody downloaded to have no directory",
	"gotoolchain_local":        "wants the go command to say that it downloads the toolchain",
	"mod_bad_filenames":        "wants the words in which the go command refuses the zip; the mount does not offer it",
	"mod_load_badzip":          "a zip is found bad when it is opened, not when its directory is looked up",
	"mod_invalid_path_dotname": "its checksum database contradicts its go.sum: the daemon refuses the zip",
}

func TestConformance(t *testing.T) {
	pattern := os.Getenv("MODFS_CONFORMANCE")
	if pattern == "" {
		t.Skip("takes minutes: set MODFS_CONFORMANCE to a regular expression of scripts, e.g. '^mod_'")
	}
	requireFUSE(t)
	goroot := goEnv(t, "GOROOT")
	scripts := scriptNames(t, goroot, pattern)
	test := buildScriptTest(t, goroot)
	plain := runScripts(t, goroot, test, scripts, "")
	mounted := runScripts(t, goroot, test, scripts, "modfs mount --background --layout gopath --resolve client --log-level debug")
	same := 0
	for _, name := range scripts {
		reason, excepted := exceptions[name]
		switch {
		case plain[name] == mounted[name]:
			same++
			if excepted && plain[name] == "PASS" {
				t.Logf("%s passes, and need not be an exception", name)
			}
		case excepted:
			t.Logf("%s: %s, and on the mount %s: it %s", name, plain[name], mounted[name], reason)
		default:
			t.Errorf("%s: %s, and on the mount %s", name, plain[name], mounted[name])
		}
	}
	t.Logf("%d of %d scripts have the same outcome", same, len(scripts))
}

// scriptNames returns the scripts of a GOROOT that match a pattern.
func scriptNames(t *testing.T, goroot, pattern string) []string {
	re, err := regexp.Compile(pattern)
	if err != nil {
		t.Fatal("MODFS_CONFORMANCE: ", err)
	}
	files, err := filepath.Glob(filepath.Join(goroot, "src/cmd/go/testdata/script/*.txt"))
	if err != nil || len(files) == 0 {
		t.Skip("this GOROOT has no scripts: ", goroot)
	}
	var names []string
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".txt"); re.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Fatalf("no script matches MODFS_CONFORMANCE=%s", pattern)
	}
	return names
}

// mountHook is the file that the go command's test gets. Each script's mount is made before its first command, with its
// environment, and is gone after its last.
const mountHook = `package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cmd/internal/script"
)

func modfsMount(t *testing.T, s *script.State) func() {
	mount := os.Getenv("MODFS_MOUNT")
	if mount == "" {
		return func() {}
	}
	gopath, _ := s.LookupEnv("GOPATH")
	pkg := filepath.Join(gopath, "pkg")
	if err := os.MkdirAll(pkg, 0o777); err != nil {
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
	args := append(strings.Fields(mount)[1:], "--store", filepath.Join(store, "store"), pkg)
	if err := run("mount", args...); err != nil {
		t.Fatal(err)
	}
	return func() {
		for range 600 { // a process that the script started may be about to leave
			if err := run("unmount", "unmount", pkg); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		run("unmount", "unmount", "--lazy", pkg)
		t.Error("the mount is still in use")
	}
}
`

// buildScriptTest builds the test of GOROOT's go command with modfsMount in it.
func buildScriptTest(t *testing.T, goroot string) string {
	dir := t.TempDir()
	src := filepath.Join(goroot, "src", "cmd", "go")
	original := filepath.Join(src, "script_test.go")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	at, call := findRun(t, original, text)
	patched := slices.Concat(text[:at], []byte("defer modfsMount("+call+")()\n"), text[at:])
	replace := make(map[string]string)
	for name, data := range map[string][]byte{"script_test.go": patched, "modfs_test.go": []byte(mountHook)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(src, name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o666); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "go.test")
	cmd := exec.Command("go", "test", "-c", "-overlay", file, "-o", bin, "cmd/go")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test of cmd/go: %v\n%s", err, out)
	}
	return bin
}

// findRun returns the offset of the statement scripttest.Run(t, engine, state, …) in TestScript, and its t and state. A Go
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
		call = fmt.Sprintf("%v, %v", c.Args[0], c.Args[2])
		return true
	})
	if offset == 0 {
		t.Fatalf("%s has no statement scripttest.Run(t, engine, state, …): this test must be adapted to this Go version", name)
	}
	return offset, call
}

// runScripts returns the outcome of each script, PASS, FAIL or SKIP.
func runScripts(t *testing.T, goroot, test string, scripts []string, mount string) map[string]string {
	cmd := exec.Command(test, "-test.v", "-test.timeout=30m", "-test.run=TestScript/^("+strings.Join(scripts, "|")+")$")
	cmd.Dir = filepath.Join(goroot, "src", "cmd", "go")
	cmd.Env = append(os.Environ(), "MODFS_MOUNT="+mount, "MODFS_BIN="+filepath.Join(bin, "modfs"), "GOTOOLCHAIN=local",
		"GOFLAGS=", "GOWORK=off", "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	results := make(map[string]string)
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 16<<20)
	outcome := regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): TestScript/(\S+) `)
	for in.Scan() {
		if m := outcome.FindStringSubmatch(in.Text()); m != nil {
			results[m[2]] = m[1]
		}
	}
	if len(results) != len(scripts) {
		t.Fatalf("%d scripts of %d ran: %v\n%s", len(results), len(scripts), err, out[max(0, len(out)-4000):])
	}
	if mount != "" && t.Failed() || os.Getenv("MODFS_CONFORMANCE_LOG") != "" {
		os.WriteFile(os.Getenv("MODFS_CONFORMANCE_LOG"), out, 0o666) // best effort: for the person who asked for it
	}
	return results
}
