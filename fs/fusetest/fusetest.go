// Package fusetest says which tests can mount.
package fusetest

import (
	"os"
	"os/exec"
	"testing"
)

// Mountable returns why this user cannot mount FUSE file systems; nil if nothing speaks against it.
func Mountable() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	if os.Geteuid() != 0 {
		_, err = exec.LookPath("fusermount3")
	}
	return err
}

// Must reports whether it is a failure that tests which mount cannot: with MODFS_REQUIRE_FUSE=1 in the environment.
func Must() bool { return os.Getenv("MODFS_REQUIRE_FUSE") == "1" }

// Require skips a test that mounts where that is impossible, or fails it if it Must.
func Require(tb testing.TB) {
	tb.Helper()
	switch err := Mountable(); {
	case err == nil:
	case Must():
		tb.Fatalf("cannot mount: %v", err)
	default:
		tb.Skipf("cannot mount: %v", err)
	}
}
