package fs

import (
	"os"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// notPosix are the tests of go-fuse's suite that are left out, with the reason.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "wants that a process is in its own way with a POSIX lock, which no local file system does",
	"Tmpfile":             "O_TMPFILE is not supported",
	"XAttr":               "extended attributes are not supported, so that the kernel need not ask for them",
	"XAttrLarge":          "extended attributes are not supported",
}

// TestPosix runs go-fuse's suite in a directory of the writable layer.
func TestPosix(t *testing.T) {
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := notPosix[name]; why != "" {
				t.Skip(why)
			}
			m := mountRW(t, nil, nil)
			m.mkdir("work")
			test(t, m.path("work"))
		})
	}
}

func TestOverlayRenameFlags(t *testing.T) {
	m := mountRW(t, nil, nil)
	at := unix.AT_FDCWD
	m.write("work/x", "x")
	m.write("work/y", "y")
	m.fails(unix.Renameat2(at, m.path("work/x"), at, m.path("work/y"), unix.RENAME_NOREPLACE), syscall.EEXIST)
	m.fails(unix.Renameat2(at, m.path("work/x"), at, m.path("work/y"), unix.RENAME_EXCHANGE), syscall.EINVAL)
	m.ok(unix.Renameat2(at, m.path("work/x"), at, m.path("work/z"), unix.RENAME_NOREPLACE))
	m.names("work", "y", "z")
	m.want("work/z", "x")
}

// TestOverlayRecordLock checks that the kernel keeps record locks.
func TestOverlayRecordLock(t *testing.T) {
	m := mountRW(t, nil, nil)
	m.write("work/f", "")
	one, err := os.OpenFile(m.path("work/f"), os.O_RDWR, 0)
	m.ok(err)
	defer one.Close()
	two, err := os.OpenFile(m.path("work/f"), os.O_RDWR, 0)
	m.ok(err)
	defer two.Close()
	m.ok(unix.FcntlFlock(one.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	m.ok(unix.FcntlFlock(two.Fd(), unix.F_OFD_GETLK, &lk))
	if lk.Type != unix.F_WRLCK {
		t.Error("the record lock is not seen")
	}
}
