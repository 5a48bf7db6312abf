//go:build !linux

package doctor

import "github.com/moby/sys/mountinfo"

// table returns the table of mounts, which says nothing of propagation here.
func (s *System) table() ([]*mountinfo.Info, error) { return mountinfo.GetMounts(nil) }
