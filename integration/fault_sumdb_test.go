package integration

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// Modules of the tests of the checksum database: one that is read before it has a fault, one while it has, and one that it does
// not cover.
const (
	sumBefore  = "example.com/a@v1.0.0/a.go"
	sumDuring  = "example.com/many@v1.0.0/go.mod"
	sumPrivate = "example.com/two/v2@v2.1.0/two.go"
)

// growSums has the database get records that no mount knows of, behind that of sumBefore; and a fork of it still more.
func growSums(t *testing.T, s *proxytest.Server) {
	t.Helper()
	mods := []string{"example.com/a@v1.0.0", "example.com/many@v1.0.0", "example.com/inc@v2.0.0+incompatible"}
	for _, m := range mods {
		getSum(t, s, "none", "lookup/"+m)
	}
	for _, m := range append(mods, "example.com/b@v1.0.0", "example.com/b@v1.1.0", "gopkg.in/x.v1@v1.2.3") {
		getSum(t, s, "sumdbwrong", "lookup/"+m)
	}
}

// getSum asks the database, with a fault, for a file.
func getSum(t *testing.T, s *proxytest.Server, fault, file string) []byte {
	t.Helper()
	resp, err := http.Get(s.FaultURL(fault) + "/sumdb/" + s.SumDBName() + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", file, resp.Status, err)
	}
	return data
}

// storedHead is the tree head in the store, which must be signed; with N 0 if there is none.
func (m *mounted) storedHead(t *testing.T, s *proxytest.Server) tlog.Tree {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.store, "sumdb", s.SumDBName(), "latest"))
	if errors.Is(err, os.ErrNotExist) {
		return tlog.Tree{}
	}
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(s.SumDBKey())
	if err != nil {
		t.Fatal(err)
	}
	data = unsealed(data)
	n, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		t.Fatalf("stored tree head: %v\n%s", err, data)
	}
	head, err := tlog.ParseTree([]byte(n.Text))
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// unsealed returns a stored file of the database without the store's own checksum, its last four bytes.
func unsealed(data []byte) []byte { return data[:max(0, len(data)-4)] }

// wantRightSums fails the test if the store has anything of the database that is not what that says when it has no fault.
func (m *mounted) wantRightSums(t *testing.T, s *proxytest.Server) {
	t.Helper()
	m.storedHead(t, s)
	record := func(data []byte) []byte { // a lookup has a tree head behind the record: the newest one then
		record, _, _ := bytes.Cut(data, []byte("go.sum database tree\n"))
		return record
	}
	for _, name := range m.kept("") {
		file, ok := strings.CutPrefix(name, "sumdb/"+s.SumDBName()+"/")
		if !ok || file == "latest" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(m.store, name))
		if err != nil {
			t.Fatal(err)
		}
		data = unsealed(data)
		if want := getSum(t, s, "none", file); !bytes.Equal(record(data), record(want)) {
			t.Errorf("the store has %s:\n%q\nwhich is\n%q", name, data, want)
		}
	}
}

