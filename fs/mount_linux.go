package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// isFUSE reports whether a type in the table of mounts is the one that mountFUSE gives.
func isFUSE(fsType string) bool { return fsType == "fuse."+fsName }

// mountFUSE mounts raw at c.Dir and returns its server, which the caller must run (Serve) and then wait for (waitMount).
// The descriptor of the mount is the server's, which closes it when it is unmounted, and no child process inherits it.
// The server does not know where it is mounted: Unmount unmounts it, not its method of that name.
//
// The error wraps ErrNotPermitted if a user namespace of one's own would help.
func mountFUSE(raw fuse.RawFileSystem, c mountConfig) (*fuse.Server, error) {
	// fusermount3 would mount a directory over a file.
	if info, err := os.Stat(c.Dir); err != nil {
		return nil, fmt.Errorf("mount %s: %w", c.Dir, errors.Unwrap(err))
	} else if !info.IsDir() {
		return nil, fmt.Errorf("mount %s: %w", c.Dir, syscall.ENOTDIR)
	}
	fd, err := mountDirect(c)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		c.log().Debug("mount(2) refused, trying fusermount3", "err", err)
		fd, err = mountHelper(c)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", c.Dir, err)
	}
	return serve(raw, c, fd)
}

// serve makes the server of a mounted descriptor. If that fails, nothing stays mounted.
func serve(raw fuse.RawFileSystem, c mountConfig, fd int) (*fuse.Server, error) {
	o := c.fuse
	o.Name, o.FsName, o.AllowOther = fsName, c.Source, c.AllowOther
	// With this path go-fuse takes a mounted descriptor instead of mounting itself, and owns it from then on, also if
	// it fails. Its own way of mounting lets child processes inherit the descriptor (which keeps the mount alive when
	// the daemon is dead), and has fusermount3 write to our stderr.
	server, err := fuse.NewServer(raw, fmt.Sprintf("/dev/fd/%d", fd), &o)
	if err != nil {
		unmount(c.Dir, true) // best effort
		return nil, fmt.Errorf("mount %s: %w", c.Dir, err)
	}
	return server, nil
}

// mountDirect mounts with mount(2), which needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
func mountDirect(c mountConfig) (fd int, err error) {
	fd, err = unix.Open(devFuse, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, fmt.Errorf("%s: %w; load the kernel module (modprobe fuse), or give the container the device (--device %s)",
			devFuse, err, devFuse)
	case err != nil:
		return -1, fmt.Errorf("%s: %w", devFuse, err)
	}
	flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID)
	if c.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if c.NoExec {
		flags |= unix.MS_NOEXEC
	}
	data := append([]string{
		fmt.Sprintf("fd=%d", fd),
		"rootmode=40000", // a directory, in octal
		fmt.Sprintf("user_id=%d", os.Geteuid()),
		fmt.Sprintf("group_id=%d", os.Getegid()),
	}, c.options()...)
	if err := unix.Mount(c.Source, c.Dir, "fuse."+fsName, flags, strings.Join(data, ",")); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// options are the mount options that mount(2) and fusermount3 both know.
func (c *mountConfig) options() []string {
	var o []string
	if n := c.fuse.MaxWrite; n > 0 {
		// READ is as large as WRITE may be, which the kernel is told in the answer to INIT. It lowers what is too much.
		o = append(o, fmt.Sprintf("max_read=%d", n))
	}
	if c.AllowOther {
		// Without default_permissions it would not look at modes and owners at all.
		o = append(o, "default_permissions", "allow_other")
	}
	return append(o, c.fuse.Options...)
}

