package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/rogpeppe/go-internal/goproxytest"
	"golang.org/x/mod/module"

	"modfs/fetch/proxytest"
)

// Versions of the module proxies that are built for the tests of this file, by `go install` with the user's own settings. They are no
// dependencies of ours. Where they cannot be had, their tests are skipped; MODFS_INTEROP_BIN may name a directory with their
// binaries, goproxy and athens-proxy, instead.
const (
	goproxyPackage = "github.com/goproxy/goproxy/cmd/goproxy@v0.26.1"
	athensPackage  = "github.com/gomods/athens/cmd/proxy@v0.18.0"
)

// moduleProxy is a module proxy that others wrote. It gets its modules from a proxytest.Server, or has copies of what that has.
type moduleProxy struct {
	name  string
	start func(t *testing.T, s *proxytest.Server, mods []proxytest.Module) (url string)

	sumdb   bool          // offers the checksum database
	latest  bool          // has @latest
	queries bool          // knows what a branch stands for
	live    bool          // asks the server, so what that has now is there
	down    syscall.Errno // what comes of a module when the server answers 503; 0 if it is not live
	resumes string        // a download that was cut off is continued: "always", or "perhaps"; "": it starts over
}

var moduleProxies = []moduleProxy{
	{name: "goproxy", start: startGoproxy, sumdb: true, latest: true, queries: true, live: true, down: syscall.ENOENT, resumes: "perhaps"},
	{name: "athens", start: startAthens, latest: true, queries: true, live: true, down: syscall.ENOENT},
	{name: "goproxytest", start: startGoproxytest, latest: true, queries: true},
	{name: "nginx", start: startNginxTree, queries: true, resumes: "always"},
	{name: "nginx cache", start: startNginxCache, sumdb: true, latest: true, queries: true, live: true, down: syscall.EIO, resumes: "always"},
	{name: "go file", start: startGoFiles},
	{name: "go http", start: startGoHTTP, resumes: "always"},
}

// The commands that are built: paths, or why there are none.
var (
	goproxyCommand = sync.OnceValues(func() (string, error) { return built("goproxy", goproxyPackage) })
	athensCommand  = sync.OnceValues(func() (string, error) { return built("athens-proxy", athensPackage) })
)

// built returns the path of a command that was built before, or builds it, below the user's cache directory.
func built(name, pkg string) (string, error) {
	if dir := os.Getenv("MODFS_INTEROP_BIN"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	element, version, _ := strings.Cut(path.Base(pkg), "@")
	dir := filepath.Join(cache, "modfs-interop", name+"-"+version)
	bin := filepath.Join(dir, element)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", pkg)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %v\n%s", pkg, err, out)
	}
	return bin, nil
}

// serveWith runs a server until t ends, and returns when it listens at addr. What it prints is logged if the test fails.
func serveWith(t *testing.T, addr string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() // that it was killed is no news
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s does not end", name)
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("%s:\n%.20000s", filepath.Base(name), out.String())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", name, out.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", name, err)
		}
	}
}

// freeAddr returns an address of loopback that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startGoproxy runs github.com/goproxy/goproxy with the server as its upstream.
func startGoproxy(t *testing.T, s *proxytest.Server, _ []proxytest.Module) string {
	return goproxyOf(t, s, s.URL())
}

// goproxyOf runs goproxy with some other upstream. It verifies what it gets, and relays the checksum database.
func goproxyOf(t *testing.T, s *proxytest.Server, upstream string) string {
	t.Helper()
	bin, err := goproxyCommand()
	if err != nil {
		t.Skip("goproxy cannot be built: ", err)
	}
	addr, dir := freeAddr(t), t.TempDir()
	_, direct, _ := strings.Cut(s.SumDB(), " ")
	env := append(s.Env(), "GOPROXY="+upstream, "HOME="+dir, "GOPATH="+filepath.Join(dir, "go"))
	serveWith(t, addr, env, bin, "server", "--address", addr, "--cacher-dir", filepath.Join(dir, "cache"), "--temp-dir", dir,
		"--proxied-sumdbs", s.SumDBName()+" "+direct)
	return "http://" + addr
}

