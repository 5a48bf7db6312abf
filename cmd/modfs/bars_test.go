package main

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"testing"
)

// TestBars checks that there are bars only where a person sees both them and what is printed.
func TestBars(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere only the other end of /dev/ptmx is sure to be a terminal")
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals: %v", err)
	}
	defer terminal.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		name     string
		out, say io.Writer
		want     bool
	}{
		{"terminal", terminal, terminal, true},
		{"2>/dev/null", terminal, null, false},
		{">/dev/null", null, terminal, false},
		{">file", file, terminal, false},
		{">file 2>/dev/null", file, null, false},
		{"no file", new(bytes.Buffer), terminal, false},
	} {
		b := newBars(tt.out, tt.say)
		if got := b != nil; got != tt.want {
			t.Errorf("%s: bars: %v, want %v", tt.name, got, tt.want)
		}
		b.end()
		if p := newByteProgress(tt.out, tt.say); (p != nil) != tt.want {
			t.Errorf("%s: progress: %v, want %v", tt.name, p != nil, tt.want)
		} else {
			p.end()
		}
	}
}
