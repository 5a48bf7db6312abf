package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/module"

	"modfs/lru"
)

func testHash(c byte) string { return "h1:" + strings.Repeat(string(c), 43) + "=" }

func pinsOf(tb testing.TB, s *lru.Store) *pins {
	tb.Helper()
	p, err := openPins(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestPins(t *testing.T) {
	s := openStoreTest(t)
	p := pinsOf(t, s)
	b := module.Version{Path: "example.com/b", Version: "v2.0.0+incompatible"}
	for range 2 {
		for _, err := range []error{p.pinZip(moduleA, testHash('A')), p.pinMod(moduleA, testHash('M')), p.pinZip(b, testHash('B'))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		// The first pin is for ever.
		if err := p.pinZip(moduleA, testHash('X')); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ got, want string }{
			{p.zip(moduleA), testHash('A')}, {p.mod(moduleA), testHash('M')}, {p.zip(b), testHash('B')}, {p.mod(b), ""},
		} {
			if tt.got != tt.want {
				t.Errorf("got %q, want %q", tt.got, tt.want)
			}
		}
		p.close()
		p = pinsOf(t, s)
	}
	p.close()
	data, err := os.ReadFile(filepath.Join(s.Dir(), pinsFile))
	if n := strings.Count(string(data), "\n"); err != nil || n != 3 {
		t.Errorf("%d lines, %v, want 3:\n%s", n, err, data)
	}
}

// TestPinsDamaged opens files of pins that something happened to. Nothing but whole lines counts, and what is pinned then
// is there the next time.
func TestPinsDamaged(t *testing.T) {
	const versions = 5
	v := func(i int) module.Version {
		return module.Version{Path: "example.com/a", Version: fmt.Sprintf("v1.0.%d", i)}
	}
	var lines []string
	for i := range versions {
		lines = append(lines, formatPin(v(i), testHash('A'+byte(i))))
	}
	all := strings.Join(lines, "")
	for name, tt := range map[string]struct {
		data string
		left []int
	}{
		"none":         {"", nil},
		"whole":        {all, []int{0, 1, 2, 3, 4}},
		"no last end":  {all[:len(all)-1], []int{0, 1, 2, 3, 4}},
		"half line":    {all[:len(all)-40], []int{0, 1, 2, 3}},
		"another hash": {strings.Replace(all, testHash('B'), testHash('C'), 1), []int{0, 2, 3, 4}},
		"another name": {strings.Replace(all, "v1.0.2", "v1.0.9", 1), []int{0, 1, 3, 4}},
		"lost end":     {strings.Replace(all, "\n", " ", 1), []int{2, 3, 4}},
		"zeros":        {lines[0] + strings.Repeat("\x00", len(lines[1])) + "\n" + lines[2], []int{0, 2}},
		"empty lines":  {"\n\n" + all + "\n", []int{0, 1, 2, 3, 4}},
		"long line":    {strings.Repeat("x", 200<<10) + "\n" + all, []int{0, 1, 2, 3, 4}},
		"no hash":      {strings.ReplaceAll(all, "h1:", "h2:"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStoreTest(t)
			if err := os.WriteFile(filepath.Join(s.Dir(), pinsFile), []byte(tt.data), 0o600); err != nil {
				t.Fatal(err)
			}
			left := make(map[int]string)
			for _, i := range tt.left {
				left[i] = testHash('A' + byte(i))
			}
			added := module.Version{Path: "example.com/new", Version: "v1.0.0"}
			for range 2 {
				p := pinsOf(t, s)
				for i := range versions {
					if got := p.zip(v(i)); got != left[i] {
						t.Errorf("%s: %q, want %q", v(i), got, left[i])
					}
				}
				if got := p.zip(v(9)); got != "" {
					t.Errorf("a version nobody pinned has %q", got)
				}
				if err := p.pinZip(added, testHash('N')); err != nil {
					t.Error(err)
				}
				p.close()
			}
			p := pinsOf(t, s)
			defer p.close()
			if got := p.zip(added); got != testHash('N') {
				t.Errorf("what was pinned after the damage: %q", got)
			}
		})
	}
}

// TestPinsChanged: whatever somebody does to the file while it is in use, nothing that was pinned is lost.
func TestPinsChanged(t *testing.T) {
	b := module.Version{Path: "example.com/b", Version: "v1.0.0"}
	c := module.Version{Path: "example.com/c", Version: "v1.0.0"}
	for name, change := range map[string]func(name string) error{
		"removed": os.Remove,
		"empty":   func(name string) error { return os.Truncate(name, 0) },
		"half":    func(name string) error { return os.Truncate(name, 30) },
		"replaced": func(name string) error {
			return errors.Join(os.Remove(name), os.WriteFile(name, []byte("garbage"), 0o600))
		},
		"fifo":      func(name string) error { return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)) },
		"directory": func(name string) error { return errors.Join(os.Remove(name), os.MkdirAll(name+"/sub", 0o700)) },
		"store":     func(name string) error { return os.RemoveAll(filepath.Dir(name)) },
	} {
		for _, write := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/write=%v", name, write), func(t *testing.T) {
				s := openStoreTest(t)
				p := pinsOf(t, s)
				if err := errors.Join(p.pinZip(moduleA, testHash('A')), p.pinInfo(b, testHash('B')), p.pinInfo(b, testHash('I'))); err != nil {
					t.Fatal(err)
				}
				if err := change(filepath.Join(s.Dir(), pinsFile)); err != nil {
					t.Fatal(err)
				}
				if write {
					if err := p.pinMod(c, testHash('C')); err != nil {
						t.Error(err)
					}
				}
				p.close()
				p = pinsOf(t, s)
				defer p.close()
				if p.zip(moduleA) != testHash('A') || p.info(b) != testHash('I') || write && p.mod(c) != testHash('C') || p.bad != 0 {
					t.Errorf("left: %v, %d bad lines", p.h1, p.bad)
				}
			})
		}
	}
}

