package proxytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"
)

// get returns status, headers and body; err is that of the body if the header came.
func get(tb testing.TB, method, url string, header ...string) (*http.Response, []byte, error) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, data, err
}

func TestEndpoints(t *testing.T) {
	s := New(t)
	const info = `{"Version":"%s","Time":"2020-01-02T03:04:05Z"}`
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/example.com/b/@v/list", 200, "v1.0.0\nv1.1.0\n"},
		{"/example.com/b/@latest", 200, fmt.Sprintf(info, "v1.1.0")},
		{"/example.com/pseudo/@v/list", 200, ""},
		{"/example.com/pseudo/@latest", 200, fmt.Sprintf(info, "v0.0.0-20200102030405-abcdefabcdef")},
		{"/example.com/!upper/!case/@v/v1.0.0-!r!c.1.info", 200, fmt.Sprintf(info, "v1.0.0-RC.1")},
		{"/example.com/inc/@v/v2.0.0+incompatible.mod", 200, "module example.com/inc\n"},
		{"/example.com/inc/@v/v2.0.0+incompatible.zip", 200, string(s.ZipBytes("example.com/inc", "v2.0.0+incompatible"))},
		{"/sumdb/sum.example/supported", 200, ""},
		{"/sumdb/sum.example/lookup/example.com/no@v1.0.0", 404, "lookup example.com/no@v1.0.0: file does not exist\n"},
		{"/sumdb/sum.example/tile/8/0/x001/000", 404, "not found: beyond the tree\n"},
		{"/sumdb/other.example/supported", 404, "not found: /sumdb/other.example/supported\n"},
		{"/example.com/none/@v/list", 404, "not found: /example.com/none/@v/list\n"},
		{"/example.com/a/@v/v9.0.0.zip", 404, "not found: /example.com/a/@v/v9.0.0.zip\n"},
	} {
		resp, data, err := get(t, "GET", s.URL()+tt.path)
		if err != nil || resp.StatusCode != tt.code || string(data) != tt.want {
			t.Errorf("%s: %v, %.200q, %v", tt.path, resp, data, err)
		}
	}
	if n := s.Count("/example.com/b/"); n != 2 {
		t.Errorf("Count = %d, want 2; %q", n, s.Requests())
	}
	s.ResetRequests()

	url, zip := s.FaultURL("none")+"/example.com/a/@v/v1.0.0.zip", s.ZipBytes("example.com/a", "v1.0.0")
	resp, data, err := get(t, "HEAD", url)
	if err != nil || resp.ContentLength != int64(len(zip)) || len(data) != 0 || resp.Header.Get("ETag") == "" {
		t.Errorf("HEAD: %v, %q, %v", resp, data, err)
	}
	resp, data, err = get(t, "GET", url, "Range", "bytes=10-", "If-Range", resp.Header.Get("ETag"))
	if err != nil || resp.StatusCode != 206 || !bytes.Equal(data, zip[10:]) {
		t.Errorf("Range: %v, %v", resp, err)
	}
	if got := strings.Join(s.Requests(), ","); got != "HEAD /example.com/a/@v/v1.0.0.zip,GET /example.com/a/@v/v1.0.0.zip" {
		t.Errorf("Requests = %s", got)
	}
}

func TestModulesValid(t *testing.T) {
	s := New(t, append(Modules(), Toolchain("go1.99.0", "linux", "amd64", nil))...)
	for _, m := range append(Modules(), Toolchain("1.99.0", "linux", "amd64", nil)) {
		file := filepath.Join(t.TempDir(), "m.zip")
		if err := os.WriteFile(file, s.ZipBytes(m.Path, m.Version), 0o666); err != nil {
			t.Fatal(err)
		}
		v := module.Version{Path: m.Path, Version: m.Version}
		cf, err := modzip.CheckZip(v, file)
		if err == nil {
			err = cf.Err()
		}
		if err != nil || len(cf.Valid) != len(m.Files) {
			t.Errorf("%s: %d of %d files valid: %v", m, len(cf.Valid), len(m.Files), err)
		}
		if h, err := dirhash.HashZip(file, dirhash.Hash1); err != nil || h != s.ZipHash(m.Path, m.Version) {
			t.Errorf("%s: hash %s, want %s: %v", m, h, s.ZipHash(m.Path, m.Version), err)
		}
	}
	if n := len(s.find("example.com/many", "v1.0.0").Files); n != 200 {
		t.Errorf("many has %d files", n)
	}
	if zip := len(s.ZipBytes("example.com/large", "v1.0.0")); zip < 1<<20 || zip > 4<<20 {
		t.Errorf("large.zip has %d bytes", zip)
	}
}

