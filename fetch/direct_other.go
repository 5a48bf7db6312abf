//go:build !linux

package fetch

import "syscall"

// killWithParent does nothing: this system has no such thing.
func killWithParent(*syscall.SysProcAttr) {}
