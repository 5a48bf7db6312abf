package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
)

// Modules that no proxy has come from version control: where GOPROXY says "direct", and for those that match GONOPROXY.
// How a repository is found, which versions are in it and what is in the zip of one has rules enough to fill a book, and go.sum
// files depend on each of them. So the go command does it, run with GOPROXY=direct and a module cache of ours, and what it
// made is then taken as if that cache were a file:// proxy: read, checked and limited like the answer of any other.
//
// The go command is given the settings of the client, never prompts, and is killed with all that it started when its time is over
// or nobody waits for it any more. It does not ask the checksum database: we do.

// maxRuns is how many go commands run at once. More would have neither the bandwidth nor the cores.
const maxRuns = 3

// direct runs the go command. It has a directory of its own:
//
//	DIR/N/cache/…   the module cache of a generation (see generation), with clones below vcs and artifacts below download
//	DIR/N/run-…/    where one go command runs, with what it answered below out
//	DIR/N/tmp/      temporary files of the go command and what it starts
type direct struct {
	c     *Client
	dir   string
	slots chan struct{}
	stats *upstream // a request is a run

	mu      sync.Mutex
	current *generation
	all     map[*generation]bool // that are on disk
	serial  int
	expiry  *time.Timer
	running int // go commands

	room sync.Mutex // held while the directory is measured and Config.DirectRoom is told; before mu
}

// wanted is a file that a proxy has for a module, and what the go command is to be asked for it.
type wanted struct {
	path  string // module path
	query string // a version or revision; "latest"; or "" for the list
	elem  string // below a proxy's URL
	exact bool   // query is a canonical version, whose artifacts are wanted
}

// wantedOf takes elem, of a module, apart.
func wantedOf(modPath, elem string) (wanted, error) {
	w := wanted{path: modPath, elem: elem}
	_, name, ok := strings.Cut(elem, "/@")
	switch {
	case !ok:
	case name == "latest":
		w.query = "latest"
		return w, nil
	case name == "v/list":
		return w, nil
	default:
		name = strings.TrimPrefix(name, "v/")
		if dot := strings.LastIndexByte(name, '.'); dot > 0 {
			v, err := module.UnescapeVersion(name[:dot])
			if v == "latest" || v == "upgrade" || v == "patch" || v == "none" {
				break // the go command would not take them for branches
			}
			w.query, w.exact = v, module.CanonicalVersion(v) == v
			return w, err
		}
	}
	return w, fmt.Errorf("%w: direct: no module has a file %s", ErrNotFound, elem)
}

// newDirect empties the directory that Config.Direct names.
func newDirect(c *Client) (*direct, error) {
	dir, err := filepath.Abs(c.cfg.Direct)
	if err != nil {
		return nil, err
	}
	// What a process that was killed left. If some of it cannot go, because a git of that process is still writing to it, it is
	// counted, and goes the next time.
	if err := os.RemoveAll(dir); err != nil {
		c.log.Warn("directory for version control not emptied", "dir", dir, "err", err)
	}
	d := &direct{c: c, dir: dir, slots: make(chan struct{}, maxRuns), all: make(map[*generation]bool), stats: &upstream{word: "direct"}}
	d.stats.stats.URL = "direct"
	return d, nil
}

// ask has the go command get elem, unless it is there already, and calls use with where it then is.
func (d *direct) ask(ctx context.Context, modPath, elem string, use func(*upstream) error) error {
	w, err := wantedOf(modPath, elem)
	if err != nil {
		return err
	}
	for range 3 {
		again, err := d.try(ctx, w, use)
		if !again {
			return err
		}
	}
	return fmt.Errorf("direct: %s was there, and then it was not, three times", elem)
}

// try is ask, once. It returns true if somebody else took what we have come for.
func (d *direct) try(ctx context.Context, w wanted, use func(*upstream) error) (again bool, err error) {
	g, err := d.enter(ctx)
	if err != nil {
		return false, err
	}
	defer d.leave(g)
	base := g.downloads()
	there := func() bool { return isFile(filepath.Join(base, filepath.FromSlash(w.elem))) }
	if !w.exact || !there() {
		r, err := d.join(g, w)
		if err != nil {
			return false, err
		}
		defer d.part(r, ctx)
		if err := r.wait(ctx); err != nil {
			return false, err
		}
		if !w.exact {
			base = r.out()
		}
		if !there() { // what failed may have got as far as the .mod
			return r.err == nil, r.err
		}
	}
	u := newUpstream(fileURL(base))
	u.word = "direct"
	err = use(u)
	return errors.Is(err, ErrNotFound) && !there(), err
}

// taken removes the zip of m: whoever asked for it has it, and if it was not what it should be, asking again must not end with
// the same bytes.
func (d *direct) taken(m module.Version) {
	d.mu.Lock()
	all := slices.Collect(maps.Keys(d.all))
	d.mu.Unlock()
	elem, err := file(m, "")
	if err != nil {
		return
	}
	for _, g := range all {
		for _, ext := range []string{".zip", ".ziphash"} {
			os.Remove(filepath.Join(g.downloads(), filepath.FromSlash(elem)+ext)) // best effort: it goes with the generation
		}
	}
}

// run is one run of the go command, for all who want what it gets.
type run struct {
	d       *direct
	g       *generation
	w       wanted
	dir     string
	done    chan struct{} // closed at its end; err is set then
	err     error
	cancel  context.CancelCauseFunc
	waiters int // guarded by direct.mu; the run itself counts
}

func (r *run) out() string { return filepath.Join(r.dir, "out") }

// key is what runs are shared by.
func (w wanted) key() string {
	if w.exact {
		return w.path + "@" + w.query
	}
	return w.elem
}

