package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"
)

// traceEvent is an event of a trace in Chrome's format. What must be there is a pointer.
type traceEvent struct {
	Name *string        `json:"name"`
	Ph   *string        `json:"ph"`
	TS   *int64         `json:"ts"`
	Dur  *int64         `json:"dur"`
	PID  *int           `json:"pid"`
	TID  *int           `json:"tid"`
	Args map[string]any `json:"args"`
}

// cmdChromeTrace checks that a file is a trace: each slice has all that it must have, the rows have names, no two slices of a row
// overlap; and that it has the slices named, each as ROW:SLICE.
func cmdChromeTrace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: chrometrace FILE [ROW:SLICE...]")
	}
	got, err := readChromeTrace([]byte(ts.ReadFile(args[0])))
	if err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	for _, want := range args[1:] {
		if !got[want] {
			ts.Fatalf("%s has no %q, but %q", args[0], want, slices.Sorted(maps.Keys(got)))
		}
	}
}

// readChromeTrace returns the slices of a trace as ROW:SLICE, and what is wrong with it.
func readChromeTrace(data []byte) (map[string]bool, error) {
	var trace struct {
		TraceEvents []traceEvent `json:"traceEvents"`
	}
	if err := json.Unmarshal(data, &trace); err != nil {
		return nil, err
	}
	if len(trace.TraceEvents) == 0 {
		return nil, fmt.Errorf("no traceEvents")
	}
	type row struct{ pid, tid int }
	names := make(map[row]string)
	ends := make(map[row]int64)
	found := make(map[string]bool)
	for i, e := range trace.TraceEvents {
		if e.Name == nil || e.Ph == nil || e.PID == nil || e.TID == nil || e.TS == nil {
			return nil, fmt.Errorf("event %d lacks name, ph, pid, tid or ts", i)
		}
		at := row{*e.PID, *e.TID}
		switch *e.Ph {
		case "M":
			name, _ := e.Args["name"].(string)
			if name == "" {
				return nil, fmt.Errorf("event %d names nothing", i)
			}
			if *e.Name == "thread_name" {
				names[at] = name
			}
		case "X":
			switch {
			case e.Dur == nil || *e.Dur < 0 || *e.TS < 0:
				return nil, fmt.Errorf("event %d (%s): no duration, or one or a time below zero", i, *e.Name)
			case names[at] == "":
				return nil, fmt.Errorf("event %d (%s): its row has no name", i, *e.Name)
			case *e.TS < ends[at]:
				return nil, fmt.Errorf("event %d (%s) in row %q overlaps the one before", i, *e.Name, names[at])
			}
			ends[at] = *e.TS + *e.Dur
			found[names[at]+": "+*e.Name] = true
		default:
			return nil, fmt.Errorf("event %d: ph is %q", i, *e.Ph)
		}
	}
	return found, nil
}
