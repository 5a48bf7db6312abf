package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// mounted is where the machine of these tests has a mount.
const mounted = "/mnt/cache"

// rootfs has what a healthy machine says. The mount is number 30, on the root file system, number 20.
var rootfs = map[string]string{
	"/proc/filesystems":                  "nodev\tsysfs\nnodev\tfuse\n",
	"/proc/sys/kernel/osrelease":         "6.1.0-28-amd64\n",
	"/proc/self/status":                  "Name:\tmodfs\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n",
	"/proc/self/mountinfo":               mountinfoOf("shared:1", "rw"),
	"/sys/fs/fuse/connections/.keep":     "",
	"/etc/fuse.conf":                     "# comment\nuser_allow_other\n",
	"/etc/fstab":                         "# comment\n/dev/sda1 / ext4 defaults 0 1\nmodfs /go/pkg/mod modfs ro,nofail 0 0\n",
	"/etc/updatedb.conf":                 "PRUNEFS = \"nfs fuse.modfs\"\n",
	"/sbin/mount.modfs":                  "",
	"/proc/sys/user/max_user_namespaces": "1000\n",
}

func mountinfoOf(propagation, super string) string {
	return fmt.Sprintf("20 1 8:1 / / rw,relatime %s - ext4 /dev/sda1 rw\n30 20 0:50 / %s ro,nosuid - fuse.modfs modfs:/store %s\n", propagation, mounted, super)
}

const unprivileged = "CapEff:\t0000000000000000\nNoNewPrivs:\t0\n"