// startAthens runs github.com/gomods/athens, which gets modules by the go command, from the server. To build it takes minutes.
func startAthens(t *testing.T, s *proxytest.Server, _ []proxytest.Module) string {
	if !nightly && os.Getenv("MODFS_INTEROP_BIN") == "" {
		t.Skip("takes minutes to build; only with MODFS_NIGHTLY=1")
	}
	bin, err := athensCommand()
	if err != nil {
		t.Skip("athens cannot be built: ", err)
	}
	addr, dir := freeAddr(t), t.TempDir()
	storage := filepath.Join(dir, "storage")
	if err := os.Mkdir(storage, 0o755); err != nil {
		t.Fatal(err)
	}
	// Separated by semicolons; the key of the database has none.
	goEnv := strings.Join([]string{"GOPROXY=" + s.URL(), "GOSUMDB=" + s.SumDB(), "GOTOOLCHAIN=local", "GOFLAGS=-modcacherw"}, ";")
	serveWith(t, addr, []string{"ATHENS_PORT=" + addr, "ATHENS_STORAGE_TYPE=disk", "ATHENS_DISK_STORAGE_ROOT=" + storage, "ATHENS_GO_BINARY_ENV_VARS=" + goEnv,
		"ATHENS_SUM_DBS=", "ATHENS_NETWORK_MODE=strict", "ATHENS_DOWNLOAD_MODE=sync", "ATHENS_LOG_LEVEL=warning", "HOME=" + dir, "GOPATH=" + filepath.Join(dir, "go"), "TMPDIR=" + dir}, bin)
	return "http://" + addr
}

// startGoproxytest runs the test proxy of github.com/rogpeppe/go-internal on copies of the modules.
func startGoproxytest(t *testing.T, s *proxytest.Server, mods []proxytest.Module) string {
	dir := t.TempDir()
	for _, m := range mods {
		path, version := escaped(t, m)
		at := filepath.Join(dir, strings.ReplaceAll(path, "/", "_")+"_"+version)
		for name, content := range m.Files {
			writeFile(t, filepath.Join(at, filepath.FromSlash(name)), []byte(content))
		}
		for _, ext := range []string{".info", ".mod"} {
			writeFile(t, filepath.Join(at, ext), proxytest.Get(t, s.URL()+"/"+path+"/@v/"+version+ext))
		}
	}
	return goproxytest.NewTestServer(t, dir, "127.0.0.1:0").URL
}

// startNginxTree has nginx serve a tree of files.
func startNginxTree(t *testing.T, s *proxytest.Server, mods []proxytest.Module) string {
	return nginxHTTP(t, "root "+proxyTree(t, s, mods)+";")
}

// startNginxCache has nginx relay the server, and remember for a while what that has answered.
func startNginxCache(t *testing.T, s *proxytest.Server, _ []proxytest.Module) string {
	return nginxHTTP(t, "proxy_pass "+s.URL()+"; proxy_http_version 1.1; proxy_cache all; proxy_cache_valid 200 1m;")
}

// nginxHTTP runs nginx with a location, and returns its URL. Whatever can be compressed is.
func nginxHTTP(t *testing.T, location string) string {
	t.Helper()
	bin := nginxProgram(t)
	dir, addr := t.TempDir(), freeAddr(t)
	var b strings.Builder
	if os.Geteuid() == 0 {
		b.WriteString("user root;\n") // another one could not read our directory
	}
	fmt.Fprintf(&b, "daemon off; worker_processes 1; pid %s/pid; error_log stderr; events {}\nhttp {\n access_log off;\n", dir)
	for _, use := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, " %s_temp_path %s/%s;\n", use, dir, use)
	}
	fmt.Fprintf(&b, " proxy_cache_path %s/cache keys_zone=all:1m;\n gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;\n", dir)
	fmt.Fprintf(&b, " server { listen %s; location / { %s } }\n}\n", addr, location)
	conf := filepath.Join(dir, "nginx.conf")
	writeFile(t, conf, []byte(b.String()))
	serveWith(t, addr, nil, bin, "-e", "stderr", "-p", dir, "-c", conf)
	return "http://" + addr
}

