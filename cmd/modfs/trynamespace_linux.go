package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tryNamespaceEnv makes a process try whether it can mount, and end.
const tryNamespaceEnv = "MODFS_TRY_NAMESPACE"

// tryNamespace mounts something in namespaces like those of runInNamespace. What may keep it from that are not only those who
// forbid to make them: some let one make them, and then not mount there.
func tryNamespace(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), tryNamespaceEnv+"=1")
	cmd.SysProcAttr = namespaceOfItsOwn()
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return syscall.Errno(exit.ExitCode())
	}
	return err
}

// runTryNamespace is that process. Its exit status is an errno.
func runTryNamespace() (status int, ok bool) {
	if os.Getenv(tryNamespaceEnv) == "" {
		return 0, false
	}
	err := unix.Mount("modfs", "/", "tmpfs", 0, "size=4k") // goes with the namespace, that is: at once
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return int(no), true
	}
	return 0, true
}
