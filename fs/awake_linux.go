package fs

import (
	"io"
	"log/slog"
	"os"
	"strings"
)

const (
	latencyDevice = "/dev/cpu_dma_latency"
	cpuidleDriver = "/sys/devices/system/cpu/cpuidle/current_driver"
)

// openLatency opens the device by which a process says how long processors may take to wake up; nil if k does not want it here, or
// this process may not. Without privileges that is as usual, so it is told only to who wants it always.
func openLatency(k KeepAwake, log *slog.Logger) io.WriteCloser {
	switch k {
	case KeepAwakeOff:
		return nil
	case KeepAwakeAlways:
	default:
		driver, err := os.ReadFile(cpuidleDriver)
		if err != nil || strings.TrimSpace(string(driver)) != "haltpoll" {
			return nil
		}
	}
	device, err := os.OpenFile(latencyDevice, os.O_WRONLY, 0)
	if err != nil {
		if k == KeepAwakeAlways {
			log.Warn("idle processors are not kept awake", "err", err)
		}
		return nil
	}
	return device
}
