//go:build !linux

package main

import (
	"syscall"
	"time"
)

func hardware() (cpu string, memory int64) { return "", 0 }

// processUsage is not known here.
func processUsage(int) (cpu time.Duration, peak int64, err error) { return 0, 0, nil }

func touchMemory(int64) error { return nil } // how is not known here

func syncDisks() { syscall.Sync() } // best effort

func dropCaches() error {
	return &errNotMeasured{"only Linux lets its caches be emptied"}
}
