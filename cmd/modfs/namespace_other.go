//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

// namespaceEnv is set on Linux only.
const namespaceEnv = "MODFS_NAMESPACE"

func inNamespace() bool { return false }

func runInNamespace(*signals) (status int, err error) {
	return 0, errors.New("this operating system has none")
}

func startUnprivileged(cmd *exec.Cmd) error { return cmd.Start() }
