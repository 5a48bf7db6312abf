//go:build !linux && !freebsd

package fs

// capNoOpendir is nothing that this kernel knows.
const capNoOpendir = 0
