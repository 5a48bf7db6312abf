package fs

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The process that sent a request is looked at only to decide whether to offer a module early, never for what is in it:
// a wrong guess costs a download, no more.

// wanted reports whether the process with an ID is a client whose go.sum has a line with one of the prefixes and whose
// settings are the daemon's, so that it would get from its proxy what we would get.
func (f *FS) wanted(pid uint32, prefixes ...string) bool {
	proc := filepath.Join("/proc", strconv.FormatUint(uint64(pid), 10))
	if !f.sameClient(pid) {
		return false
	}
	// Looking into this mount from its own daemon could wait for itself.
	if cwd, err := os.Readlink(filepath.Join(proc, "cwd")); err != nil || below(cwd, f.mountpoint) {
		return false
	}
	// A magic link: it is followed by the kernel in the process's own mount namespace, and names a directory there. Files
	// below it are opened through it for the same reason.
	return sumHas(filepath.Join(proc, "cwd"), prefixes)
}

// sameClient reports whether the process with an ID has the settings that the daemon has.
func (f *FS) sameClient(pid uint32) bool {
	if pid == 0 {
		return false // of another PID namespace
	}
	env, err := readFileAtMost(filepath.Join("/proc", strconv.FormatUint(uint64(pid), 10), "environ"), maxEnviron)
	return err == nil && f.sameSettings(parseEnviron(env))
}

// wantsWritable reports whether the process with an ID is a go command that leaves what it unpacks writable: with
// -modcacherw, as an argument or in GOFLAGS.
func wantsWritable(pid uint32) bool {
	args := goArgs(pid)
	if args == nil {
		return false
	}
	env, err := readFileAtMost(filepath.Join("/proc", strconv.FormatUint(uint64(pid), 10), "environ"), maxEnviron)
	if err == nil {
		vars := parseEnviron(env)
		flags, ok := vars["GOFLAGS"]
		if !ok {
			flags = goEnvFile(vars)["GOFLAGS"]
		}
		args = append(strings.Fields(flags), args...) // an argument after it counts more
	}
	rw := false
	for _, arg := range args {
		switch strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-") {
		case "modcacherw", "modcacherw=true", "modcacherw=1":
			rw = strings.HasPrefix(arg, "-") || rw
		case "modcacherw=false", "modcacherw=0":
			rw = false
		}
	}
	return rw
}

// hasOpen reports whether the process with an ID has a file open whose path, as that process sees it, ends with suffix.
func hasOpen(pid uint32, suffix string) bool {
	if pid == 0 {
		return false // of another PID namespace
	}
	dir := filepath.Join("/proc", strconv.FormatUint(uint64(pid), 10), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		// Reading the link asks nobody but the kernel, whatever the file is on.
		if link, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasSuffix(link, suffix) {
			return true
		}
	}
	return false
}

const (
	maxEnviron = 1 << 20
	maxGoSum   = 32 << 20
)

func parseEnviron(data []byte) map[string]string {
	env := make(map[string]string)
	for kv := range bytes.SplitSeq(data, []byte{0}) {
		if k, v, ok := strings.Cut(string(kv), "="); ok {
			env[k] = v
		}
	}
	return env
}

// sameSettings reports whether a go command with this environment has the settings that the daemon has, as far as they say
// where modules come from and what they are checked against.
func (f *FS) sameSettings(env map[string]string) bool {
	file := goEnvFile(env)
	get := func(key string) string {
		if v := env[key]; v != "" {
			return v
		}
		return file[key]
	}
	private := get("GOPRIVATE")
	or := func(v, other string) string {
		if v == "" {
			return other
		}
		return v
	}
	c := &f.opts.Fetch
	for _, s := range [...]struct{ theirs, ours string }{
		{get("GOPROXY"), c.Proxy},
		{get("GOSUMDB"), c.SumDB},
	} {
		// An unset variable has the go command's own default, as it had for the daemon unless that was told otherwise;
		// which the daemon cannot tell apart, so it asks only for variables that are set.
		if s.theirs != "" && s.theirs != s.ours {
			return false
		}
	}
	return or(get("GONOPROXY"), private) == or(c.NoProxy, c.Private) &&
		or(get("GONOSUMDB"), private) == or(c.NoSumDB, c.Private) &&
		get("GONOSUMCHECK") == ""
}

// goEnvFile returns the settings that "go env -w" stored for a user with this environment.
func goEnvFile(env map[string]string) map[string]string {
	name := env["GOENV"]
	switch {
	case name == "off":
		return nil
	case name != "":
	case env["XDG_CONFIG_HOME"] != "":
		name = filepath.Join(env["XDG_CONFIG_HOME"], "go", "env")
	default:
		name = filepath.Join(env["HOME"], ".config", "go", "env")
	}
	if !filepath.IsAbs(name) {
		return nil
	}
	data, err := readFileAtMost(name, maxEnviron)
	if err != nil {
		return nil
	}
	return parseEnviron(bytes.ReplaceAll(data, []byte("\n"), []byte{0}))
}

// sumHas reports whether the go.sum (or go.work.sum) that a go command in dir would use has a line with one of the prefixes.
func sumHas(dir string, prefixes []string) bool {
	for range 64 { // more levels than any tree has
		for _, name := range [...]string{"go.sum", "go.work.sum"} {
			if fileHasLine(dir+"/"+name, prefixes) {
				return true
			}
		}
		up := dir + "/.." // nothing is cleaned: dir begins with a magic link
		a, errA := os.Stat(dir)
		b, errB := os.Stat(up)
		if errA != nil || errB != nil || os.SameFile(a, b) {
			return false
		}
		dir = up
	}
	return false
}

func fileHasLine(name string, prefixes []string) bool {
	fi, err := os.Stat(name)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxGoSum {
		return false
	}
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	in := bufio.NewScanner(file)
	for in.Scan() {
		for _, p := range prefixes {
			if strings.HasPrefix(in.Text(), p) {
				return true
			}
		}
	}
	return false
}

func readFileAtMost(name string, max int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, max)
}
