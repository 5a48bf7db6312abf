package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// A machine is where the measurements were taken. What is not known of it is empty.
type machine struct {
	Date       string `json:"date"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Memory     int64  `json:"memory_bytes"`
	System     string `json:"system"`
	Go         string `json:"go"`
	FileSystem string `json:"file_system"` // of the module caches
}

// describe returns the machine, with the file system of dir, and the GOROOT of the go command that is measured.
func describe(ctx context.Context, dir string) (m machine, goroot string, err error) {
	run, err := runGo(ctx, dir, benchEnv(os.Environ()), "env", "GOVERSION", "GOROOT")
	if err != nil {
		return m, "", err
	}
	words := strings.Split(strings.TrimSpace(string(run.out)), "\n")
	if len(words) != 2 {
		return m, "", fmt.Errorf("go env: want a version and a GOROOT, have %q", run.out)
	}
	m = machine{
		Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Go: words[0],
		System: runtime.GOOS + "/" + runtime.GOARCH, FileSystem: fileSystem(dir),
	}
	m.CPU, m.Memory = hardware()
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.System = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + runtime.GOARCH
	}
	return m, words[1], nil
}

// fileSystem returns the type of the file system that dir is on.
func fileSystem(dir string) string {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil {
		return ""
	}
	longest := &mountinfo.Info{}
	for _, m := range mounts {
		if len(filepath.Clean(m.Mountpoint)) >= len(longest.Mountpoint) { // of one mountpoint the last is on top
			longest = m
		}
	}
	return longest.FSType
}

// String describes the machine in one line.
func (m machine) String() string {
	parts := []string{m.Date, m.CPU, fmt.Sprintf("%d cores", m.Cores), "", m.System, m.Go, m.FileSystem}
	if m.Memory > 0 {
		parts[3] = humanize.IBytes(uint64(m.Memory)) + " of memory"
	}
	var known []string
	for _, p := range parts {
		if p != "" {
			known = append(known, p)
		}
	}
	return strings.Join(known, ", ")
}