// TestSumDBFaults has the checksum database fail in each way: what it covers is refused for the right reason and, if the
// database is not to be trusted, loudly; what it does not cover is served. Nothing wrong is stored, and all is well as soon as the
// database is, also for a daemon that begins with that store.
func TestSumDBFaults(t *testing.T) {
	// None of these switches the database off, neither for the go command nor here.
	for _, name := range []string{"GONOSUMCHECK", "GOINSECURE"} {
		t.Setenv(name, "*")
	}
	for _, tt := range []struct {
		name, fault, part string // of the database's paths; "": all
		fresh             bool   // the mount has not seen the database before
		want              syscall.Errno
		text              string
		loud              bool
	}{
		{name: "fork", fault: "sumdbwrong", want: syscall.EBADMSG, text: "server misbehavior detected", loud: true},
		{name: "signature", fault: "sumdbsig", want: syscall.EBADMSG, text: "reading tree note: invalid signature", loud: true},
		{name: "signature of the first", fault: "sumdbsig", fresh: true, want: syscall.EBADMSG, text: "invalid signature", loud: true},
		{name: "stale at first", fault: "sumdbstale", fresh: true, want: syscall.EBADMSG, text: "cannot validate record 1 in tree of size 1", loud: true},
		{name: "long head", fault: "sumdblong", want: syscall.EBADMSG, text: "reading tree note: malformed note", loud: true},
		{name: "tiles", fault: "sumdbtiles", want: syscall.EBADMSG, text: "downloaded inconsistent tile", loud: true},
		{name: "tiles at first", fault: "sumdbtiles", fresh: true, want: syscall.EBADMSG, text: "downloaded inconsistent tile", loud: true},
		{name: "no tiles", fault: "sumdbnotiles", want: syscall.EBADMSG, text: "404 Not Found", loud: true},
		{name: "page", fault: "html", want: syscall.EBADMSG, text: "the answer is an HTML page", loud: true},
		{name: "page for tiles", fault: "html", part: "/tile/", want: syscall.EBADMSG, text: "the answer is an HTML page", loud: true},
		{name: "flood", fault: "flood", want: syscall.EBADMSG, text: "too large", loud: true},
		{name: "half", fault: "halfbody", want: syscall.EBADMSG, text: "checksum database is not to be trusted", loud: true},
		{name: "unknown module", fault: "404", part: "/lookup/", want: syscall.EIO, text: "not in the checksum database"},
		{name: "forbidden", fault: "403", want: syscall.EACCES, text: "403 Forbidden"},
		{name: "down", fault: "503", want: syscall.EIO, text: "503 Service Unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t)
			growSums(t, s)
			m := mount(t, s, "--read-only", "--prefetch", "off", "--nosumdb", "example.com/two/v2")
			if !tt.fresh {
				m.wantFile(t, sumBefore)
				getSum(t, s, "none", "lookup/gopkg.in/x.v1@v1.2.3") // the tree that the mount knows is not all of it
			}
			head := m.storedHead(t, s)
			s.SetFault(func(p string) string {
				if strings.HasPrefix(p, "/sumdb") && strings.Contains(p, tt.part) {
					return tt.fault
				}
				return ""
			})
			for _, name := range []string{sumDuring, "cache/download/example.com/many/@v/v1.0.0.mod"} {
				_, err := m.soon(t, name)
				if e := m.reason("example.com/many"); !errors.Is(err, tt.want) || e.Errno != unix.ErrnoName(tt.want) || !strings.Contains(e.Cause, tt.text) || len(e.Cause) > 12<<10 {
					t.Errorf("%s: %v; %+v; want %s and %q", name, err, e, unix.ErrnoName(tt.want), tt.text)
				}
			}
			m.wantLoud(t, tt.loud)
			m.wantFile(t, sumPrivate)
			for _, file := range m.kept(".zip", ".mod", "index/example.com/many@v1.0.0") {
				if strings.Contains(file, "example.com/many") {
					t.Errorf("the store has %s", file)
				}
			}
			m.wantRightSums(t, s)
			if got := m.storedHead(t, s); got.N < head.N {
				t.Errorf("the stored tree head is that of %d records now, was of %d", got.N, head.N)
			}
			s.SetFault(nil)
			m.wantFile(t, sumDuring)
			m.wantRightSums(t, s)

			m.restart()
			m.wantFile(t, "example.com/inc@v2.0.0+incompatible/inc.go")
			if n := m.status().Errors; n != 0 {
				t.Errorf("the daemon that was started anew has %d errors: %+v", n, m.errors())
			}
		})
	}
}

// wantFile fails the test unless a file of the mount can be read, and has something in it.
func (m *mounted) wantFile(t *testing.T, name string) {
	t.Helper()
	if data, err := m.soon(t, name); err != nil || len(data) == 0 {
		t.Errorf("%s: %q, %v", name, data, err)
	}
}

// wantLoud fails the test unless errors were told as such of security, or not.
func (m *mounted) wantLoud(t *testing.T, want bool) {
	t.Helper()
	n := m.status().Counters["security_errors"]
	logged := strings.Contains(m.log(), "level=ERROR msg=\"request failed\"")
	if n > 0 != want || logged != want {
		t.Errorf("%d security errors are counted, and logged as errors: %v; want %v", n, logged, want)
	}
	if out, err := m.modfs("status", m.dir); err != nil || want && !strings.Contains(out, "security errors") {
		t.Errorf("modfs status: %v\n%s", err, out)
	}
}

// restart unmounts and mounts the same store again.
func (m *mounted) restart() {
	m.t.Helper()
	pid := m.status().PID
	if out, err := m.modfs("unmount", m.dir); err != nil {
		m.t.Fatalf("unmount: %v\n%s", err, out)
	}
	m.eventually("the daemon ends", func() bool { return ended(pid) })
	m.start()
}

