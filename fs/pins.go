package fs

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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
//
// Of .info files, lists and the like, for which nobody vouches and which may change, it is the hash of the last one that was
// fetched: the last line counts.
//
//	example.com/a v1.0.0/.info h1:… 90123456
//	example.com/a /list h1:… 7a8b9c0d
type pins struct {
	store *lru.Store
	bad   int // lines that were damaged when it was opened

	// disk is held by who writes the file, which takes as long as the disk lets it, and guards these:
	disk sync.Mutex
	file *os.File
	size int64 // that it should have
	torn bool  // the last line may have no end

	// mu guards what is pinned. It is taken after disk, and never held while something is written: requests wait for it that
	// must end when their callers are told to.
	mu     sync.Mutex
	doubts int                       // how many pins were unchecked when they were written; see doubt.go
	h1     map[module.Version]string // a go.mod's version has the suffix "/go.mod", that of an .info "/.info"
}

const infoSuffix = "/.info"

// replaceable reports whether the last line counts that has such a version.
func replaceable(version string) bool {
	return strings.HasSuffix(version, infoSuffix) || strings.HasPrefix(version, "/")
}

// openPins reads the pins of the store, which is locked by now.
func openPins(store *lru.Store) (*pins, error) {
	p := &pins{store: store, h1: make(map[module.Version]string)}
	file, err := p.open()
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
	p.settle()
	var rest string
	p.h1, p.bad, rest = parsePins(string(data))
	for m := range p.h1 {
		if strings.HasSuffix(m.Version, doubtSuffix) {
			p.doubts++
		}
	}
	if rest != "" {
		// What a crash, or a full disk, left of a line. What is appended next must not continue it.
		p.torn = file.Truncate(int64(len(data)-len(rest))) != nil
		p.settle()
	}
	if p.torn = p.torn || rest == "" && len(data) > 0 && data[len(data)-1] != '\n'; p.torn {
		p.write("") // best effort: the next line ends it
	}
	const spare = 1 << 10 // lines
	if p.bad == 0 && strings.Count(string(data), "\n") > 2*len(p.h1)+spare {
		p.rewrite() // best effort: without those that were replaced it is smaller, and no other
	}
	return p, nil
}

// settle takes the file's size for the one that it should have.
func (p *pins) settle() {
	if fi, err := p.file.Stat(); err == nil {
		p.size = fi.Size()
	}
}

// parsePins returns the pins in the file's content, the number of damaged lines, and the incomplete line at its end.
func parsePins(data string) (h1 map[module.Version]string, bad int, rest string) {
	h1 = make(map[module.Version]string)
	for line := range strings.Lines(data) {
		text, whole := strings.CutSuffix(line, "\n")
		m, sum, ok := parsePin(text)
		switch {
		case !ok && !whole:
			rest = line
		case !ok && text != "":
			bad++
		case ok && (h1[m] == "" || replaceable(m.Version)):
			m.Path, m.Version = strings.Clone(m.Path), strings.Clone(m.Version) // or they would keep all of data
			h1[m] = strings.Clone(sum)
		}
	}
	return h1, bad, rest
}

func (p *pins) name() string { return filepath.Join(p.store.Dir(), pinsFile) }

// open opens the file. What is no file is put aside: a named pipe would have us wait, a link lead us elsewhere.
func (p *pins) open() (*os.File, error) {
	if fi, err := os.Lstat(p.name()); err == nil && !fi.Mode().IsRegular() {
		if err := p.setAside(); err != nil {
			return nil, fmt.Errorf("not a file, and cannot be put aside: %w", err)
		}
		p.bad++
	}
	return os.OpenFile(p.name(), os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
}

// setAside moves what has the file's name to the quarantine.
func (p *pins) setAside() error {
	return os.Rename(p.name(), filepath.Join(p.store.Dir(), fmt.Sprintf("quarantine/%s-%d", pinsFile, time.Now().UnixNano())))
}

// write appends a line. p.disk is held, so that lines do not mix.
func (p *pins) write(line string) error {
	if err := p.inPlace(); err != nil {
		return err
	}
	if p.torn {
		line = "\n" + line
	}
	n, err := p.file.WriteString(line)
	p.size += int64(n)
	if err != nil {
		p.torn = p.torn || n > 0
		return err
	}
	p.torn = false
	return nil
}

// inPlace makes sure that the file is found under its name, and as long as it was left. If somebody removed or changed it, it is
// written anew.
func (p *pins) inPlace() error {
	held, err := p.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(p.name())
	if err == nil && os.SameFile(held, there) && held.Size() == p.size {
		return nil
	}
	return p.rewriteLocked()
}

// rewrite replaces the file of pins by one that has nothing but what is pinned.
func (p *pins) rewrite() error {
	p.disk.Lock()
	defer p.disk.Unlock()
	return p.rewriteLocked()
}

// rewriteLocked is rewrite for who holds p.disk.
func (p *pins) rewriteLocked() error {
	// The directory may be gone, or another process's by now.
	if err := p.store.Reclaim(); err != nil {
		return err
	}
	if fi, err := os.Lstat(p.name()); err == nil && !fi.Mode().IsRegular() {
		if err := p.setAside(); err != nil {
			return err
		}
	}
	next := p.name() + ".new"
	file, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	text := p.text()
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync()); err == nil {
		err = os.Rename(next, p.name())
	}
	if err != nil {
		file.Close()
		os.Remove(next) // best effort: the error is what counts
		return err
	}
	p.file.Close() // best effort: all that is in it is in the new one
	p.file, p.size, p.torn, p.bad = file, int64(len(text)), false, 0
	return nil
}

