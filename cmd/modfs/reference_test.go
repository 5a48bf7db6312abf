package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReferenceUsage compares the usage texts in docs/reference.md with what the program prints. A block there begins with
// the command line that prints it.
func TestReferenceUsage(t *testing.T) {
	reference, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```text\n\\$ modfs (help[a-z ]*)\n(.*?)^```$").FindAllSubmatch(reference, -1)
	seen := make(map[string]bool)
	for _, b := range blocks {
		args := strings.Fields(string(b[1]))
		seen[strings.Join(args, " ")] = true
		var out bytes.Buffer
		if status := execute(args, &out, &out); status != 0 {
			t.Errorf("modfs %s: exit status %d: %s", b[1], status, &out)
		}
		if got, want := strings.TrimSpace(out.String()), strings.TrimSpace(string(b[2])); got != want {
			t.Errorf("docs/reference.md's block of modfs %s differs; the program prints:\n%s", b[1], got)
		}
	}
	root, _ := newRoot()
	want := []string{"help"}
	for _, cmd := range root.Commands() {
		if cmd.HasAvailableFlags() {
			want = append(want, "help "+cmd.Name())
		}
	}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("docs/reference.md has no block that begins with: $ modfs %s", w)
		}
	}
}
