package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaceEnv tells a process that it is `modfs run` in a user and mount namespace of its own.
const namespaceEnv = "MODFS_NAMESPACE"

func inNamespace() bool { return os.Getenv(namespaceEnv) != "" }

// runInNamespace runs this very command again where it may mount: in a mount namespace that a user namespace of our own
// owns (user_namespaces(7)). Users and groups are the same as outside, as far as one may map them: ourselves. The mount is
// seen there only, and goes with the namespace.
func runInNamespace(signals *signals) (status int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe)
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = namespaceOfItsOwn()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return signals.waitFor(cmd), nil
}

// namespaceOfItsOwn starts a process in a user and a mount namespace of its own.
func namespaceOfItsOwn() *syscall.SysProcAttr {
	uid, gid := os.Geteuid(), os.Getegid()
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		// All capabilities in the namespace are ours until exec, which leaves a user that is not root the ambient ones.
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
}

// startUnprivileged starts cmd without the capability that runInNamespace gave this process to mount with.
func startUnprivileged(cmd *exec.Cmd) error {
	if !inNamespace() {
		return cmd.Start()
	}
	started := make(chan error)
	go func() {
		// A thread's capabilities are its own, and a child has those of the thread that started it. The thread ends
		// with this goroutine, as it is not unlocked.
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			started <- os.NewSyscallError("prctl", err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}
