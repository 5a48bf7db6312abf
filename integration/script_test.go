// Package integration has the tests of modfs from outside: the command as it is built, a mount in the kernel, and the go
// command on it.
package integration

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
	"modfs/fs/fusetest"
)

// bin is the directory of the command under test, which TestMain builds: one binary, as users have it, and with the race
// detector when the tests have it.
var bin string

// alone is a command beside it: it runs another one in a new mount namespace, in which the mounts of other tests are left alone. A
// copy of one would keep its daemon from ending for as long as the namespace lives.
const alone = `#!/bin/sh
for m in $(awk '$1 ~ /^modfs:/ { print $2 }' /proc/self/mounts); do
	case $m in $WORK/*) ;; *) umount -l $m ;; esac
done
exec "$@"
`

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "modfs-bin-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		args := []string{"build", "-o", dir}
		if raceEnabled {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "modfs/cmd/modfs")...)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			log.Fatal("build modfs: ", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "alone"), []byte(alone), 0o755); err != nil {
			log.Fatal(err)
		}
		bin = dir
		// Tests wait for processes, timeouts and one another's turns more than they compute.
		flag.Parse()
		if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
			n.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
		}
		return m.Run()
	}())
}

// TestScripts runs testdata/script: each script has a store, a home, a mountpoint and a module proxy of its own. What a
// script leaves mounted or running is ended after it, also if it fails.
//
// Their commands besides testscript's:
//
//	waitmount DIR, waitgone DIR   wait until modfs is, or is not, mounted at DIR
//	waitstale DIR                 wait until the daemon of the mount at DIR is dead
//	waitfile FILE                 wait until FILE exists
//	terminate FILE                send SIGTERM to the process whose ID is in FILE
//	killdaemon DIR                kill -9 the daemon of the mount at DIR, and wait for that
//	hold FILE, readheld, release  keep a file or directory open, read it, close it
//	watchsize DIR, atmost N       measure a directory from now on; fail if it ever took more than N bytes
//
//	exec unshare -m alone COMMAND   run it in a mount namespace without the mounts of other tests
//	chrometrace FILE ROW:SLICE...   check that FILE is a trace that has these slices
//
// those of proxyCommands,
//
// and the conditions [fuse] (this user can mount), [root] and [namespaces] (root can make namespaces and devices, and
// users can make user namespaces).
func TestScripts(t *testing.T) {
	t.Parallel()
	cache := goEnv(t, "GOCACHE") // or each script would compile the standard library
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			proxy, err := proxytest.Start(append(proxytest.Modules(), toolchain())...)
			if err != nil {
				return err
			}
			e.Defer(proxy.Close)
			e.Values[proxyKey{}] = proxy
			home := filepath.Join(e.WorkDir, "home")
			e.Vars = append(e.Vars, proxy.Env()...)
			for k, v := range map[string]string{
				"HOME": home, "GOCACHE": cache, "GOTOOLCHAIN": "local", "GOTELEMETRY": "off",
				"STORE": filepath.Join(e.WorkDir, "store"), "MNT": filepath.Join(e.WorkDir, "mnt"),
				"GORACE": "atexit_sleep_ms=0", // with -race each modfs would wait a second before it exits
				"PROXY":  proxy.URL(), "TAMPER": proxy.FaultURL("tamper"), workEnv: e.WorkDir,
			} {
				e.Setenv(k, v)
			}
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Values[heldKey] = new(held)
			w := new(watchers)
			e.Values[watcherKey{}] = w
			e.Defer(func() { w.end() })
			e.Defer(func() { cleanUp(t, e.WorkDir, e.Values[heldKey].(*held)) })
			return os.MkdirAll(home, 0o755)
		},
		Condition: condition,
		Cmds: merge(proxyCommands(scriptProxy), map[string]func(*testscript.TestScript, bool, []string){
			"waitmount":  cmdWaitMount,
			"waitgone":   cmdWaitGone,
			"waitstale":  cmdWaitStale,
			"waitfile":   cmdWaitFile,
			"terminate":  cmdTerminate,
			"killdaemon": cmdKillDaemon,
			"hold":       cmdHold,
			"readheld":   cmdReadHeld,
			"release":    cmdRelease,
			"watchsize":  cmdWatchSize,
			"atmost":     cmdAtMost,

			"chrometrace": cmdChromeTrace,
		}),
	})
}

// workEnv marks the processes that a script started, directly or not.
const workEnv = "MODFS_TEST_WORK"

// patience is how long a script waits for what must come. It is for a machine that is busy with other tests.
const patience = 2 * time.Minute

