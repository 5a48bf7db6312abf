package fs

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// caller is the process that sent a request. It is looked at only to decide what to offer and what to fetch ahead, never for
// what is in it: a wrong guess costs a download, no more. So is a guess that is callerTimeout old.
type caller struct {
	read time.Time

	args     []string // of a go command, without its name; nil of any other program
	same     bool     // its settings are those of the daemon: it would get from its proxy what we get from ours
	trace    string   // the value of TraceEnv in its environment
	opaque   bool     // its environment cannot be read
	writable bool     // it is a go command that leaves what it unpacks writable (-modcacherw)

	// sums are the modules that the go.sum files of its working directory list. They are read when first wanted.
	sums func() sums

	hintedMods, hintedZips atomic.Bool // those that the sums list were asked to be fetched ahead
}

// callerTimeout is for how long a process is taken for what it was. It can become another program by exec, and its number
// may go to another process.
const callerTimeout = 100 * time.Millisecond

// callers are the processes that were looked at, by the number of the thread that sent a request.
type callers struct {
	mu sync.Mutex
	by map[uint32]*caller
}

// maxCallers bounds how many are remembered; then all are looked at anew.
const maxCallers = 1024

// callerOf returns what is known of the process with a number. That is nothing for one of another PID namespace, whose number
// is 0, for those that the daemon may not look at, and where that takes too long.
func (f *FS) callerOf(pid uint32) *caller {
	now := time.Now()
	f.callers.mu.Lock()
	c := f.callers.by[pid]
	f.callers.mu.Unlock()
	if c != nil && now.Sub(c.read) < callerTimeout {
		return c
	}
	c, ok := look(f, func() *caller { return f.readCaller(pid) })
	if !ok {
		c = opaqueCaller()
	}
	c.read = now
	f.callers.mu.Lock()
	defer f.callers.mu.Unlock()
	if f.callers.by == nil || len(f.callers.by) >= maxCallers {
		f.callers.by = make(map[uint32]*caller)
	}
	// What a process lists may be large. It is not kept for longer than it is good for.
	maps.DeleteFunc(f.callers.by, func(_ uint32, c *caller) bool { return now.Sub(c.read) >= callerTimeout })
	f.callers.by[pid] = c
	return c
}

// opaqueCaller is a process of which nothing is known.
func opaqueCaller() *caller {
	return &caller{opaque: true, sums: func() sums { return sums{} }}
}

func (f *FS) readCaller(pid uint32) *caller {
	p := process(pid)
	environ, err := p.read("environ")
	if pid == 0 || err != nil {
		return opaqueCaller()
	}
	c, env := new(caller), parseEnviron(environ)
	c.same, c.trace = f.sameSettings(env), env[TraceEnv]
	if line, err := p.read("cmdline"); err == nil {
		c.args = goArgs(string(line))
	}
	if c.args != nil {
		flags, ok := env["GOFLAGS"]
		if !ok {
			flags = goEnvFile(env)["GOFLAGS"]
		}
		c.writable = modCacheRW(slices.Concat(strings.Fields(flags), c.args)) // the last one counts
	}
	c.sums = sync.OnceValue(func() sums {
		s, _ := look(f, func() sums { return f.sumsOf(p, env["GOWORK"]) })
		return s
	})
	return c
}

// goArgs returns the arguments of a go command, nil if that is not what the command line is of.
func goArgs(cmdline string) []string {
	args := strings.Split(strings.TrimSuffix(cmdline, "\x00"), "\x00")
	if len(args) < 2 || filepath.Base(args[0]) != "go" {
		return nil
	}
	return args[1:]
}

// modCacheRW reports whether a go command with these arguments leaves what it unpacks writable.
func modCacheRW(args []string) bool {
	rw := false
	for _, arg := range args {
		if name, value, _ := cutFlag(arg); name == "modcacherw" {
			rw = value == "" || value == "true" || value == "1"
		}
	}
	return rw
}

// cutFlag takes a flag of the go command apart; ok is false if the argument is none.
func cutFlag(arg string) (name, value string, ok bool) {
	name, ok = strings.CutPrefix(arg, "-")
	name, value, _ = strings.Cut(strings.TrimPrefix(name, "-"), "=")
	return name, value, ok
}

// looks reports whether the caller is a go command that looks modules up to tell which ones are there: to that, those that
// nobody has opened are not. It is `go list -m`, which `go doc` uses too, and `go mod verify`, which would else verify the
// world.
func (c *caller) looks() bool {
	if i := slices.Index(c.args, "mod"); i >= 0 && slices.Contains(c.args[i:], "verify") {
		return true
	}
	return slices.Contains(c.args, "list") && slices.ContainsFunc(c.args, func(arg string) bool {
		name, value, ok := cutFlag(arg)
		return ok && name == "m" && (value == "" || value == "true" || value == "1")
	})
}

// opens reports whether the caller is a go command that looks a module's directory up because it will read it.
func (c *caller) opens() bool { return c.args != nil && !c.looks() }

// builds reports whether the caller is a go command that loads packages, and so needs the zips of the modules that they are in.
func (c *caller) builds() bool {
	if len(c.args) == 0 || c.looks() {
		return false
	}
	switch c.args[0] {
	case "build", "install", "list", "run", "test", "vet":
		return true
	}
	return false
}

const (
	maxEnviron = 1 << 20
	maxGoSum   = 4 << 20 // of the largest known programs: 0.2 MiB
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
	data, err := readForeign(name, maxEnviron)
	if err != nil {
		return nil
	}
	return parseEnviron(bytes.ReplaceAll(data, []byte("\n"), []byte{0}))
}