func TestParse(t *testing.T) {
	m, err := Parse([]byte("Written by hand: example.com/x@v1.2.3\nMore.\n-- .info --\n{}\n-- .mod --\nmodule x\n-- x.go --\npackage x\n"))
	if err != nil || m.String() != "example.com/x@v1.2.3" || m.Info != "{}\n" || m.Mod != "module x\n" || len(m.Files) != 1 {
		t.Errorf("Parse = %+v, %v", m, err)
	}
	for _, bad := range []string{"", "example.com/x\n", "x@latest\n", "x@v1.0.0\n-- a --\n-- a --\n"} {
		if m, err := Parse([]byte(bad)); err == nil {
			t.Errorf("Parse(%q) = %+v", bad, m)
		}
	}
}

// dbOps is the least sumdb.ClientOps: a memory of one signed tree.
type dbOps struct {
	base, key string
	mu        sync.Mutex
	latest    []byte
}

func (o *dbOps) ReadRemote(path string) ([]byte, error) {
	resp, err := http.Get(o.base + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func (o *dbOps) ReadConfig(file string) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if file == "key" {
		return []byte(o.key), nil
	}
	return o.latest, nil
}

func (o *dbOps) WriteConfig(_ string, old, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !bytes.Equal(old, o.latest) {
		return sumdb.ErrWriteConflict
	}
	o.latest = data
	return nil
}

func (o *dbOps) ReadCache(string) ([]byte, error) { return nil, os.ErrNotExist }
func (o *dbOps) WriteCache(string, []byte)        {}
func (o *dbOps) Log(string)                       {}
func (o *dbOps) SecurityError(string)             {}

func TestSumDB(t *testing.T) {
	s := New(t)
	key, direct, _ := strings.Cut(s.SumDB(), " ")
	relay := "/sumdb/" + s.SumDBName()
	for _, base := range []string{direct, s.URL() + relay, s.FaultURL("sumdbwrong") + relay} {
		c := sumdb.NewClient(&dbOps{base: base, key: key})
		for _, m := range Modules() {
			zip, err := c.Lookup(m.Path, m.Version)
			if err != nil {
				t.Fatalf("%s: %s: %v", base, m, err)
			}
			mod, err := c.Lookup(m.Path, m.Version+"/go.mod")
			if err != nil {
				t.Fatalf("%s: %s: %v", base, m, err)
			}
			right := zip[0] == m.Path+" "+m.Version+" "+s.ZipHash(m.Path, m.Version) &&
				mod[0] == m.Path+" "+m.Version+"/go.mod "+s.ModHash(m.Path, m.Version)
			if wrong := strings.Contains(base, "wrong"); right == wrong {
				t.Errorf("%s: %s: %q, %q", base, m, zip, mod)
			}
		}
	}
	// The right tree and the wrong one are forks to whoever has seen both.
	ops := &dbOps{base: direct, key: key}
	if _, err := sumdb.NewClient(ops).Lookup("example.com/a", "v1.0.0"); err != nil {
		t.Fatal(err)
	}
	ops.base = s.FaultURL("sumdbwrong") + directPath
	if _, err := sumdb.NewClient(ops).Lookup("example.com/b", "v1.0.0"); err == nil {
		t.Error("fork: no error")
	}
}

func TestFaults(t *testing.T) {
	s := New(t)
	const zipPath, infoPath, modPath = "/example.com/a/@v/v1.0.0.zip", "/example.com/a/@v/v1.0.0.info", "/example.com/a/@v/v1.0.0.mod"
	zip := s.ZipBytes("example.com/a", "v1.0.0")
	for name, status := range faults {
		if status != 0 {
			if resp, _, err := get(t, "GET", s.FaultURL(name)+zipPath); err != nil || resp.StatusCode != status {
				t.Errorf("%s: %v, %v", name, resp, err)
			}
		}
	}
	for _, code := range []int{503, 200, 200} {
		if resp, _, err := get(t, "GET", s.FaultURL("503once")+zipPath); err != nil || resp.StatusCode != code {
			t.Errorf("503once: %v, %v, want %d", resp, err, code)
		}
	}
	for _, name := range []string{"slow", "redirect", "norange"} {
		resp, data, err := get(t, "GET", s.FaultURL(name)+zipPath)
		if err != nil || !bytes.Equal(data, zip) {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	if resp, data, err := get(t, "GET", s.FaultURL("norange")+zipPath, "Range", "bytes=1-"); err != nil ||
		resp.StatusCode != 200 || !bytes.Equal(data, zip) || resp.Header.Get("Accept-Ranges") != "" {
		t.Errorf("norange: %v, %v", resp, err)
	}
	if resp, data, err := get(t, "GET", s.FaultURL("truncate")+zipPath); !errors.Is(err, io.ErrUnexpectedEOF) ||
		resp.ContentLength != int64(len(zip)) || !bytes.Equal(data, zip[:len(zip)/2]) {
		t.Errorf("truncate: %v, %d bytes, %v", resp, len(data), err)
	}
	if resp, _, err := get(t, "GET", s.FaultURL("reset")+zipPath); err == nil {
		t.Errorf("reset: %v", resp)
	}
	if resp, data, err := get(t, "GET", s.FaultURL("tamper")+zipPath); err != nil || resp.StatusCode != 200 || bytes.Equal(data, zip) {
		t.Errorf("tamper: %v, %v", resp, err)
	}
	for name, want := range map[string]string{"html": "<!DOCTYPE html>", "badjson": `{"Version": `, "hugeinfo": `{"Version":"v1.0.0aaa`} {
		resp, data, err := get(t, "GET", s.FaultURL(name)+infoPath)
		if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(string(data), want) {
			t.Errorf("%s: %v, %.40q, %v", name, resp, data, err)
		}
		if name == "hugeinfo" && len(data) < hugeSize {
			t.Errorf("hugeinfo: %d bytes", len(data))
		}
	}
	if _, data, err := get(t, "GET", s.FaultURL("tamper")+modPath); err != nil || !strings.HasSuffix(string(data), "// tampered\n") {
		t.Errorf("tamper: %q, %v", data, err)
	}
	if resp, _, err := get(t, "GET", s.FaultURL("nosumdb")+"/sumdb/sum.example/supported"); err != nil || resp.StatusCode != 404 {
		t.Errorf("nosumdb: %v, %v", resp, err)
	}
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "redirect"
		}
		return "410"
	})
	if _, data, err := get(t, "GET", s.URL()+zipPath); err != nil || !bytes.Equal(data, zip) {
		t.Errorf("SetFault redirect: %v", err)
	}
	if resp, _, err := get(t, "GET", s.URL()+modPath); err != nil || resp.StatusCode != 410 {
		t.Errorf("SetFault 410: %v, %v", resp, err)
	}
}