// text returns all pins as lines.
func (p *pins) text() string {
	var lines []string
	for m, h1 := range p.all() {
		lines = append(lines, formatPin(m, h1))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// all returns a copy of what is pinned.
func (p *pins) all() map[module.Version]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.h1)
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
	if p.h1[m] == "" && p.doubts > 0 {
		return p.h1[doubtKey(m)]
	}
	return p.h1[m]
}

// mod returns the pinned hash of m's go.mod, "" if there is none.
func (p *pins) mod(m module.Version) string {
	m.Version += "/go.mod"
	return p.zip(m)
}

// info returns the hash of m's .info file, "" if there is none.
func (p *pins) info(m module.Version) string {
	m.Version += infoSuffix
	return p.zip(m)
}

// pinZip pins the hash of m's zip, unless it has a pin already.
func (p *pins) pinZip(m module.Version, h1 string) error {
	return p.add(m, h1, func(old string) bool { return old != "" || p.h1[doubtKey(m)] == h1 })
}

// pinMod pins the hash of m's go.mod, unless it has a pin already.
func (p *pins) pinMod(m module.Version, h1 string) error {
	m.Version += "/go.mod"
	return p.pinZip(m, h1)
}

// pinInfo notes the hash of m's .info file, in place of the one before.
func (p *pins) pinInfo(m module.Version, h1 string) error {
	m.Version += infoSuffix
	return p.add(m, h1, func(old string) bool { return old == h1 })
}

// answer returns the hash of what upstream said last to a question about a module, "" if there is none.
func (p *pins) answer(modPath, question string) string {
	return p.zip(module.Version{Path: modPath, Version: "/" + question})
}

// checkAnswer returns an error if data is not that.
func (p *pins) checkAnswer(modPath, question string, data []byte) error {
	if pin := p.answer(modPath, question); pin != "" && pin != hashInfo(data) {
		return fmt.Errorf("%w: it is not what was fetched", errDamaged)
	}
	return nil
}

// pinAnswer notes that hash, in place of the one before.
func (p *pins) pinAnswer(modPath, question, h1 string) error {
	return p.add(module.Version{Path: modPath, Version: "/" + question}, h1, func(old string) bool { return old == h1 })
}

// add appends a line, unless what m has will do. Where the partition is full, it makes room in the store.
func (p *pins) add(m module.Version, h1 string, will func(old string) bool) error {
	m.Path, m.Version = strings.Clone(m.Path), strings.Clone(m.Version)
	line := formatPin(m, h1)
	try := func() error {
		p.disk.Lock()
		defer p.disk.Unlock()
		if p.holds(m, will) {
			return nil
		}
		if err := p.write(line); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.h1[m] = h1
		if strings.HasSuffix(m.Version, doubtSuffix) {
			p.doubts++
		}
		return nil
	}
	for {
		err := try()
		if err == nil {
			return nil
		}
		full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
		if !full || p.store.Relieve(int64(len(line))) == 0 {
			return fmt.Errorf("%s: write its pin: %w", m, err)
		}
	}
}

// holds reports whether what m has will do.
func (p *pins) holds(m module.Version, will func(old string) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return will(p.h1[m])
}

func (p *pins) close() {
	p.disk.Lock()
	defer p.disk.Unlock()
	p.inPlace()   // best effort, as below
	p.file.Sync() // best effort: what a power failure takes is fetched and verified again
	p.file.Close()
}

// ziphashSize is the length of every h1 hash in base64, with its prefix.
const ziphashSize = 47
