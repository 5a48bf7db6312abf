package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReliability checks that the tests are there which docs/reliability.md and SECURITY.md say keep their promises.
func TestReliability(t *testing.T) {
	var tests []byte
	for _, pattern := range []string{"../*/*_test.go", "../*/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests = append(tests, data...)
		}
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*|[a-z]+_[a-z_]+)(\\*?)`")
	row := regexp.MustCompile(`(?m)^\|.*\|$`)
	for _, doc := range []string{"../docs/reliability.md", "../SECURITY.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, line := range row.FindAll(text, -1) {
			cells := bytes.Split(bytes.Trim(line, "|"), []byte("|"))
			for _, m := range names.FindAllSubmatch(cells[len(cells)-1], -1) {
				name, more := string(m[1]), string(m[2])
				found++
				if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
					if more == "" {
						more = "("
					} else {
						more = ""
					}
					if !bytes.Contains(tests, []byte("\nfunc "+name+more)) {
						t.Errorf("%s names %s, and there is no such test", doc, name)
					}
				} else if scripts, _ := filepath.Glob("testdata/script/" + name + more + ".txtar"); len(scripts) == 0 {
					t.Errorf("%s names %s, and there is no such script", doc, name+more)
				}
			}
		}
		if found < 10 {
			t.Errorf("%s names only %d tests", doc, found)
		}
	}
}
