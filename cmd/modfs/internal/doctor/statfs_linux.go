package doctor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// types are the names of file systems by their magic numbers (statfs(2)), of those that checks know.
var types = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "nfs",
	unix.SMB2_SUPER_MAGIC:  "smb2",
	0xFF534D42:             "cifs",
	unix.V9FS_MAGIC:        "9p",
	unix.FUSE_SUPER_MAGIC:  "fuse",
	unix.CEPH_SUPER_MAGIC:  "ceph",
	unix.AFS_SUPER_MAGIC:   "afs",
	unix.TMPFS_MAGIC:       "tmpfs",
	unix.RAMFS_MAGIC:       "ramfs",
	unix.EXT4_SUPER_MAGIC:  "ext",
	unix.XFS_SUPER_MAGIC:   "xfs",
	unix.BTRFS_SUPER_MAGIC: "btrfs",
}

// Stat asks the kernel about the file system that dir is on.
func Stat(dir string) (Statfs, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Statfs{}, err
	}
	kind := types[st.Type]
	if kind == "" {
		kind = fmt.Sprintf("%#x", uint64(st.Type))
	}
	return Statfs{
		Type: kind, ReadOnly: st.Flags&unix.ST_RDONLY != 0,
		Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize,
		FreeFiles: st.Ffree, MaxFile: st.Files,
	}, nil
}
