package fs

import (
	"os"
	"path"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
)

// storeFile stores a file as the go command does: under another name, then renamed.
func (m *rwMount) storeFile(p, data string) {
	m.tb.Helper()
	m.ok(os.MkdirAll(m.path(path.Dir(p)), 0o777))
	tmp := p + "123.tmp"
	f, err := os.OpenFile(m.path(tmp), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	m.ok(err)
	_, err = f.WriteString(data)
	m.ok(err)
	m.ok(f.Close())
	m.ok(os.Rename(m.path(tmp), m.path(p)))
}

// storeMod stores a module's .info and .mod as a go command does that has downloaded them.
func (m *rwMount) storeMod(mod proxytest.Module) {
	m.tb.Helper()
	dir := "cache/download/" + mod.Path + "/@v/" // no capitals in these tests
	m.storeFile(dir+mod.Version+".info", `{"Version":"`+mod.Version+`","Time":"2020-01-02T03:04:05Z"}`)
	m.storeFile(dir+mod.Version+".mod", goMod(mod))
}

// goMod is the .mod file that the server has for a module.
func goMod(mod proxytest.Module) string {
	if data, ok := mod.Files["go.mod"]; ok {
		return data
	}
	return "module " + mod.Path + "\n"
}

// zips returns how many requests for zips there were.
func (m *rwMount) zips() int { return m.server.Count(".zip") }

func TestResolveClient(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	a := module1(t, "example.com/a@v1.0.0")
	m.there(false, a.String(), a.String()+"/a.go", "example.com")
	for _, name := range []string{"list", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "v1.0.0.ziphash", "../@latest"} {
		m.there(false, downloadA+name)
	}
	m.there(false, "cache/download/sumdb/"+m.server.SumDBName()+"/supported")
	if r := m.server.Requests(); len(r) > 0 {
		t.Errorf("upstream was asked: %q", r)
	}

	m.storeMod(a)
	m.there(true, a.String(), downloadA+"v1.0.0.ziphash")
	m.there(false, downloadA+"v1.0.0.zip")
	if r := m.server.Requests(); m.server.Count("GET /example.com/a/@v/v1.0.0.zip") > 0 {
		t.Errorf("a zip was fetched before anybody opened it: %q", r)
	}
	m.wantTree(a, a.String())
	if got, err := os.ReadFile(m.path(downloadA + "v1.0.0.zip")); err != nil || string(got) != string(m.server.ZipBytes(a.Path, a.Version)) {
		t.Errorf(".zip: %d bytes, %v", len(got), err)
	}
	m.want(downloadA+"v1.0.0.ziphash", m.server.ZipHash(a.Path, a.Version))
	if n := m.server.Count("GET /example.com/a/@v/v1.0.0.zip"); n != 1 {
		t.Errorf("the zip was fetched %d times", n)
	}
	m.names("", "cache", "example.com")
	m.names("example.com", "a@v1.0.0")
	m.names(downloadA, "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "v1.0.0.ziphash")

	m.remount()
	m.wantTree(a, a.String())
	m.there(false, "example.com/b@v1.0.0")
}

// TestResolveClientOther checks that a go.mod that is not upstream's is no reason to offer upstream's module.
func TestResolveClientOther(t *testing.T) {
	m := mountRW(t, nil, clientResolves)
	a := module1(t, "example.com/a@v1.0.0")
	m.storeFile(downloadA+"v1.0.0.mod", goMod(a)+"// another\n")
	m.there(false, a.String(), downloadA+"v1.0.0.zip", downloadA+"v1.0.0.ziphash")
	m.mkdir(a.String()) // the client unpacks it
	m.write(a.String()+"/a.go", "another")
	m.names(a.String(), "a.go")
	m.want(a.String()+"/a.go", "another")
	m.ok(os.RemoveAll(m.path(a.String())))
	m.there(false, a.String())

	const gone = "cache/download/example.com/gone/@v/v1.0.0.mod"
	m.storeFile(gone, "module example.com/gone\n")
	m.there(false, "example.com/gone@v1.0.0", strings.TrimSuffix(gone, "mod")+"zip")
	if n := m.zips(); n > 0 {
		t.Errorf("%d requests for zips", n)
	}
	events := m.errors.lines()
	if len(events) > 0 {
		t.Errorf("errors: %s", events)
	}
}

// TestResolveClientUnreachable checks that the go command is left to find out for itself when upstream cannot be asked.
func TestResolveClientUnreachable(t *testing.T) {
	for _, fault := range []string{"403", "tamper", "sumdbwrong", "offline"} {
		m := mountRW(t, nil, func(o *Options) { o.ResolveClient, o.Fetch.Offline = true, fault == "offline" })
		if fault != "offline" {
			m.server.SetFault(func(string) string { return fault })
		}
		a := module1(t, "example.com/a@v1.0.0")
		m.storeMod(a)
		if m.exists(a.String()) {
			t.Errorf("%s: offered", fault)
		}
		m.mkdir("example.com/a@v1.0.0")
		m.names("example.com/a@v1.0.0")
	}
}

func TestResolvePartial(t *testing.T) {
	for _, client := range []bool{true, false} {
		m := mountRW(t, nil, func(o *Options) { o.ResolveClient = client })
		a := module1(t, "example.com/a@v1.0.0")
		m.write(downloadA+"v1.0.0.partial", "")
		m.storeMod(a)
		m.there(false, a.String())
		m.ok(os.MkdirAll(m.path(a.String()), 0o777))
		m.names(a.String())
		m.write(a.String()+"/own.go", "own")
		m.names(a.String(), "own.go")
		m.ok(os.Remove(m.path(downloadA + "v1.0.0.partial")))
		m.names(a.String(), "own.go")
		m.want(a.String()+"/own.go", "own")
		m.there(false, a.String()+"/a.go")
		// The client gives it up.
		m.write(downloadA+"v1.0.0.partial", "")
		m.ok(os.RemoveAll(m.path(a.String())))
		m.there(false, a.String())
		m.ok(os.Remove(m.path(downloadA + "v1.0.0.partial")))
		m.there(!client, a.String())
	}
}

func TestResolveToolchain(t *testing.T) {
	asRoot(t)
	mod := proxytest.Toolchain("1.99.0", "linux", "amd64", nil)
	server := proxytest.New(t, append(proxytest.Modules(), mod)...)
	m := mountRW(t, server, clientResolves)
	m.there(true, mod.String(), mod.String()+"/bin/go")
	m.there(false, "golang.org/toolchain@v0.0.1-go1.98.0.linux-amd64", "golang.org/nobody")
	m.ok(os.Chmod(m.path(mod.String()+"/bin/go"), 0o555))
	m.ok(os.RemoveAll(m.path("golang.org")))
	m.there(false, mod.String())
}

// TestPkgLayout mounts at what would be $GOPATH/pkg.
func TestPkgLayout(t *testing.T) {
	asRoot(t)
	m := mountRW(t, nil, func(o *Options) { o.ResolveClient, o.Pkg = true, true })
	a := module1(t, "example.com/a@v1.0.0")
	m.names("", "mod")
	m.write("sumdb/sum.example/latest", "tree")
	m.write("linux_amd64/x.a", "archive")
	m.names("", "linux_amd64", "mod", "sumdb")
	for range 2 {
		m.storeFile("mod/"+downloadA+"v1.0.0.mod", goMod(a))
		m.wantTree(a, "mod/"+a.String())
		m.names("mod", "cache", "example.com")
		m.ok(os.RemoveAll(m.path("mod")))
		m.names("", "linux_amd64", "sumdb")
		m.there(false, "mod", "mod/"+a.String())
		if left := m.stored(); len(left) > 0 {
			t.Errorf("store has %q", left)
		}
		m.mkdir("mod")
		m.names("mod")
	}
	m.want("sumdb/sum.example/latest", "tree")
	m.ok(os.RemoveAll(m.path("mod")))
	m.remount()
	m.names("", "linux_amd64", "mod", "sumdb")
	if _, err := os.ReadFile(m.path(".modfs/status.json")); err != nil {
		t.Error(err)
	}
}
