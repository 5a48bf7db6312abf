package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// kinds are the files that a proxy is asked for.
var kinds = []string{"zip", "mod", "info", "list"}

// faulty is a proxy with a fault for one kind of file of a module, which the module's path names: of
// example.com/FAULT/KIND, unless it was healed.
type faulty struct {
	*proxytest.Server
	healed sync.Map // module paths

	insecure atomic.Int64 // files that are refused as wrong
}

// newFaulty returns a server of a module for each fault and kind, version v1.0.0.
func newFaulty(t *testing.T, faults []string) *faulty {
	t.Helper()
	f := &faulty{Server: proxytest.New(t, faultyModules(faults)...)}
	f.SetFault(func(p string) string {
		modPath, file, ok := strings.Cut(strings.TrimPrefix(p, "/"), "/@v/")
		if _, healed := f.healed.Load(modPath); !ok || healed || kindOf(file) != path.Base(modPath) {
			return ""
		}
		return path.Base(path.Dir(modPath))
	})
	return f
}

func faultyModules(faults []string) []proxytest.Module {
	var mods []proxytest.Module
	for _, fault := range faults {
		for _, kind := range kinds {
			mods = append(mods, proxytest.Module{
				Path: faultyPath(fault, kind), Version: "v1.0.0",
				Files: map[string]string{"go.mod": "module " + faultyPath(fault, kind) + "\n", "f.go": "package f // " + fault + "\n"},
			})
		}
	}
	return mods
}

func faultyPath(fault, kind string) string { return "example.com/" + fault + "/" + kind }

func kindOf(file string) string { return strings.TrimPrefix(path.Ext("."+file), ".") }

// sample is the file of a mount that needs a kind of file from the proxy, and what is in it.
func sample(fault, kind string) (name, want string) {
	modPath := faultyPath(fault, kind)
	switch at := "cache/download/" + modPath + "/@v/"; kind {
	case "zip":
		return modPath + "@v1.0.0/f.go", "package f // " + fault + "\n"
	case "mod":
		return at + "v1.0.0.mod", "module " + modPath + "\n"
	case "info":
		return at + "v1.0.0.info", `{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z"}`
	default:
		return at + "list", "v1.0.0\n"
	}
}

// soon reads a file of the mount, which must not take for ever.
func (m *mounted) soon(t *testing.T, name string) ([]byte, error) {
	t.Helper()
	type result struct {
		data []byte
		err  error
	}
	ch := make(chan result, 1)
	go func() {
		data, err := m.read(name)
		ch <- result{data, err}
	}()
	select {
	case r := <-ch:
		return r.data, r.err
	case <-time.After(patience):
		t.Fatalf("%s: read for %v in vain", name, patience)
		return nil, nil
	}
}

// reason is the last line of .modfs/errors about a module.
func (m *mounted) reason(modPath string) (last modfs.Event) {
	for _, e := range m.errors() {
		if e.Module == modPath {
			last = e
		}
	}
	return last
}

// wantFault reads what the proxy has a fault for, and has it healed. Until then the read fails with want, for a reason that
// contains text and nothing is kept; then it succeeds.
func (m *mounted) wantFault(t *testing.T, s *faulty, fault, kind string, want syscall.Errno, text string) {
	modPath := faultyPath(fault, kind)
	name, content := sample(fault, kind)
	file := "v1.0.0." + kind
	if kind == "list" {
		file = kind
	}
	data, err := m.soon(t, name)
	if !errors.Is(err, want) {
		t.Errorf("%s: %.100q, %v; want %s", name, data, err, unix.ErrnoName(want))
	}
	e := m.reason(modPath)
	if want == syscall.ENOENT && e.Cause != "" {
		t.Errorf("%s: that it is not there is told as an error: %+v", name, e)
	}
	if want != syscall.ENOENT && (e.Errno != unix.ErrnoName(want) || !strings.Contains(e.Cause, text) || !strings.Contains(e.Cause, s.URL()+"/"+modPath+"/@v/"+file)) {
		t.Errorf("%s: the reason is %+v; want %s and %q", name, e, unix.ErrnoName(want), text)
	}
	if len(e.Cause) > 4<<10 {
		t.Errorf("%s: the reason has %d bytes", name, len(e.Cause))
	}
	for _, kept := range m.kept(modPath+"/@v/"+file, "index/"+modPath+"@v1.0.0") {
		if kind == "zip" || !strings.HasPrefix(kept, "index") {
			t.Errorf("%s: the store has %s", name, kept)
		}
	}
	if n := s.Count("GET /" + modPath + "/@v/" + file); fault == "429later" && n != 1 {
		t.Errorf("%s: who was told to come back tomorrow has asked %d times", name, n)
	}
	if want == syscall.EBADMSG {
		s.insecure.Add(1)
	}
	s.healed.Store(modPath, true)
	// At once, but for what is not there: that is believed for some seconds.
	if want == syscall.ENOENT {
		m.eventually(name+" is there", func() bool { data, err = m.read(name); return err == nil })
	} else {
		data, err = m.soon(t, name)
	}
	if err != nil || string(data) != content {
		t.Errorf("%s, when the proxy is well again: %q, %v; want %q", name, data, err, content)
	}
}

