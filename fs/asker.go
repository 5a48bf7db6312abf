package fs

import (
	"time"

	"golang.org/x/mod/module"
)

// Asker is the process whose request was answered, as far as it can be told: one of another PID namespace has no number, and
// of another user's, what its environment has is not known.
type Asker struct {
	PID     int    `json:"pid"`
	Group   int    `json:"group,omitempty"`   // its process group
	Session int    `json:"session,omitempty"` // and its session
	Name    string `json:"name,omitempty"`    // of its program, at most 15 bytes
	Trace   string `json:"trace,omitempty"`   // the value of TraceEnv in its environment
	Opaque  bool   `json:"opaque,omitempty"`  // its environment cannot be read
}

// TraceEnv is the variable by which a process, and all that it starts, can be told from others in the stream of activities.
const TraceEnv = "MODFS_TRACE"

// askerOf returns who a thread belongs to.
func (f *FS) askerOf(thread uint32) *Asker {
	a := process(thread).asker()
	c := f.callerOf(thread)
	a.Trace, a.Opaque = c.trace, c.opaque
	return &a
}

// waited notes, if anybody listens, how long a thread is kept waiting for something of m, from now until done.
func (f *FS) waited(thread uint32, m module.Version, what string) (done func()) {
	if !f.stream.listening() {
		return func() {}
	}
	start := time.Now()
	// Now, as it may have ended by then.
	asker := f.askerOf(thread)
	return func() {
		a := about(ActivityWait, m, what)
		a.Seconds, a.Asker = time.Since(start).Seconds(), asker
		f.note(a)
	}
}

// waitedPath is waited for the lookup of a path.
func (f *FS) waitedPath(thread uint32, pp Path) (done func()) {
	what := ""
	switch pp.Kind {
	case KindModule:
		what = "lookup"
	case KindInfo:
		what = "info"
	case KindMod:
		what = "mod"
	case KindZip:
		what = "zip"
	case KindZipHash:
		what = "ziphash"
	case KindList, KindLatest, KindQuery:
		what = "list"
	default:
		return func() {}
	}
	return f.waited(thread, pp.Mod, what)
}
