package fs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modfs/fetch"
)

// Transfer is an archive that is being fetched.
type Transfer struct {
	Module  string    `json:"module"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
	Phase   string    `json:"phase"`           // PhaseDownload or PhaseVerify
	Bytes   int64     `json:"bytes"`           // that have come
	Total   int64     `json:"total,omitempty"` // that there will be, as far as upstream says so
	Ahead   bool      `json:"ahead,omitempty"` // nobody waits for it yet
	For     []Process `json:"for,omitempty"`   // who waits for it or, if it is fetched ahead, who is about to need it
}

// The phases of a transfer.
const (
	PhaseDownload = "downloading"
	PhaseVerify   = "verifying" // or waiting for its turn to be verified
)

// Process is a process that asked for something.
type Process struct {
	PID     int    `json:"pid"`               // 0: not known
	Command string `json:"command,omitempty"` // the program's name, and that of the go command's command; "" if it is not known
}

// transfers are the archives that are being fetched.
type transfers struct {
	mu      sync.Mutex
	by      map[*mod]*transfer
	waiters map[*mod][]uint32 // who waits for a module's archive: threads, 0 for one that is not known
}

type transfer struct {
	md        *mod
	since     time.Time
	dst       *summed
	thread    uint32 // whom it is fetched ahead for; 0: nobody in particular
	verifying atomic.Bool
	from      atomic.Pointer[string] // the upstream that has given the archive
}

func (t *transfers) begin(md *mod, dst *summed, thread uint32) *transfer {
	tr := &transfer{md: md, since: time.Now(), dst: dst, thread: thread}
	t.mu.Lock()
	defer t.mu.Unlock()
	set(&t.by, md, tr)
	return tr
}

func (t *transfers) end(tr *transfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, tr.md)
}

// wait notes that a thread waits for the archive of a module, until done; 0 is for one that is not known.
func (t *transfers) wait(md *mod, thread uint32) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set(&t.waiters, md, append(t.waiters[md], thread))
	return func() { t.leave(md, thread) }
}

func (t *transfers) leave(md *mod, thread uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := t.waiters[md]
	if i := slices.Index(left, thread); i >= 0 {
		left = slices.Delete(left, i, i+1)
	}
	if t.waiters[md] = left; len(left) == 0 {
		delete(t.waiters, md)
	}
}

// waiting returns the threads that wait for the archive of a module.
func (t *transfers) waiting(md *mod) []uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.waiters[md])
}

func (t *transfers) all() []*transfer {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*transfer, 0, len(t.by))
	for _, tr := range t.by {
		all = append(all, tr)
	}
	return all
}

// answered notes where an archive comes from: it is a fetch.Config's OnRequest. The last upstream that answers is the one whose
// answer is used.
func (t *transfers) answered(r fetch.Request) {
	if r.Err != nil || !strings.HasSuffix(r.File, ".zip") || r.Method == "HEAD" {
		return
	}
	for _, tr := range t.all() {
		if tr.md.Version == r.Module {
			tr.from.Store(&r.Upstream)
		}
	}
}

// Transfers returns the archives that are being fetched, those that were begun first in front, and how many more are queued to be
// fetched ahead.
func (f *FS) Transfers() (under []Transfer, queued int) {
	under = []Transfer{}
	for _, tr := range f.transfers.all() {
		threads := f.transfers.waiting(tr.md)
		t := Transfer{Module: tr.md.Path, Version: tr.md.Version.Version, Since: tr.since, Phase: PhaseDownload,
			Bytes: tr.dst.Size(), Total: tr.dst.total.Load(), Ahead: len(threads) == 0}
		if tr.verifying.Load() {
			t.Phase = PhaseVerify
		}
		if t.Ahead {
			threads = []uint32{tr.thread}
		}
		t.For = processes(threads)
		under = append(under, t)
	}
	slices.SortFunc(under, func(a, b Transfer) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Module, b.Module), cmp.Compare(a.Version, b.Version))
	})
	return under, f.prefetch.zips.len()
}

// maxProcesses bounds how many processes are named that wait for one archive: a build may have hundreds of threads.
const maxProcesses = 8

// processes returns what threads belong to, each process once.
func processes(threads []uint32) []Process {
	var all []Process
	for _, thread := range threads {
		if thread == 0 || len(all) == maxProcesses {
			continue
		}
		p := process(thread).describe()
		if p.PID != 0 && !slices.ContainsFunc(all, func(q Process) bool { return q.PID == p.PID }) {
			all = append(all, p)
		}
	}
	return all
}

// describe names the process of a thread. Of its arguments only the go command's command is told: others may be secrets.
func (p process) describe() Process {
	a := p.asker()
	d := Process{PID: a.PID, Command: printable(a.Name)}
	line, err := p.read("cmdline")
	if err != nil || len(line) == 0 {
		return d
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	name := args[0][strings.LastIndexByte(args[0], '/')+1:]
	d.Command = printable(name)
	if goArgs := goArgs(string(line)); goArgs != nil && !strings.HasPrefix(goArgs[0], "-") {
		d.Command += " " + printable(goArgs[0])
	}
	return d
}

// printable returns a word for a terminal: short, and without what a terminal would act on.
func printable(s string) string {
	const max = 40 // bytes
	if len(s) > max {
		s = s[:max]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

type threadKey struct{}

// withThread notes in a context the thread that work is done for.
func withThread(ctx context.Context, thread uint32) context.Context {
	if thread == 0 {
		return ctx
	}
	return context.WithValue(ctx, threadKey{}, thread)
}

// threadOf returns that thread, 0 if it is not known.
func threadOf(ctx context.Context) uint32 {
	thread, _ := ctx.Value(threadKey{}).(uint32)
	return thread
}
