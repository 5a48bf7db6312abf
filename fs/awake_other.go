//go:build !linux

package fs

import (
	"io"
	"log/slog"
)

// openLatency returns nil: only Linux can be asked.
func openLatency(k KeepAwake, log *slog.Logger) io.WriteCloser {
	if k == KeepAwakeAlways {
		log.Warn("idle processors are not kept awake: only Linux can be asked to")
	}
	return nil
}
