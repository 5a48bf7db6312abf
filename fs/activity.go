package fs

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
)

// Activity is something that the file system did or found out: an element of the stream that a Listener gets, and a step of how a
// module version was resolved (Why). Which fields are set depends on its kind; none has a credential in it.
type Activity struct {
	Time    time.Time    `json:"time"` // when it was over
	Kind    ActivityKind `json:"kind"`
	Module  string       `json:"module,omitempty"`
	Version string       `json:"version,omitempty"`
	File    string       `json:"file,omitempty"` // what of the module, or below the upstream's URL

	Upstream string  `json:"upstream,omitempty"` // as in fetch.Request
	Method   string  `json:"method,omitempty"`
	Status   int     `json:"status,omitempty"`  // of HTTP
	Bytes    int64   `json:"bytes,omitempty"`   // that came so far
	Total    int64   `json:"total,omitempty"`   // that are to come; 0 if that is not known
	Seconds  float64 `json:"seconds,omitempty"` // that it took
	Ahead    bool    `json:"ahead,omitempty"`   // nobody waited for it when it began

	H1 string `json:"h1,omitempty"` // the hash that was verified
	By string `json:"by,omitempty"` // who vouches for it: "pin", a checksum database; "" for nobody

	Error   string `json:"error,omitempty"`
	Class   string `json:"class,omitempty"` // of the error; see class
	Errno   string `json:"errno,omitempty"` // what a client got for it
	Repeats int    `json:"repeats,omitempty"`

	Asker *Asker `json:"asker,omitempty"` // who was kept waiting
	Lost  uint64 `json:"lost,omitempty"`  // activities that this listener was too slow for
}

// ActivityKind is what an Activity is.
type ActivityKind string

// The kinds of activities. Beside each is what it has besides the module and the time.
const (
	ActivityRequest    ActivityKind = "request"    // a request to an upstream, or a look into a seed, is over: Upstream, Method, File, Status, Bytes, Seconds, Error
	ActivityFetch      ActivityKind = "fetch"      // an archive is wanted and being fetched from now on: Ahead
	ActivityProgress   ActivityKind = "progress"   // so much of it is there: Bytes, Total
	ActivityDownloaded ActivityKind = "downloaded" // all of it is: Bytes
	ActivityVerified   ActivityKind = "verified"   // it is what it should be: H1, By
	ActivityFetched    ActivityKind = "fetched"    // it is in the store: Bytes, Seconds since ActivityFetch
	ActivityFailed     ActivityKind = "failed"     // it could not be fetched: Error, Class, Seconds
	ActivityWait       ActivityKind = "wait"       // a client's request was answered: File (what it wanted), Asker, Seconds, Errno
	ActivityEvicted    ActivityKind = "evicted"    // a file went from the store: File
	ActivityDamaged    ActivityKind = "damaged"    // a file in the store is not what it was: File, Error
	ActivityReplaced   ActivityKind = "replaced"   // it was fetched anew: File
	ActivityError      ActivityKind = "error"      // a client got an error: File, Error, Class, Errno
	ActivityMark       ActivityKind = "mark"       // somebody put it there, to know that all before it has arrived: File
	ActivityLost       ActivityKind = "lost"       // the listener was too slow: Lost
)

// stream hands activities to who listens. Its zero value has no listeners.
type stream struct {
	n atomic.Int32 // listeners

	mu        sync.Mutex
	listeners map[*Listener]struct{}
}

// Listener gets the activities of a file system from when it was made until it is closed.
type Listener struct {
	s    *stream
	c    chan Activity
	lost atomic.Uint64
}

// maxBehind is how many activities a listener may be behind before some pass it by. They take some 5 MB.
const maxBehind = 1 << 14

// Listen returns a new listener. Whoever listens makes each request of a client that has to wait a little slower; close it.
func (f *FS) Listen() *Listener {
	l := &Listener{s: &f.stream, c: make(chan Activity, maxBehind)}
	f.stream.mu.Lock()
	defer f.stream.mu.Unlock()
	if f.stream.listeners == nil {
		f.stream.listeners = make(map[*Listener]struct{})
	}
	f.stream.listeners[l] = struct{}{}
	f.stream.n.Add(1)
	return l
}