// healthy returns a machine on which every check finds nothing, with files changed or, if they are "-", removed.
func healthy(t *testing.T, files map[string]string) *System {
	t.Helper()
	root, store := t.TempDir(), t.TempDir()
	if err := os.Chmod(store, 0o700); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, m := range []map[string]string{rootfs, files} {
		for name, content := range m {
			all[name] = content
		}
	}
	for name, content := range all {
		if content == "-" {
			continue
		}
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if all[device] == "" {
		if err := os.Symlink(device, filepath.Join(root, device)); err != nil {
			t.Fatal(err)
		}
	}
	status := &modfs.Status{Mountpoint: mounted, ModCache: mounted, PID: 42, Store: modfs.StoreStatus{Dir: store}}
	status.Store.Limit = 10 << 30
	return &System{
		Root: root, UID: os.Geteuid(), Store: store, MaxSize: 10 << 30,
		GoEnv:     map[string]string{"GOMODCACHE": mounted, "GOVERSION": "go1.26.8", "GOFLAGS": ""},
		Fetch:     fetch.Config{Proxy: "off", SumDB: "off"},
		Mounts:    func() ([]modfs.Found, error) { return []modfs.Found{{Mountpoint: mounted, Store: store}}, nil },
		Probe:     func(string) (*modfs.Status, error) { return status, nil },
		Owned:     func(modfs.Found) bool { return true },
		Unmount:   func(string) error { return errors.New("unmounted without need") },
		Force:     func(string) error { return errors.New("forced without need") },
		Open:      func(string) error { return nil },
		Namespace: func(context.Context) error { return nil },
		LookPath:  func(name string) (string, error) { return "/usr/bin/" + name, nil },
		Statfs:    func(string) (Statfs, error) { return Statfs{Type: "ext", Free: 50 << 30, Total: 100 << 30}, nil },
		Options:   func(string) error { return nil },
	}
}

// run makes the check of that name.
func run(t *testing.T, name string, s *System) []Finding {
	t.Helper()
	i := slices.IndexFunc(Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check is called %s", name)
	}
	return Checks[i].Examine(t.Context(), s)
}

// expect makes a check and compares its worst finding: its level, and a part of its text and its fix.
func expect(t *testing.T, name string, s *System, level Level, text, fix string) Finding {
	t.Helper()
	found := run(t, name, s)
	order := []Level{OK, Note, Warn, Fail}
	worst := slices.MaxFunc(found, func(a, b Finding) int { return slices.Index(order, a.Level) - slices.Index(order, b.Level) })
	if worst.Level != level || !strings.Contains(worst.Text, text) || !strings.Contains(worst.Fix, fix) || worst.Check != name {
		t.Errorf("%s: %+v, want %s with %q and %q", name, worst, level, text, fix)
	}
	return worst
}

// TestHealthy checks that nothing is wrong with a machine with which nothing is wrong.
func TestHealthy(t *testing.T) {
	s := healthy(t, nil)
	for _, c := range Checks {
		for _, f := range c.Examine(t.Context(), s) {
			if f.Level == Fail || f.Level == Warn {
				if c.Name == "device" && !exists(device) {
					continue // this machine has none
				}
				t.Errorf("%+v", f)
			}
		}
	}
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

func TestDevice(t *testing.T) {
	expect(t, "device", healthy(t, map[string]string{device: "-"}), Fail, "is missing", "mknod")
	expect(t, "device", healthy(t, map[string]string{device: "-", "/run/.containerenv": ""}), Fail, "is missing", "--device /dev/fuse")
	expect(t, "device", healthy(t, map[string]string{device: "-", "/proc/1/environ": "a=b\x00container=podman\x00"}), Fail, "is missing", "--device /dev/fuse")
	expect(t, "device", healthy(t, map[string]string{device: "-", "/proc/filesystems": "nodev\tsysfs\n"}), Fail, "kernel module", "modprobe fuse")
	expect(t, "device", healthy(t, map[string]string{device: "no device"}), Fail, "is not the device 10:229", "mknod")
	if !exists(device) {
		t.Skip("the rest needs ", device)
	}
	s := healthy(t, nil)
	expect(t, "device", s, OK, "can be opened", "")
	for errno, fix := range map[syscall.Errno]string{syscall.EACCES: "chmod 666", syscall.EPERM: "DeviceAllow", syscall.ENODEV: "modprobe", syscall.EIO: ""} {
		s.Open = func(name string) error { return &os.PathError{Op: "open", Path: name, Err: errno} }
		expect(t, "device", s, Fail, errno.Error(), fix)
	}
}

func TestKernel(t *testing.T) {
	for release, level := range map[string]Level{
		"6.18.44": OK, "5.1.0": OK, "5.0.21-generic": Note, "4.18.0-553.el8_10.x86_64": Note, "4.17.19": Warn, "3.14.1": Fail, "": Note, "nonsense": Fail,
	} {
		expect(t, "kernel", healthy(t, map[string]string{"/proc/sys/kernel/osrelease": release}), level, "", "")
	}
	expect(t, "kernel", healthy(t, map[string]string{"/sys/fs/fuse/connections/.keep": "-"}), OK, "only root can end a mount that hangs", "")
}

func TestFusermount(t *testing.T) {
	user := map[string]string{"/proc/self/status": unprivileged}
	s := healthy(t, user)
	s.UID = 0
	expect(t, "fusermount3", s, Fail, "no CAP_SYS_ADMIN", "--cap-add SYS_ADMIN")
	s.UID = 1000
	s.LookPath = func(string) (string, error) { return "", exec.ErrNotFound }
	expect(t, "fusermount3", s, Fail, "is not installed", "fuse3")
	plain := filepath.Join(t.TempDir(), "fusermount3")
	if err := os.WriteFile(plain, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	s.LookPath = func(string) (string, error) { return plain, nil }
	expect(t, "fusermount3", s, Fail, "is not set-user-ID root", "chmod u+s")
	if os.Geteuid() != 0 || os.Chmod(plain, 0o755|os.ModeSetuid) != nil {
		t.Skip("the rest needs root")
	}
	expect(t, "fusermount3", s, OK, "is set-user-ID root", "")
	if err := os.WriteFile(s.path("/proc/self/status"), []byte("CapEff:\t0\nNoNewPrivs:\t1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, "fusermount3", s, Fail, "no privileges", "no-new-privileges")
}

func TestAllowOther(t *testing.T) {
	s := healthy(t, map[string]string{"/proc/self/status": unprivileged})
	expect(t, "allow-other", s, OK, "has it", "")
	for _, conf := range []string{"#user_allow_other\n", "-"} {
		s = healthy(t, map[string]string{"/proc/self/status": unprivileged, "/etc/fuse.conf": conf})
		expect(t, "allow-other", s, Note, "does not have user_allow_other", "add the line")
	}
}

func TestNamespaces(t *testing.T) {
	refused := func(files map[string]string) *System {
		s := healthy(t, files)
		s.Namespace = func(context.Context) error { return syscall.EPERM }
		return s
	}
	expect(t, "namespaces", refused(nil), Note, "none is needed", "")
	for file, value := range map[string]string{
		"/proc/sys/user/max_user_namespaces": "0", "/proc/sys/kernel/unprivileged_userns_clone": "0", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
	} {
		expect(t, "namespaces", refused(map[string]string{"/proc/self/status": unprivileged, file: value + "\n"}), Warn, file+" is "+value, "sysctl")
	}
	expect(t, "namespaces", refused(map[string]string{"/proc/self/status": unprivileged, "/.dockerenv": ""}), Warn, "not permitted", "seccomp")
}

func TestMounts(t *testing.T) {
	s := healthy(t, nil)
	s.Mountpoint = "/elsewhere"
	expect(t, "mounts", s, Fail, "/elsewhere is not a modfs mount", "modfs mount /elsewhere")
	s.Mountpoint = ""
	s.Mounts = func() ([]modfs.Found, error) { return nil, nil }
	expect(t, "mounts", s, Note, "nothing is mounted", "")

	// Dead: nobody has the lock; or somebody has, and the mount says that it has no daemon.
	for _, stale := range []bool{true, false} {
		s = healthy(t, nil)
		removed := ""
		s.Unmount = func(m string) error { removed = m; return nil }
		s.Mounts = func() ([]modfs.Found, error) { return []modfs.Found{{Mountpoint: mounted, Stale: stale}}, nil }
		s.Probe = func(string) (*modfs.Status, error) { return nil, syscall.ENOTCONN }
		f := expect(t, "mounts", s, Fail, "its daemon is dead", "modfs unmount")
		if f.Repair(); removed != mounted || f.Level != Fixed || f.Fix != "" {
			t.Errorf("after the repair: %+v, removed %q", f, removed)
		}
	}

	// Hangs.
	s = healthy(t, nil)
	forced := 0
	s.Probe = func(string) (*modfs.Status, error) { return nil, fmt.Errorf("no answer: %w", syscall.ETIMEDOUT) }
	s.Force = func(m string) error { forced++; return errors.New("no such luck") }
	f := expect(t, "mounts", s, Fail, "does not answer", "--force")
	if forced != 0 {
		t.Error("repaired without being asked")
	}
	if f.Repair(); forced != 1 || f.Level != Fail || !strings.Contains(f.Text, "no such luck") {
		t.Errorf("after the repair that failed: %+v", f)
	}

	s = healthy(t, nil)
	s.Probe = func(string) (*modfs.Status, error) { return nil, syscall.EACCES }
	expect(t, "mounts", s, Note, "another user's", "")
	s = healthy(t, nil)
	s.Probe = func(string) (*modfs.Status, error) { return nil, syscall.EIO }
	expect(t, "mounts", s, Fail, "no status", "")

	for _, test := range []struct {
		change func(*modfs.Status)
		level  Level
		text   string
	}{
		{func(st *modfs.Status) { st.Errors = 3 }, Note, "with 3 errors"},
		{func(st *modfs.Status) { st.Counters = map[string]int64{"panics": 2} }, Warn, "2 times (panics)"},
		{func(st *modfs.Status) { st.Counters = map[string]int64{"security_errors": 1} }, Fail, "wrong hash"},
		{func(st *modfs.Status) { st.Requests.Slow, st.Requests.Oldest = 2, 301 }, Warn, "the oldest for 5m1s"},
		{func(st *modfs.Status) { st.Requests.Slow, st.Requests.Oldest = 2, 2 }, OK, "process 42"},
	} {
		s := healthy(t, nil)
		st, _ := s.Probe("")
		test.change(st)
		expect(t, "mounts", s, test.level, test.text, "")
	}
}

func TestControl(t *testing.T) {
	for _, test := range []struct {
		version string
		err     error
		level   Level
		text    string
	}{
		{"v1.0.0", nil, OK, "process 42"},
		{"v0.9.0", nil, Note, "by modfs v0.9.0, and this is v1.0.0"},
		{"", errors.New("no socket"), Note, "cannot be steered: no socket"},
	} {
		s := healthy(t, nil)
		s.Version = "v1.0.0"
		s.Control = func(string) (string, error) { return test.version, test.err }
		expect(t, "mounts", s, test.level, test.text, "")
	}
}

func TestModCache(t *testing.T) {
	s := healthy(t, nil)
	expect(t, "gomodcache", s, OK, "is on the mount", "")

	// A symbolic link leads there.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/mnt", link); err != nil {
		t.Fatal(err)
	}
	s.GoEnv["GOMODCACHE"] = link + "/cache"
	expect(t, "gomodcache", s, OK, "is on the mount", "")

	s.GoEnv["GOMODCACHE"] = "/home/u/go/pkg/mod"
	expect(t, "gomodcache", s, Warn, "is not on the mount at "+mounted, "go env -w GOMODCACHE="+mounted)
	s.Mountpoint = mounted
	expect(t, "gomodcache", s, Fail, "is not on the mount at "+mounted, "go env -w GOMODCACHE="+mounted)

	// On the mount, at the wrong place.
	s = healthy(t, nil)
	st, _ := s.Probe("")
	st.ModCache = mounted + "/mod"
	expect(t, "gomodcache", s, Fail, "whose module cache is "+mounted+"/mod", "go env -w")
	s.GoEnv["GOMODCACHE"] = mounted + "/mod"
	expect(t, "gomodcache", s, OK, "", "")

	s.Mounts = func() ([]modfs.Found, error) { return []modfs.Found{{Mountpoint: mounted, Stale: true}}, nil }
	expect(t, "gomodcache", s, Fail, "a dead daemon", "modfs mount")
	s.Mounts = func() ([]modfs.Found, error) { return nil, nil }
	expect(t, "gomodcache", s, Note, "is a plain directory", "")
	s.GoEnv, s.GoEnvErr = nil, exec.ErrNotFound
	expect(t, "gomodcache", s, Note, "not known", "")
}

// TestResolve checks that nothing is looked at that is in a mount.
func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"to": "mount", "mount/inside": "/elsewhere", "loop": "loop"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	s := healthy(t, nil)
	s.Mounts = func() ([]modfs.Found, error) { return []modfs.Found{{Mountpoint: filepath.Join(dir, "mount")}}, nil }
	for p, want := range map[string]string{"mount/inside/x": "mount/inside/x", "to/inside": "mount/inside", "to": "mount", "loop/x": "loop/x", "a/../to": "mount"} {
		if got := s.resolve(dir + "/" + p); got != filepath.Join(dir, want) {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}

func TestGo(t *testing.T) {
	for _, test := range []struct {
		name, value string
		level       Level
		text        string
	}{
		{"GOVERSION", "go1.26.8", OK, "go1.26.8"},
		{"GOVERSION", "devel go1.27-abc", OK, "devel"},
		{"GOVERSION", "go1.20.3", Warn, "older than"},
		{"GOFLAGS", "-trimpath -modcacherw", Note, "-modcacherw"},
		{"GOFLAGS", "-mod=vendor", Note, "do not use the module cache"},
		{"GOFLAGS", "--mod=mod", Note, "changes go.mod"},
		{"GO111MODULE", "off", Warn, "no modules"},
		{"GOSUMDB", "off", Warn, "checked against nothing"},
	} {
		s := healthy(t, nil)
		s.GoEnv[test.name] = test.value
		expect(t, "go", s, test.level, test.text, "")
	}
	s := healthy(t, nil)
	s.GoEnvErr = exec.ErrNotFound
	expect(t, "go", s, Note, "not found", "--proxy")
}

func TestStore(t *testing.T) {
	for mode, level := range map[os.FileMode]Level{0o700: OK, 0o711: Warn, 0o750: Warn, 0o720: Fail, 0o777: Fail} {
		s := healthy(t, nil)
		if err := os.Chmod(s.Store, mode); err != nil {
			t.Fatal(err)
		}
		expect(t, "store", s, level, s.Store, map[bool]string{true: "", false: "chmod go-rwx"}[level == OK])
	}
	s := healthy(t, nil)
	s.UID++
	expect(t, "store", s, Note, "another user's daemon", "") // a service's, looked at by root
	s.Mounts = func() ([]modfs.Found, error) { return nil, nil }
	expect(t, "store", s, Fail, fmt.Sprintf("does not belong to user %d", s.UID), fmt.Sprintf("chown -R %d ", s.UID))
	for kind, level := range map[string]Level{"nfs": Warn, "fuse": Warn, "tmpfs": Note, "xfs": OK} {
		s := healthy(t, nil)
		s.Statfs = func(string) (Statfs, error) { return Statfs{Type: kind}, nil }
		expect(t, "store", s, level, s.Store, "")
	}
	s = healthy(t, nil)
	s.Statfs = func(string) (Statfs, error) { return Statfs{ReadOnly: true}, nil }
	expect(t, "store", s, Fail, "read-only", "--store")

	// One that is not mounted need not be there; one that is must.
	s = healthy(t, nil)
	os.Remove(s.Store)
	expect(t, "store", s, Warn, "was removed", "mount it again")
	s.Mounts = func() ([]modfs.Found, error) { return nil, nil }
	expect(t, "store", s, OK, "not there yet", "")
	if err := os.WriteFile(s.Store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "store", s, Fail, "not a directory", "--store")
	s.Store = ""
	expect(t, "store", s, Fail, "no cache directory", "HOME")
	dead := t.TempDir()
	s.Mounts = func() ([]modfs.Found, error) {
		return []modfs.Found{{Mountpoint: mounted, Store: dead, Stale: true}}, nil
	}
	expect(t, "store", s, Warn, dead, "chmod")
}

func TestSpace(t *testing.T) {
	for _, test := range []struct {
		part        Statfs
		limit, used int64
		level       Level
		text        string
	}{
		{Statfs{Free: 50 << 30, Total: 100 << 30}, 10 << 30, 0, OK, "50 GiB free"},
		{Statfs{Free: 8 << 30, Total: 100 << 30}, 10 << 30, 0, Warn, "room for 3.0 GiB"},
		{Statfs{Free: 8 << 30, Total: 100 << 30}, 10 << 30, 7 << 30, OK, ""},
		{Statfs{Free: 4 << 30, Total: 100 << 30}, 10 << 30, 10 << 30, Warn, "less than --min-free keeps"},
		{Statfs{Free: 1 << 20, Total: 100 << 30}, 10 << 30, 10 << 30, Fail, "next to nothing"},
		{Statfs{Free: 50 << 30, Total: 100 << 30, MaxFile: 1000}, 10 << 30, 0, Fail, "inodes"},
		{Statfs{Free: 50 << 30, Total: 100 << 30}, 0, 0, Note, "no limit"},
	} {
		s := healthy(t, nil)
		s.MinFree = func(total int64) int64 { return total / 20 }
		s.Statfs = func(string) (Statfs, error) { return test.part, nil }
		st, _ := s.Probe("")
		st.Store.Limit, st.Store.Usage.Bytes = test.limit, test.used
		expect(t, "space", s, test.level, test.text, "")
	}
	s := healthy(t, nil)
	st, _ := s.Probe("")
	st.Store.EvictedBytes = 25 << 30
	expect(t, "space", s, Warn, "it is too small", "--max-size")

	// The partition of what is not there yet is that of the directory above.
	s = healthy(t, nil)
	s.Mounts = func() ([]modfs.Found, error) { return nil, nil }
	s.Store = filepath.Join(s.Store, "a", "b")
	s.Statfs = func(dir string) (Statfs, error) { _, err := os.Stat(dir); return Statfs{Free: 50 << 30}, err }
	expect(t, "space", s, OK, "50 GiB", "")
}

// upstream returns a server that answers each request with a status, and a date that is off by skew.
func upstream(t *testing.T, code int, skew time.Duration) string {
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
		w.WriteHeader(code)
	}))
	t.Cleanup(ts.Close)
	return ts.URL
}

func TestUpstreams(t *testing.T) {
	p := proxytest.New(t)
	s := healthy(t, nil)
	s.Fetch = fetch.Config{Proxy: p.URL() + ",direct", SumDB: p.SumDB()}
	expect(t, "proxy", s, OK, p.URL()+" answers", "")
	expect(t, "sumdb", s, OK, "answers", "")
	expect(t, "clock", s, OK, "agrees", "")

	for code, fix := range map[int]string{401: "GOAUTH", 407: "GOAUTH", 500: "whoever runs it"} {
		s := healthy(t, nil)
		s.Fetch = fetch.Config{Proxy: upstream(t, code, 0), SumDB: "off"}
		expect(t, "proxy", s, Fail, fmt.Sprint(code), fix)
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	s = healthy(t, nil)
	const misleading = "/407/x509:/certificate" // is part of an address, and says nothing
	s.Fetch = fetch.Config{Proxy: strings.Replace(gone.URL, "http://", "https://someone:hunter22@", 1) + misleading, SumDB: proxytest.New(t).SumDBKey() + " " + gone.URL + misleading}
	f := expect(t, "proxy", s, Fail, "refused", "HTTPS_PROXY")
	if strings.Contains(f.Text+f.Fix, "hunter22") {
		t.Error("a password is shown:", f)
	}
	expect(t, "sumdb", s, Fail, "refused", "--offline")
	expect(t, "clock", s, Note, "not known", "")

	s = healthy(t, nil)
	s.FetchErr = errors.New("invalid GOPROXY: nonsense")
	expect(t, "proxy", s, Fail, "nonsense", "go env")
	expect(t, "sumdb", s, Note, "not known", "")
	s = healthy(t, nil)
	s.Fetch.Proxy = "nonsense"
	expect(t, "proxy", s, Fail, "nonsense", "go env")
	s = healthy(t, nil)
	s.Fetch = fetch.Config{Proxy: p.URL(), SumDB: p.SumDB(), Offline: true}
	expect(t, "proxy", s, Note, "--offline", "")
	expect(t, "sumdb", s, Note, "--offline", "")
}

func TestUpstreamTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, old, old, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		config    *tls.Config
		trusted   bool
		text, fix string
	}{
		{"unknown authority", nil, false, "unknown authority", "SSL_CERT_FILE"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, false, "expired", "clock"},
		{"wants one of us", &tls.Config{ClientAuth: tls.RequireAnyClientCert}, true, "certificate required", "--client-cert"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ts := httptest.NewUnstartedServer(nil)
			ts.TLS, ts.Config.ErrorLog = test.config, log.New(io.Discard, "", 0)
			ts.StartTLS()
			t.Cleanup(ts.Close)
			s := healthy(t, nil)
			s.Fetch = fetch.Config{Proxy: ts.URL, SumDB: "off", Tries: 1}
			if test.trusted {
				s.Fetch.Transport = ts.Client().Transport
			}
			expect(t, "proxy", s, Fail, test.text, test.fix)
		})
	}
}

