package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	modfs "modfs/fs"
)

// Whether a mount answers is found out by a child process. One that waits for a request which the daemon has read and does not
// answer cannot be ended before the connection is, not even by SIGKILL, and with it no process that it is a thread of. A child
// can be left behind.

// probeEnv makes a process that child: it has the file to read.
const probeEnv = "MODFS_PROBE"

// runProbe is the child: it copies a file in a mount to w and returns the exit status, which is an errno. ok is false in
// any other process.
func runProbe(w io.Writer) (status int, ok bool) {
	name, ok := os.LookupEnv(probeEnv)
	if !ok {
		return 0, false
	}
	data, err := os.ReadFile(name)
	if err == nil {
		_, err = w.Write(data)
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok && no != 0 {
		return int(no), true
	} else if err != nil {
		return int(syscall.EIO), true
	}
	return 0, true
}

// newProbe returns the command that looks at the mount at mountpoint: at what the daemon there says of itself in a file such as
// status.json.
func newProbe(mountpoint, file string) (*exec.Cmd, error) {
	exe := "/proc/self/exe" // is there also when the file was replaced
	if runtime.GOOS != "linux" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(exe)
	cmd.Args[0] = "modfs-probe"
	cmd.Env = append(os.Environ(), probeEnv+"="+filepath.Join(mountpoint, ".modfs", file))
	cmd.Dir = "/"
	return cmd, nil
}

// probePatience is for how long a mount may not answer to whom wants to know whether it does.
const probePatience = 10 * time.Second

// errHangs is the error of a mount that does not answer.
var errHangs = fmt.Errorf("its daemon does not answer: %w", syscall.ETIMEDOUT)

// probe returns the status that the daemon at mountpoint gives, or an error if it does not do so soon.
func probe(mountpoint string) (*modfs.Status, error) {
	data, err := probeFile(mountpoint, "status.json")
	if err != nil {
		return nil, err
	}
	s := new(modfs.Status)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	return s, nil
}

// probeFile returns what the daemon at mountpoint says in a file, or an error if it does not do so soon.
func probeFile(mountpoint, file string) ([]byte, error) {
	cmd, err := newProbe(mountpoint, file)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("look whether %s answers: %w", mountpoint, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(probePatience):
		cmd.Process.Kill() // best effort: see above
		return nil, errHangs
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return nil, syscall.Errno(exit.ExitCode())
	}
	return out.Bytes(), err
}

// dead reports whether the mount at mountpoint has no daemon. The lock of its store, which package fs goes by, may be held
// by another daemon by now, which serves the same store elsewhere. The error is errHangs if that cannot be told.
func dead(mountpoint string) (bool, error) {
	_, err := probe(mountpoint)
	if errors.Is(err, errHangs) {
		return false, err
	}
	return errors.Is(err, syscall.ENOTCONN), nil
}
