package control

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	modfs "modfs/fs"
)

// probePatience is for how long a file system may not answer before it is said to hang.
const probePatience = 10 * time.Second

// prober probes a file system, once at a time however many ask: one that hangs keeps one goroutine waiting, and not more and more.
type prober struct {
	mu      sync.Mutex
	running chan struct{} // closed when the probe that runs is through; nil: none does
}

// ok reports whether the file system answers in time.
func (p *prober) ok(f *modfs.FS, patience time.Duration) bool {
	p.mu.Lock()
	done := p.running
	if done == nil {
		done = make(chan struct{})
		p.running = done
		go func() {
			defer func() {
				p.mu.Lock()
				p.running = nil
				p.mu.Unlock()
				close(done)
			}()
			f.Probe() // recovers by itself
		}()
	}
	p.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// healthz says whether the daemon is alive: restarting it would help if not.
func (w *Web) healthz(rw http.ResponseWriter, r *http.Request) { answerHealth(rw, w.alive()) }

// readyz says whether the mount is there and has no end in sight: nobody is to be sent to it if not.
func (w *Web) readyz(rw http.ResponseWriter, r *http.Request) {
	err := w.alive()
	switch {
	case err != nil:
	case w.ending.Load():
		err = errors.New("the mount is ending")
	case !w.fs.Mounted():
		err = fmt.Errorf("%s is not mounted any more", w.fs.Mountpoint())
	}
	answerHealth(rw, err)
}

func (w *Web) alive() error {
	if !w.probe.ok(w.fs, probePatience) {
		return errors.New("the file system does not answer")
	}
	return nil
}

func answerHealth(rw http.ResponseWriter, err error) {
	if err != nil {
		http.Error(rw, err.Error(), http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(rw, "ok\n") // the client's loss
}
