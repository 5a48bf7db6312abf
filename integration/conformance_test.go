package integration

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"modfs/fs/fusetest"
)

// The conformance test runs the go command's own scripts (GOROOT/src/cmd/go/testdata/script), each with its module cache on a
// read-write mount and on a read-only one, and wants the outcome that it has with a plain directory. Nothing of Go's source is
// kept here: the test of the scripts is taken from the GOROOT at hand and given one more line, which mounts.
//
// It takes minutes, so it runs only if these are set:
//
//	MODFS_CONFORMANCE        regular expression of the scripts' names
//	MODFS_CONFORMANCE_TABLE  "1": write docs/compatibility.md's table anew, which else is compared with what came out
//	MODFS_CONFORMANCE_LOG    file to append to what the scripts print

// lazyLines are the commands of scripts that a lazy module cache contradicts by design: they assert that what nobody
// downloaded is not there, or that the go command says that it is downloading. They are left out of the scripts on mounts.
var lazyLines = map[string][]string{
	"mod_verify":             {"! exists $GOPATH/pkg/mod/cache/download/rsc.io/quote/@v/v1.1.0.zip"},
	"gotoolchain_net":        {`stderr 'go: downloading go1.999testmod \(.*/.*\)'`},
	"gotoolchain_local":      {`stderr '^go: downloading rsc.io/fortune v1.0.0$'`},
	"gotoolchain_issue66175": {`stderr 'go: downloading go1.22.0 '`},
}

// readOnly says why scripts have another outcome on a read-only mount than with a plain directory, although the go command
// wants to write nothing there, or does without.
var readOnly = map[string]string{
	"mod_doc":                         absent,
	"mod_download":                    absent,
	"mod_list":                        absent,
	"mod_retract":                     absent,
	"mod_sum_readonly":                absent,
	"mod_verify":                      absent,
	"work_why_download_graph":         absent,
	"mod_download_too_many_redirects": settings,
	"mod_list_update_nolatest":        settings,
	"mod_proxy_list":                  settings,
	"mod_sum_absent":                  settings,
	"mod_sumdb":                       settings,
	"mod_sumdb_cache":                 settings,
	"mod_bad_filenames":               database,
	"mod_invalid_path_dotname":        database,
	"mod_load_badzip":                 database,
	"mod_list_pseudo":                 "wants the list that a go command writes; the mount has the proxy's",
}

const (
	lazy     = "runs but for the lines that a lazy module cache contradicts"
	writes   = "wants to write to the module cache: the go command says `read-only file system`"
	absent   = "wants that nothing is there that was not downloaded; a read-only mount shows all that the proxy has"
	settings = "gives the go command other settings than the daemon has, which resolves under its own on a read-only mount"
	database = "has a checksum database that knows other hashes than the proxy's zips have; the daemon refuses those"
)

var arms = struct{ plain, readWrite, readOnly arm }{
	readWrite: arm{"pkg", "mount --background --layout gopath --log-level debug"},
	readOnly:  arm{"pkg/mod", "mount --background --read-only --log-level debug"},
}

// row is a line of the table in docs/compatibility.md.
type row struct{ script, plain, readWrite, readOnly, why string }

func TestConformance(t *testing.T) {
	pattern := os.Getenv("MODFS_CONFORMANCE")
	if pattern == "" {
		t.Skip("takes minutes: set MODFS_CONFORMANCE to a regular expression of scripts, e.g. '^mod_'")
	}
	fusetest.Require(t)
	s := newSuite(t, goEnv(t, "GOROOT"))
	for name, lines := range lazyLines {
		s.leaveOut(name, lines)
	}
	scripts := s.names(pattern)
	var rw, ro map[string]result
	var both sync.WaitGroup // a script waits about as long as it computes
	both.Go(func() { rw = s.run(arms.readWrite, scripts) })
	both.Go(func() { ro = s.run(arms.readOnly, scripts) })
	both.Wait()
	if t.Failed() {
		return
	}

	// What passes on both mounts need not be run without: lines left out apart, it is the same script.
	update := os.Getenv("MODFS_CONFORMANCE_TABLE") == "1"
	plain := s.run(arms.plain, slices.DeleteFunc(slices.Clone(scripts), func(name string) bool {
		return !update && lazyLines[name] == nil && rw[name].outcome == "PASS" && ro[name].outcome == "PASS"
	}))
	var rows []row
	for _, name := range scripts {
		r := row{name, cmp.Or(plain[name].outcome, "PASS"), rw[name].outcome, ro[name].outcome, ""}
		if r.plain == "FAIL" {
			t.Errorf("%s fails with a plain directory:\n%s", name, tail(plain[name].output))
		}
		if r.readWrite != r.plain {
			t.Errorf("%s: %s, on a read-write mount %s:\n%s", name, r.plain, r.readWrite, tail(rw[name].output))
		}
		if lazyLines[name] != nil {
			r.why = lazy
		}
		// A script that is skipped halfway may not have come so far.
		if r.readOnly != r.plain && r.plain != "SKIP" {
			why, ok := readOnly[name]
			if refused(ro[name].output) {
				why, ok = writes, true
			}
			if !ok || r.readOnly != "FAIL" {
				t.Errorf("%s: %s, on a read-only mount %s:\n%s", name, r.plain, r.readOnly, tail(ro[name].output))
			}
			r.why = strings.TrimPrefix(r.why+"; read-only: "+why, "; ")
		} else if readOnly[name] != "" && r.plain == "PASS" {
			t.Errorf("%s passes on a read-only mount, and need not be an exception", name)
		}
		rows = append(rows, r)
	}
	if update {
		writeTable(t, rows)
	} else {
		compareTable(t, rows)
	}
	t.Logf("%d scripts", len(scripts))
}