// awaitStalled waits until n responses are stalled.
func awaitStalled(t *testing.T, s *Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); s.Stalled() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d responses stalled, want %d", s.Stalled(), n)
		}
	}
}

func TestStall(t *testing.T) {
	s := New(t)
	zip := s.ZipBytes("example.com/a", "v1.0.0")
	type answer struct {
		data []byte
		err  error
	}
	ask := func(ctx context.Context, fault string) <-chan answer {
		ch := make(chan answer, 1)
		req, err := http.NewRequestWithContext(ctx, "GET", s.FaultURL(fault)+"/example.com/a/@v/v1.0.0.zip", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				ch <- answer{nil, err}
				return
			}
			defer resp.Body.Close()
			data, err := io.ReadAll(resp.Body)
			ch <- answer{data, err}
		}()
		return ch
	}
	a, b := ask(t.Context(), "stall"), ask(t.Context(), "stallbody")
	awaitStalled(t, s, 2)
	s.Release()
	for _, ch := range []<-chan answer{a, b} {
		if got := <-ch; got.err != nil || !bytes.Equal(got.data, zip) {
			t.Errorf("released: %d bytes, %v", len(got.data), got.err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	a = ask(ctx, "stallbody")
	awaitStalled(t, s, 1)
	cancel()
	if got := <-a; got.err == nil {
		t.Error("canceled: no error")
	}
	awaitStalled(t, s, 0)
	a = ask(t.Context(), "stall")
	awaitStalled(t, s, 1)
	s.Close()
	if got := <-a; got.err == nil {
		t.Error("closed: no error")
	}
}

// TestGo has the go command itself judge the proxy and the database, reached directly and through the proxy.
func TestGo(t *testing.T) {
	goCmd, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command: ", err)
	}
	s := New(t)
	for _, tt := range []struct{ proxy, sumdb, fail string }{
		{s.URL(), s.SumDB(), ""},
		{s.URL(), s.SumDBKey(), ""},
		{s.FaultURL("tamper"), s.SumDB(), "SECURITY ERROR"},
		{s.FaultURL("sumdbwrong"), s.SumDBKey(), "SECURITY ERROR"},
	} {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), goCmd, "mod", "download", "-modcacherw",
			"example.com/b@v1.1.0", "example.com/Upper/Case@v1.0.0-RC.1", "example.com/odd@v1.0.0")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), s.Env()...)
		cmd.Env = append(cmd.Env, "GOPATH="+dir, "GOMODCACHE="+filepath.Join(dir, "mod"), "GOENV=off", "GOWORK=off",
			"GOPROXY="+tt.proxy, "GOSUMDB="+tt.sumdb, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
		out, err := cmd.CombinedOutput()
		if (err != nil) != (tt.fail != "") || !strings.Contains(string(out), tt.fail) {
			t.Errorf("%s %s: %v\n%s", tt.proxy, tt.sumdb, err, out)
		}
	}
}
