package fetch

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// What version control needs is not known before it is there: a clone is as large as it is. So its directory is measured while go
// commands run, and they are ended when there is too much. Between two measurements they may write what a fifth of a second lets
// them. Clones are kept for the next version of the same module, but not for long.

const (
	defaultDirectMax = 2 << 30          // bytes
	measurePause     = time.Second / 5  // between two measurements, or ten times as long as one takes
	keepClones       = 10 * time.Minute // unused
	maxCloneAge      = time.Hour        // a tag that moved is not noticed in a clone that has it
)

// generation is a module cache of the go command. A new one is begun when the last one has grown old or large, or a go command
// was killed in it: git then leaves locks behind that are in the way for good. It is removed when its last user leaves.
type generation struct {
	dir   string
	d     *direct
	born  time.Time
	users int // guarded by direct.mu, as is what follows
	used  time.Time
	runs  map[string]*run
	over  bool // nobody else may enter
}

// downloads is the directory that is like a file:// proxy.
func (g *generation) downloads() string { return filepath.Join(g.dir, "cache", "download") }

// spoil keeps others from using it.
func (g *generation) spoil() {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	g.over = true
}

// enter returns the generation to be used. Its user leaves it.
func (d *direct) enter(ctx context.Context) (*generation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d.current != nil && (d.current.over || time.Since(d.current.born) > maxCloneAge) {
		d.retire()
	}
	if d.current == nil {
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			return nil, fmt.Errorf("direct: %w", err)
		}
		// A name that no process before us had.
		dir, err := os.MkdirTemp(d.dir, "")
		if err != nil {
			return nil, fmt.Errorf("direct: %w", err)
		}
		d.current = &generation{dir: dir, d: d, born: time.Now(), runs: make(map[string]*run)}
		d.all[d.current] = true
	}
	d.current.users++
	return d.current, nil
}

// leave ends the use of a generation.
func (d *direct) leave(g *generation) {
	d.mu.Lock()
	g.users--
	g.used = time.Now()
	idle := g.users == 0
	if idle && g == d.current && g.over {
		d.current = nil
	}
	remove := idle && g != d.current
	if remove {
		delete(d.all, g)
	} else if idle {
		d.expireLater(keepClones)
	}
	d.mu.Unlock()
	if remove {
		d.remove(g)
	}
}

// retire makes the next one who enters begin a new generation. d.mu is held.
func (d *direct) retire() {
	g := d.current
	d.current = nil
	g.over = true
	if g.users == 0 {
		delete(d.all, g)
		d.c.calls.Go(func() { d.remove(g) }) // our caller is a call, so Close is not waiting yet
	}
}

// remove removes a generation from the disk, from which nobody can enter it.
func (d *direct) remove(g *generation) {
	if err := os.RemoveAll(g.dir); err != nil {
		d.c.log.Warn("clones not removed", "dir", g.dir, "err", err)
	}
	d.measure(context.Background(), 0) // best effort: it asks for no more than there was
}

// expireLater has clones removed that are unused by then. d.mu is held.
func (d *direct) expireLater(after time.Duration) {
	if d.expiry != nil {
		d.expiry.Stop()
	}
	d.expiry = time.AfterFunc(after, func() {
		if d.c.hold() != nil {
			return // closed, which removes all
		}
		defer d.c.calls.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.current != nil && d.current.users == 0 {
			d.retire()
		}
	})
}

// close removes all. No run is under way.
func (d *direct) close() {
	d.mu.Lock()
	if d.expiry != nil {
		d.expiry.Stop()
	}
	d.mu.Unlock()
	if err := os.RemoveAll(d.dir); err != nil {
		d.c.log.Warn("clones not removed", "dir", d.dir, "err", err)
	}
	d.measure(context.Background(), 0) // best effort
}

// max is how many bytes the directory may have.
func (d *direct) max() int64 { return orDefault(d.c.cfg.DirectMax, defaultDirectMax) }

// headroom is what is asked for before it is there, in bytes.
func (d *direct) headroom() int64 { return min(32<<20, d.max()/8) }

// measure measures the directory and accounts for it, and for more bytes. It returns how many it has.
func (d *direct) measure(ctx context.Context, more int64) (int64, error) {
	d.room.Lock()
	defer d.room.Unlock()
	have := diskUsage(d.dir)
	if d.c.cfg.DirectRoom == nil {
		return have, nil
	}
	if err := d.c.cfg.DirectRoom.Resize(ctx, have+more, have); err != nil {
		return have, &finalError{fmt.Errorf("direct: no room for clones: %w", err)}
	}
	return have, nil
}

// guard watches over the room that a run takes: the context that it returns ends if that is too much. stop ends it,
// and returns an error if it was.
func (d *direct) guard(ctx context.Context, r *run) (_ context.Context, stop func() error, err error) {
	if _, err := d.measure(ctx, d.headroom()); err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	d.running++
	d.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	d.c.calls.Go(func() { // a run is under way, so Close is not waiting yet
		defer close(done)
		d.watch(ctx, cancel, r)
	})
	return ctx, func() error {
		cancel(nil)
		<-done
		d.mu.Lock()
		d.running--
		more := int64(0)
		if d.running > 0 {
			more = d.headroom()
		}
		d.mu.Unlock()
		have, _ := d.measure(context.Background(), more) // best effort: it asks for no more than there was
		if have > d.max()/4 {
			r.g.spoil()
		}
		if have > d.max() {
			return d.tooLarge()
		}
		return nil
	}, nil
}

func (d *direct) tooLarge() error {
	return &finalError{fmt.Errorf("direct: %w: clones and what is made of them take more than %d bytes", ErrTooLarge, d.max())}
}

// watch cancels if the directory grows too large, or if nobody waits for the run and it does nothing.
func (d *direct) watch(ctx context.Context, cancel context.CancelCauseFunc, r *run) {
	var last int64
	moved := time.Now()
	for pause := measurePause; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		start := time.Now()
		have, err := d.measure(ctx, d.headroom())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			cancel(err)
		case have > d.max():
			cancel(d.tooLarge())
		case have != last:
			last, moved = have, time.Now()
		case time.Since(moved) > d.c.cfg.IdleTimeout && !r.waited():
			cancel(fmt.Errorf("%w: version control: nothing came for %v, and nobody waits", ErrTimeout, d.c.cfg.IdleTimeout))
		}
		pause = max(measurePause, 10*time.Since(start))
	}
}

// diskUsage returns what a directory takes on disk, in bytes, as du does.
func diskUsage(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, de iofs.DirEntry, err error) error {
		if err != nil {
			return nil // it went meanwhile
		}
		fi, err := de.Info()
		if err != nil {
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			n += int64(st.Blocks) * 512
		} else {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// isFile reports whether there is a regular file of that name.
func isFile(name string) bool {
	fi, err := os.Lstat(name)
	return err == nil && fi.Mode().IsRegular()
}

// fileURL is the URL of a directory, as in GOPROXY.
func fileURL(dir string) *url.URL { return &url.URL{Scheme: "file", Path: filepath.ToSlash(dir)} }

var errNoGo = errors.New("there is no go command to get modules from version control with: install one, and git, and have them in PATH, " +
	"or leave direct out of GOPROXY")
