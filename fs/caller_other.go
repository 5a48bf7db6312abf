//go:build !linux

package fs

// hasOpen is for systems where one process cannot see another's files.
func hasOpen(uint32, string) bool { return false }

// wantsWritable is for systems where one process cannot see another's settings.
func wantsWritable(uint32) bool { return false }

// sameClient is for systems where one process cannot see another's settings.
func (f *FS) sameClient(uint32) bool { return false }

// wanted is for systems where one process cannot see another's settings.
func (f *FS) wanted(uint32, ...string) bool { return false }
