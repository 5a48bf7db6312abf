package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"modfs/cmd/modfs/internal/doctor"
	"modfs/fetch"
	modfs "modfs/fs"
	"modfs/fs/control"
)

// report is a file for a bug report: a tar archive, compressed, of what is to be known of a machine and its mounts. All that goes
// into it has been through the redactor.
type report struct {
	tar    *tar.Writer
	redact *fetch.Redactor
	say    io.Writer
	now    time.Time
}

// reportDir is the directory that a report unpacks to.
const reportDir = "modfs-report"

// maxLogTail is how much of the end of a log is in a report, in bytes.
const maxLogTail = 2 << 20

// writeReport makes a report of what was found and what there is besides, and says what it has put in it. name must not exist yet.
func writeReport(ctx context.Context, name string, s *doctor.System, found []doctor.Finding, say io.Writer) (err error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: name another file, or remove it", name)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", name, errno(err))
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			os.Remove(name) // best effort: half of one is of no use
		}
	}()
	z := gzip.NewWriter(file)
	r := &report{tar.NewWriter(z), fetch.NewRedactor(s.Fetch), say, time.Now()}
	fmt.Fprintf(say, "\n%s, for a bug report. Read it before you send it: names of modules, users and directories are in it, and no credentials that modfs knows of.\n", name)
	if err := r.fill(ctx, s, found); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return errors.Join(r.tar.Close(), z.Close())
}

func (r *report) fill(ctx context.Context, s *doctor.System, found []doctor.Finding) error {
	var findings bytes.Buffer
	for _, f := range found {
		if err := printFinding(&findings, func(_ doctor.Level, word string) string { return word }, f); err != nil {
			return err
		}
	}
	errs := []error{
		r.add("doctor.txt", "what this command found", findings.Bytes()),
		r.add("versions.txt", "of modfs, go and the kernel", []byte(versions(s))),
		r.add("settings.txt", "of the go command, and the environment that modfs looks at", []byte(r.settings(ctx, s))),
		r.add("mountinfo.txt", "the lines of the table of mounts that are about modfs, and those above", []byte(mountLines())),
	}
	mounts, err := s.Mounts()
	errs = append(errs, err)
	if s.Mountpoint != "" {
		mounts = slices.DeleteFunc(mounts, func(m modfs.Found) bool { return m.Mountpoint != s.Mountpoint })
	}
	for i, m := range mounts {
		errs = append(errs, r.mount(ctx, fmt.Sprintf("mount%d/", i+1), m))
	}
	if len(mounts) == 0 && s.Store != "" {
		errs = append(errs, r.logs("", s.Store))
	}
	return errors.Join(errs...)
}

// add adds a file and says so.
func (r *report) add(name, what string, data []byte) error {
	text := r.redact.Text(string(data))
	fmt.Fprintf(r.say, "  %-20s %8s  %s\n", name, size(len(text)), what)
	err := r.tar.WriteHeader(&tar.Header{
		Name: reportDir + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: r.now, Format: tar.FormatPAX,
	})
	if err == nil {
		_, err = io.WriteString(r.tar, text)
	}
	return err
}

// addOr adds a file, or why it could not be had.
func (r *report) addOr(name, what string, data []byte, err error) error {
	if err != nil {
		return r.add(name, what+": not to be had", []byte(err.Error()+"\n"))
	}
	return r.add(name, what, data)
}

// mount adds what is to be known of one mount. Nothing waits for the mount: it is asked through a child, and by its socket.
func (r *report) mount(ctx context.Context, dir string, m modfs.Found) error {
	status, err := probeFile(m.Mountpoint, "status.json")
	errs := []error{r.addOr(dir+"status.json", "the status of "+m.Mountpoint, status, err)}
	if !errors.Is(err, errHangs) { // or this would take as long again
		var events []byte
		events, err = probeFile(m.Mountpoint, "errors")
		errs = append(errs, r.addOr(dir+"errors", "its last errors", events, err))
	}
	stacks, err := stacksOf(ctx, m.Mountpoint)
	errs = append(errs, r.addOr(dir+"stacks.txt", "what its daemon is doing", []byte(stacks), err))
	if p, err := m.Daemon(); err == nil {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
		p.Release()
		errs = append(errs, r.addOr(dir+"command.txt", "how its daemon was started", bytes.ReplaceAll(line, []byte{0}, []byte{'\n'}), err))
	}
	return errors.Join(append(errs, r.logs(dir, m.Store))...)
}

