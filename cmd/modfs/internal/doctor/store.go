package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// storeState is a store that is looked at, and what its daemon says of it.
type storeState struct {
	dir         string
	limit, used int64
	evicted     int64
	live        bool
}

// stores returns those of the mounts that are asked about, as far as they are this user's; without any, the default one.
func (s *System) stores() []storeState {
	var all []storeState
	for _, st := range s.live() {
		if slices.ContainsFunc(all, func(o storeState) bool { return o.dir == st.Store.Dir }) {
			continue
		}
		u := st.Store.Usage
		all = append(all, storeState{dir: st.Store.Dir, limit: u.Limit, used: u.Bytes, evicted: u.EvictedBytes, live: true})
	}
	if mounts, err := s.mounts(); err == nil {
		for _, m := range mounts {
			if m.Stale && !slices.ContainsFunc(all, func(o storeState) bool { return o.dir == m.Store }) {
				all = append(all, storeState{dir: m.Store, limit: s.MaxSize})
			}
		}
	}
	if len(all) == 0 && s.Store != "" {
		all = append(all, storeState{dir: s.Store, limit: s.MaxSize})
	}
	return all
}

func checkStore(_ context.Context, s *System) []Finding {
	var found []Finding
	for _, st := range s.stores() {
		found = append(found, s.store(st)...)
	}
	if len(found) == 0 {
		return fail("set HOME, or give --store", "there is no cache directory for it")
	}
	return found
}

// store looks at one store.
func (s *System) store(st storeState) []Finding {
	fi, err := os.Stat(st.dir)
	if st.live && s.foreign(fi, err) {
		return note("", "%s is the store of another user's daemon: only that user may look into it", st.dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && st.live:
		return warn("mount it again to write to it", "%s was removed while it is mounted", st.dir)
	case errors.Is(err, fs.ErrNotExist):
		return ok("%s is not there yet: the first mount makes it", st.dir)
	case err != nil:
		return fail("give another --store", "%s: %v", st.dir, errno(err))
	case !fi.IsDir():
		return fail("give another --store", "%s is not a directory", st.dir)
	}
	own := func(fix, format string, args ...any) []Finding {
		return fail(fix, "%s "+format, append([]any{st.dir}, args...)...)
	}
	if s.foreign(fi, nil) {
		return own(fmt.Sprintf("chown -R %d %s, or give another --store", s.UID, st.dir), "does not belong to user %d", s.UID)
	}
	chmod := "chmod go-rwx " + st.dir
	switch mode := fi.Mode().Perm(); {
	case mode&0o022 != 0:
		return own(chmod, "can be written by others (mode %04o): who does can serve anything", mode)
	case mode&0o055 != 0:
		return warn(chmod, "%s can be read by others (mode %04o), private modules included", st.dir, mode)
	case unix.Access(st.dir, unix.R_OK|unix.W_OK|unix.X_OK) != nil:
		return own("chmod u+rwx "+st.dir, "cannot be written by its owner (mode %04o)", mode)
	}
	part, err := s.Statfs(st.dir)
	switch {
	case err != nil:
		return own("", "is on a partition that says nothing: %v", errno(err))
	case part.ReadOnly:
		return own("mount that to be written, or give another --store", "is on a file system that is read-only")
	case slices.Contains([]string{"nfs", "cifs", "smb2", "9p", "fuse", "ceph", "afs"}, part.Type):
		return warn("give another --store, on a local disk", "%s is on %s: its locks may not work, and damage is more likely", st.dir, part.Type)
	case part.Type == "tmpfs" || part.Type == "ramfs":
		return note("", "%s is on %s: it takes memory, and is empty after a restart of the machine", st.dir, part.Type)
	}
	return ok("%s belongs to this user alone", st.dir)
}

// foreign reports whether a store, which os.Stat said that of, belongs to another user. Below a directory that is closed to us
// it certainly does.
func (s *System) foreign(fi os.FileInfo, err error) bool {
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	owner, isUnix := fi.Sys().(*syscall.Stat_t)
	return isUnix && int(owner.Uid) != s.UID
}

// tooFull is how little of a partition, in bytes, does not do for a single large module.
const tooFull = 64 << 20

func checkSpace(_ context.Context, s *System) []Finding {
	var found []Finding
	for _, st := range s.stores() {
		found = append(found, s.space(st)...)
	}
	if len(found) == 0 {
		return note("", "not known: there is no store")
	}
	return found
}

// space looks at the partition of one store.
func (s *System) space(st storeState) []Finding {
	part, err := s.Statfs(existing(st.dir))
	if err != nil {
		return fail("", "%s: %v", st.dir, errno(err))
	}
	const room = "make room, or give another --store"
	keep := int64(0)
	if s.MinFree != nil {
		keep = s.MinFree(part.Total)
	}
	can := st.used + max(part.Free-keep, 0)
	switch {
	case part.MaxFile > 0 && part.FreeFiles == 0:
		return fail(room, "%s: the partition can hold no more files (no inodes)", st.dir)
	case part.Free < tooFull:
		return fail(room, "%s: %s are free: next to nothing can be fetched", st.dir, size(part.Free))
	case part.Free < keep:
		return warn(room, "%s: %s are free, less than --min-free keeps (%s): all that can be is evicted", st.dir, size(part.Free), size(keep))
	case st.limit > 0 && can < st.limit:
		return warn(room+", or a smaller --max-size", "%s: the limit is %s, but there is room for %s", st.dir, size(st.limit), size(can))
	case st.limit == 0:
		return note("", "%s: no limit, %s are free", st.dir, size(part.Free))
	case st.evicted > 2*st.limit:
		return warn("a larger --max-size", "%s: %s were evicted since the mount, the limit is %s: it is too small for what it is used for", st.dir, size(st.evicted), size(st.limit))
	}
	return ok("%s: %s free, the limit is %s", st.dir, size(part.Free), size(st.limit))
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// existing returns p or the nearest directory above it that is there.
func existing(p string) string {
	for {
		if _, err := os.Stat(p); err == nil || p == "/" || p == "." {
			return p
		}
		p = parent(p)
	}
}
