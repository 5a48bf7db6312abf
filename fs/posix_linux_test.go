package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
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
