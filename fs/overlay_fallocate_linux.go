package fs

import (
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Fallocate implements fuse.RawFileSystem, but for making holes. Room beyond the end of a file is no part of its size, by which the
// limit of the layer is kept; so there is none where there is a limit.
func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, status := f.overNode(in.NodeId)
	if status != fuse.OK {
		return status
	}
	if in.Mode&^unix.FALLOC_FL_KEEP_SIZE != 0 || in.Mode != 0 && f.overlay.max > 0 {
		return fuse.ENOTSUP
	}
	off, length := int64(in.Offset), int64(in.Length)
	err := f.withFile(n, true, func(file *os.File) error {
		size := off + length
		if in.Mode&unix.FALLOC_FL_KEEP_SIZE != 0 {
			size = 0
		}
		return f.overlay.resize(file, size, func() error { return fallocate(file, in.Mode, off, length) })
	})
	return f.overStatus("fallocate", n.path, err)
}

func fallocate(file *os.File, mode uint32, off, length int64) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sysErr error
	if raw.Control(func(fd uintptr) { sysErr = unix.Fallocate(int(fd), mode, off, length) }) != nil {
		return os.ErrClosed // the only error that there is, under another name
	}
	return sysErr
}
