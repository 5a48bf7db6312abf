package fetch

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// The go command gets the settings of the client and can ask nobody anything, whatever the environment of the daemon is.
func TestDirectEnviron(t *testing.T) {
	c := &Client{cfg: Config{Private: "corp.example", Insecure: "old.example", VCS: "*:git", IdleTimeout: 30 * time.Second}}
	d := &direct{c: c}
	r := &run{dir: "/d/1/run-1", g: &generation{dir: "/d/1"}}
	got := d.environ([]string{
		"HOME=/home/me", "PATH=/bin", "GOPROXY=https://other.example", "GOPRIVATE=x", "GOFLAGS=-mod=vendor", "GOWORK=/w/go.work", "GOMODCACHE=/mnt",
		"GIT_DIR=/repo/.git", "GIT_INDEX_FILE=index", "GIT_ASKPASS=/ide/askpass", "LC_ALL=de_DE.UTF-8", "LANGUAGE=de", "GOTOOLCHAIN=go1.99",
		"GOAUTH=netrc; /bin/token", "NETRC=/home/me/netrc", "HTTPS_PROXY=http://web.example", "SSL_CERT_FILE=/ca.pem",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=user.name", "GIT_CONFIG_VALUE_0=me",
	}, r)
	for _, want := range []string{
		"HOME=/home/me", "PATH=/bin", "GOAUTH=netrc; /bin/token", "NETRC=/home/me/netrc", "HTTPS_PROXY=http://web.example", "SSL_CERT_FILE=/ca.pem", "GOPROXY=direct", "GONOPROXY=none", "GOPRIVATE=corp.example", "GOINSECURE=old.example", "GOVCS=*:git",
		"GOSUMDB=off", "GOFLAGS=-modcacherw", "GOWORK=off", "GOTOOLCHAIN=local", "GOMODCACHE=/d/1", "TMPDIR=/d/1/tmp", "GO111MODULE=on",
		"GIT_TERMINAL_PROMPT=0", "GCM_INTERACTIVE=never", "GIT_ASKPASS=" + refuser(), "SSH_ASKPASS=" + refuser(),
		"GIT_SSH_COMMAND=ssh -o BatchMode=yes -o ControlMaster=no -o ConnectTimeout=30 -o ServerAliveInterval=30 -o ServerAliveCountMax=1",
		"GIT_CONFIG_COUNT=3", "GIT_CONFIG_VALUE_0=me", "GIT_CONFIG_KEY_1=gc.auto", "GIT_CONFIG_VALUE_1=0", "GIT_CONFIG_KEY_2=maintenance.auto", "GIT_CONFIG_VALUE_2=false",
		"LANG=de_DE.UTF-8", "LC_MESSAGES=C",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	for _, kv := range got {
		for _, unwanted := range []string{"GIT_DIR=", "GIT_INDEX_FILE=", "LC_ALL=", "LANGUAGE="} {
			if len(kv) >= len(unwanted) && kv[:len(unwanted)] == unwanted {
				t.Errorf("%s", kv)
			}
		}
	}
	// The user's own way to connect is kept.
	got = d.environ([]string{"GIT_SSH_COMMAND=ssh -i key"}, r)
	if !slices.Contains(got, "GIT_SSH_COMMAND=ssh -i key") || !slices.Contains(got, "GOVCS=*:git") {
		t.Errorf("%q", got)
	}
}

// What a program prints is kept up to the limit, in whatever way it is copied.
func TestLimited(t *testing.T) {
	for _, size := range []int{0, 9, 10, 11, 100_000} {
		calls := 0
		l := &limited{max: 10, more: func() { calls++ }}
		n, err := io.Copy(l, struct{ io.Reader }{strings.NewReader(strings.Repeat("x", size))})
		if n != int64(size) || err != nil || l.buf.Len() != min(size, 10) || l.full != (size > 10) || calls != min(max(size-10, 0), 1) {
			t.Errorf("%d bytes: %d kept, full %v, %d calls; %d, %v", size, l.buf.Len(), l.full, calls, n, err)
		}
	}
}