func FuzzParsePin(f *testing.F) {
	f.Add(strings.TrimSuffix(formatPin(moduleA, testHash('A')), "\n"))
	f.Add("example.com/a v1.0.0 h1:x 00000000")
	f.Fuzz(func(t *testing.T, line string) {
		m, h1, ok := parsePin(line)
		if !ok {
			return
		}
		if got := formatPin(m, h1); got != line+"\n" || !validH1(h1) || len(h1) != ziphashSize {
			t.Errorf("%q is %v %q, which is written as %q", line, m, h1, got)
		}
	})
}

// TestPinsWhileWriting checks that who wants to know a pin does not wait for a disk that hangs: who reads a file could not be
// interrupted.
func TestPinsWhileWriting(t *testing.T) {
	s := openStoreTest(t)
	p := pinsOf(t, s)
	defer p.close()
	for i := range 1000 { // more than fits into a pipe
		if err := p.pinZip(module.Version{Path: "example.com/m", Version: fmt.Sprintf("v1.0.%d", i)}, testHash('A')); err != nil {
			t.Fatal(err)
		}
	}
	// The file has to be written anew, and what has the name of the new one is a pipe, which nobody reads.
	slow := filepath.Join(s.Dir(), pinsFile+".new")
	if err := errors.Join(os.Remove(filepath.Join(s.Dir(), pinsFile)), syscall.Mkfifo(slow, 0o600)); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- p.pinZip(moduleA, testHash('B')) }()
	reader, err := os.Open(slow) // when the writer has
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var begins [1]byte
	if _, err := reader.Read(begins[:]); err != nil {
		t.Fatal(err)
	}
	if got := p.zip(module.Version{Path: "example.com/m", Version: "v1.0.7"}); got != testHash('A') {
		t.Errorf("pin is %q", got)
	}
	if got := p.inDoubt(moduleA); got != "" {
		t.Errorf("in doubt: %q", got)
	}
	select {
	case err := <-written:
		t.Fatalf("it was written: %v", err)
	default:
	}
	go io.Copy(io.Discard, reader)
	if err := <-written; err == nil {
		t.Error("a pipe was synced")
	}
	if err := p.pinZip(moduleA, testHash('B')); err != nil || p.zip(moduleA) != testHash('B') {
		t.Errorf("pinned %q, %v", p.zip(moduleA), err)
	}
}
