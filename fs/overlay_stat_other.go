//go:build !linux

package fs

import (
	"os"
	"syscall"
)

// lstatBelow leaves it to os.Root.Lstat on systems without openat2(2).
func lstatBelow(*os.File, string) (*syscall.Stat_t, bool, error) { return nil, false, nil }
