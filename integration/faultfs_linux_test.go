package integration

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"modfs/fs/fusetest"
)

// faultFS is a file system that shows a directory, for a store to lie on, and fails when told to. It is served by this process,
// which must therefore not look into it: the directory behind it has the same files.
type faultFS struct {
	mnt, dir string

	mu    sync.Mutex
	fault fault
	seen  int // operations of the fault's kind since it was set
	hits  int // that failed, or lied
}

// fault is what goes wrong from now on.
type fault struct {
	op    string // "create", "write", "fsync", "fallocate", "rename", "mkdir", "unlink", "open", "read", or writing
	nth   int    // the first operation that fails, from 1; 0: none
	every bool   // so do all after it
	errno syscall.Errno
	how   string                   // what the lie is, for the name of a test
	lie   func(data []byte) []byte // of a read: fails with this instead of errno
	hold  <-chan struct{}          // it does not fail, but has to wait until this is closed
}

// writing is all operations but "open" and "read".
const writing = "writing"

// newFaultFS mounts one for the test.
func newFaultFS(t *testing.T) *faultFS {
	t.Helper()
	fusetest.Require(t)
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system to break needs root")
	}
	f := &faultFS{mnt: t.TempDir(), dir: t.TempDir()}
	root := &fusefs.LoopbackRoot{Path: f.dir}
	node := &faultNode{&fusefs.LoopbackNode{RootData: root}, f}
	root.RootNode = node
	syscall.ForkLock.RLock() // no daemon of another test is started in between
	server, err := fusefs.Mount(f.mnt, node, &fusefs.Options{MountOptions: fuse.MountOptions{
		FsName: "faultfs", Name: "faultfs", DirectMountStrict: true, DisableXAttrs: true, MaxWrite: 1 << 20,
	}})
	keepFromChildren()
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.set(fault{})
		// Lazily: nothing that still uses it may keep the test from ending.
		if err := unix.Unmount(f.mnt, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		server.Wait()
	})
	return f
}

// keepFromChildren closes the device of the mount in the processes that are started from now on: they would keep it alive.
func keepFromChildren() {
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasSuffix(to, "/fuse") {
			n := 0
			for _, c := range fd.Name() {
				n = 10*n + int(c-'0')
			}
			unix.CloseOnExec(n)
		}
	}
}

// store is where a store lies on it.
func (f *faultFS) store() string { return filepath.Join(f.mnt, "store") }

// behind is the directory behind that.
func (f *faultFS) behind() string { return filepath.Join(f.dir, "store") }

// set makes something go wrong from now on, and returns how often the one before has.
func (f *faultFS) set(next fault) (hits int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hits = f.hits
	f.fault, f.seen, f.hits = next, 0, 0
	return hits
}

// hit is how often it has gone wrong so far.
func (f *faultFS) hit() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// due returns what goes wrong with an operation. nil: nothing, any more.
func (f *faultFS) due(op string) *fault {
	due := f.next(op)
	if due != nil && due.hold != nil {
		<-due.hold
		return nil
	}
	return due
}

func (f *faultFS) next(op string) *fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault.op != op && (f.fault.op != writing || op == "open" || op == "read") {
		return nil
	}
	f.seen++
	if f.fault.nth == 0 || f.seen < f.fault.nth || f.seen > f.fault.nth && !f.fault.every {
		return nil
	}
	f.hits++
	due := f.fault
	return &due
}

// fails returns the errno that an operation fails with, 0 if it does not.
func (f *faultFS) fails(op string) syscall.Errno {
	if due := f.due(op); due != nil {
		return due.errno
	}
	return 0
}

type faultNode struct {
	*fusefs.LoopbackNode
	f *faultFS
}

// WrapChild implements fusefs.NodeWrapChilder.
func (n *faultNode) WrapChild(_ context.Context, child fusefs.InodeEmbedder) fusefs.InodeEmbedder {
	return &faultNode{child.(*fusefs.LoopbackNode), n.f}
}

// direct has each read and write come here, and not to the kernel's cache.
const direct = fuse.FOPEN_DIRECT_IO

func (n *faultNode) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	if errno := n.f.fails("open"); errno != 0 {
		return nil, 0, errno
	}
	fh, _, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &faultFile{fh.(*fusefs.LoopbackFile), n.f}, direct, 0
}

func (n *faultNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	if errno := n.f.fails("create"); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, fh, _, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, &faultFile{fh.(*fusefs.LoopbackFile), n.f}, direct, 0
}

func (n *faultNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if errno := n.f.fails("mkdir"); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *faultNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno := n.f.fails("unlink"); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *faultNode) Rename(ctx context.Context, name string, to fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno := n.f.fails("rename"); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, to.(*faultNode).LoopbackNode, newName, flags)
}

type faultFile struct {
	*fusefs.LoopbackFile
	f *faultFS
}

// PassthroughFd keeps the kernel from going around us.
func (*faultFile) PassthroughFd() (int, bool) { return 0, false }

func (h *faultFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	due := h.f.due("read")
	if due != nil && due.lie == nil {
		return nil, due.errno
	}
	res, errno := h.LoopbackFile.Read(ctx, buf, off)
	if errno != 0 || due == nil {
		return res, errno
	}
	data, status := res.Bytes(buf)
	res.Done()
	if status != fuse.OK {
		return nil, syscall.Errno(status)
	}
	return fuse.ReadResultData(due.lie(data)), 0
}

func (h *faultFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := h.f.fails("write"); errno != 0 {
		if half := len(data) / 2; half > 0 { // as a disk does that becomes full
			h.LoopbackFile.Write(ctx, data[:half], off)
		}
		return 0, errno
	}
	return h.LoopbackFile.Write(ctx, data, off)
}

func (h *faultFile) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	return h.Write(ctx, bytes.Join(data, nil), off)
}

func (h *faultFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if errno := h.f.fails("fsync"); errno != 0 {
		return errno
	}
	return h.LoopbackFile.Fsync(ctx, flags)
}

func (h *faultFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno := h.f.fails("fallocate"); errno != 0 {
		return errno
	}
	return h.LoopbackFile.Allocate(ctx, off, size, mode)
}

// TestFaultFS: it is a file system, and breaks as told.
func TestFaultFS(t *testing.T) {
	t.Parallel()
	f := newFaultFS(t)
	name := filepath.Join(f.mnt, "a")
	f.set(fault{op: "create", nth: 2, errno: syscall.ENOSPC})
	for i, want := range []error{nil, syscall.ENOSPC, nil} {
		file, err := os.OpenFile(name+string(rune('0'+i)), os.O_RDWR|os.O_CREATE, 0o600)
		if pe, _ := err.(*os.PathError); (pe == nil) != (want == nil) || pe != nil && pe.Err != want {
			t.Errorf("file %d: %v, want %v", i, err, want)
		}
		if err == nil {
			file.Close()
		}
	}
	if hits := f.set(fault{}); hits != 1 {
		t.Errorf("%d hits", hits)
	}
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.set(fault{op: "read", nth: 1, lie: func(data []byte) []byte { return append(data[:0:0], "CONTENT"...) }})
	for _, want := range []string{"CONTENT", "content"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
}
