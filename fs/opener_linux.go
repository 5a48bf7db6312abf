package fs

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// opens reports whether the process with an ID is a go command that looks a module's directory up because it will read it.
func opens(pid uint32) bool {
	args := goArgs(pid)
	return args != nil && !onlyLooks(args)
}

// looks reports whether the process with an ID is a go command that looks modules up to tell which ones are there: to that,
// those that nobody has opened are not. It is `go list -m`, which `go doc` uses too, and `go mod verify`, which would else
// verify the world.
func looks(pid uint32) bool {
	args := goArgs(pid)
	return args != nil && onlyLooks(args)
}

func onlyLooks(args []string) bool {
	if i := slices.Index(args, "mod"); i >= 0 && slices.Contains(args[i:], "verify") {
		return true
	}
	return slices.Contains(args, "list") && slices.ContainsFunc(args, func(arg string) bool {
		flag, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		return strings.HasPrefix(arg, "-") && flag == "m" && (!given || value == "true" || value == "1")
	})
}

// goArgs returns the arguments of a process that is a go command, nil if it is none or that is not to be known.
func goArgs(pid uint32) []string {
	if pid == 0 {
		return nil // of another PID namespace
	}
	line, err := readFileAtMost("/proc/"+strconv.FormatUint(uint64(pid), 10)+"/cmdline", maxEnviron)
	if err != nil {
		return nil
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if len(args) < 2 || filepath.Base(args[0]) != "go" {
		return nil
	}
	return args[1:]
}