func goEnv(t *testing.T, name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func condition(cond string) (bool, error) {
	switch cond {
	case "fuse":
		err := fusetest.Mountable()
		if err != nil && fusetest.Must() {
			return false, fmt.Errorf("MODFS_REQUIRE_FUSE=1, but: %v", err)
		}
		return err == nil, nil
	case "root":
		return os.Geteuid() == 0, nil
	case "namespaces":
		return namespaces(), nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

var namespaces = sync.OnceValue(func() bool {
	const try = `set -e
		mount -t tmpfs modfs-test /mnt
		mknod -m 666 /mnt/fuse c 10 229
		: <>/mnt/fuse
		setpriv --reuid 65534 --regid 65534 --clear-groups unshare -Um true`
	return exec.Command("unshare", "-m", "sh", "-c", try).Run() == nil
})

// waitUntil waits until ok returns true.
func waitUntil(ts *testscript.TestScript, what string, ok func() bool) {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %v in vain until %s", patience, what)
		}
	}
}

// oneArg returns the only argument of a script's command, as an absolute path.
func oneArg(ts *testscript.TestScript, neg bool, args []string) string {
	if neg || len(args) != 1 {
		ts.Fatalf("want one argument, and no !")
	}
	return ts.MkAbs(args[0])
}

func find(ts *testscript.TestScript, dir string) *modfs.Found {
	found, err := modfs.Find(dir)
	ts.Check(err)
	return found
}

func cmdWaitMount(ts *testscript.TestScript, neg bool, args []string) {
	dir := oneArg(ts, neg, args)
	waitUntil(ts, dir+" is mounted", func() bool {
		if f := find(ts, dir); f == nil || f.Stale {
			return false
		}
		_, err := modfs.ReadStatus(dir)
		return err == nil
	})
}

func cmdWaitGone(ts *testscript.TestScript, neg bool, args []string) {
	dir := oneArg(ts, neg, args)
	waitUntil(ts, dir+" is not mounted", func() bool { return find(ts, dir) == nil })
}

func cmdWaitStale(ts *testscript.TestScript, neg bool, args []string) {
	dir := oneArg(ts, neg, args)
	waitUntil(ts, dir+" is stale", func() bool { f := find(ts, dir); return f != nil && f.Stale })
}

func cmdWaitFile(ts *testscript.TestScript, neg bool, args []string) {
	name := oneArg(ts, neg, args)
	waitUntil(ts, name+" exists", func() bool { _, err := os.Stat(name); return err == nil })
}

func cmdTerminate(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(oneArg(ts, neg, args))
	ts.Check(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGTERM))
}

func cmdKillDaemon(ts *testscript.TestScript, neg bool, args []string) {
	s, err := modfs.ReadStatus(oneArg(ts, neg, args))
	ts.Check(err)
	ts.Check(syscall.Kill(s.PID, syscall.SIGKILL))
	cmdWaitStale(ts, neg, args)
}

type (
	proxyKey   struct{}
	watcherKey struct{}
)

func scriptProxy(ts *testscript.TestScript) *proxytest.Server {
	return ts.Value(proxyKey{}).(*proxytest.Server)
}

// toolchain is a toolchain for this machine that no machine has.
func toolchain() proxytest.Module {
	return proxytest.Toolchain("1.99.1", runtime.GOOS, runtime.GOARCH, nil)
}

func merge[V any](ms ...map[string]V) map[string]V {
	all := make(map[string]V)
	for _, m := range ms {
		maps.Copy(all, m)
	}
	return all
}

func cmdWatchSize(ts *testscript.TestScript, neg bool, args []string) {
	ts.Value(watcherKey{}).(*watchers).start(oneArg(ts, neg, args))
}

func cmdAtMost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: atmost BYTES")
	}
	limit, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	if got := ts.Value(watcherKey{}).(*watchers).end(); got > limit {
		ts.Fatalf("took %d bytes, more than %d", got, limit)
	}
}

// held is a file that a script keeps open.
type held struct{ f *os.File }

type heldKeyType struct{}

var heldKey heldKeyType

func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.Open(oneArg(ts, neg, args))
	ts.Check(err)
	ts.Value(heldKey).(*held).f = f
}

func cmdReadHeld(ts *testscript.TestScript, neg bool, _ []string) {
	_, err := io.ReadAll(ts.Value(heldKey).(*held).f)
	if neg == (err == nil) {
		ts.Fatalf("read: %v", err)
	}
}

func cmdRelease(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Value(heldKey).(*held).f.Close())
}

// cleanUp ends what a script started and unmounts what is mounted in its directory, which is about to be removed.
func cleanUp(t *testing.T, work string, h *held) {
	if h.f != nil {
		h.f.Close() // best effort: it may be closed
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		mounts, err := modfs.Mounts()
		if err != nil {
			t.Error(err)
			return
		}
		left := 0
		for _, m := range mounts {
			if within(m.Mountpoint, work) {
				left++
				modfs.Unmount(m.Mountpoint, true) // its success is looked for in the next round
			}
		}
		// A daemon may be between being started and mounting, so processes count, too.
		pids := startedIn(work)
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if left == 0 && len(pids) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %d mounts and processes %v are left", work, left, pids)
			return
		}
	}
}

// startedIn returns the processes with the environment of the script in work. They are those that are alive: a zombie's
// environment is empty.
func startedIn(work string) []int {
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	var pids []int
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(append(env, 0), []byte(workEnv+"="+work+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// within reports whether a path is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