func TestClock(t *testing.T) {
	for skew, level := range map[time.Duration]Level{0: OK, 4 * time.Minute: OK, -4 * time.Minute: OK, time.Hour: Fail, -time.Hour: Fail} {
		s := healthy(t, nil)
		s.Fetch = fetch.Config{Proxy: upstream(t, 404, skew), SumDB: "off"}
		expect(t, "clock", s, level, "", "")
	}
	// Whose clock is wrong is not known: the one that agrees counts.
	s := healthy(t, nil)
	s.Fetch = fetch.Config{Proxy: upstream(t, 404, time.Hour) + "," + upstream(t, 404, 0), SumDB: "off"}
	expect(t, "clock", s, OK, "", "")
}

func TestVCS(t *testing.T) {
	for _, test := range []struct {
		fetch.Config
		level Level
	}{
		{fetch.Config{Proxy: "https://p.example,direct"}, Warn},
		{fetch.Config{Proxy: "direct"}, Warn},
		{fetch.Config{Proxy: "https://p.example,off,direct"}, OK},
		{fetch.Config{Proxy: "https://p.example", Private: "corp.example"}, Warn},
		{fetch.Config{Proxy: "https://p.example", NoProxy: "none"}, OK},
		{fetch.Config{Proxy: "https://p.example/direct"}, OK},
	} {
		s := healthy(t, nil)
		s.Fetch = test.Config
		expect(t, "vcs", s, OK, "", "")
		s.LookPath = func(name string) (string, error) { return "", exec.ErrNotFound }
		expect(t, "vcs", s, test.level, "", "")
	}
}

