package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// interrupts are the signals that end what would go on for ever.
var interrupts = []os.Signal{os.Interrupt, syscall.SIGTERM}

// screen is where text is drawn that changes. On a terminal it is drawn over what was drawn before, elsewhere one after the other.
type screen struct {
	w       io.Writer
	inPlace bool
	lines   int // that the last text took
}

// draw writes a text. On a terminal, what does not fit is cut: what has scrolled away could not be drawn over.
func (s *screen) draw(text []byte) error {
	if !s.inPlace {
		_, err := s.w.Write(text)
		return err
	}
	columns, rows := terminalSize(s.w)
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if len(lines) >= rows {
		lines = lines[:rows-1]
	}
	var b bytes.Buffer
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines) // up; ECMA-48
	}
	for _, line := range lines {
		b.Write(cutLine(line, columns))
		b.WriteString("\x1b[K\n") // erase the rest
	}
	b.WriteString("\x1b[J") // and what is below
	s.lines = len(lines)
	_, err := s.w.Write(b.Bytes())
	return err
}

// cutLine returns as much of a line as fits. It counts runes: what modfs prints has none that are wider.
func cutLine(line []byte, columns int) []byte {
	r := bytes.Runes(line)
	if len(r) <= columns {
		return line
	}
	return []byte(string(r[:columns]))
}

// terminalSize returns the size of a terminal, the usual one if it does not tell.
func terminalSize(w io.Writer) (columns, rows int) {
	if f, ok := w.(*os.File); ok {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 1 {
			return int(ws.Col), int(ws.Row)
		}
	}
	return 80, 24
}
