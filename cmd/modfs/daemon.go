package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// daemonEnv tells a process that it is the daemon of `modfs mount --background`, and that the pipe to the process
	// which started it is at daemonFD.
	daemonEnv = "MODFS_DAEMON"
	daemonFD  = 3

	// The daemon's log is in its store, so that it is found where the trouble is. A log larger than maxLog bytes is
	// renamed when the next daemon starts.
	logName = "modfs.log"
	maxLog  = 1 << 20
)

// startDaemon starts this very command as a daemon in a session of its own, and returns when its mount is ready. Until
// then the daemon reports to our standard error itself; if it fails, the error is just its exit status.
func startDaemon() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(exe)
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), daemonEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{w} // becomes daemonFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	if n, _ := r.Read(make([]byte, 1)); n == 1 {
		return cmd.Process.Release()
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exitStatus(exit.ExitCode())
	}
	return fmt.Errorf("the daemon ended before it was ready: %v", err)
}

// daemonPipe is the daemon's end of the pipe to the process that started it.
type daemonPipe struct{ w *os.File }

// takeDaemonPipe returns nil if this process is not a daemon.
func takeDaemonPipe() *daemonPipe {
	if os.Getenv(daemonEnv) == "" {
		return nil
	}
	os.Unsetenv(daemonEnv) // not for what we start
	syscall.CloseOnExec(daemonFD)
	return &daemonPipe{os.NewFile(daemonFD, "ready")}
}

// ready sends the log, and whatever else is written to standard error, to the log file in store, which must be ours by
// now; then it lets the process that started us return.
func (d *daemonPipe) ready(store string, sink *logSink) error {
	log, err := openLog(store)
	if err != nil {
		return err
	}
	defer log.Close()
	// Nobody may wait for our output to end, nor be kept from unmounting what we were started in.
	for _, fd := range []int{1, 2} {
		if err := unix.Dup2(int(log.Fd()), fd); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	sink.release(os.Stderr)
	defer d.w.Close()
	if _, err := d.w.Write([]byte{1}); err != nil {
		return errors.New("interrupted") // whoever wanted this daemon is gone
	}
	return nil
}

// openLog opens the log file in store, and renames a large one first.
func openLog(store string) (*os.File, error) {
	name := filepath.Join(store, logName)
	if fi, err := os.Stat(name); err == nil && fi.Size() > maxLog {
		if err := os.Rename(name, name+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}