func TestContainers(t *testing.T) {
	expect(t, "containers", healthy(t, nil), OK, "passed on", "")
	private := map[string]string{"/proc/self/mountinfo": mountinfoOf("", "rw")}
	expect(t, "containers", healthy(t, private), Note, "/ is private", "mount --make-shared /")

	// In a container: what comes from outside must follow the host, what is its own need not.
	private["/run/.containerenv"] = ""
	expect(t, "containers", healthy(t, private), OK, "this is one", "")
	s := healthy(t, private)
	s.Owned = func(modfs.Found) bool { return false }
	expect(t, "containers", s, Warn, "mount will be dead", "rslave")
	s = healthy(t, private)
	s.Owned = func(modfs.Found) bool { return false }
	s.Probe = func(string) (*modfs.Status, error) { return nil, syscall.EACCES }
	expect(t, "containers", s, OK, "", "")
	s = healthy(t, map[string]string{"/run/.containerenv": "", "/proc/self/mountinfo": mountinfoOf("master:7", "rw")})
	s.Owned = func(modfs.Found) bool { return false }
	expect(t, "containers", s, OK, "follow those of the host", "")
}

func TestFstab(t *testing.T) {
	expect(t, "fstab", healthy(t, nil), OK, "can be mounted", "")
	expect(t, "fstab", healthy(t, map[string]string{"/sbin/mount.modfs": "-"}), Fail, "no helper", "ln -s")
	expect(t, "fstab", healthy(t, map[string]string{"/etc/fstab": "#modfs /a modfs x 0 0\n"}), OK, "no line", "")
	expect(t, "fstab", healthy(t, map[string]string{"/etc/fstab": "modfs /a fuse.modfs ro 0 0\n"}), Fail, "the type fuse.modfs", "write modfs")
	s := healthy(t, nil)
	s.Options = func(o string) error { return fmt.Errorf("unknown option in %s", o) }
	expect(t, "fstab", s, Fail, "/go/pkg/mod: unknown option in ro,nofail", "man mount.modfs")
}

