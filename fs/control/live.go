package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"modfs/fetch"
	modfs "modfs/fs"
)

// webState is what the page shows of a mount, but for its history and its modules. Texts in it may come from outside.
type webState struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	Mountpoint string    `json:"mountpoint"`
	Mode       string    `json:"mode"` // read-only or read-write
	Offline    bool      `json:"offline"`
	Ending     bool      `json:"ending"`

	Store     webStore      `json:"store"`
	Now       sample        `json:"now"`
	Counts    webCounts     `json:"counts"`
	Transfers []webTransfer `json:"transfers"`
	Queued    int           `json:"queued"`
	Upstreams []webUpstream `json:"upstreams"`
	Errors    []modfs.Event `json:"errors"` // the last ones, newest first
}

// webStore is the state of the store, in bytes but for files and modules.
type webStore struct {
	Bytes    int64 `json:"bytes"`
	Limit    int64 `json:"limit"`   // 0: none
	Modules  int   `json:"modules"` // whose archives are there
	Free     int64 `json:"free"`    // of the partition
	Evicted  int64 `json:"evicted"` // files
	TooSmall bool  `json:"too_small"`
	Wanted   int64 `json:"wanted"` // what would be large enough
}

// webCounts are counters since the mount that are not in a sample, and what there is now.
type webCounts struct {
	Prefetched int64 `json:"prefetched"`
	Damaged    int64 `json:"damaged"`
	Insecure   int64 `json:"insecure"`
	Saved      int64 `json:"saved"`  // bytes that did not have to be downloaded
	Slow       int   `json:"slow"`   // requests that wait
	Memory     int64 `json:"memory"` // bytes that the process has from the system
}

// webTransfer is an archive that is being fetched.
type webTransfer struct {
	modfs.Transfer
	Who string `json:"who"` // the processes that it is for
}

// webUpstream is the state of the upstreams of one host. Of their URLs no more is shown.
type webUpstream struct {
	Host      string    `json:"host"`
	Requests  int64     `json:"requests"`
	Failures  int64     `json:"failures"`
	Bytes     int64     `json:"bytes"`
	LastError string    `json:"last_error,omitempty"`
	LastTime  time.Time `json:"last_time,omitzero"`
	DownSince time.Time `json:"down_since,omitzero"`
}

// maxWebErrors is how many errors the page shows.
const maxWebErrors = 30

// look returns what the page shows.
func (w *Web) look() *webState {
	s, now := w.fs.Status(), time.Now()
	c := s.Counters
	v := &webState{
		Version: w.version, PID: s.PID, Since: s.Since, Mountpoint: s.Mountpoint, Mode: mode(s), Offline: s.Offline, Ending: w.ending.Load(),
		Now: sampleOf(s, now), Queued: s.Queued,
		Store: webStore{Bytes: s.Store.Bytes, Limit: s.Store.Limit, Modules: s.Resident.Modules, Free: s.Store.Free, Evicted: s.Store.Evictions,
			TooSmall: s.LastHour.TooSmall, Wanted: s.LastHour.Wanted},
		Counts: webCounts{Prefetched: c["prefetched"], Damaged: c["damaged"], Insecure: c["security_errors"], Saved: c["saved_bytes"],
			Slow: s.Requests.Slow, Memory: int64(s.Memory.System)},
		Transfers: make([]webTransfer, 0, len(s.Transfers)),
		Upstreams: upstreams(s.Upstreams),
	}
	for _, t := range s.Transfers {
		v.Transfers = append(v.Transfers, webTransfer{t, who(t)})
	}
	v.Errors = w.fs.Errors()
	slices.Reverse(v.Errors)
	v.Errors = v.Errors[:min(len(v.Errors), maxWebErrors)]
	return v
}

