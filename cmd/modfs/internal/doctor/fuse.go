package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const device = "/dev/fuse"

// deviceNumbers are those of /dev/fuse (https://docs.kernel.org/admin-guide/devices.html, 10 char, 229).
const deviceMajor, deviceMinor = 10, 229

func checkDevice(_ context.Context, s *System) []Finding {
	const (
		load   = "load the kernel module: modprobe fuse"
		give   = "give the container the device: --device /dev/fuse"
		create = "mknod -m 666 /dev/fuse c 10 229"
	)
	remedy := func(otherwise string) string {
		if s.inContainer() {
			return give
		}
		return otherwise
	}
	fi, err := os.Stat(s.path(device))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !s.hasFUSE():
		return fail(remedy(load), "%s is missing, and so is the kernel module", device)
	case errors.Is(err, fs.ErrNotExist):
		return fail(remedy(create), "%s is missing", device)
	case err != nil:
		return fail("", "%s: %v", device, errno(err))
	}
	st, isUnix := fi.Sys().(*syscall.Stat_t)
	if fi.Mode()&fs.ModeCharDevice == 0 || isUnix && uint64(st.Rdev) != unix.Mkdev(deviceMajor, deviceMinor) {
		return fail("rm "+device+"; "+create, "%s is not the device %d:%d", device, deviceMajor, deviceMinor)
	}
	switch err := s.Open(s.path(device)); {
	case err == nil:
		return ok("%s can be opened", device)
	case errors.Is(err, syscall.EACCES):
		return fail("be root, or let this user open it: chmod 666 "+device, "%s: %v", device, errno(err))
	case errors.Is(err, syscall.EPERM):
		return fail(remedy("the device rules of the control group forbid it (DeviceAllow=/dev/fuse rw in a systemd unit)"), "%s: %v", device, errno(err))
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fail(remedy(load), "%s: %v: the kernel module is not loaded", device, errno(err))
	default:
		return fail("", "%s: %v", device, errno(err))
	}
}

// hasFUSE reports whether the kernel has FUSE, as far as it says.
func (s *System) hasFUSE() bool {
	return slices.Contains(strings.Fields(s.read("/proc/filesystems")), "fuse")
}

// What modfs needs of the kernel, by the version that brought it (include/uapi/linux/fuse.h has the history).
const (
	needsKernel = "3.15" // OPEN may be answered with ENOSYS (protocol 7.23)
	likesKernel = "5.1"  // OPENDIR, too (7.29): listings stay in the kernel
	nsKernel    = "4.18" // FUSE in user namespaces
)

func checkKernel(_ context.Context, s *System) []Finding {
	release := s.read("/proc/sys/kernel/osrelease")
	var found []Finding
	switch {
	case release == "":
		return note("", "the kernel does not say which it is")
	case older(release, needsKernel):
		found = fail("update it", "Linux %s is older than %s, which modfs needs", release, needsKernel)
	case older(release, nsKernel):
		found = warn("update it", "Linux %s mounts no FUSE in user namespaces (%s does), and keeps no listings (%s does)", release, nsKernel, likesKernel)
	case older(release, likesKernel):
		found = note("", "Linux %s keeps no listings: since %s, directories are read faster", release, likesKernel)
	default:
		found = ok("Linux %s", release)
	}
	if !s.exists("/sys/fs/fuse/connections/.") && s.hasFUSE() {
		found[0].Text += "; /sys/fs/fuse/connections is not mounted: only root can end a mount that hangs"
	}
	return found
}

// older reports whether a release such as 5.10.0-28-amd64 is older than a version such as 5.1.
func older(release, version string) bool {
	var a, b [2]int
	fmt.Sscanf(release, "%d.%d", &a[0], &a[1]) // best effort: 0.0 is older than all
	fmt.Sscanf(version, "%d.%d", &b[0], &b[1])
	return slices.Compare(a[:], b[:]) < 0
}

func checkFusermount(_ context.Context, s *System) []Finding {
	if s.mayMount() {
		return ok("not needed: this user may mount")
	}
	const run = ", or use 'modfs run', which mounts in a user namespace of its own"
	if s.UID == 0 {
		return fail("give the container the right: --cap-add SYS_ADMIN"+run, "root may not mount here (no CAP_SYS_ADMIN), and fusermount3 would not help")
	}
	bin, err := s.LookPath("fusermount3")
	if err != nil {
		return fail("install the package fuse3"+run, "fusermount3 is not installed, and this user may not mount without it")
	}
	fi, err := os.Stat(bin)
	if err != nil {
		return fail("", "%s: %v", bin, errno(err))
	}
	st, isUnix := fi.Sys().(*syscall.Stat_t)
	switch {
	case fi.Mode()&fs.ModeSetuid == 0 || isUnix && st.Uid != 0:
		return fail("chown root "+bin+"; chmod u+s "+bin+run, "%s is not set-user-ID root", bin)
	case s.processStatus("NoNewPrivs") == "1":
		return fail("leave out no-new-privileges (NoNewPrivileges= in a systemd unit, allowPrivilegeEscalation in Kubernetes)"+run,
			"%s can get no privileges: this process may have no new ones", bin)
	}
	return ok("%s is set-user-ID root", bin)
}

func checkAllowOther(_ context.Context, s *System) []Finding {
	const conf = "/etc/fuse.conf"
	if s.mayMount() {
		return ok("not needed: this user may mount for others")
	}
	if slices.Contains(s.lines(conf), "user_allow_other") {
		return ok("%s has it", conf)
	}
	return note("as root, add the line user_allow_other to "+conf, "%s does not have user_allow_other: without it, no --allow-other", conf)
}

func checkNamespaces(ctx context.Context, s *System) []Finding {
	if s.Namespace == nil {
		return note("", "not known on this system")
	}
	err := s.Namespace(ctx)
	if err == nil {
		return ok("'modfs run' can mount in one")
	}
	why, fix := fmt.Sprint(errno(err)), ""
	for _, limit := range []struct{ file, value, fix string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "give modfs an AppArmor profile with userns, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		if s.read(limit.file) == limit.value {
			why, fix = fmt.Sprintf("%s is %s", limit.file, limit.value), limit.fix
		}
	}
	if fix == "" && s.inContainer() {
		fix = "a container needs a seccomp profile that lets it make them (--security-opt seccomp=unconfined), and an unmasked /proc"
	}
	if s.mayMount() {
		return note("", "none can be made (%s), and none is needed: this user may mount", why)
	}
	return warn(fix, "none can be made: %s", why)
}

// errno returns what the operating system said in err.
func errno(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return err
}
