package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completed returns what `modfs ARGS...` is offered for the last of them, and what the shell is to do with that.
func completed(t *testing.T, args ...string) (offers []string, directive string) {
	t.Helper()
	var out, errs bytes.Buffer
	if status := execute(append([]string{"__completeNoDesc"}, args...), &out, &errs); status != 0 {
		t.Fatalf("%q: status %d: %s", args, status, &errs)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestCompleteFlags(t *testing.T) {
	const none, dirs, files = ":4", ":16", ":0"
	for _, test := range []struct {
		args      string
		offers    []string
		directive string
	}{
		{"mount --layout ", []string{"modcache", "gopath"}, none},
		{"run --log-level ", []string{"debug", "info", "warn", "error", "off"}, none},
		{"mount --store ", []string{}, dirs},
		{"mount --max-size ", []string{}, none},
		{"mount --client-cert ", []string{}, files},
		{"completion ", []string{"bash", "zsh", "fish"}, none},
		{"version ", []string{}, none},
		{"import ", []string{}, files},
		{"mount ", []string{}, files},
	} {
		offers, directive := completed(t, strings.Split(test.args, " ")...)
		if !slices.Equal(offers, test.offers) || directive != test.directive {
			t.Errorf("%s: %q %s, want %q %s", test.args, offers, directive, test.offers, test.directive)
		}
	}
}

func TestCompleteVersions(t *testing.T) {
	store := t.TempDir()
	for _, name := range []string{
		"example.com/a/@v/v1.0.0.zip", "example.com/a/@v/v1.0.0.mod", "example.com/a/@v/v1.1.0.info", "example.com/a/@v/list",
		"example.com/!big/@v/v2.0.0-!r!c.1.zip", "example.com/a/sub/@v/v0.1.0.zip", "other.example/b/@v/v3.0.0.zip",
	} {
		name = filepath.Join(store, "cache", "download", name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string][]string{
		"":                  {"example.com/Big@v2.0.0-RC.1", "example.com/a/sub@v0.1.0", "example.com/a@v1.0.0", "other.example/b@v3.0.0"},
		"example.com/a":     {"example.com/a/sub@v0.1.0", "example.com/a@v1.0.0"},
		"example.com/a@":    {"example.com/a@v1.0.0"},
		"example.com/a@v1.": {"example.com/a@v1.0.0"},
		"example.com/B":     {"example.com/Big@v2.0.0-RC.1"},
		"example.com/a@v2":  nil,
		"nothing":           nil,
	} {
		if got := residentVersions([]string{store}, prefix); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
	if got, _ := completed(t, "verify", "--store", store, "other"); !slices.Equal(got, []string{"other.example/b@v3.0.0"}) {
		t.Errorf("verify --store: %q", got)
	}
}

// TestCompleteAll checks that no command leaves it to chance what its arguments and flags are completed with.
func TestCompleteAll(t *testing.T) {
	root, _ := newRoot()
	for _, cmd := range root.Commands() {
		words := strings.Fields(cmd.Use)
		if len(words) == 1 && cmd.ValidArgsFunction == nil {
			t.Errorf("%s takes no arguments, and is offered files", cmd.Name())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			_, known := cmd.GetFlagCompletionFunc(f.Name)
			kind, _ := pflag.UnquoteUsage(f)
			if !known && f.NoOptDefVal == "" && kind != "file" && f.Annotations[cobra.BashCompSubdirsInDir] == nil {
				t.Errorf("%s --%s %s is offered files", cmd.Name(), f.Name, kind)
			}
		})
	}
}

func TestCompletionUsage(t *testing.T) {
	for _, args := range [][]string{{"completion"}, {"completion", "csh"}, {"completion", "bash", "zsh"}} {
		var out, errs bytes.Buffer
		if status := execute(args, &out, &errs); status != exitUsage || !strings.Contains(errs.String(), "want bash, zsh or fish") {
			t.Errorf("%q: status %d: %s", args, status, &errs)
		}
	}
}
