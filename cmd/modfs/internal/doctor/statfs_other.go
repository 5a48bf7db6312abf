//go:build !linux

package doctor

import "golang.org/x/sys/unix"

// Stat asks the kernel about the file system that dir is on.
func Stat(dir string) (Statfs, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Statfs{}, err
	}
	return Statfs{
		Type: unix.ByteSliceToString(st.Fstypename[:]), ReadOnly: uint64(st.Flags)&unix.MNT_RDONLY != 0,
		Free: int64(st.Bavail) * int64(st.Bsize), Total: int64(st.Blocks) * int64(st.Bsize),
		FreeFiles: uint64(st.Ffree), MaxFile: uint64(st.Files),
	}, nil
}
