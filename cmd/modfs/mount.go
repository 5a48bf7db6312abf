package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
	"modfs/lru"
)

func newMount() *cobra.Command {
	var (
		f serveFlags
		d daemonFlags
	)
	cmd := &cobra.Command{
		Use:   "mount [flags] [MOUNTPOINT]",
		Short: "Mount the module cache and serve it",
		Long: `Mount serves the module cache at MOUNTPOINT, by default the directory that
'go env GOMODCACHE' names, until it is unmounted or gets SIGINT, SIGTERM or SIGHUP.
Then go commands that use it may end, for as long as --grace says. If it is in use
after that, it is unmounted lazily and served until its last user leaves, for as
long again; a second signal ends it at once.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			daemon := takeDaemonPipe()
			if d.background && daemon == nil {
				return startDaemon()
			}
			d.daemon = daemon
			d.notifier = takeNotifier()
			mountpoint, err := mountpointArg(cmd.Context(), args)
			if err != nil {
				return err
			}
			return serve(cmd, &f, &d, mountpoint)
		},
	}
	fs := cmd.Flags()
	f.register(fs, "info", "modcache")
	d.grace = ageValue(30 * time.Second)
	fs.Var(&d.grace, "grace", "how long a signal lets go commands, and then other users, go on; 0: not at all")
	watchdogFlag(fs, &d.watchdog)
	fs.BoolVar(&d.over, "over", false, "mount over a directory that is not empty, hiding what is in it; a module cache there is a seed")
	fs.BoolVar(&d.background, "background", false, "return when the mount is ready; log to modfs.log in the store")
	fs.BoolVar(&d.quiet, "quiet", false, "say nothing if all is well")
	fs.MarkHidden("quiet") // for mount.modfs
	return cmd
}

// daemonFlags are the flags of mount that run has not, and what else makes a daemon.
type daemonFlags struct {
	over, background, quiet bool
	grace, watchdog         ageValue

	daemon   *daemonPipe // nil in the foreground
	notifier *notifier
}

// mountpointArg returns the absolute path of the directory to mount at.
func mountpointArg(ctx context.Context, args []string) (string, error) {
	if len(args) == 1 {
		if args[0] == "" {
			return "", usagef("the mountpoint is empty")
		}
		return mountpointPath(args[0])
	}
	// In the root directory and with the local toolchain no go.mod has a say, nor starts a download.
	cmd := exec.CommandContext(ctx, "go", "env", "GOMODCACHE")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		return "", fmt.Errorf("go env GOMODCACHE does not say where to mount (%v): name a MOUNTPOINT", err)
	}
	return mountpointPath(dir)
}

// mountpointPath returns the absolute path of a mountpoint as the kernel names it. It does not touch a modfs mount that
// is there: its daemon may be dead, or hang.
func mountpointPath(p string) (string, error) {
	if found, err := modfs.Find(p); err != nil {
		return "", err
	} else if found != nil {
		return found.Mountpoint, nil
	}
	return realPath(p)
}

// serve mounts at mountpoint and serves until the mount is gone.
func serve(cmd *cobra.Command, f *serveFlags, d *daemonFlags, mountpoint string) error {
	stderr := cmd.ErrOrStderr()
	var log io.Writer = stderr
	sink := new(logSink)
	if d.daemon != nil {
		log = sink
	}
	o, err := f.options(cmd.Context(), cmd.Flags(), log)
	if err != nil {
		return err
	}
	// Before the mount exists, so that no signal leaves it behind without a daemon.
	signals := catchSignals(endings)
	web, err := f.openWeb(&o)
	if err != nil {
		return err
	}
	m, err := mountAt(mountpoint, o, d.over, true)
	if err != nil {
		web.Close()
		return explainMount(err, o.Store.Dir)
	}
	moreProcs()
	say := stderr
	if d.quiet {
		say = io.Discard
	}
	fmt.Fprintf(say, "modfs: serving %s (store %s)\n", mountpoint, o.Store.Dir)
	startWeb(web, m, &o, say)
	if d.daemon != nil {
		if err := d.daemon.ready(o.Store.Dir, sink); err != nil {
			m.Close()
			return err
		}
	}
	d.notifier.tell("READY=1", "MAINPID="+strconv.Itoa(os.Getpid()), "STATUS=serving "+mountpoint)
	e := &ending{m: m, grace: time.Duration(d.grace), notifier: d.notifier, web: web, say: stderr}
	return e.wait(signals, newWatchdog(m, d.notifier, time.Duration(d.watchdog)))
}

// moreProcs has the Go scheduler run more threads than there are cores, unless the user said how many. The readers of requests
// wait in read(2), where the scheduler takes a thread for running until it finds out that it is not; with none to spare, a
// request that has come then waits for that.
func moreProcs() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2*runtime.GOMAXPROCS(0) + 2)
	}
}

// mountAt mounts at mountpoint, which may hold other files only if over is set. wait says whether to give a daemon that is
// just leaving the store the time to do so.
func mountAt(mountpoint string, o modfs.Options, over, wait bool) (*modfs.FS, error) {
	if within(o.Store.Dir, mountpoint) || within(mountpoint, o.Store.Dir) {
		return nil, usagef("the mountpoint %s and the store %s must not be inside one another: give another --store", mountpoint, o.Store.Dir)
	}
	if err := prepareMountpoint(mountpoint, over); err != nil {
		return nil, err
	}
	if over {
		if s := seedBelow(mountpoint); s != nil {
			o.Fetch.Seeds = append(o.Fetch.Seeds, s)
		}
	}
	for deadline := time.Now().Add(leavingPatience); ; time.Sleep(leavingPause) {
		m, err := modfs.Mount(mountpoint, o)
		if l, ok := errors.AsType[*lru.LockedError](err); ok && wait && leaving(l) && time.Now().Before(deadline) {
			continue
		}
		if err == nil {
			startControl(m, o.Log)
		}
		return m, err
	}
}

// startControl makes the control socket of a mount, which serves modules as well without.
func startControl(m *modfs.FS, log *slog.Logger) {
	if err := control.Start(control.Options{FS: m, Version: version(), Log: log}); err != nil {
		log.Warn("no control socket: status and steering are not to be had", "mountpoint", m.Mountpoint(), "err", err)
	}
}

// What unmounts a file system does not wait for its daemon, which then still has the store for a moment. It is given this
// long, and asked that often.
const (
	leavingPatience = 10 * time.Second
	leavingPause    = 20 * time.Millisecond
)

// leaving reports whether the process that has the store is likely about to leave it: what it served is not mounted (any
// more), or it serves nothing and only looks whether the store is free.
func leaving(l *lru.LockedError) bool {
	if l.Holder == "" {
		return true
	}
	found, err := modfs.Find(l.Holder)
	return err == nil && found == nil
}

// prepareMountpoint makes mountpoint an empty directory, or fails. What a dead daemon left there is unmounted first: the
// directory below is the one that counts.
func prepareMountpoint(mountpoint string, over bool) error {
	found, err := modfs.Find(mountpoint)
	if err != nil {
		return err
	}
	if found != nil && !found.Stale {
		switch isDead, err := dead(mountpoint); {
		case err != nil:
			return fmt.Errorf("%s is mounted (store %s), and %w: 'modfs unmount --force %s' ends it", mountpoint, found.Store, err, mountpoint)
		case !isDead:
			return servedAlready(found)
		}
	}
	if found != nil {
		if err := modfs.Unmount(mountpoint, true); err != nil {
			return fmt.Errorf("%s is the mount of a dead daemon and cannot be unmounted: %w", mountpoint, err)
		}
	}
	if err := os.MkdirAll(mountpoint, 0o755); err != nil {
		return fmt.Errorf("mountpoint %s cannot be created: %v: name another", mountpoint, errno(err))
	}
	dir, err := os.Open(mountpoint)
	if err != nil {
		return fmt.Errorf("mountpoint %s: %w", mountpoint, errno(err))
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); err == nil && !over {
		// It may be what another daemon has just mounted.
		if found, err := modfs.Find(mountpoint); err == nil && found != nil {
			return servedAlready(found)
		}
		if fi, err := os.Stat(filepath.Join(mountpoint, "cache", "download")); err == nil && fi.IsDir() {
			return fmt.Errorf("mountpoint %s is a module cache already: remove it with 'go clean -modcache', or use and hide it with --over", mountpoint)
		}
		return fmt.Errorf("mountpoint %s is not empty: name another, or hide what is in it with --over", mountpoint)
	} else if err != nil && err != io.EOF {
		return fmt.Errorf("mountpoint %s: %w", mountpoint, errno(err))
	}
	return nil
}

func servedAlready(m *modfs.Found) error {
	return fmt.Errorf("%s is served already (store %s): use it, or 'modfs unmount %[1]s' first", m.Mountpoint, m.Store)
}