// Close ends listening.
func (l *Listener) Close() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if _, ok := l.s.listeners[l]; ok {
		delete(l.s.listeners, l)
		l.s.n.Add(-1)
	}
}

// Next waits for the next activity, or for the end of the context, whose cause is then the error. If some have passed by, it is one of
// ActivityLost.
func (l *Listener) Next(ctx context.Context) (Activity, error) {
	if n := l.lost.Swap(0); n > 0 {
		return Activity{Time: time.Now(), Kind: ActivityLost, Lost: n}, nil
	}
	select {
	case a := <-l.c:
		return a, nil
	case <-ctx.Done():
		return Activity{}, context.Cause(ctx)
	}
}

// listening reports whether anybody listens.
func (s *stream) listening() bool { return s.n.Load() > 0 }

func (s *stream) send(a Activity) {
	if !s.listening() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		select {
		case l.c <- a:
		default:
			l.lost.Add(1)
		}
	}
}

// Mark puts an activity of its kind into the stream: whoever gets it has got all that was over before.
func (f *FS) Mark(text string) {
	f.stream.send(Activity{Time: time.Now(), Kind: ActivityMark, File: text})
}

// Recheck has the kernel ask again about the directories of all modules, of which it may remember for days that they are there. So
// their next users are seen. It keeps what it knows of their content.
func (f *FS) Recheck() {
	if f.server == nil {
		return
	}
	for _, slot := range f.modules.inKernel() {
		f.server.InodeNotify(moduleNode(slot, 0), -1, 0) // best effort: the attributes only
	}
}

// note tells an activity to who listens, and remembers it if it says how a module was resolved.
func (f *FS) note(a Activity) {
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	switch a.Kind {
	case ActivityWait, ActivityProgress:
	default:
		f.journal.add(a)
	}
	f.stream.send(a)
}

// about makes an activity of a kind about m.
func about(kind ActivityKind, m module.Version, file string) Activity {
	return Activity{Kind: kind, Module: m.Path, Version: m.Version, File: file}
}

// failed adds an error to an activity.
func (f *FS) failed(a Activity, err error) Activity {
	a.Error, a.Class = f.cause(err), class(err)
	return a
}

// requested is the OnRequest of the fetch.Config.
func (f *FS) requested(r fetch.Request) {
	a := about(ActivityRequest, r.Module, r.File)
	a.Time = r.Start.Add(r.Took)
	a.Upstream, a.Method, a.Status, a.Bytes, a.Seconds = r.Upstream, r.Method, r.Status, r.Bytes, r.Took.Seconds()
	if r.Err != nil {
		a = f.failed(a, r.Err)
	}
	f.note(a)
	f.transfers.answered(r)
	if f.onRequest != nil {
		f.onRequest(r)
	}
}

// noteKey notes something about a file of the store, if it is a module's.
func (f *FS) noteKey(kind ActivityKind, key string, err error) {
	m, file, ok := ofModule(key)
	if !ok {
		return
	}
	a := about(kind, m, file)
	if err != nil {
		a = f.failed(a, err)
	}
	f.note(a)
}

// ofModule returns the module version that a file of the store belongs to, and what of it that is.
func ofModule(key string) (m module.Version, file string, ok bool) {
	pp := ParsePath(key)
	for _, dir := range [...]string{"index/", "spool/"} {
		if rest, ok := strings.CutPrefix(key, dir); ok {
			pp = ParsePath(rest)
		}
	}
	switch pp.Kind {
	case KindInfo:
		file = "info"
	case KindMod:
		file = "mod"
	case KindZip:
		file = "zip"
	case KindModule:
		file = "index"
	case KindFile:
		file = "spool"
	default:
		return m, "", false
	}
	return pp.Mod, file, true
}
