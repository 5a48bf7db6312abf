package fs

import (
	"bytes"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// opens reports whether the process with an ID is a go command that looks a module's directory up because it will read it.
// That is any but `go list -m`, which looks up the directory of each module that it lists.
func opens(pid uint32) bool {
	if pid == 0 {
		return false // of another PID namespace
	}
	line, err := readFileAtMost("/proc/"+strconv.FormatUint(uint64(pid), 10)+"/cmdline", maxEnviron)
	if err != nil {
		return false
	}
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(line, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	if len(args) < 2 || filepath.Base(args[0]) != "go" {
		return false
	}
	return !slices.Contains(args, "list") || !slices.ContainsFunc(args[1:], func(arg string) bool {
		flag, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		return strings.HasPrefix(arg, "-") && flag == "m" && (!given || value == "true" || value == "1")
	})
}
