package fs

import (
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/mod/module"

	"modfs/lru"
)

// pinsFile is the name of the file of pins in the store's directory.
const pinsFile = "pins"

// pins remember the h1 hash of all that was ever verified. What was once served for a version is what is served for ever:
// the checksum database is not asked again, and a proxy that changes its mind is refused. Eviction leaves them alone.
//
// They are one file of lines as in a go.sum, each with a CRC-32 of what stands before it, so that a damaged line is
// dropped and not believed:
//
//	example.com/a v1.0.0 h1:… 1a2b3c4d
//	example.com/a v1.0.0/go.mod h1:… 5e6f7081
//
// Lines are only ever appended. One write is one line, so a crash leaves at most one incomplete line, the last.
type pins struct {
	mu   sync.Mutex
	file *os.File
	h1   map[module.Version]string // a go.mod's version has the suffix "/go.mod"
}

// openPins reads the pins of the store, which is locked by now.
func openPins(store *lru.Store) (*pins, error) {
	p := &pins{h1: make(map[module.Version]string)}
	name := filepath.Join(store.Dir(), pinsFile)
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the store's pins: %w", err)
	}
	p.file = file
	// Whole, as damage can make a line of any length.
	data, err := io.ReadAll(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("read the store's pins: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if m, h1, ok := parsePin(strings.TrimSuffix(line, "\n")); ok && p.h1[m] == "" {
			m.Path, m.Version = strings.Clone(m.Path), strings.Clone(m.Version) // or they would keep all of data
			p.h1[m] = strings.Clone(h1)
		}
	}
	// After a crash the last line may have no end; what is appended next must not continue it.
	if end, err := file.Seek(0, 2); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := file.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			file.Write([]byte("\n")) // best effort: at worst one pin is lost
		}
	}
	return p, nil
}

func formatPin(m module.Version, h1 string) string {
	line := m.Path + " " + m.Version + " " + h1
	return fmt.Sprintf("%s %08x\n", line, crc32.ChecksumIEEE([]byte(line)))
}

func parsePin(line string) (m module.Version, h1 string, ok bool) {
	f := strings.Fields(line)
	if len(f) != 4 || !validH1(f[2]) || formatPin(module.Version{Path: f[0], Version: f[1]}, f[2]) != line+"\n" {
		return module.Version{}, "", false
	}
	return module.Version{Path: f[0], Version: f[1]}, f[2], true
}

// validH1 reports whether s has the form of an h1 hash: 47 bytes.
func validH1(s string) bool {
	b64, ok := strings.CutPrefix(s, "h1:")
	sum, err := base64.StdEncoding.DecodeString(b64)
	return ok && err == nil && len(sum) == 32
}

// zip returns the pinned hash of m's zip, "" if there is none.
func (p *pins) zip(m module.Version) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.h1[m]
}

// mod returns the pinned hash of m's go.mod, "" if there is none.
func (p *pins) mod(m module.Version) string {
	m.Version += "/go.mod"
	return p.zip(m)
}

// pinZip pins the hash of m's zip, unless it has a pin already.
func (p *pins) pinZip(m module.Version, h1 string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.h1[m] != "" {
		return nil
	}
	// The write is under the lock so that lines do not mix; it is short and goes to the page cache.
	if _, err := p.file.Write([]byte(formatPin(m, h1))); err != nil {
		return fmt.Errorf("%s: write its pin: %w", m, err)
	}
	m.Path, m.Version = strings.Clone(m.Path), strings.Clone(m.Version)
	p.h1[m] = h1
	return nil
}

// pinMod pins the hash of m's go.mod, unless it has a pin already.
func (p *pins) pinMod(m module.Version, h1 string) error {
	m.Version += "/go.mod"
	return p.pinZip(m, h1)
}

func (p *pins) close() {
	p.file.Sync() // best effort: what a power failure takes is fetched and verified again
	p.file.Close()
}

// ziphashSize is the length of every h1 hash in base64, with its prefix.
const ziphashSize = 47
