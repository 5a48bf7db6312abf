package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// TestInotify watches mounts as an editor does, with inotify(7): what clients write there through the mount is seen, and
// what is lazy can be watched and never seems to change, whatever is fetched. inotifywait is no tool of every machine, so
// this is no script.
func TestInotify(t *testing.T) {
	fusetest.Require(t)
	proxy, err := proxytest.Start(proxytest.Modules()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	for _, v := range proxy.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("HOME", t.TempDir())
	lazy := []string{
		"example.com", "example.com/a@v1.0.0", "example.com/a@v1.0.0/sub", "example.com/a@v1.0.0/a.go", "cache/download",
	}

	t.Run("read-write", func(t *testing.T) {
		mnt := t.TempDir()
		run(t, "modfs", "mount", "--background", "--store", filepath.Join(t.TempDir(), "store"), mnt)
		t.Cleanup(func() { run(t, "modfs", "unmount", "--lazy", mnt) }) // the watches keep it in use
		download(t, mnt, "example.com/a@v1.0.0")
		if err := os.Mkdir(filepath.Join(mnt, "mine"), 0o755); err != nil {
			t.Fatal(err)
		}
		w := inotify(t, mnt, append(lazy, ".", "mine")...)
		write(t, filepath.Join(mnt, "top"))
		write(t, filepath.Join(mnt, "mine/new"))
		if err := os.Rename(filepath.Join(mnt, "mine/new"), filepath.Join(mnt, "mine/old")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(mnt, "mine/old")); err != nil {
			t.Fatal(err)
		}
		run(t, "cat", filepath.Join(mnt, "example.com/a@v1.0.0/a.go"))
		want := []string{
			"create ./top", "modify ./top", "create mine/new", "modify mine/new", "moved_from mine/new", "moved_to mine/old",
			"delete mine/old",
		}
		if got := w.events(t); !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		mnt := t.TempDir()
		run(t, "modfs", "mount", "--background", "--read-only", "--store", filepath.Join(t.TempDir(), "store"), mnt)
		t.Cleanup(func() { run(t, "modfs", "unmount", "--lazy", mnt) })
		w := inotify(t, mnt, append(lazy, ".")...)
		run(t, "cat", filepath.Join(mnt, "example.com/a@v1.0.0/a.go"), filepath.Join(mnt, "example.com/many@v1.0.0/go.mod"))
		if got := w.events(t); len(got) > 0 {
			t.Errorf("events %q, want none", got)
		}
	})
}

// download makes the go command download a module into a module cache.
func download(t *testing.T, modcache, module string) {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", module)
	cmd.Env = append(os.Environ(), "GOMODCACHE="+modcache, "GOTOOLCHAIN=local", "GOFLAGS=")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go mod download %s: %v\n%s", module, err, out)
	}
}

func write(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// watches is an inotify instance and the names of what it watches, by watch descriptor.
type watches struct {
	fd    int
	names map[int32]string
}

// inotify watches names below dir for every change of them and of what is in them.
func inotify(t *testing.T, dir string, names ...string) *watches {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	w := &watches{fd, make(map[int32]string)}
	for _, name := range names {
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(dir, name),
			unix.IN_CREATE|unix.IN_DELETE|unix.IN_MODIFY|unix.IN_MOVE|unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF)
		if err != nil {
			t.Fatalf("watch %s: %v", name, err)
		}
		w.names[int32(wd)] = name
	}
	return w
}

// events are the events so far, as "what name". The kernel queues them before the system call that caused them returns.
func (w *watches) events(t *testing.T) []string {
	t.Helper()
	kinds := map[uint32]string{
		unix.IN_CREATE: "create", unix.IN_DELETE: "delete", unix.IN_MODIFY: "modify", unix.IN_ATTRIB: "attrib",
		unix.IN_MOVED_FROM: "moved_from", unix.IN_MOVED_TO: "moved_to",
	}
	var all []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for data := buf[:n]; len(data) > 0; {
			event, size := data[:unix.SizeofInotifyEvent], binary.NativeEndian.Uint32(data[12:])
			name := w.names[int32(binary.NativeEndian.Uint32(event))]
			if child := bytes.TrimRight(data[len(event):][:size], "\x00"); len(child) > 0 {
				name += "/" + string(child)
			}
			mask := binary.NativeEndian.Uint32(event[4:])
			kind := kinds[mask&^unix.IN_ISDIR]
			if kind == "" {
				kind = fmt.Sprintf("%#x", mask)
			}
			all = append(all, kind+" "+name)
			data = data[len(event)+int(size):]
		}
	}
}
