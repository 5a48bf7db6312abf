package fs

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestModules compares every module, whole, with what the go command would have in its cache.
func TestModules(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	for _, m := range proxytest.Modules() {
		wantTree(t, s, dir, m)
		v := version(m)
		for key, want := range map[string]string{
			infoKey(v):    m.Info,
			modKey(v):     m.Mod,
			zipKey(v):     string(s.ZipBytes(m.Path, m.Version)),
			zipHashKey(v): s.ZipHash(m.Path, m.Version),
		} {
			fi, err := os.Stat(in(dir, key))
			if err != nil {
				t.Error(err)
				continue
			}
			if got := readFile(t, in(dir, key)); got != want || fi.Size() != int64(len(want)) || fi.Mode() != fileMode {
				t.Errorf("%s: %v, %d bytes %.60q, want %d bytes %.60q", key, fi.Mode(), fi.Size(), got, len(want), want)
			}
		}
	}
	fi, err := os.Stat(in(dir, "example.com/a@v1.0.0/sub/sub.go"))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC); !fi.ModTime().Equal(want) {
		t.Errorf("mtime %v, want that of the .info, %v", fi.ModTime(), want)
	}
	if n := f.errors.count(); n > 0 {
		t.Errorf("%d errors: %s", n, f.errors.lines())
	}
}

// TestReadAnywhere reads parts of a file of each kind: in memory, in the spool, and a zip.
func TestReadAnywhere(t *testing.T) {
	m := big()
	s := proxytest.New(t, m)
	dir, _ := mountTest(t, s, nil)
	for p, want := range map[string]string{
		"example.com/big@v1.0.0/medium.txt":            m.Files["medium.txt"],
		"example.com/big@v1.0.0/large.txt":             m.Files["large.txt"],
		"cache/download/example.com/big/@v/v1.0.0.zip": string(s.ZipBytes(m.Path, m.Version)),
		"cache/download/example.com/big/@v/v1.0.0.mod": m.Files["go.mod"],
	} {
		file, err := os.Open(in(dir, p))
		if err != nil {
			t.Error(err)
			continue
		}
		defer file.Close()
		size := int64(len(want))
		for _, r := range []struct{ off, n int64 }{{size - 1, 10}, {size, 10}, {size + 1<<20, 10}, {size / 2, 1}, {0, 7}, {size / 3, size / 3}} {
			buf := make([]byte, r.n)
			n, err := file.ReadAt(buf, r.off)
			from, to := min(r.off, size), min(r.off+r.n, size)
			if string(buf[:n]) != want[from:to] || (err == io.EOF) != (r.off+r.n > size) || err != nil && err != io.EOF {
				t.Errorf("%s: %d bytes at %d: %d, %v", p, r.n, r.off, n, err)
			}
		}
	}
}

// TestToolchain runs a program in a toolchain, which the go command unpacks like no other module.
func TestToolchain(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no shell: ", err)
	}
	m := proxytest.Toolchain("1.99.0", "linux", "amd64", nil)
	s := proxytest.New(t, m)
	dir, _ := mountTest(t, s, nil)
	root := in(dir, m.String())
	got := snapshot(t, root)
	for p, content := range m.Files {
		mode := "-r--r--r-- "
		switch p {
		case "bin/go", "bin/gofmt", "pkg/tool/linux_amd64/compile":
			mode = "-r-xr-xr-x "
		}
		if got[p] != mode+content {
			t.Errorf("%s: %.60q, want %.60q", p, got[p], mode+content)
		}
	}
	if got["src/go.mod"] != got["src/_go.mod"] {
		t.Errorf("src/go.mod: %q", got["src/go.mod"])
	}
	// Not exec.Command(bin/go): between fork and exec the runtime of this process stands still, and could not serve the
	// file. The shell is another process by then.
	out, err := exec.Command("sh", "-c", `"$0" "$@"`, in(root, "bin/go"), "env", "GOROOT").CombinedOutput()
	if err != nil || string(out) != "fake go 1.99.0 env GOROOT\n" {
		t.Errorf("bin/go: %q, %v", out, err)
	}
}
