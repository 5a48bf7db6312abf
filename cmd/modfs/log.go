package main

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
)

// newLogger returns a logger that writes to w as the flags say.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	switch level {
	case "off":
		return slog.New(slog.DiscardHandler)
	case "debug":
		opts.Level = slog.LevelDebug
	case "warn":
		opts.Level = slog.LevelWarn
	case "error":
		opts.Level = slog.LevelError
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// logSink is where a daemon logs to. Until it has its log file, which it may open only once the store is its own, it
// keeps what is logged.
type logSink struct {
	mu   sync.Mutex
	w    io.Writer // nil: keep
	kept bytes.Buffer
}

func (s *logSink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return s.kept.Write(p)
	}
	return s.w.Write(p)
}

// release sends what was kept, and all that follows, to w.
func (s *logSink) release(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = w
	s.kept.WriteTo(w) // best effort: it is a log
}
