package fs

import (
	"encoding/binary"
	"io"
	"sync/atomic"
	"time"
)

// A thread that sends a request waits for the daemon, and the daemon then waits for the next request. In between, a processor has
// nothing to do, and sleeps. In a virtual machine that is a way to the host and back, which takes as long again as all else about the
// request: 27 µs where it is 11 with processors that wait awake. So while requests come in quick succession, the kernel is asked
// not to let processors sleep, with a constraint of its PM QoS
// (https://docs.kernel.org/power/pm_qos_interface.html). That is root's to ask.

// KeepAwake says when idle processors are kept awake while many requests come.
type KeepAwake string

const (
	// KeepAwakeAuto, and the zero value, is for where it was measured to help: with the kernel's cpuidle driver haltpoll, which is for
	// virtual machines, and lets a processor wait awake for a moment anyway. A processor of one's own saves power when it sleeps, and
	// others become faster by it.
	KeepAwakeAuto   KeepAwake = "auto"
	KeepAwakeAlways KeepAwake = "always"
	KeepAwakeOff    KeepAwake = "off"
)

const (
	awakePeriod = 20 * time.Millisecond // how often it is looked how many requests there were
	awakeLeast  = 20                    // that many in a period keep processors awake: they save at least 2 % of it
	awakeQuiet  = 5                     // after so many periods with fewer they may sleep again
	awakeStart  = 64                    // every so many requests it is made sure that somebody looks
)

// What is written to the device: how long a processor may take to wake up, in µs.
const (
	awakeLatency  = 0             // it may not sleep
	asleepLatency = 2_000_000_000 // as if nobody asked (PM_QOS_CPU_LATENCY_DEFAULT_VALUE)
)

// awake keeps idle processors awake while requests come in quick succession.
type awake struct {
	device   io.WriteCloser // nil: they are not kept awake; the constraint ends when it is closed
	requests atomic.Uint64
	watched  atomic.Bool // somebody looks at how many there are, or nobody ever will
}

// initAwake opens the device, if processors are to be kept awake and this process may do so.
func (f *FS) initAwake() {
	if device := openLatency(f.opts.KeepAwake, f.log); device != nil {
		f.awake.device = device
		f.log.Info("idle processors are kept awake while many requests come")
	}
}

// noteRequest counts a request of the kinds that come by the thousand.
func (f *FS) noteRequest() {
	a := &f.awake
	if a.device == nil || a.requests.Add(1)%awakeStart != 0 || !a.watched.CompareAndSwap(false, true) {
		return
	}
	f.background(func() {
		f.at("keep awake")
		ticks := time.NewTicker(awakePeriod)
		defer ticks.Stop()
		err := a.watch(a.requests.Load(), func() (uint64, bool) {
			select {
			case <-ticks.C:
				return a.requests.Load(), true
			case <-f.ctx.Done():
				return 0, false
			}
		})
		if err != nil {
			f.log.Warn("idle processors are not kept awake", "err", err)
			return // and it is not tried again
		}
		a.watched.Store(false)
	})
}

// watch keeps processors awake from the first period with many requests until there were none such for a while. There were so many
// requests before; period waits for the end of one and returns how many there were until then, or false if it is not to go on.
func (a *awake) watch(before uint64, period func() (uint64, bool)) error {
	awake := false
	for quiet := 0; quiet < awakeQuiet; {
		n, ok := period()
		if !ok {
			break
		}
		many := n-before >= awakeLeast
		before = n
		if !many {
			quiet++
			continue
		}
		quiet = 0
		if !awake {
			awake = true
			if err := a.allow(awakeLatency); err != nil {
				return err
			}
		}
	}
	if !awake {
		return nil
	}
	return a.allow(asleepLatency)
}

// allow lets a processor take so long to wake up, in µs.
func (a *awake) allow(latency uint32) error {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], latency)
	_, err := a.device.Write(b[:])
	return err
}

func (a *awake) close() {
	if a.device != nil {
		a.device.Close() // cannot fail
	}
}