// TestSumDBStale has the database show an older tree than the mount knows. That is no harm, and the newer one stays.
func TestSumDBStale(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	growSums(t, s)
	m := mount(t, s, "--read-only", "--prefetch", "off")
	m.wantFile(t, sumBefore)
	const latest = "cache/download/sumdb/sum.example/latest"
	before, head := m.storedHead(t, s), m.latest(t, latest)
	if before.N != 3 {
		t.Fatalf("the stored tree head is of %d records, want 3", before.N)
	}
	s.SetFault(func(p string) string {
		if strings.HasPrefix(p, "/sumdb") {
			return "sumdbstale"
		}
		return ""
	})
	m.wantFile(t, sumDuring)
	if n := m.status().Errors; n != 0 {
		t.Errorf("%d errors: %+v", n, m.errors())
	}
	m.restart()
	m.wantFile(t, "example.com/inc@v2.0.0+incompatible/inc.go")
	if after := m.storedHead(t, s); after != before {
		t.Errorf("the stored tree head is of %d records now, was of %d", after.N, before.N)
	}
	if after := m.latest(t, latest); !bytes.Equal(after, head) {
		t.Errorf("clients are told\n%s\nwere told\n%s", after, head)
	}
	m.wantRightSums(t, s)
}

func (m *mounted) latest(t *testing.T, name string) []byte {
	t.Helper()
	data, err := m.soon(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSumDBUnreachable has nobody listen where the database should be, and then one where it is offered by the proxy, which
// forgets for a moment that it does: the way to it is looked for again.
func TestSumDBUnreachable(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	m := mount(t, s, "--read-only", "--prefetch", "off", "--nosumdb", "example.com/two/v2", "--sumdb", s.SumDBKey()+" http://127.0.0.1:1")
	_, err := m.soon(t, sumDuring)
	m.wantErrno(err, syscall.EHOSTUNREACH, "checksum database sum.example", "connection refused")
	m.wantFile(t, sumPrivate)
	m.wantLoud(t, false)

	s.SetFault(func(string) string { return "nosumdb" })
	m = mount(t, s, "--read-only", "--prefetch", "off", "--sumdb", s.SumDBKey())
	_, err = m.soon(t, sumDuring)
	m.wantErrno(err, syscall.EHOSTUNREACH, "https://sum.example")
	s.SetFault(nil)
	m.wantFile(t, sumDuring)
}

// TestSumDBWrongAtFirst has the database show a wrong tree, rightly signed, to a mount that has seen no other. That it contradicts
// the right one comes out when that is shown, and nobody can tell which of them is right: so it is refused, until somebody
// has looked into it.
func TestSumDBWrongAtFirst(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	m := mount(t, s, "--read-only", "--prefetch", "off")
	s.SetFault(func(p string) string {
		if strings.HasPrefix(p, "/sumdb") {
			return "sumdbwrong"
		}
		return ""
	})
	_, err := m.soon(t, sumDuring)
	m.wantErrno(err, syscall.EBADMSG, "hash mismatch", s.ZipHash("example.com/many", "v1.0.0"))
	m.wantLoud(t, true)
	s.SetFault(nil)
	_, err = m.soon(t, sumBefore)
	m.wantErrno(err, syscall.EBADMSG, "server misbehavior detected", "old database", "new database")
	if kept := m.kept(".zip", ".mod"); len(kept) > 0 {
		t.Errorf("the store has %q", kept)
	}
	m.restart()
	_, err = m.soon(t, sumBefore)
	m.wantErrno(err, syscall.EBADMSG, "server misbehavior detected")
	if err := os.RemoveAll(filepath.Join(m.store, "sumdb")); err != nil {
		t.Fatal(err)
	}
	m.restart()
	m.wantFile(t, sumBefore)
	m.wantFile(t, sumDuring)
}

// TestSumDBAhead has the proxy send wrong zips for modules that nobody opens: they are fetched ahead, and it is told all
// the same.
func TestSumDBAhead(t *testing.T) {
	t.Parallel()
	s := proxytest.New(t)
	m := mount(t, s, "--read-only")
	s.SetFault(func(p string) string {
		if strings.HasSuffix(p, ".zip") {
			return "tamper"
		}
		return ""
	})
	m.wantFile(t, "cache/download/example.com/many/@v/v1.0.0.ziphash") // has the zip fetched ahead
	var e modfs.Event
	m.eventually("the mismatch is told", func() bool { e = m.reason("example.com/many"); return e.Errno != "" })
	if e.Errno != "EBADMSG" || !strings.Contains(e.Cause, "hash mismatch") {
		t.Errorf("%+v", e)
	}
	m.wantLoud(t, true)
}
