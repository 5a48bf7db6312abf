//go:build !linux

package lru

import "os"

// preallocate does nothing where there is no fallocate: writes get their blocks as they come.
func preallocate(*os.File, int64) (bool, error) { return false, nil }
