package doctor

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"modfs/fetch"
	modfs "modfs/fs"
)

// System is the machine, and the user, that are looked at.
type System struct {
	Root string // before /proc, /dev, /etc, …; "" for the machine's own
	UID  int    // who asks

	Version string // of this program

	Mountpoint string // the mount that he asks about; "" for all

	Store   string // the default store, or that of --store
	MaxSize int64  // the limit of a store that is not mounted, in bytes; 0: none
	MinFree func(total int64) int64

	GoEnv    map[string]string // of the go command
	GoEnvErr error
	Fetch    fetch.Config // the settings of the user; zero with FetchErr
	FetchErr error

	Mounts    func() ([]modfs.Found, error)
	Probe     func(mountpoint string) (*modfs.Status, error)      // an error that Is ETIMEDOUT: it hangs; ENOTCONN: its daemon is dead
	Control   func(mountpoint string) (version string, err error) // by the control socket of its daemon; nil: not asked
	Owned     func(modfs.Found) bool                              // its daemon is a process that can be seen here
	Unmount   func(mountpoint string) error                       // of a dead daemon's
	Force     func(mountpoint string) error                       // of one that hangs
	Open      func(name string) error                             // and close, to read and write
	Namespace func(context.Context) error                         // mounts in a user namespace of its own
	LookPath  func(name string) (string, error)
	Statfs    func(dir string) (Statfs, error)
	Options   func(options string) error // of a line in fstab; nil: they cannot be judged

	reach    sync.Once
	reached  []fetch.Reached
	reachErr error

	probes sync.Map // of mountpoint: func() (*modfs.Status, error)
}

// Statfs is what is to be known of the file system that a directory is on.
type Statfs struct {
	Type               string // a name, or a number in hexadecimal
	ReadOnly           bool
	Free, Total        int64 // bytes, for users other than root
	FreeFiles, MaxFile uint64
}

// path returns where a file of the machine is.
func (s *System) path(name string) string { return filepath.Join(s.Root, name) }

// read returns a file of the machine, without the line break at its end; "" if it cannot be read.
func (s *System) read(name string) string {
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(data), "\n")
}

func (s *System) exists(name string) bool {
	_, err := os.Stat(s.path(name))
	return err == nil
}

// lines returns the lines of a configuration file without comments.
func (s *System) lines(name string) []string {
	var lines []string
	sc := bufio.NewScanner(strings.NewReader(s.read(name)))
	for sc.Scan() {
		if line, _, _ := strings.Cut(sc.Text(), "#"); strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// processStatus returns a field of /proc/self/status.
func (s *System) processStatus(field string) string {
	for line := range strings.Lines(s.read("/proc/self/status")) {
		if name, v, ok := strings.Cut(line, ":"); ok && name == field {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// mayMount reports whether this process may mount by itself (CAP_SYS_ADMIN).
func (s *System) mayMount() bool {
	caps, err := strconv.ParseUint(s.processStatus("CapEff"), 16, 64)
	if err != nil {
		return s.UID == 0
	}
	const sysAdmin = 21 // capabilities(7)
	return caps&(1<<sysAdmin) != 0
}

// inContainer reports whether this is a container, as far as those say so.
func (s *System) inContainer() bool {
	if s.exists("/run/.containerenv") || s.exists("/.dockerenv") {
		return true
	}
	for v := range strings.SplitSeq(s.read("/proc/1/environ"), "\x00") {
		if strings.HasPrefix(v, "container=") {
			return true
		}
	}
	return false
}

// mounts returns the mounts that are asked about.
func (s *System) mounts() ([]modfs.Found, error) {
	all, err := s.Mounts()
	if err != nil || s.Mountpoint == "" {
		return all, err
	}
	return slices.DeleteFunc(all, func(m modfs.Found) bool { return m.Mountpoint != s.Mountpoint }), nil
}

// probe is Probe, once for each mount: one that hangs takes its time.
func (s *System) probe(mountpoint string) (*modfs.Status, error) {
	once := sync.OnceValues(func() (*modfs.Status, error) { return s.Probe(mountpoint) })
	f, _ := s.probes.LoadOrStore(mountpoint, once)
	return f.(func() (*modfs.Status, error))()
}

// live returns the status of each mount, of those that are asked about, whose daemon answers.
func (s *System) live() []*modfs.Status {
	mounts, err := s.mounts()
	if err != nil {
		return nil // checkMounts says so
	}
	var live []*modfs.Status
	for _, m := range mounts {
		if m.Stale {
			continue
		}
		if st, err := s.probe(m.Mountpoint); err == nil {
			live = append(live, m.Local(st))
		}
	}
	return live
}

// reachPatience bounds the wait for proxies and the checksum database.
const reachPatience = 15 * time.Second

// upstreams asks the proxies and the checksum database whether they are there, once.
func (s *System) upstreams(ctx context.Context) ([]fetch.Reached, error) {
	s.reach.Do(func() {
		if s.reachErr = s.FetchErr; s.reachErr != nil {
			return
		}
		cfg := s.Fetch
		cfg.Tries, cfg.MetaTimeout, cfg.IdleTimeout = 1, reachPatience, reachPatience
		c, err := fetch.New(cfg)
		if err != nil {
			s.reachErr = err
			return
		}
		defer c.Close()
		s.reached = c.Reach(ctx)
	})
	return s.reached, s.reachErr
}

// resolve returns p without symbolic links, without looking at what is at or below a mount of modfs.
func (s *System) resolve(p string) string {
	all, err := s.Mounts()
	if err != nil {
		return p
	}
	isMount := func(p string) bool {
		return slices.ContainsFunc(all, func(m modfs.Found) bool { return m.Mountpoint == p })
	}
	const maxLinks = 40 // as in path_resolution(7)
	links := 0
	done, rest := "/", strings.Split(filepath.Clean(p), "/")
	for len(rest) > 0 {
		next := filepath.Join(done, rest[0])
		if isMount(next) {
			return filepath.Join(append([]string{done}, rest...)...)
		}
		link, err := os.Readlink(next)
		if err != nil || links == maxLinks {
			done, rest = next, rest[1:]
			continue
		}
		links++
		if !filepath.IsAbs(link) {
			link = filepath.Join(done, link)
		}
		done, rest = "/", append(strings.Split(filepath.Clean(link), "/"), rest[1:]...)
	}
	return done
}

// within reports whether path p is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// GoEnv asks the go command for settings, in bounded time.
func GoEnv(ctx context.Context, names ...string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"env"}, names...)...)
	// In the root directory and with the local toolchain no go.mod has a say, nor starts a download.
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	values := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(values) != len(names) {
		return nil, errors.New("go env: a value has more than one line")
	}
	env := make(map[string]string)
	for i, name := range names {
		env[name] = values[i]
	}
	return env, nil
}
