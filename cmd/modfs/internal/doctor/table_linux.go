package doctor

import (
	"bytes"
	"os"

	"github.com/moby/sys/mountinfo"
)

// table returns the table of mounts.
func (s *System) table() ([]*mountinfo.Info, error) {
	data, err := os.ReadFile(s.path("/proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	return mountinfo.GetMountsFromReader(bytes.NewReader(data), nil)
}