// upstreams adds up those of one host, as the metrics do (collector.upstreams): one is down if a part of it is, since the first.
func upstreams(all []fetch.Upstream) []webUpstream {
	list := make([]webUpstream, 0, len(all))
	for _, u := range all {
		host := upstreamLabel(u.URL)
		i := slices.IndexFunc(list, func(v webUpstream) bool { return v.Host == host })
		if i < 0 {
			i = len(list)
			list = append(list, webUpstream{Host: host})
		}
		v := &list[i]
		v.Requests += u.Requests
		v.Failures += u.Failures
		v.Bytes += u.Bytes
		if u.LastTime.After(v.LastTime) {
			v.LastError, v.LastTime = u.LastError, u.LastTime
		}
		if v.DownSince.IsZero() || !u.DownSince.IsZero() && u.DownSince.Before(v.DownSince) {
			v.DownSince = u.DownSince
		}
	}
	return list
}

// who says whom an archive is fetched for.
func who(t modfs.Transfer) string {
	var names []string
	for _, p := range t.For {
		switch {
		case p.Command != "" && p.PID != 0:
			names = append(names, fmt.Sprintf("%s (%d)", p.Command, p.PID))
		case p.PID != 0:
			names = append(names, fmt.Sprintf("process %d", p.PID))
		}
	}
	switch {
	case t.Ahead && len(names) > 0:
		return "ahead for " + strings.Join(names, ", ")
	case t.Ahead:
		return "ahead"
	case len(names) > 0:
		return "for " + strings.Join(names, ", ")
	}
	return ""
}

// statePause is how often the state is sent, if it has changed.
const statePause = time.Second

// live sends the state of the mount and its history as server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html), until the client leaves: "samples" with all of the last hour at
// first, then with new ones, and "state".
func (w *Web) live(rw http.ResponseWriter, r *http.Request) {
	select {
	case w.streams <- struct{}{}:
		defer func() { <-w.streams }()
	default:
		rw.Header().Set("Retry-After", "30")
		http.Error(rw, fmt.Sprintf("%d pages are live already", maxStreams), http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	e := &eventStream{w: rw, ctl: http.NewResponseController(rw)}
	var last []byte
	newest := int64(0)
	tick := time.NewTicker(statePause)
	defer tick.Stop()
	for {
		if some := w.history.since(newest); len(some) > 0 || newest == 0 {
			e.send("samples", webSamples{Reset: newest == 0, Samples: some})
			newest = max(newest, 1)
			if n := len(some); n > 0 {
				newest = some[n-1].Time
			}
		}
		state := w.look()
		state.Now.Time = 0 // which changes all the time
		data, err := json.Marshal(state)
		if err != nil {
			w.log.Error("state is not sent", "err", err)
			return
		}
		if string(data) != string(last) {
			e.send("state", json.RawMessage(data))
			last = data
		} else {
			e.alive()
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
		case <-w.closed:
		}
		if e.err != nil || r.Context().Err() != nil || w.isClosed() {
			return
		}
	}
}

func (w *Web) isClosed() bool {
	select {
	case <-w.closed:
		return true
	default:
		return false
	}
}

// webSamples are samples for a page: all that there are with Reset, else those that are new.
type webSamples struct {
	Reset   bool     `json:"reset,omitempty"`
	Samples []sample `json:"samples"`
}

// eventStream sends server-sent events. After an error it sends nothing.
type eventStream struct {
	w     http.ResponseWriter
	ctl   *http.ResponseController
	err   error
	quiet int // how often there was nothing to send
}

func (e *eventStream) send(event string, v any) {
	data, err := json.Marshal(v) // has no newline
	if err != nil {
		e.err = err
		return
	}
	e.quiet = 0
	e.write("event: " + event + "\ndata: " + string(data) + "\n\n")
}

// alive makes sure now and then that the client still listens.
func (e *eventStream) alive() {
	if e.quiet++; e.quiet%15 == 0 {
		e.write(": nothing new\n\n")
	}
}

func (e *eventStream) write(s string) {
	if e.err != nil {
		return
	}
	e.ctl.SetWriteDeadline(time.Now().Add(webPatience)) // best effort: not in tests without a connection
	if _, e.err = e.w.Write([]byte(s)); e.err == nil {
		e.err = e.ctl.Flush()
	}
}
