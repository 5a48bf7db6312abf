package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A goRun is what the go command did, and took.
type goRun struct {
	out       []byte
	wall, cpu time.Duration // cpu includes the processes that it started
}

// runGo runs the go command in dir.
func runGo(ctx context.Context, dir string, env []string, args ...string) (goRun, error) {
	return runCommand(ctx, dir, env, "go", args...)
}

// runCommand runs a command in dir. When ctx is done, it is interrupted, and soon after killed. The error has the end of
// what it said about itself.
func runCommand(ctx context.Context, dir string, env []string, name string, args ...string) (goRun, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &errs
	// In a group of its own, it is we who tell it and what it has started that Ctrl-C was typed, and not the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	err := cmd.Run()
	r := goRun{out: out.Bytes(), wall: time.Since(start)}
	if err != nil {
		return r, fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{name}, args...), " "), err, tail(errs.String(), 20))
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, nil
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// userEnv is the environment of a go command that fetches as the user's would, into modcache. What the user has set up about
// proxies and databases holds; what would change which modules are needed does not.
func userEnv(modcache string) []string {
	return append(os.Environ(),
		"GOMODCACHE="+modcache,
		"GOFLAGS=-modcacherw", // so that the cache can be removed with rm
		"GOTOOLCHAIN=local", "GOWORK=off", "GO111MODULE=",
		"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
}

// benchEnv is the environment of a go command that is measured, and of modfs: the user's without any setting of Go's. It
// compiles for one system, whatever this one is, so that the same packages are needed everywhere.
func benchEnv(environ []string, settings ...string) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return (strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO_")) && name != "GOROOT" && name != "GOMAXPROCS"
	})
	env = append(env,
		"GOENV=off", "GOFLAGS=", "GOTOOLCHAIN=local", "GOWORK=off",
		"GONOPROXY=", "GONOSUMDB=", "GOPRIVATE=",
		"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	return append(env, settings...)
}

// build builds modfs into dir and returns its path.
func build(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	bin := dir + string(os.PathSeparator) + "modfs"
	if _, err := runGo(ctx, "", os.Environ(), "build", "-o", bin, "modfs/cmd/modfs"); err != nil {
		return "", fmt.Errorf("%w\nrun this in a clone of modfs, or name a binary with -modfs", err)
	}
	return bin, nil
}
