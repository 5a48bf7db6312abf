package doctor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"

	modfs "modfs/fs"
)

func parent(p string) string { return filepath.Dir(p) }

// checkContainers looks at the propagation of mounts (mount_namespaces(7)): whether a mount that a daemon makes anew, after an
// update for example, comes to be seen by who had the old one.
func checkContainers(_ context.Context, s *System) []Finding {
	table, err := s.table()
	if err != nil {
		return note("", "not known: %v", err)
	}
	mounts, err := s.mounts()
	if err != nil {
		return note("", "not known: %v", err)
	}
	var found []Finding
	for _, m := range mounts {
		if f := s.propagation(table, m); f != nil {
			found = append(found, *f)
		}
	}
	switch {
	case len(found) > 0:
		return found
	case s.inContainer():
		return ok("this is one; its mounts come from itself, or follow those of the host")
	}
	return ok("mounts are passed on")
}

// propagation looks at one mount; nil: nothing is to be said of it.
func (s *System) propagation(table []*mountinfo.Info, m modfs.Found) *Finding {
	var above *mountinfo.Info
	for _, info := range table {
		if info.Mountpoint != m.Mountpoint {
			continue
		}
		if i := slices.IndexFunc(table, func(p *mountinfo.Info) bool { return p.ID == info.Parent }); i >= 0 {
			above = table[i]
		}
	}
	if above == nil || m.Stale {
		return nil
	}
	if _, err := s.probe(m.Mountpoint); errors.Is(err, syscall.EACCES) {
		return nil // another user's, of which it cannot be known where its daemon is
	}
	shared := strings.Contains(above.Optional, "shared:")
	follows := shared || strings.Contains(above.Optional, "master:")
	switch {
	case s.inContainer() && !s.Owned(m) && !follows:
		return &warn(fmt.Sprintf("bind a directory above it with rslave (-v DIR:DIR:rslave, HostToContainer), not %s itself", m.Mountpoint),
			"%s seems to come from outside of this container: its daemon is not seen here, and when that is started anew, the mount will be dead", m.Mountpoint)[0]
	case !s.inContainer() && !shared:
		return &note("mount --make-shared "+above.Mountpoint, "%s: a container that binds the directory above it does not see when it is mounted anew (%s is private)",
			m.Mountpoint, above.Mountpoint)[0]
	}
	return nil
}

func checkFstab(_ context.Context, s *System) []Finding {
	var found []Finding
	seen := false
	for _, line := range s.lines("/etc/fstab") {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "modfs" && f[2] != "fuse.modfs" {
			continue
		}
		seen = true
		if f[2] != "modfs" {
			found = append(found, fail("write modfs for "+f[2], "%s: mount(8) has FUSE's own helper mount the type %s, which does not know modfs's options", f[1], f[2])...)
			continue
		}
		if s.Options == nil {
			continue
		}
		if err := s.Options(f[3]); err != nil {
			found = append(found, fail("'man mount.modfs' has the options", "%s: %v", f[1], err)...)
		}
	}
	switch {
	case !seen:
		return ok("no line is about modfs")
	case !s.exists("/sbin/mount.modfs") && !s.exists("/usr/sbin/mount.modfs"):
		found = append(found, fail(`ln -s "$(command -v modfs)" /sbin/mount.modfs`, "mount(8) has no helper for it: /sbin/mount.modfs is missing")...)
	}
	if len(found) == 0 {
		return ok("its lines can be mounted")
	}
	return found
}

// checkUpdatedb looks whether the program that makes locate's index, which runs as root, will read all that is on a mount that lets
// it in: it would have each module that was ever seen there fetched anew.
func checkUpdatedb(_ context.Context, s *System) []Finding {
	const conf = "/etc/updatedb.conf"
	if !s.exists(conf) {
		return ok("there is none")
	}
	for _, line := range s.lines(conf) {
		name, value, _ := strings.Cut(line, "=")
		if strings.TrimSpace(name) == "PRUNEFS" && slices.Contains(strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)), "fuse.modfs") {
			return ok("%s leaves it out", conf)
		}
	}
	table, err := s.table()
	if err != nil {
		return note("", "not known: %v", err)
	}
	for _, info := range table {
		if strings.HasPrefix(info.Source, "modfs:") && slices.Contains(strings.Split(info.VFSOptions, ","), "allow_other") {
			return warn("add fuse.modfs to PRUNEFS in "+conf, "%s can be read by others, and updatedb will have all of it fetched", info.Mountpoint)
		}
	}
	return ok("no mount lets it in")
}
