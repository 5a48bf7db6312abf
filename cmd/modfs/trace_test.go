package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	modfs "modfs/fs"
)

// tracedAt is a time in a trace, in milliseconds from its beginning.
func tracedAt(ms int) time.Time { return time.UnixMilli(1_000_000 + int64(ms)) }

// act is an activity about a module from one time to another.
func act(kind modfs.ActivityKind, module, file string, from, to int) modfs.Activity {
	return modfs.Activity{Kind: kind, Module: module, Version: "v1.0.0", File: file, Time: tracedAt(to), Seconds: float64(to-from) / 1000}
}

// waitOf is a wait of a process with a mark.
func waitOf(mark, module, file string, from, to int) modfs.Activity {
	a := act(modfs.ActivityWait, module, file, from, to)
	a.Asker = &modfs.Asker{PID: 7, Group: 7, Name: "go", Trace: mark}
	return a
}

func newSeen() *seen { return &seen{id: "me", group: 42, began: tracedAt(0), keep: true} }

func TestTraceTable(t *testing.T) {
	s := newSeen()
	zip := act(modfs.ActivityRequest, "example.com/miss", "example.com/miss/@v/v1.0.0.zip", 10, 50)
	zip.Bytes = 2048
	refused := act(modfs.ActivityError, "example.com/refused", "info", 70, 70)
	refused.Errno = "EACCES"
	other := waitOf("", "example.com/other", "read", 0, 90)
	hidden := waitOf("", "example.com/hidden", "read", 60, 62)
	hidden.Asker.Opaque, hidden.Asker.Group = true, 42
	nobody := waitOf("", "example.com/other", "read", 60, 62)
	nobody.Asker = &modfs.Asker{Opaque: true}
	for _, a := range []modfs.Activity{
		act(modfs.ActivityFetched, "example.com/ahead", "zip", 1, 5),
		act(modfs.ActivityFetched, "example.com/unused", "zip", 1, 5),
		zip,
		act(modfs.ActivityFetched, "example.com/miss", "zip", 10, 60),
		waitOf("me", "example.com/miss", "lookup", 5, 62),
		waitOf("me", "example.com/miss", "open", 40, 65), // another thread, at the same time
		waitOf("me", "example.com/ahead", "lookup", 6, 7),
		waitOf("me", "example.com/hit", "read", 66, 68),
		act(modfs.ActivityRequest, "example.com/mod", "example.com/mod/@v/v1.0.0.mod", 20, 22),
		waitOf("me", "example.com/mod", "mod", 19, 23),
		waitOf("me", "example.com/refused", "info", 69, 70), refused,
		hidden, other, nobody,
		{Kind: modfs.ActivityLost, Lost: 3},
	} {
		s.add(a)
	}
	var out bytes.Buffer
	s.print(&out, 5, "'x' took 1s")
	for _, want := range []string{
		"6 modules touched (2 misses, 1 ahead, 3 hits), 63ms waited, 2.0 KiB fetched",
		"0 B of that for 1 modules that it did not touch",
		"3 activities were lost",
		"1 waits of processes that the daemon cannot tell apart",
		"60ms    2      5ms    miss           2.0 KiB  example.com/miss@v1.0.0",
		"4ms     1      19ms   miss (go.mod)  0 B      example.com/mod@v1.0.0",
		"2ms     1      60ms   hit            0 B      example.com/hidden@v1.0.0",
		"1ms     1      6ms    ahead          0 B      example.com/ahead@v1.0.0",
		"and 1 more, which it waited 1ms for",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line with %q in:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "example.com/other") {
		t.Errorf("another process's wait is counted:\n%s", &out)
	}
	out.Reset()
	s.print(&out, 0, "")
	if !strings.Contains(out.String(), "hit (go.mod) EACCES") || strings.Contains(out.String(), "more, which") {
		t.Errorf("all of them:\n%s", &out)
	}
}

func TestChromeTrace(t *testing.T) {
	s := newSeen()
	request := act(modfs.ActivityRequest, "example.com/a", "example.com/a/@v/v1.0.0.zip", 12, 20)
	request.Upstream = "https://proxy.example"
	early := act(modfs.ActivityRequest, "example.com/z", "example.com/z/@v/v1.0.0.mod", -50, 3)
	early.Upstream = "https://proxy.example"
	for _, a := range []modfs.Activity{
		early,
		act(modfs.ActivityFetch, "example.com/a", "zip", 10, 10),
		request,
		act(modfs.ActivityDownloaded, "example.com/a", "zip", 10, 21),
		act(modfs.ActivityVerified, "example.com/a", "zip", 25, 25),
		act(modfs.ActivityFetched, "example.com/a", "zip", 10, 27),
		waitOf("me", "example.com/a", "open", 9, 29),
		waitOf("me", "example.com/a", "read", 9, 30), // another thread's
	} {
		s.add(a)
	}
	var out bytes.Buffer
	if err := writeChrome(&out, s.chrome("go build", 40*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var trace struct{ TraceEvents []chromeEvent }
	if err := json.Unmarshal(out.Bytes(), &trace); err != nil {
		t.Fatalf("%v in:\n%s", err, &out)
	}
	rows := make(map[int]string)
	type slice struct {
		row, name string
		ts, dur   int64
	}
	got := make(map[slice]bool)
	for _, e := range trace.TraceEvents {
		if e.Ph == "M" && e.Name == "thread_name" {
			rows[e.TID] = e.Args["name"].(string)
		} else if e.Ph == "X" {
			got[slice{rows[e.TID], e.Name, e.TS, *e.Dur}] = true
		}
	}
	for _, want := range []slice{
		{"go build", "go build", 0, 40000},
		{"go 7", "example.com/a@v1.0.0", 9000, 20000},
		{"go 7 (2)", "example.com/a@v1.0.0", 9000, 21000}, // not in one row with what it overlaps
		{"example.com/a@v1.0.0", "queue", 10000, 2000},
		{"example.com/a@v1.0.0", "download", 12000, 9000},
		{"example.com/a@v1.0.0", "verify", 21000, 4000},
		{"example.com/a@v1.0.0", "store", 25000, 2000},
		{"example.com/a@v1.0.0", "first read", 27000, 2000},
		{"https://proxy.example", "example.com/a/@v/v1.0.0.zip", 12000, 8000},
		{"https://proxy.example", "example.com/z/@v/v1.0.0.mod", 0, 3000}, // what was under way began with the trace
	} {
		if !got[want] {
			t.Errorf("no %+v in %+v", want, got)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("besides: %+v", got)
	}
}

func TestSpans(t *testing.T) {
	sp := func(from, to int) span { return span{tracedAt(from), tracedAt(to)} }
	s := spans{sp(5, 10), sp(0, 3), sp(6, 7), sp(9, 12)}
	if got := s.total(); got != 10*time.Millisecond {
		t.Errorf("total %v, want 10ms", got)
	}
	if !s.overlap(spans{sp(11, 20)}) || s.overlap(spans{sp(3, 5), sp(12, 20)}) {
		t.Error("overlap")
	}
	if s.first() != tracedAt(0) {
		t.Error("first")
	}
}
