package integration

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// devcontainer is what the tests need of a devcontainer.json.
type devcontainer struct {
	Mounts           []string
	RunArgs          []string
	ContainerEnv     map[string]string
	PostStartCommand string
}

// readDevcontainer reads deploy/container/NAME/devcontainer.json, which may have comments on lines of their own.
func readDevcontainer(t *testing.T, name string) (d devcontainer) {
	t.Helper()
	data, err := os.ReadFile("../deploy/container/" + name + "/devcontainer.json")
	if err != nil {
		t.Fatal(err)
	}
	data = regexp.MustCompile(`(?m)^\s*//.*$`).ReplaceAll(data, nil)
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

// host is the beginning of each script: a machine of its own for podman and the daemon, in namespaces that go with it. The
// containers have this machine's own root file system, with a layer above it that is thrown away.
const host = `set -e
umount /sys/fs/cgroup/unified 2>/dev/null || : # crun refuses two hierarchies
mount --make-rshared / # as systemd has it
mkdir -p $DIR/srv/modfs/mod
mount -t tmpfs tmpfs /mnt # podman wants a short path, and its layers not above themselves
mkdir /mnt/dev
mknod -m 666 /mnt/dev/fuse c 10 229
mount --bind /mnt/dev/fuse /dev/fuse # the device of most distributions: anybody may open it
podman() { command podman --root /mnt/root --runroot /mnt/run --tmpdir /mnt/tmp "$@"; }
# OPTIONS... -- COMMAND...
container() {
	options=
	while test "$1" != --; do options="$options $1"; shift; done
	shift
	podman run --network none --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 -v $GOROOT:$GOROOT:ro -v $BIN:$BIN:ro \
		-v $DIR/prog:/prog:ro -v $CACHE:/cache -e GOCACHE=/cache -e GOTOOLCHAIN=local -e GOFLAGS= -e GOTELEMETRY=off -e GOPATH=/go -e HOME=/tmp/home \
		-e PATH=$GOROOT/bin:$BIN:/usr/local/bin:/usr/bin:/bin $options --rootfs /:O "$@"
}
end() { command podman --root /mnt/root --runroot /mnt/run --tmpdir /mnt/tmp rm -fa -t 0 >/dev/null || :; }
trap end EXIT
container --rm -- true || { echo no container can be had; exit 77; }
`

// prog is what is built in the containers. Its go.sum is written when the test runs.
var prog = map[string]string{
	"go.mod":  "module example.com/prog\n\ngo 1.21\n\nrequire example.com/b v1.0.0\n",
	"prog.go": "package main\n\nimport \"example.com/b\"\n\nfunc main() { println(b.Hello()) }\n",
	"build.sh": `set -e
umask 0
id -u
mkdir -p /tmp/home/prog
cp /prog/* /tmp/home/prog
cd /tmp/home/prog
go build -mod=readonly -o prog .
./prog
`,
}

// TestContainer runs containers as deploy/container has them. They have no network.
func TestContainer(t *testing.T) {
	// What several users have compiled.
	cache := t.TempDir()
	openToAll(t, cache)
	if err := os.Chmod(cache, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Run("thin", func(t *testing.T) {
		d := readDevcontainer(t, "thin")
		if len(d.Mounts) != 1 || !strings.Contains(d.Mounts[0], "source=/srv/modfs,") {
			t.Fatalf("mounts %q", d.Mounts)
		}
		options := "--user 65534:65534 " + flags("-e", d.ContainerEnv)
		out := runContainers(t, cache, `
serve() { modfs mount --background --read-only --allow-other --store $DIR/store $DIR/srv/modfs/mod; }
serve
container -d --name thin `+options+` --mount `+strings.ReplaceAll(d.Mounts[0], "/srv/modfs", "$DIR/srv/modfs")+` -- sleep 1000
container -d --name wrong `+options+` --mount type=bind,source=$DIR/srv/modfs/mod,target=/go/pkg/mod,readonly -- sleep 1000
podman exec thin sh /prog/build.sh
podman exec wrong ls /go/pkg/mod/example.com/a@v1.0.0
podman exec thin sh -c 'touch /go/pkg/x; touch /go/pkg/mod/x; cd /tmp/home/prog && go get example.com/b@latest' || :
# The daemon dies, and another one comes.
pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' $DIR/srv/modfs/mod/.modfs/status.json)
kill -9 $pid
while kill -0 $pid 2>/dev/null; do sleep .01; done
serve
echo again
podman exec thin sh /prog/build.sh
for name in thin wrong; do # something that the kernel has not kept
	podman exec $name ls /go/pkg/mod/example.com/odd@v1.0.0 || :
done
`)
		wantLines(t, out, "65534", "b v1.0.0: hello from a", "a.go",
			"touch: .*/go/pkg/x': Read-only file system", "touch: .*/go/pkg/mod/x': Read-only file system", `go: upgraded example.com/b v1.0.0 => v1.1.0`,
			"again", "65534", "b v1.0.0: hello from a", "go.mod", "ls: .*Transport endpoint is not connected")
	})
	t.Run("inside", func(t *testing.T) {
		d := readDevcontainer(t, "inside")
		if d.PostStartCommand == "" || d.ContainerEnv["GOPROXY"] != "${localEnv:GOPROXY}" {
			t.Fatalf("%+v", d)
		}
		out := runContainers(t, cache, `
container --rm `+strings.Join(d.RunArgs, " ")+` $PROXIED -- sh -ec '`+d.PostStartCommand+`
sh /prog/build.sh
grep -o "/go/pkg/mod fuse.modfs" /proc/mounts'
# It takes the capability, and says so.
container --rm --device /dev/fuse $PROXIED -- modfs mount --background || :
`)
		wantLines(t, out, "modfs: serving /go/pkg/mod .store /var/cache/modfs.", "0", "b v1.0.0: hello from a", "/go/pkg/mod fuse.modfs",
			"modfs: mount /go/pkg/mod: .*not permitted.*'modfs run'.*")
	})
	t.Run("once", func(t *testing.T) {
		out := runContainers(t, cache, `
container --rm --device /dev/fuse --user 65534:65534 --cap-drop all --security-opt no-new-privileges $PROXIED -- \
	modfs run -- sh -ec 'sh /prog/build.sh; grep CapEff /proc/self/status'
# Without the device there is nothing to be done, and that is said.
container --rm --user 65534:65534 $PROXIED -- modfs run -- true || :
`)
		wantLines(t, out, "65534", "b v1.0.0: hello from a", `CapEff:\s+0+`, "modfs: mount .*/dev/fuse: no such file or directory.*--device /dev/fuse.*")
	})
}

// flags returns a flag for each variable.
func flags(flag string, env map[string]string) string {
	var b strings.Builder
	for k, v := range env {
		b.WriteString(flag + " " + k + "=" + v + " ")
	}
	return b.String()
}

// runContainers runs a script on a host with podman and returns what it printed. $PROXIED are options for containers that have
// a module proxy, which is a directory.
func runContainers(t *testing.T, cache, script string) string {
	t.Helper()
	fusetest.Require(t)
	if !nightly {
		t.Skip("containers compile the standard library: set MODFS_NIGHTLY=1")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be a host of containers here")
	}
	for _, tool := range []string{"podman", "crun"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s", tool)
		}
	}
	proxy := proxytest.New(t)
	dir := t.TempDir()
	openToAll(t, dir)
	for _, sub := range []string{"prog", "home"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range prog {
		if err := os.WriteFile(filepath.Join(dir, "prog", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	modfs, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(bin, modfs.Mode()|0o055); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "DIR="+dir, "CACHE="+cache, "HOME="+dir+"/home", "BIN="+bin, "GOROOT="+goEnv(t, "GOROOT"), "PATH="+bin+":"+os.Getenv("PATH"),
		"GOFLAGS=-modcacherw", "GOMODCACHE="+dir+"/plain", "GOTELEMETRY=off", "GOWORK=off",
		"PROXIED=-v "+dir+"/tree:/proxy:ro -e GOPROXY=file:///proxy -e GOSUMDB=off")
	env = append(env, proxy.Env()...)
	// A go.sum, and what it lists as a proxy's tree.
	setup := exec.Command("sh", "-ec", "cd $DIR/prog && go mod tidy && modfs bundle go.sum -o ../bundle.tar --store $DIR/bundle && mkdir ../tree && tar xf ../bundle.tar -C ../tree")
	setup.Env = env
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", host+script)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 77 {
		t.Skipf("%s", out)
	} else if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// wantLines checks that out has lines that match wanted, in that order.
func wantLines(t *testing.T, out string, wanted ...string) {
	t.Helper()
	rest := strings.Split(out, "\n")
	for _, want := range wanted {
		re := regexp.MustCompile("^(" + want + ")$")
		for len(rest) > 0 && !re.MatchString(strings.TrimSpace(rest[0])) {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			t.Errorf("no line %q, or not after those before it, in:\n%s", want, out)
			return
		}
		rest = rest[1:]
	}
}
