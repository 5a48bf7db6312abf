package integration

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"modfs/fetch"
	"modfs/fs/fusetest"
)

// awkward are modules whose names or trees have tripped caches up: capitals, major versions that are in the path, in a
// suffix and in neither, pseudo-versions, pre-releases, and one that is only a go.mod.
var awkward = []string{
	"github.com/BurntSushi/toml@v1.4.1-0.20240526193622-a339e1f7089c",
	"github.com/cenkalti/backoff@v2.2.1+incompatible",
	"github.com/cenkalti/backoff/v5@v5.0.3",
	"gopkg.in/yaml.v3@v3.0.1",
	"gopkg.in/check.v1@v1.0.0-20161208181325-20d25e280405",
	"github.com/Masterminds/semver/v3@v3.2.1",
	"github.com/Azure/go-autorest@v14.2.0+incompatible",
	"golang.org/x/mod@v0.42.0",
	"rsc.io/quote@v1.5.2",
	"github.com/hashicorp/golang-lru/v2@v2.0.7",
}

// TestRealModules compares what the mount shows of real modules, from the user's own proxy, with what the go command makes
// of them in a plain directory: names, modes and bytes.
func TestRealModules(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("asks the real module proxy; not with -short")
	}
	c, err := fetch.Settings(t.Context(), nil)
	if err != nil {
		t.Skip("no settings: ", err)
	}
	fusetest.Require(t)
	plain := filepath.Join(t.TempDir(), "plain")
	t.Cleanup(func() { makeWritable(plain) })
	download := exec.Command("go", append([]string{"mod", "download", "-json"}, awkward...)...)
	download.Env = append(os.Environ(), "GOMODCACHE="+plain, "GOFLAGS=", "GOTOOLCHAIN=local")
	download.Dir = t.TempDir()
	out, err := download.Output()
	if err != nil {
		t.Skipf("go mod download from the module proxy: %v\n%s", err, out)
	}
	mnt, store := t.TempDir(), filepath.Join(t.TempDir(), "store")
	run(t, "modfs", "mount", "--background", "--read-only", "--proxy", c.Proxy, "--store", store, mnt)
	t.Cleanup(func() { run(t, "modfs", "unmount", "--lazy", mnt) })

	dec := json.NewDecoder(bytes.NewReader(out))
	for dec.More() {
		var m struct{ Path, Version, Dir, Info, GoMod, Zip string }
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{m.Info, m.GoMod, m.Zip, m.Zip + "hash"} {
			if file == "hash" || file == "" {
				t.Fatalf("go mod download did not name all files: %+v", m)
			}
			sameFile(t, file, strings.Replace(file, plain, mnt, 1))
		}
		sameTree(t, m.Dir, strings.Replace(m.Dir, plain, mnt, 1))
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if name == "modfs" {
		name = filepath.Join(bin, name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// makeWritable lets a module cache be removed.
func makeWritable(dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o755)
		}
		return nil
	})
}

func sameFile(t *testing.T, want, got string) {
	t.Helper()
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	g, err := os.ReadFile(got)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(g, w) {
		t.Errorf("%s differs", got)
	}
}

// sameTree compares two trees: names, types, permissions and bytes, and that all of one is in the other.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	walk := func(dir string) map[string]string {
		files := make(map[string]string)
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			content := ""
			if err == nil && fi.Mode().IsRegular() {
				var data []byte
				data, err = os.ReadFile(p)
				content = string(data)
			}
			files[rel] = fi.Mode().String() + "\n" + content
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return files
	}
	w, g := walk(want), walk(got)
	for name, content := range w {
		if g[name] != content {
			t.Errorf("%s: %s differs", got, name)
		}
	}
	if len(g) != len(w) {
		t.Errorf("%s: %d names, not %d", got, len(g), len(w))
	}
}