// proxyFault says what comes of a fault in each kind of file; 0 means that it is not tried.
type proxyFault struct {
	name                 string
	zip, mod, info, list syscall.Errno
	text                 string // in the reason
}

func (f *proxyFault) errno(kind string) syscall.Errno {
	return map[string]syscall.Errno{"zip": f.zip, "mod": f.mod, "info": f.info, "list": f.list}[kind]
}

func all(name string, errno syscall.Errno, text string) proxyFault {
	return proxyFault{name: name, zip: errno, mod: errno, info: errno, list: errno, text: text}
}

var proxyFaults = []proxyFault{
	all("404", syscall.ENOENT, ""),
	all("410", syscall.ENOENT, ""),
	all("401", syscall.EACCES, "401 Unauthorized"),
	all("403", syscall.EACCES, "403 Forbidden"),
	all("500", syscall.EIO, "500 Internal Server Error"),
	all("502", syscall.EIO, "502 Bad Gateway"),
	all("503", syscall.EIO, "503 Service Unavailable"),
	all("504", syscall.EIO, "504 Gateway Timeout"),
	all("429", syscall.EIO, "429 Too Many Requests"), // with Retry-After: 0
	all("429later", syscall.EIO, "429 Too Many Requests (to be asked again in 24h0m0s)"),
	all("reset", syscall.EIO, "connection broke"),
	all("resetbody", syscall.EIO, "connection broke"),
	all("truncate", syscall.EIO, "connection broke"),
	all("toolong", syscall.EIO, "connection broke"),
	// What is cut without a trace is found out by what it should have been.
	{name: "tooshort", zip: syscall.EIO, info: syscall.EIO, list: syscall.EIO, text: "bad answer"},
	{name: "halfbody", zip: syscall.EIO, info: syscall.EIO, list: syscall.EIO, text: "bad answer"},
	{name: "tooshort", mod: syscall.EBADMSG, text: "hash mismatch"},
	{name: "halfbody", mod: syscall.EBADMSG, text: "hash mismatch"},
	all("html", syscall.EIO, "the answer is an HTML page"),
	all("garbage", syscall.EIO, "malformed HTTP response"),
	{name: "badjson", info: syscall.EIO, text: "not an .info file: unexpected end of JSON input"},
	{name: "badtypes", info: syscall.EIO, text: "not an .info file: "},
	{name: "badlist", list: syscall.EIO, text: "not a list of versions"},
	{name: "other", info: syscall.EIO, text: `it is that of version "v9.9.9"`},
	{name: "other", zip: syscall.EBADMSG, mod: syscall.EBADMSG, text: "hash mismatch"},
	{name: "tamper", zip: syscall.EBADMSG, mod: syscall.EBADMSG, text: "hash mismatch"},
	all("redirectloop", syscall.EIO, "stopped after 10 redirects"),
	all("redirectscheme", syscall.EIO, "want https or http"),
	{name: "flood", mod: syscall.EFBIG, info: syscall.EFBIG, list: syscall.EFBIG, text: "too large: more than"},
	all("floodlength", syscall.EFBIG, ""),
	{name: "bomb", mod: syscall.EFBIG, info: syscall.EFBIG, list: syscall.EFBIG, text: "too large: more than"},
	{name: "bomb", zip: syscall.EIO, text: "not a zip file"},
}

