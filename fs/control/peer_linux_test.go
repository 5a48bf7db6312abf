package control

import (
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// TestForeignUser has another user connect, as if the directory of the socket were open to him.
func TestForeignUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	f := mount(t, proxytest.New(t), nil)
	dir, err := os.MkdirTemp("/tmp", "modfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, socket.Path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	s := New(Options{FS: f})
	go s.Serve(socket)
	defer s.Close()
	ask := func() string {
		conn, err := net.Dial("unix", socket.Path)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		io.WriteString(conn, "GET /v1/status HTTP/1.0\r\n\r\n")
		data, err := io.ReadAll(conn)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	if got := ask(); !strings.Contains(got, "200 OK") || !strings.Contains(got, f.StoreDir()) {
		t.Errorf("root gets %q", got)
	}
	got := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: only this thread becomes another user, and ends with it
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			got <- errno.Error()
			return
		}
		got <- ask()
	}()
	if got := <-got; !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, `{"error":"user 65534 may not`) || strings.Contains(got, f.StoreDir()) {
		t.Errorf("another user gets %q", got)
	}
}
