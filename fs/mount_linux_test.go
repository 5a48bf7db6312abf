package fs

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// mountHelped mounts as for a user without privileges.
func mountHelped(raw fuse.RawFileSystem, c mountConfig) (*fuse.Server, error) {
	fd, err := mountHelper(c)
	if err != nil {
		return nil, err
	}
	return serve(raw, c, fd)
}

func init() {
	if _, err := exec.LookPath("fusermount3"); err == nil {
		mounters["fusermount3"] = mountHelped
	}
}

// TestMountOptions compares what both ways of mounting make the kernel show.
func TestMountOptions(t *testing.T) {
	var shown []string
	for name, mount := range mounters {
		m := mountTrivial(t, mount, mountConfig{ReadOnly: true, NoExec: true, AllowOther: os.Geteuid() == 0})
		info, err := findMount(m.dir)
		if err != nil || info == nil {
			t.Fatalf("%s: %+v, %v", name, info, err)
		}
		s := strings.Join([]string{info.FSType, strings.ReplaceAll(info.Source, m.store, "STORE"), info.Options, info.VFSOptions}, " ")
		for _, want := range []string{"fuse.modfs modfs:STORE ", "nosuid", "nodev", "noexec", "ro,", "max_read=131072"} {
			if !strings.Contains(s, want) {
				t.Errorf("%s: %s, want %s in it", name, s, want)
			}
		}
		if os.Geteuid() == 0 && !strings.Contains(s, "default_permissions,allow_other") {
			t.Errorf("%s: %s, want it for others", name, s)
		}
		shown = append(shown, s)
	}
	if len(shown) == 2 && shown[0] != shown[1] {
		t.Errorf("mounts differ:\n%s\n%s", shown[0], shown[1])
	}
}

func TestUnmountHelper(t *testing.T) {
	if mounters["fusermount3"] == nil {
		t.Skip("no fusermount3")
	}
	m := mountTrivial(t, mountHelped, mountConfig{})
	f, err := os.Open(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unmountHelper(m.dir, false); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("unmount while a directory is open: %v, want EBUSY", err)
	}
	if err := unmountHelper(m.dir, true); err != nil {
		t.Error(err)
	}
	f.Close()
	<-m.served
	if err := unmountHelper(m.dir, false); err == nil {
		t.Error("unmounted twice")
	}
}

func TestHelperError(t *testing.T) {
	exit := errors.New("exit status 1")
	for _, tt := range []struct {
		stderr, want string
		is           error
	}{
		{"", "fusermount3: exit status 1", exit},
		{"fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n", "ask an administrator", nil},
		{"fusermount3: failed to unmount /x: Device or resource busy\n", "fusermount3: device or resource busy", syscall.EBUSY},
		{"fusermount3: mount failed: Operation not permitted\n", "'modfs run'", ErrNotPermitted},
		{"fusermount3: user has no write access to mountpoint /x\nmore\n", "fusermount3: user has no write access to mountpoint /x; more", nil},
	} {
		err := helperError(exit, tt.stderr)
		if !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q, wrapping %v", tt.stderr, err, tt.want, tt.is)
		}
	}
}