func TestUpdatedb(t *testing.T) {
	expect(t, "updatedb", healthy(t, nil), OK, "leaves it out", "")
	expect(t, "updatedb", healthy(t, map[string]string{"/etc/updatedb.conf": "-"}), OK, "there is none", "")
	files := map[string]string{"/etc/updatedb.conf": "# PRUNEFS=\"fuse.modfs\"\nPRUNEFS=\"nfs\"\n"}
	expect(t, "updatedb", healthy(t, files), OK, "no mount lets it in", "")
	files["/proc/self/mountinfo"] = mountinfoOf("shared:1", "rw,allow_other")
	expect(t, "updatedb", healthy(t, files), Warn, mounted, "PRUNEFS")
}

// TestExamine checks that a check that does not end, and one that panics, are findings.
func TestExamine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hang := Check{Name: "hang", Run: func(context.Context, *System) []Finding { select {} }}
	if f := hang.Examine(ctx, nil); len(f) != 1 || f[0].Level != Fail || f[0].Check != "hang" {
		t.Errorf("%+v", f)
	}
	bad := Check{Name: "bad", Run: func(context.Context, *System) []Finding { panic("oh") }}
	if f := bad.Examine(t.Context(), nil); len(f) != 1 || f[0].Level != Fail || !strings.Contains(f[0].Text, "oh") {
		t.Errorf("%+v", f)
	}
}

// TestHangingMount checks that no check but the probe waits for a mount that hangs, and that it is probed once.
func TestHangingMount(t *testing.T) {
	s := healthy(t, nil)
	probes := 0
	s.Probe = func(string) (*modfs.Status, error) { probes++; return nil, syscall.ETIMEDOUT }
	s.GoEnv["GOMODCACHE"] = mounted + "/mod"
	for _, c := range Checks {
		c.Examine(t.Context(), s)
	}
	if probes != 1 {
		t.Errorf("probed %d times", probes)
	}
}