// refused reports whether a script failed because its module cache could not be written to: whether that was said by the
// command that failed it or the one before, which it may be a check of.
func refused(output string) bool {
	end := strings.Index(output, "FAIL: testdata/script/")
	if end < 0 {
		return false
	}
	end += strings.IndexByte(output[end:]+"\n", '\n')
	commands := strings.Split(output[:end], "\n        > ")
	n := len(commands)
	// Checks follow one another.
	for n > 1 && regexp.MustCompile(`^(! )?(stderr|stdout|exists|grep|cmp|cmpenv|cp|env) `).MatchString(commands[n-1]) {
		if strings.Contains(commands[n-1], syscallEROFS) {
			return true
		}
		n--
	}
	return strings.Contains(commands[n-1], syscallEROFS)
}

const syscallEROFS = "read-only file system"

// tail is the end of what a script printed, for a message.
func tail(output string) string { return output[max(0, len(output)-3000):] }

// The table is all that follows a line with these words.
const (
	tableFile = "../docs/compatibility.md"
	tableMark = "| script | plain directory | read-write | read-only | why |"
)

func (r row) String() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.script, r.plain, r.readWrite, r.readOnly, r.why)
}

// readTable returns what precedes the table, its rows, and for which version of Go they are.
func readTable(t *testing.T) (before string, rows map[string]row, version string) {
	data, err := os.ReadFile(filepath.FromSlash(tableFile))
	if err != nil {
		t.Fatal(err)
	}
	before, table, ok := strings.Cut(string(data), tableMark)
	if !ok {
		t.Fatalf("%s has no table %q", tableFile, tableMark)
	}
	rows = make(map[string]row)
	for line := range strings.Lines(table) {
		if cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"); len(cells) == 5 {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows[cells[0]] = row{cells[0], cells[1], cells[2], cells[3], cells[4]}
		}
	}
	return before, rows, versionLine.FindString(before)
}

var versionLine = regexp.MustCompile(`go1\.[0-9.]+`)

// compareTable checks that the table tells what came out. Which scripts are skipped depends on the machine.
func compareTable(t *testing.T, rows []row) {
	_, table, version := readTable(t)
	if version != runtime.Version() {
		t.Logf("%s is for %s, this is %s", tableFile, version, runtime.Version())
		return
	}
	var wrong []string
	for _, r := range rows {
		if old := table[r.script]; r.plain != "SKIP" && old.plain != "SKIP" && old != r {
			wrong = append(wrong, r.String())
		}
	}
	if len(wrong) > 0 {
		t.Errorf("%s is wrong: run this test with MODFS_CONFORMANCE_TABLE=1. These rows should be in it:\n%s", tableFile, strings.Join(wrong, "\n"))
	}
}

// writeTable replaces the rows of the table by those that came out, and leaves those of other scripts.
func writeTable(t *testing.T, rows []row) {
	before, table, version := readTable(t)
	if version != runtime.Version() {
		clear(table)
	}
	for _, r := range rows {
		table[r.script] = r
	}
	var b strings.Builder
	b.WriteString(versionLine.ReplaceAllString(before, runtime.Version()) + tableMark + "\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(table)) {
		fmt.Fprintln(&b, table[name])
	}
	if err := os.WriteFile(filepath.FromSlash(tableFile), []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}