// mountHelper mounts with fusermount3, which is set-user-ID root and passes the descriptor back through a socket
// (https://github.com/libfuse/libfuse/blob/master/util/fusermount.c).
func mountHelper(c mountConfig) (fd int, err error) {
	bin, err := fusermount()
	if err != nil {
		return -1, fmt.Errorf("%w without privileges, and %w: install the package fuse3, or use 'modfs run', "+
			"which mounts in a user namespace of its own", ErrNotPermitted, err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	local, remote := os.NewFile(uintptr(pair[0]), "local"), os.NewFile(uintptr(pair[1]), "remote")
	defer local.Close()
	defer remote.Close()

	opts := append(c.options(), "fsname="+escapeOption(c.Source), "subtype="+fsName)
	if c.ReadOnly {
		opts = append(opts, "ro")
	}
	if c.NoExec {
		opts = append(opts, "noexec")
	}
	cmd := exec.Command(bin, "-o", strings.Join(opts, ","), "--", c.Dir)
	cmd.Args[0] = "fusermount3" // it begins its messages with it
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{remote} // number 3
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return -1, helperError(err, stderr.String())
	}
	remote.Close() // or receiving would wait for ever if nothing was sent
	fd, err = receiveFD(int(local.Fd()))
	if err != nil {
		unmount(c.Dir, true) // best effort: it did mount
		return -1, fmt.Errorf("fusermount3: descriptor of the mount: %w", err)
	}
	return fd, nil
}

// helperError makes one error of what fusermount3 wrote.
func helperError(err error, stderr string) error {
	text := strings.Join(strings.FieldsFunc(stderr, func(r rune) bool { return r == '\n' }), "; ")
	if text == "" {
		return fmt.Errorf("fusermount3: %w", err)
	}
	text = strings.TrimPrefix(text, "fusermount3: ")
	switch {
	case strings.Contains(text, "user_allow_other"):
		return fmt.Errorf("fusermount3: %s: ask an administrator to add the line user_allow_other to /etc/fuse.conf, "+
			"or mount as root", text)
	case strings.Contains(text, "busy"):
		return fmt.Errorf("fusermount3: %w", syscall.EBUSY)
	case strings.Contains(text, devFuse): // a user namespace would not open it either
		return fmt.Errorf("fusermount3: %s", text)
	case strings.Contains(text, "not permitted"), strings.Contains(text, "ermission denied"),
		strings.Contains(text, "must be root"):
		return fmt.Errorf("%w: fusermount3: %s; 'modfs run' mounts in a user namespace of its own", ErrNotPermitted, text)
	}
	return fmt.Errorf("fusermount3: %s", text)
}

// receiveFD receives one descriptor from a socket.
func receiveFD(socket int) (int, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		_, n, _, _, err := unix.Recvmsg(socket, data[:], oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, os.NewSyscallError("recvmsg", err)
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			return -1, err
		}
		for _, msg := range msgs {
			if fds, err := unix.ParseUnixRights(&msg); err == nil && len(fds) > 0 {
				return fds[0], nil
			}
		}
		return -1, errors.New("none was sent")
	}
}

// escapeOption escapes a value for the -o of fusermount3, which separates options by commas.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// fusermount finds fusermount3; without a PATH, where distributions have it.
func fusermount() (string, error) {
	for _, bin := range []string{"fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3"} {
		if bin, err := exec.LookPath(bin); err == nil && filepath.IsAbs(bin) {
			return bin, nil
		}
	}
	return "", errors.New("fusermount3 is not installed")
}

// unmount unmounts what is at dir, an absolute path without symbolic links.
func unmount(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(dir, flags)
	if errors.Is(err, unix.EPERM) {
		err = unmountHelper(dir, lazy)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EINVAL):
		return ErrNotMounted // somebody was faster
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: a process has a file or its working directory in it", err)
	}
	return err
}

// unmountHelper unmounts with fusermount3, which lets users unmount what they mounted.
func unmountHelper(dir string, lazy bool) error {
	bin, err := fusermount()
	if err != nil {
		return fmt.Errorf("%w without privileges, and %w", ErrNotPermitted, err)
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	cmd := exec.Command(bin, append(args, "--", dir)...)
	cmd.Args[0] = "fusermount3"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return helperError(err, stderr.String())
	}
	return nil
}
