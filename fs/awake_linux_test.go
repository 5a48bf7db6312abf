package fs

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// TestKeepAwake checks with the kernel that processors stay awake while requests come, and may sleep afterwards.
func TestKeepAwake(t *testing.T) {
	// The kernel says what is asked of it. Others may ask, too.
	device, err := os.OpenFile(latencyDevice, os.O_RDONLY, 0)
	if err != nil {
		t.Skip("needs root, and a kernel with PM QoS: ", err)
	}
	defer device.Close()
	latency := func() uint32 {
		var b [4]byte
		if _, err := device.ReadAt(b[:], 0); err != nil {
			t.Fatal(err)
		}
		return binary.NativeEndian.Uint32(b[:])
	}
	if n := latency(); n != asleepLatency {
		t.Skipf("something else keeps processors awake: %d µs", n)
	}
	dir, f := mountTest(t, proxytest.New(t), func(o *Options) { o.KeepAwake = KeepAwakeAlways })
	// Names that are not there are asked for each time.
	ask := func() {
		if _, err := os.Lstat(filepath.Join(dir, "cache/download/sumdb/none")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
			t.Fatal(err)
		}
	}
	await := func(what string, want uint32, do func()) {
		for deadline := time.Now().Add(time.Minute); latency() != want; do() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d µs, want %d", what, latency(), want)
			}
		}
	}
	pause := func() { time.Sleep(time.Millisecond) }
	await("while requests come", awakeLatency, ask)
	await("when none come any more", asleepLatency, pause)
	await("when some come again", awakeLatency, ask)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	await("after the unmount", asleepLatency, pause)
}

// TestOpenLatency checks that nothing is told of a device that cannot be opened, but to who wants it.
func TestOpenLatency(t *testing.T) {
	for _, k := range []KeepAwake{KeepAwakeAuto, KeepAwakeAlways, KeepAwakeOff} {
		var logged strings.Builder
		device := openLatency(k, slog.New(slog.NewTextHandler(&logged, nil)))
		allowed := syscall.Access(latencyDevice, unix.W_OK) == nil
		switch {
		case device != nil:
			device.Close()
			if k == KeepAwakeOff || !allowed {
				t.Errorf("%q: open", k)
			}
		case k == KeepAwakeAlways && (allowed || !strings.Contains(logged.String(), latencyDevice)):
			t.Errorf("%q: not open, and told %q", k, logged.String())
		case k != KeepAwakeAlways && logged.Len() > 0:
			t.Errorf("%q: told %q", k, logged.String())
		}
	}
}
