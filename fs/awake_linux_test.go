package fs

import (
	"encoding/binary"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// watchedLatency is the kernel's device, of which it is noted what is asked of it, and what the kernel then says.
type watchedLatency struct {
	*os.File
	asked, says chan uint32
}

func (w watchedLatency) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	if err != nil {
		return n, err
	}
	var b [4]byte
	if _, err := w.ReadAt(b[:], 0); err != nil {
		return 0, err
	}
	w.asked <- binary.NativeEndian.Uint32(p)
	w.says <- binary.NativeEndian.Uint32(b[:])
	return n, nil
}

// TestKeepAwake checks with the kernel that processors stay awake while requests come, and may sleep afterwards.
func TestKeepAwake(t *testing.T) {
	device, err := os.OpenFile(latencyDevice, os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs root, and a kernel with PM QoS: ", err)
	}
	f := unmounted(t, proxytest.New(t), func(o *Options) { o.KeepAwake = KeepAwakeAlways })
	if f.awake.device == nil {
		t.Fatal("it has no device")
	}
	f.awake.device.Close()
	w := watchedLatency{device, make(chan uint32, 10), make(chan uint32, 10)}
	f.awake.device = w
	for range 2 {
		for deadline := time.Now().Add(time.Minute); len(w.says) == 0; {
			if time.Now().After(deadline) {
				t.Fatal("requests keep nothing awake")
			}
			f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: rootID}}, new(fuse.AttrOut))
		}
		if asked, says := <-w.asked, <-w.says; asked != awakeLatency || says != awakeLatency {
			t.Errorf("while requests come: asked for %d µs, and the kernel says %d", asked, says)
		}
		// What it says afterwards depends on what others ask.
		if asked, says := <-w.asked, <-w.says; asked != asleepLatency {
			t.Errorf("when none come any more: asked for %d µs, and the kernel says %d", asked, says)
		}
	}
}

// TestOpenLatency checks that nothing is told of a device that cannot be opened, but to who wants it.
func TestOpenLatency(t *testing.T) {
	for _, k := range []KeepAwake{"", KeepAwakeAuto, KeepAwakeAlways, KeepAwakeOff} {
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