// stacksOf asks a daemon what it is doing.
func stacksOf(ctx context.Context, mountpoint string) (string, error) {
	c, err := control.Dial(ctx, mountpoint)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var s control.Stacks
	err = c.Get(ctx, "/v1/stacks", &s)
	return s.Stacks, err
}

// logs adds the ends of the logs of a store, if there are any.
func (r *report) logs(dir, store string) error {
	var errs []error
	for _, name := range []string{logName, logName + ".old"} {
		data, err := tailSoon(filepath.Join(store, name), maxLogTail)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		errs = append(errs, r.addOr(dir+name, "the log in "+store, data, err))
	}
	return errors.Join(errs...)
}

// tailSoon is tail, or an error if the disk does not answer.
func tailSoon(name string, most int64) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	c := make(chan result, 1)
	go func() {
		data, err := tail(name, most)
		c <- result{data, err}
	}()
	select {
	case r := <-c:
		return r.data, r.err
	case <-time.After(probePatience):
		return nil, fmt.Errorf("%s: the disk does not answer", name)
	}
}

// tail returns the last bytes of a regular file, from the beginning of a line.
func tail(name string, most int64) ([]byte, error) {
	fi, err := os.Stat(name)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	from := max(fi.Size()-most, 0)
	data, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if _, rest, ok := bytes.Cut(data, []byte{'\n'}); from > 0 && ok {
		data = rest
	}
	return data, err
}

// versions says what is running where.
func versions(s *doctor.System) string {
	var b strings.Builder
	fmt.Fprintf(&b, "modfs %s %s %s/%s, %d processors, user %d\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), s.UID)
	fmt.Fprintf(&b, "go command: %s\n", s.GoEnv["GOVERSION"])
	for _, name := range []string{"/proc/sys/kernel/ostype", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/version", "/etc/os-release", "/proc/meminfo"} {
		data, err := tail(name, 64<<10)
		if err != nil {
			continue // not Linux
		}
		if fi, err := os.Stat(name); err == nil && fi.Size() == 0 { // of /proc
			data, _ = os.ReadFile(name)
		}
		lines := strings.SplitAfterN(string(data), "\n", 6)
		fmt.Fprintf(&b, "%s:\n%s\n", name, strings.TrimRight(strings.Join(lines[:min(len(lines), 5)], ""), "\n"))
	}
	return b.String()
}

// reportSettings are the variables of the go command that are in a report.
var reportSettings = strings.Fields(`GOPROXY GONOPROXY GOSUMDB GONOSUMDB GOPRIVATE GOINSECURE GOVCS GOAUTH GOFLAGS GOMODCACHE GOPATH GOCACHE GOENV
	GOTOOLCHAIN GOVERSION GOOS GOARCH GO111MODULE`)

// reportEnvironment are those of the environment.
var reportEnvironment = strings.Fields(`HOME PATH XDG_CACHE_HOME XDG_RUNTIME_DIR TMPDIR HTTP_PROXY http_proxy HTTPS_PROXY https_proxy NO_PROXY no_proxy
	SSL_CERT_FILE SSL_CERT_DIR NETRC GOMAXPROCS GOMEMLIMIT GODEBUG container`)

// settings returns the settings, one a line.
func (r *report) settings(ctx context.Context, s *doctor.System) string {
	var b strings.Builder
	env, err := doctor.GoEnv(ctx, reportSettings...)
	if err != nil {
		fmt.Fprintf(&b, "go env: %v\n", err)
	}
	for _, name := range reportSettings {
		v := env[name]
		if name == "GOAUTH" {
			v = r.redact.Auth(v)
		}
		if v != "" {
			fmt.Fprintf(&b, "%s=%s\n", name, v)
		}
	}
	b.WriteString("\nenvironment:\n")
	for _, name := range reportEnvironment {
		if v, ok := os.LookupEnv(name); ok {
			fmt.Fprintf(&b, "%s=%s\n", name, v)
		}
	}
	fmt.Fprintf(&b, "\nstore: %s\n", s.Store)
	if s.FetchErr != nil {
		fmt.Fprintf(&b, "settings: %v\n", s.FetchErr)
	}
	return b.String()
}

// mountLines returns the lines of the table of mounts that are about modfs, and those of the mounts that they are on.
func mountLines() string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err.Error() + "\n"
	}
	lines := slices.Collect(strings.Lines(string(data)))
	var wanted []string // IDs
	for _, line := range lines {
		if f := strings.Fields(line); strings.Contains(line, " modfs:") && len(f) > 1 {
			wanted = append(wanted, f[0], f[1])
		}
	}
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		id, _, _ := strings.Cut(line, " ")
		return !slices.Contains(wanted, id)
	}), "")
}
