package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// block is a fenced code block of a Markdown file.
type block struct {
	line     int    // of its first line of code
	language string // "sh": commands that are run
	mark     string // of the comment right above it: "not run: REASON", "root: REASON" or none
	code     string
}

var (
	fence = regexp.MustCompile("^```(.*)$")
	mark  = regexp.MustCompile(`^<!-- ((?:not run|root): \S.*) -->$`)
)

// blocks returns the code blocks of a Markdown file. Code that is only indented is an error: nothing says what it is.
func blocks(text string) ([]block, error) {
	var (
		all   []block
		last  string // the line before, but for empty ones
		lines = strings.Split(text, "\n")
	)
	for i := 0; i < len(lines); i++ {
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			if strings.HasPrefix(lines[i], "    ") && i > 0 && lines[i-1] == "" {
				return nil, fmt.Errorf("line %d: indented code: put it between fences", i+1)
			}
			if strings.TrimSpace(lines[i]) != "" {
				last = lines[i]
			}
			continue
		}
		b := block{line: i + 2, language: m[1]}
		if m := mark.FindStringSubmatch(last); m != nil {
			b.mark = m[1]
		}
		for i++; i < len(lines) && lines[i] != "```"; i++ {
			b.code += lines[i] + "\n"
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the block does not end", b.line)
		}
		all, last = append(all, b), ""
	}
	return all, nil
}

// languages are those of blocks that are no commands.
var languages = map[string]bool{"text": true, "json": true, "jsonc": true, "yaml": true, "ini": true, "go": true, "toml": true, "promql": true}

// TestDocs runs the commands in the README and in docs: all blocks of a file in turn, in one shell, as somebody who follows it
// would. What cannot be run here has a comment above it that says why: <!-- not run: needs kubectl -->. What only root may do has
// <!-- root: REASON -->, and is run if the tests are.
func TestDocs(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../README.md") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if isolated() {
				t.Parallel() // else it would see the mounts of the others
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all, err := blocks(string(text))
			if err != nil {
				t.Fatal(err)
			}
			script := new(strings.Builder)
			for _, b := range all {
				switch {
				case b.language != "sh":
					if !languages[b.language] {
						t.Errorf("line %d: a block of language %q: want sh, which is run, or one of %v", b.line, b.language, languages)
					}
				case strings.HasPrefix(b.mark, "not run: "):
				case strings.HasPrefix(b.mark, "root: ") && !isolated():
				default:
					fmt.Fprintf(script, "echo \"=== line %d\" >&2\n%s", b.line, b.code)
				}
			}
			if script.Len() > 0 {
				runDoc(t, script.String())
			}
		})
	}
}

// isolated reports whether commands can have directories of this machine that are their own.
func isolated() bool { return os.Geteuid() == 0 && namespaces() }

// runDoc runs a script in a project, as a user who has modfs in PATH, and nothing mounted.
func runDoc(t *testing.T, script string) {
	fusetest.Require(t)
	if testing.Short() {
		t.Skip("-short: the commands of the documentation take seconds")
	}
	dir := t.TempDir()
	proxy := proxytest.New(t)
	if err := os.CopyFS(filepath.Join(dir, "project"), os.DirFS("testdata/project")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer cleanUp(t, dir, new(held))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shell := []string{"bash", "-e"}
	if isolated() {
		// What is of the system is thrown away with the namespace, and daemons end with it. Other mounts are not seen.
		script = "for m in $(awk '$1 ~ /^modfs:/ { print $2 }' /proc/mounts); do umount -l $m 2>/dev/null || :; done\n" +
			"for d in /srv /var/lib /var/cache /mnt; do mount -t tmpfs tmpfs $d; done\n" + script
		shell = append([]string{"unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"}, shell...)
	}
	cmd := exec.CommandContext(ctx, shell[0], shell[1:]...)
	cmd.Dir = filepath.Join(dir, "project")
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Join(dir, "home"), "PATH="+bin+":"+os.Getenv("PATH"), workEnv+"="+dir,
		"GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE=", "GOPATH=", "GOTOOLCHAIN=local", "GOTELEMETRY=off", "GOWORK=off", "GOFLAGS=-modcacherw",
		"XDG_CACHE_HOME=", "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, proxy.Env()...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("%s", &out)
	if err != nil {
		t.Error(err)
	}
}

func TestBlocks(t *testing.T) {
	got, err := blocks("# x\n\n```sh\na\n\nb\n```\n<!-- not run: needs x -->\n\n```sh\nc\n```\n<!-- not run: -->\n```yaml\nd\n```\n")
	want := []block{{4, "sh", "", "a\n\nb\n"}, {11, "sh", "not run: needs x", "c\n"}, {15, "yaml", "", "d\n"}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"```sh\na\n", "x\n\n    modfs run\n"} {
		if got, err := blocks(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// TestDocLinks follows the links from one file of the repository to another.
func TestDocLinks(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, file := range append(files, "../README.md", "../SECURITY.md", "../CHANGELOG.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := file
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(file), m[1])
			}
			to, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); err != nil && (statErr != nil || !info.IsDir()) {
				t.Errorf("%s: %s: %v", file, m[0], err)
				continue
			}
			found := m[2] == ""
			for _, h := range heading.FindAllStringSubmatch(string(to), -1) {
				found = found || m[2] == "#"+anchor(h[1])
			}
			if !found {
				t.Errorf("%s: %s: no such heading", file, m[0])
			}
		}
	}
}

// anchor is what a heading is called in links.
func anchor(heading string) string {
	kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(kept, " ", "-")
}
