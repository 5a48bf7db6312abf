package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	modfs "modfs/fs"
)

// maxFailures is how many errors are printed: the first ones tell why.
const maxFailures = 20

// eventLog collects the errors of a mount while a command runs. Its zero value is ready.
type eventLog struct {
	mu    sync.Mutex
	lines []string
	more  int
}

// add is for modfs.Options.OnError.
func (l *eventLog) add(e modfs.Event) {
	line := describe(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, known := range l.lines {
		if known == line {
			return
		}
	}
	if len(l.lines) == maxFailures {
		l.more++
		return
	}
	l.lines = append(l.lines, line)
}

// read adds the errors that another process's mount has had since a time. It must not be a mount of this process.
func (l *eventLog) read(mountpoint string, since time.Time) {
	f, err := os.Open(filepath.Join(mountpoint, ".modfs", "errors"))
	if err != nil {
		return // best effort: the command has said that it failed
	}
	defer f.Close()
	for dec := json.NewDecoder(f); ; {
		var e modfs.Event
		if dec.Decode(&e) != nil {
			return
		}
		if !e.Time.Before(since) {
			l.add(e)
		}
	}
}

func (l *eventLog) print(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		fmt.Fprintf(w, "modfs: %s\n", line)
	}
	if l.more > 0 {
		fmt.Fprintf(w, "modfs: and %d more errors\n", l.more)
	}
}

// describe returns one line about e: MODULE@VERSION: cause. The cause often begins with the module already.
func describe(e modfs.Event) string {
	cause := strings.Join(strings.Fields(e.Cause), " ")
	subject := e.Module
	if e.Version != "" {
		subject += "@" + e.Version
	}
	switch {
	case subject == "":
		return e.Op + ": " + cause
	case strings.HasPrefix(cause, subject+": "):
		return cause
	}
	return subject + ": " + cause
}