func faultNames(faults []proxyFault) (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// TestProxyFaults has a proxy fail in each way and for each kind of file, each for a module of its own on one mount: the
// client gets the right errno and the reason is told, nothing is kept, and it works as soon as the proxy does.
func TestProxyFaults(t *testing.T) {
	t.Parallel()
	s := newFaulty(t, faultNames(proxyFaults))
	m := mount(t, s.Server, "--read-only", "--prefetch", "off")
	var wg sync.WaitGroup // not t.Parallel, which runs no more of them at a time than there are cores: they all but wait
	for _, f := range proxyFaults {
		for _, kind := range kinds {
			if want := f.errno(kind); want != 0 {
				wg.Go(func() {
					t.Run(f.name+"/"+kind, func(t *testing.T) { m.wantFault(t, s, f.name, kind, want, f.text) })
				})
			}
		}
	}
	wg.Wait()
	m.eventually("nothing is on its way to the store", func() bool {
		names, err := os.ReadDir(filepath.Join(m.store, "tmp"))
		return err == nil && len(names) == 0
	})
	// Nobody took a flood into memory. The race detector takes several times as much as the daemon.
	if peak := peakMemory(t, m.status().PID); peak > 1<<30 {
		t.Errorf("the daemon took %d MiB of memory", peak>>20)
	}
	if n := m.status().Counters["security_errors"]; n != s.insecure.Load() {
		t.Errorf("%d security errors, want %d", n, s.insecure.Load())
	}
}

// TestProxySize has a proxy announce another size of a zip than it then sends. What was told of it by stat is wrong until
// somebody reads it, and not for as long as the kernel would believe it.
func TestProxySize(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	m := mount(t, s, "--read-only", "--prefetch", "off")
	const name = "cache/download/example.com/a/@v/v1.0.0.zip"
	want := s.ZipBytes("example.com/a", "v1.0.0")
	s.SetFault(func(p string) string {
		if strings.HasSuffix(p, ".zip") {
			return "toolong"
		}
		return ""
	})
	if fi, err := os.Stat(m.path(name)); err != nil || fi.Size() != int64(len(want)+1000) {
		t.Fatalf("stat: %v, %v", fi, err)
	}
	s.SetFault(nil)
	_, err := m.soon(t, name)
	m.wantErrno(err, syscall.EIO, "upstream announced a zip of")
	deadline := time.Now().Add(30 * time.Second)
	for {
		data, err := m.soon(t, name)
		if err == nil && bytes.Equal(data, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes, %v; want %d", len(data), err, len(want))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestProxyFlood has a proxy send a zip that does not end. It ends where the store does, and both are as good as before.
func TestProxyFlood(t *testing.T) {
	t.Parallel()
	s := newFaulty(t, []string{"none", "flood"})
	m := mount(t, s.Server, "--read-only", "--prefetch", "off", "--max-size", "8MiB", "--min-free", "0")
	name, want := sample("none", "zip")
	if data, err := m.soon(t, name); err != nil || string(data) != want {
		t.Fatalf("%s: %q, %v", name, data, err)
	}
	m.wantFault(t, s, "flood", "zip", syscall.ENOSPC, "no space in the store")
	if n := diskUsage(m.store); n > 8<<20 {
		t.Errorf("the store has %d bytes", n)
	}
}

// peakMemory is how much memory a process had at most, in bytes; 0 if that cannot be told.
func peakMemory(t *testing.T, pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(data, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscan(string(rest), &kib); !ok || err != nil {
		t.Errorf("no VmHWM in %s", data)
	}
	return kib << 10
}

// TestProxyOrder has the first of two proxies fail. The next is asked after any error if a bar follows the first one, and
// after 404 and 410 if a comma does. A wrong hash is nothing that another proxy mends.
func TestProxyOrder(t *testing.T) {
	t.Parallel()
	faults := []string{"404", "410", "401", "500", "429later", "resetbody", "halfbody", "html", "other", "redirectloop", "floodlength", "tamper"}
	mods := faultyModules(faults)
	for _, tt := range []struct {
		name, sep string
		next      func(fault, kind string) bool
	}{
		{"comma", ",", func(fault, _ string) bool { return fault == "404" || fault == "410" }},
		{"bar", "|", func(fault, kind string) bool { return kind == "info" || fault != "tamper" && fault != "other" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := newFaulty(t, faults), proxytest.New(t, mods...)
			m := mount(t, a.Server, "--read-only", "--prefetch", "off", "--proxy", a.URL()+tt.sep+b.URL())
			var wg sync.WaitGroup
			for _, fault := range faults {
				for _, kind := range []string{"zip", "info"} {
					if kind == "info" && fault == "tamper" {
						continue // there is nothing wrong with it
					}
					wg.Go(func() {
						name, want := sample(fault, kind)
						data, err := m.soon(t, name)
						next := tt.next(fault, kind)
						if next != (err == nil) || next && string(data) != want {
							t.Errorf("%s: %q, %v; want success: %v", name, data, err, next)
						}
						if asked := b.Count("/"+faultyPath(fault, kind)+"/@v/v1.0.0."+kind) > 0; asked != next {
							t.Errorf("%s: the next proxy was asked: %v, want %v", name, asked, next)
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// TestProxyFaultClient has a proxy fail for a go command on a mount where clients resolve. The go command says what its own
// request brought, and works as soon as the proxy does.
func TestProxyFaultClient(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	m := mount(t, s)
	dir := t.TempDir()
	for name, data := range map[string]string{
		"go.mod":  "module m\n\ngo 1.21\n\nrequire example.com/a v1.0.0\n",
		"go.sum":  fmt.Sprintf("example.com/a v1.0.0 %s\nexample.com/a v1.0.0/go.mod %s\n", s.ZipHash("example.com/a", "v1.0.0"), s.ModHash("example.com/a", "v1.0.0")),
		"main.go": "package main\n\nimport \"example.com/a\"\n\nfunc main() { println(a.Hello()) }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s.SetFault(func(string) string { return "403" })
	out, err := m.goCommand(dir, "build", "-o", os.DevNull, ".").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "403 Forbidden") {
		t.Errorf("go build: %v\n%s", err, out)
	}
	s.SetFault(nil)
	if out, err := m.goCommand(dir, "build", "-o", os.DevNull, ".").CombinedOutput(); err != nil {
		t.Errorf("go build, when the proxy is well again: %v\n%s", err, out)
	}
}
