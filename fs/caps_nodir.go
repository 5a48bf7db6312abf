//go:build linux || freebsd

package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// capNoOpendir asks the kernel to take ENOSYS from OPENDIR for an answer.
const capNoOpendir = fuse.CAP_NO_OPENDIR_SUPPORT