// startGoFiles has the go command download the modules: its module cache is a tree of a proxy's files.
func startGoFiles(t *testing.T, s *proxytest.Server, mods []proxytest.Module) string {
	return "file://" + goTree(t, s, mods)
}

// startGoHTTP serves the same by HTTP, as net/http serves files.
func startGoHTTP(t *testing.T, s *proxytest.Server, mods []proxytest.Module) string {
	return serveFiles(t, aged(t, goTree(t, s, mods)))
}

// aged gives the files of a tree a date of long ago: one of this second would not do to continue a download.
func aged(t *testing.T, dir string) string {
	t.Helper()
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chtimes(p, old, old)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func goTree(t *testing.T, s *proxytest.Server, mods []proxytest.Module) string {
	t.Helper()
	return goTreeOf(t, s.Env(), mods)
}

// goTreeOf has the go command download modules with its settings from env, and returns where they are as in a proxy.
func goTreeOf(t *testing.T, env []string, mods []proxytest.Module) string {
	t.Helper()
	gopath := t.TempDir() // it has the newest tree of the checksum database, too
	cache := filepath.Join(gopath, "mod")
	args := []string{"mod", "download"}
	for _, m := range mods {
		if module.CanonicalVersion(m.Version) == m.Version {
			args = append(args, m.String())
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(slices.Concat(os.Environ(), env), "GOPATH="+gopath, "GOMODCACHE="+cache, "GOFLAGS=-modcacherw", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
	return filepath.Join(cache, "cache", "download")
}

func serveFiles(t *testing.T, dir string) string {
	ts := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(ts.Close)
	return ts.URL
}

// proxyTree writes what the server has of modules to a directory.
func proxyTree(t *testing.T, s *proxytest.Server, mods []proxytest.Module) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range mods {
		path, version := escaped(t, m)
		elems := []string{path + "/@v/list", path + "/@v/" + version + ".info"}
		if module.CanonicalVersion(m.Version) == m.Version {
			elems = append(elems, path+"/@v/"+version+".mod", path+"/@v/"+version+".zip")
		}
		for _, elem := range elems {
			writeFile(t, filepath.Join(dir, filepath.FromSlash(elem)), proxytest.Get(t, s.URL()+"/"+elem))
		}
	}
	return dir
}

func escaped(t *testing.T, m proxytest.Module) (path, version string) {
	t.Helper()
	path, err := module.EscapePath(m.Path)
	if err != nil {
		t.Fatal(err)
	}
	if version, err = module.EscapeVersion(m.Version); err != nil {
		t.Fatal(err)
	}
	return path, version
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// cutter is between a mount and a proxy. It cuts off the first download of a file, and notes how that goes on.
type cutter struct {
	url  string
	file string // ends the path of what is cut off

	mu    sync.Mutex
	cut   bool
	asked []string // for the file: method and range, and the status and length of the answer
}

// cutAfter is how many bytes come of the file that is cut off.
const cutAfter = 1 << 20

func newCutter(t *testing.T, to, file string) *cutter {
	t.Helper()
	base, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &cutter{file: file}
	ts := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:        func(p *httputil.ProxyRequest) { p.SetURL(base) },
		ModifyResponse: r.answer,
		ErrorLog:       log.New(io.Discard, "", 0),
	})
	t.Cleanup(ts.Close)
	r.url = ts.URL
	return r
}

func (r *cutter) answer(resp *http.Response) error {
	if !strings.HasSuffix(resp.Request.URL.Path, r.file) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	whole := resp.Request.Method == http.MethodGet && resp.Request.Header.Get("Range") == ""
	r.asked = append(r.asked, fmt.Sprintf("%s %q: %d, %d bytes", resp.Request.Method, resp.Request.Header.Get("Range"), resp.StatusCode, resp.ContentLength))
	if whole && !r.cut {
		r.cut = true
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(resp.Body, cutAfter), iotest.ErrReader(io.ErrUnexpectedEOF)), resp.Body}
	}
	return nil
}

// log returns what was asked for the file.
func (r *cutter) log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}
