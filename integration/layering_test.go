package integration

import (
	"os/exec"
	"strings"
	"testing"
)

// The layers of docs/design.md: who may import whom, and which of the outside world.
func TestLayers(t *testing.T) {
	forbidden := map[string][]string{
		"modfs/lru":         {"modfs/", "golang.org/x/mod", "github.com/hanwen", "net/http"},
		"modfs/fetch/flate": {"modfs/", "github.com/", "golang.org/", "os"},
		"modfs/fetch": {
			"modfs/lru", "modfs/fs", "modfs/cmd", "modfs/fetch/proxytest", "github.com/hanwen", "github.com/hashicorp",
		},
		"modfs/fs": {"modfs/cmd", "github.com/spf13"},
	}
	for pkg, names := range forbidden {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			for _, name := range names {
				if dep != pkg && strings.HasPrefix(dep, name) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
	}
	// Only these files join the network and the store.
	out, err := exec.Command("grep", "-lF", "f.client.", "-r", "../fs", "--include=*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range strings.Fields(string(out)) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		switch strings.TrimPrefix(file, "../fs/") {
		case "cache.go", "fill.go", "download.go", "answer.go", "fs.go", "control.go", "doubt.go", "bundle.go":
		case "progress.go", "why.go", "why_answer.go", "why_ask.go": // to say what is asked, and by which settings
		default:
			t.Errorf("%s asks upstream", file)
		}
	}
}
