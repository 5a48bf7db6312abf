package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of what the go command prints, in bytes.
const (
	maxStdout = 8 << 20 // versions of a module
	maxStderr = 64 << 10
)

// output is what the go command printed.
type output struct{ stdout, stderr []byte }

// limited keeps the first max bytes that are written to it. The buffer is not embedded: it would be read into directly, by its
// method ReadFrom and without a limit.
type limited struct {
	buf  bytes.Buffer
	max  int
	more func() // called when there are more; nil: they are dropped
	full bool   // there were more
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if room := l.max - l.buf.Len(); len(p) > room {
		p = p[:room]
		if !l.full && l.more != nil {
			l.more()
		}
		l.full = true
	}
	l.buf.Write(p)
	return n, nil
}

// goCommand runs the go command. When it returns, it has ended, and all that it started has been killed, unless that has left its
// process group on purpose.
func (d *direct) goCommand(ctx context.Context, r *run, args []string) (output, error) {
	goName, err := exec.LookPath("go")
	if err != nil {
		return output{}, errNoGo
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdout, stderr := &limited{max: maxStdout, more: cancel}, &limited{max: maxStderr}
	cmd := exec.CommandContext(ctx, goName, args...)
	cmd.Dir = r.dir
	cmd.Env = d.environ(os.Environ(), r)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err = runAlone(cmd); cmd.Process == nil {
		return output{}, fmt.Errorf("go %s: %v", args[0], err)
	}
	if stdout.full {
		err = fmt.Errorf("%w: go %s printed more than %d bytes", ErrTooLarge, args[0], maxStdout)
	}
	return output{stdout.buf.Bytes(), stderr.buf.Bytes()}, err
}

// runAlone runs cmd, which has a context, in a session of its own: that has no terminal on which anybody could be asked for a
// password. When it returns, no process of its group is left.
func runAlone(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	killWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // for what left the group and holds our pipes
	// killWithParent is about the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	err := cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // best effort: as a rule there is nobody left
	return err
}

// environ returns the environment of the go command, from that of this process: with the settings of the client, and such that
// neither it nor what it starts asks anybody anything.
func (d *direct) environ(from []string, r *run) []string {
	env := environment(from)
	quiet(env)
	cfg := &d.c.cfg
	set := func(k, v string) { env[k] = v }
	set("GO111MODULE", "on")
	set("GOPROXY", "direct")
	set("GONOPROXY", none)
	set("GOPRIVATE", orDefault(cfg.Private, none)) // GOVCS tells private modules from public ones
	set("GOINSECURE", orDefault(cfg.Insecure, none))
	set("GOVCS", orDefault(cfg.VCS, "public:git|hg,private:all")) // the go command's default
	set("GOSUMDB", "off")
	set("GOFLAGS", "-modcacherw")
	set("GOWORK", "off")
	set("GOTOOLCHAIN", "local")
	set("GOMODCACHE", r.g.dir)
	set("GOPATH", filepath.Join(r.g.dir, "gopath"))
	set("TMPDIR", filepath.Join(r.g.dir, "tmp"))
	set("GOTMPDIR", filepath.Join(r.g.dir, "tmp"))
	set("PWD", r.dir)

	set("HGPLAIN", "1")
	idle := max(1, int(cfg.IdleTimeout/time.Second))
	if env["GIT_SSH_COMMAND"] == "" && env["GIT_SSH"] == "" {
		set("GIT_SSH_COMMAND", fmt.Sprintf("ssh -o BatchMode=yes -o ControlMaster=no -o ConnectTimeout=%d -o ServerAliveInterval=%d -o ServerAliveCountMax=1", idle, idle))
	}
	set("GIT_HTTP_LOW_SPEED_LIMIT", "1") // byte a second; upload-pack says that it is alive every five seconds
	set("GIT_HTTP_LOW_SPEED_TIME", strconv.Itoa(idle))
	// What git would do in the background would not be in our process group.
	gitConfig(env, "gc.auto", "0")
	gitConfig(env, "maintenance.auto", "false")

	// Errors are told apart by their texts.
	if v := env["LC_ALL"]; v != "" {
		set("LANG", v)
	}
	delete(env, "LC_ALL")
	delete(env, "LANGUAGE")
	set("LC_MESSAGES", "C")

	return variableList(env)
}

// environment returns variables by their names.
func environment(from []string) map[string]string {
	env := make(map[string]string, len(from))
	for _, kv := range from {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

func variableList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// quiet changes the environment of a program such that what it starts asks nobody for a password.
func quiet(env map[string]string) {
	// We may have been started by a hook of git, which has these set for that repository.
	for _, k := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
		"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_QUARANTINE_PATH"} {
		delete(env, k)
	}
	env["GIT_TERMINAL_PROMPT"] = "0"
	env["GCM_INTERACTIVE"] = "never"
	no := refuser()
	env["GIT_ASKPASS"] = no
	env["SSH_ASKPASS"] = no
	env["SSH_ASKPASS_REQUIRE"] = "force" // by that program, which refuses
}

// gitConfig adds a setting of git to an environment (git-config(1), GIT_CONFIG_COUNT).
func gitConfig(env map[string]string, key, value string) {
	n, err := strconv.ParseUint(env["GIT_CONFIG_COUNT"], 10, 16)
	if err != nil {
		n = 0
	}
	env[fmt.Sprintf("GIT_CONFIG_KEY_%d", n)] = key
	env[fmt.Sprintf("GIT_CONFIG_VALUE_%d", n)] = value
	env["GIT_CONFIG_COUNT"] = strconv.FormatUint(n+1, 10)
}

// refuser is a program that answers no question.
func refuser() string {
	if name, err := exec.LookPath("false"); err == nil {
		return name
	}
	return "/bin/false" // what cannot be run refuses, too
}

// explain returns the error of a go command that failed.
func (d *direct) explain(w wanted, text string, failure, parse error) error {
	if errors.Is(failure, errNoGo) || errors.Is(failure, ErrTooLarge) {
		return fmt.Errorf("direct: %w", failure)
	}
	text = printable(redactText(cloneDir.ReplaceAllString(text, "")))
	for _, prefix := range []string{"go: ", "module " + w.path + ": ", w.path + "@" + w.query + ": ", "invalid version: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if text == "" {
		if failure == nil {
			failure = parse
		}
		return fmt.Errorf("direct: the go command did not say what it did: %v", failure)
	}
	if class := classOfText(text); class != nil {
		return fmt.Errorf("%w: direct: %s", class, shorten(text))
	}
	return fmt.Errorf("direct: %s", shorten(text))
}

// cloneDir is where git ran, which tells nobody anything.
var cloneDir = regexp.MustCompile(` in \S*/cache/vcs/[0-9a-f]+`)

// maxMessage bounds the text of an error of the go command, in bytes.
const maxMessage = 1000

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + " …"
}
