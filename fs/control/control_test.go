package control

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	modfs "modfs/fs"
	"modfs/fs/fusetest"
	"modfs/lru"
)

// mount mounts what a proxy has, with a control socket.
func mount(t *testing.T, s *proxytest.Server, set func(*modfs.Options)) *modfs.FS {
	t.Helper()
	fusetest.Require(t)
	o := modfs.Options{
		Store:      lru.Config{Dir: t.TempDir()},
		Fetch:      fetch.Config{Proxy: s.URL(), SumDB: s.SumDB()},
		ReadOnly:   true,
		NoPrefetch: true,
	}
	if set != nil {
		set(&o)
	}
	f, err := modfs.Mount(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := Start(Options{FS: f, Version: "test"}); err != nil {
		t.Fatal(err)
	}
	return f
}

// client returns a client of a mount.
func client(t *testing.T, f *modfs.FS) *Client {
	t.Helper()
	c, err := Dial(t.Context(), f.Mountpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// open has a client open a file of the mount.
func open(t *testing.T, f *modfs.FS, name string) {
	t.Helper()
	if _, err := os.ReadFile(filepath.Join(f.Mountpoint(), name)); err != nil {
		t.Fatal(err)
	}
}

func TestStatus(t *testing.T) {
	f := mount(t, proxytest.New(t), nil)
	open(t, f, "example.com/a@v1.0.0/a.go")
	c := client(t, f)
	if c.API != 1 || c.Version != "test" || c.PID != os.Getpid() || c.Mountpoint != f.Mountpoint() || c.Device == 0 {
		t.Errorf("%+v", c.Hello)
	}
	s, err := c.Status(context.Background())
	if err != nil || s.Mountpoint != f.Mountpoint() || s.Counters["misses"] != 1 {
		t.Errorf("%+v, %v: want one miss", s, err)
	}
}

// TestCtl goes by the link, as a program does that knows nothing but the mountpoint.
func TestCtl(t *testing.T) {
	f := mount(t, proxytest.New(t), nil)
	ctl := filepath.Join(f.Mountpoint(), ".modfs", "ctl")
	target, err := os.Readlink(ctl)
	if err != nil || target != filepath.Join(f.StoreDir(), modfs.SocketName) {
		t.Errorf("%s links to %q, %v", ctl, target, err)
	}
	fi, err := os.Lstat(ctl)
	if err != nil || fi.Mode().Type() != os.ModeSymlink || fi.Size() != int64(len(target)) {
		t.Errorf("%+v, %v", fi, err)
	}
	conn, err := net.Dial("unix", ctl)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/status HTTP/1.0\r\n\r\n")
	data, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(data), `"mountpoint":"`+f.Mountpoint()+`"`) {
		t.Errorf("%q, %v", data, err)
	}
	if names, err := os.ReadDir(filepath.Dir(ctl)); err != nil || len(names) != 0 {
		t.Errorf(".modfs is listed with %v, %v", names, err)
	}
	// Without a socket there is no link, and with another it is to that.
	f.SetControl("")
	if _, err := os.Lstat(ctl); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}
	f.SetControl("/elsewhere")
	if target, err := os.Readlink(ctl); err != nil || target != "/elsewhere" {
		t.Errorf("%q, %v", target, err)
	}
}

func TestClose(t *testing.T) {
	f := mount(t, proxytest.New(t), nil)
	c := client(t, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(f.StoreDir(), modfs.SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := c.Status(context.Background()); !errors.Is(err, ErrNoControl) {
		t.Errorf("%v, want ErrNoControl", err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(t.Context(), dir); !errors.Is(err, modfs.ErrNotMounted) || !strings.Contains(err.Error(), dir) {
		t.Errorf("of a directory: %v", err)
	}
	f := mount(t, proxytest.New(t), nil)
	found, err := modfs.Find(f.Mountpoint())
	if err != nil || found == nil || found.Device != f.Device() {
		t.Fatalf("%+v, %v", found, err)
	}
	// The store of a dead daemon's mount, which another one has by now.
	found.Device++
	if _, err := dial(t.Context(), found, patience); !errors.Is(err, ErrDead) {
		t.Errorf("another mount of the store: %v", err)
	}
	found.Store = t.TempDir()
	if _, err := dial(t.Context(), found, patience); !errors.Is(err, ErrNoControl) {
		t.Errorf("without a socket: %v", err)
	}
	// One that accepts and is silent, as a process that was stopped.
	l, err := Listen(found.Store)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := dial(t.Context(), found, 50*time.Millisecond); !errors.Is(err, ErrHangs) || !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("of a daemon that hangs: %v", err)
	}
}

func TestListenReplaces(t *testing.T) {
	store := t.TempDir()
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(store, modfs.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as kill -9 leaves it
	old.Close()
	s, err := Listen(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if fi, err := os.Lstat(s.Path); err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%+v, %v", fi, err)
	}
	conn, err := net.Dial("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestListenLong is of a store whose path is longer than that of a socket may be.
func TestListenLong(t *testing.T) {
	store := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	runtime, err := os.MkdirTemp("/tmp", "modfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(runtime)
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	link := filepath.Join(store, modfs.SocketName)
	var left string
	for i := range 2 {
		s, err := Listen(store)
		if err != nil {
			t.Fatal(err)
		}
		if target, err := os.Readlink(link); err != nil || target != s.Path || filepath.Dir(s.Path) != filepath.Join(runtime, "modfs") {
			t.Errorf("%s, linked by %q, %v", s.Path, target, err)
		}
		if i == 0 { // as kill -9 leaves it
			left = s.Path
			s.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
			s.Listener.Close()
			continue
		}
		if s.Path != left {
			t.Errorf("%s, and before %s", s.Path, left)
		}
		s.Close()
	}
	for _, name := range []string{left, filepath.Dir(left), link} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	// A directory that others can enter is not for sockets.
	if err := os.Chmod(runtime, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if within := strings.HasPrefix(s.Path, runtime); within || private(filepath.Dir(s.Path)) != nil {
		t.Errorf("%s is used", s.Path)
	}
}

// TestRefused is of requests that nobody handles, or that are not what they have to be.
func TestRefused(t *testing.T) {
	s := New(Options{Version: "test"})
	m := s.newMux()
	m.handle("POST /v1/do", func(w http.ResponseWriter, r *http.Request) error {
		var in struct{ Name string }
		if err := decode(r, &in); err != nil {
			return err
		}
		if in.Name == "panic" {
			panic("a mistake")
		}
		if in.Name == "fail" {
			return errors.New("it failed")
		}
		return answer(w, in)
	})
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/do", `{"name":"x"}`, 200, `{"Name":"x"}`},
		{"POST", "/v1/do", ``, 200, `{"Name":""}`},
		{"GET", "/v1/do", ``, 405, "only POST"},
		{"GET", "/v1/none", ``, 404, "no such thing"},
		{"GET", "/", ``, 404, "no such thing"},
		{"POST", "/v1/do", `{"name":`, 400, "unexpected EOF"},
		{"POST", "/v1/do", `{"nam":1}`, 400, `unknown field \"nam\"`},
		{"POST", "/v1/do", `{} {}`, 400, "more than one"},
		{"POST", "/v1/do", `[]`, 400, "array"},
		{"POST", "/v1/do", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413, "more than 4194304 bytes"},
		{"POST", "/v1/do", `{"name":"panic"}`, 500, "panic: a mistake"},
		{"POST", "/v1/do", `{"name":"fail"}`, 500, `{"error":"it failed"}`},
	} {
		w := new(recorder)
		r, err := http.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		m.ServeHTTP(w, r)
		if w.status != tt.status || !strings.Contains(w.body.String(), tt.want) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %.40s: %d %.200s, want %d %s", tt.method, tt.path, tt.body, w.status, &w.body, tt.status, tt.want)
		}
	}
	s.Close()
	w := new(recorder)
	r, _ := http.NewRequest("POST", "/v1/do", nil)
	m.ServeHTTP(w, r)
	if w.status != http.StatusServiceUnavailable {
		t.Errorf("after Close: %d", w.status)
	}
}

// recorder keeps an answer.
type recorder struct {
	refusal
	body strings.Builder
}

func (w *recorder) Write(data []byte) (int, error) { return w.body.Write(data) }