// join returns the run for w, which is started if there is none. Who joined parts.
func (d *direct) join(g *generation, w wanted) (*run, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := g.runs[w.key()]; r != nil {
		r.waiters++
		return r, nil
	}
	if err := d.c.hold(); err != nil {
		return nil, err
	}
	d.serial++
	r := &run{d: d, g: g, w: w, dir: filepath.Join(g.dir, fmt.Sprintf("run-%d", d.serial)), done: make(chan struct{}), waiters: 2}
	// Not the context of a call: others may come to want the same.
	ctx, cancel := context.WithCancelCause(d.c.ctx)
	r.cancel = cancel
	g.runs[w.key()] = r
	g.users++
	go func() {
		defer d.c.calls.Done()
		defer d.leave(g)
		defer d.part(r, ctx)
		defer cancel(nil)
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("direct: panic: %v", p)
			}
			d.mu.Lock()
			r.forget()
			d.mu.Unlock()
			close(r.done)
		}()
		start := time.Now()
		r.err = r.do(ctx)
		d.stats.note(r.err)
		d.c.tellRun(w, start, r.err)
	}()
	return r, nil
}

// wait waits for the end of the run.
func (r *run) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// part ends the use of a run. One that nobody waits for any more is ended, unless the last one merely ran out of patience: it has a
// deadline of its own, and whoever asks again finds it further on.
func (d *direct) part(r *run, ctx context.Context) {
	d.mu.Lock()
	r.waiters--
	left := r.waiters
	unwanted := left == 1 && ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrTimeout)
	if unwanted {
		r.forget() // or the next one would join what is about to fail
	}
	d.mu.Unlock()
	if unwanted {
		r.cancel(context.Cause(ctx))
	}
	if left == 0 {
		os.RemoveAll(r.dir) // best effort: it goes with the generation
	}
}

// forget keeps others from joining. direct.mu is held.
func (r *run) forget() {
	if r.g.runs[r.w.key()] == r {
		delete(r.g.runs, r.w.key())
	}
}

// waited reports whether anybody waits for the run.
func (r *run) waited() bool {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	return r.waiters > 1
}

// do runs the go command once it is its turn, and puts what it answered where ask finds it.
func (r *run) do(ctx context.Context) error {
	d := r.d
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	late := fmt.Errorf("%w: version control: not done in %v", ErrTimeout, d.c.cfg.Timeout)
	ctx, end := context.WithTimeoutCause(ctx, d.c.cfg.Timeout, late)
	defer end()
	if err := r.prepare(); err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	ctx, stop, err := d.guard(ctx, r)
	if err != nil {
		return err
	}
	start := time.Now()
	args := []string{"mod", "download", "-json", r.w.path + "@" + r.w.query}
	switch {
	case r.w.query == "":
		args = []string{"list", "-m", "-e", "-json", "-versions", "-retracted", r.w.path}
	case !r.w.exact:
		args = []string{"list", "-m", "-e", "-json", r.w.path + "@" + r.w.query}
	}
	out, err := d.goCommand(ctx, r, args)
	d.c.log.Debug("version control", "module", r.w.path, "query", r.w.query, "dur", time.Since(start), "err", err)
	if r.w.exact {
		// It was unpacked, too, which nobody asked for.
		os.RemoveAll(filepath.Join(r.g.dir, filepath.FromSlash(escapedModule(r.w)))) // best effort: it goes with the generation
	}
	cause := context.Cause(ctx)
	room := stop()
	if cause != nil {
		r.g.spoil()
		return cause
	}
	if room != nil {
		return room
	}
	return r.answer(out, err)
}

// escapedModule is where the go command unpacks a module, below its module cache.
func escapedModule(w wanted) string {
	escPath, _ := module.EscapePath(w.path)
	escVersion, _ := module.EscapeVersion(w.query)
	return escPath + "@" + escVersion
}

// prepare makes the directory of the run. Its go.mod keeps the go command from finding another one in a directory above.
func (r *run) prepare() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.g.dir, "tmp"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "go.mod"), []byte("module modfs.invalid/direct\n\ngo 1.21\n"), 0o600)
}

// goAnswer is what the go command says about a module: `go mod download -json` and `go list -m -json` have these in common, but
// for Error.
type goAnswer struct {
	Path, Version, Query string
	Time                 time.Time
	Versions             []string
	Origin               *origin
	Error                json.RawMessage
}

// message is the text of Error: a string, or an object that has it.
func (a *goAnswer) message() string {
	var text string
	var object struct{ Err string }
	if json.Unmarshal(a.Error, &text) != nil && json.Unmarshal(a.Error, &object) == nil {
		text = object.Err
	}
	return text
}

// answer makes of what the go command printed what a proxy would have answered.
func (r *run) answer(out output, failure error) error {
	var a goAnswer
	if err := json.Unmarshal(out.stdout, &a); err != nil || a.message() != "" || failure != nil {
		text := a.message()
		if text == "" {
			text = string(out.stderr)
		}
		return r.d.explain(r.w, text, failure, err)
	}
	if r.w.exact {
		if a.Version != r.w.query {
			return fmt.Errorf("%w: direct: %s is not a version of %s: it stands for %s", ErrNotFound, r.w.query, r.w.path, a.Version)
		}
		return nil
	}
	var data []byte
	if r.w.query == "" {
		for _, v := range a.Versions {
			data = append(append(data, v...), '\n')
		}
	} else {
		var err error
		if data, err = json.Marshal(revInfo{Version: a.Version, Time: a.Time, Origin: a.Origin}); err != nil {
			return err
		}
	}
	name := filepath.Join(r.out(), filepath.FromSlash(r.w.elem))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}
