package fetch

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
	"golang.org/x/sync/semaphore"
)

const (
	maxKeep     = 1 << 20  // bytes of a file that are inflated into memory at once, and given to Watch.File
	inMemory    = 8 << 20  // bytes of a zip that is read into memory at once: it saves four system calls a file
	inMemoryAll = 64 << 20 // bytes of all such zips that are being verified; what more there is, is read as it is needed

	// maxDirectory bounds what is read of a zip's directory, in bytes. An entry that takes 46 of them takes several
	// hundred in our memory, and neither the format nor the go command limits how many there are.
	maxDirectory = 64 << 20

	// maxRead bounds what is read of a zip's files, in bytes. They have no more than the zip has, unless they overlap: then a zip
	// of 64 MiB may have a million files, each of which is all of it, and inflates to nothing.
	maxRead = 2 * modzip.MaxZipFile
)

// inMemoryNow has the zips that are in memory.
var inMemoryNow = semaphore.NewWeighted(inMemoryAll)

// verdict is what there is to say of a zip that can be read.
type verdict struct {
	h1      string
	invalid error // the rule of module zips that it breaks, wrapping ErrInvalid
}

// verify inflates each file of a zip once, on so many cores, and returns the zip's h1 hash, which is dirhash.HashZip's, and whether the rules
// of modzip.CheckZip hold. The error is of a zip that cannot be read (ErrBadAnswer: nobody who wrote a module has published that, so it
// is not said that there is no such version), that is too large for those rules, or of r.
//
// archive/zip does the reading: it bounds each file by the size, and checks it against the CRC-32, that the directory
// announces, and whatever it refuses the go command refuses too.
func verify(ctx context.Context, m module.Version, r io.ReaderAt, size int64, cores int, w Watch) (verdict, error) {
	if size > modzip.MaxZipFile {
		return verdict{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	if w.Turn == nil {
		w.Turn = func(context.Context) int { return 0 }
	}
	if w.panicked == nil { // in tests
		w.panicked = new(Client).panicked
	}
	w.Turn(ctx)
	if ctx.Err() != nil {
		return verdict{}, context.Cause(ctx)
	}
	in := &source{r: r}
	if size <= inMemory && inMemoryNow.TryAcquire(size) {
		defer inMemoryNow.Release(size)
		data := make([]byte, size)
		if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), data); err != nil {
			return verdict{}, fmt.Errorf("read the zip: %w", err)
		}
		in.r = bytes.NewReader(data)
	}
	in.limit(maxDirectory, errDirectory)
	zr, err := zip.NewReader(in, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // whose names checkEntries refuses
		return verdict{}, in.explain(err)
	}
	in.limit(maxRead, errRead)
	zr.RegisterDecompressor(zip.Deflate, Inflate)
	// Sizes are checked before anything is inflated, and names only reported: what has another hash than it should have is to
	// be called that, not badly named.
	invalid, err := checkEntries(m, zr)
	if err != nil {
		return verdict{}, err
	}
	if invalid != nil {
		w.File, w.Sum = nil, nil // the names are not to be trusted
	}
	h := &hashing{ctx: ctx, files: zr.File, sums: make([][sha256.Size]byte, len(zr.File)), cores: cores, watch: w, prefix: len(m.String()) + 1}
	if err := h.run(); err != nil {
		if ctx.Err() != nil {
			return verdict{}, context.Cause(ctx)
		}
		if errors.Is(err, errPanic) {
			return verdict{}, err // whatever the zip has, the mistake is ours
		}
		return verdict{}, in.explain(err)
	}
	h1, err := h.h1()
	if err != nil {
		return verdict{}, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return verdict{h1, invalid}, nil
}

// HashZip returns the h1 hash of a zip that is already here, of size bytes in r, after the same checks as those of Client.Zip. It
// uses so many cores; 0 means all.
//
// The error wraps ErrInvalid, ErrBadAnswer or ErrTooLarge if the zip is none that Client.Zip would have accepted, and is otherwise r's or that
// of the context.
func HashZip(ctx context.Context, m module.Version, r io.ReaderAt, size int64, cores int, w Watch) (h1 string, err error) {
	if cores == 0 {
		cores = runtime.GOMAXPROCS(0)
	}
	v, err := verify(ctx, m, r, size, cores, w)
	if err != nil {
		return "", err
	}
	return v.h1, v.invalid
}

// The errors of zips that want more to be read of them than they may.
var (
	errDirectory = fmt.Errorf("%w: its directory has more than %d bytes", ErrTooLarge, maxDirectory)
	errRead      = fmt.Errorf("%w: its files overlap, and have more than %d bytes together", ErrTooLarge, int64(maxRead))
)

// source is what a zip is read from. It remembers its error, so that a broken disk is not taken for a broken zip.
type source struct {
	r      io.ReaderAt
	budget atomic.Int64 // bytes that may be read
	over   error        // of a read beyond that

	mu  sync.Mutex
	err error
}

// limit sets how many bytes may be read from now on. Nobody may be reading.
func (s *source) limit(n int64, over error) {
	s.over = over
	s.budget.Store(n)
}

func (s *source) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, zip.ErrFormat // a header may say anything
	}
	if s.budget.Add(-int64(len(p))) < 0 {
		n, err = 0, s.over
	} else {
		n, err = s.r.ReadAt(p, off)
	}
	if err != nil && err != io.EOF {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

// explain returns err of a reader of the zip as an error of the right class.
func (s *source) explain(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("read the zip: %w", s.err)
	}
	return fmt.Errorf("%w: a zip that cannot be read: %s", ErrBadAnswer, clip(err.Error()))
}

// hashing is the SHA-256 of all files of a zip, on all cores.
type hashing struct {
	ctx    context.Context
	files  []*zip.File
	sums   [][sha256.Size]byte // of files
	watch  Watch
	cores  int
	prefix int // length of M@V/

	// dirs are the last entries of their names: a directory may have several, of which HashZip opens the last one.
	dirs map[string]*zip.File

	group   sync.WaitGroup // of workers but the calling one
	workers int            // their number; guarded by mu
	most    int            // that make sense

	order []int        // files in the order in which they are hashed
	next  atomic.Int64 // index into order
	mu    sync.Mutex
	err   error
}

// run hashes the files. The calling goroutine works, too: for a small zip it is the only one.
func (h *hashing) run() error {
	h.order = make([]int, len(h.files))
	var total uint64
	for i, f := range h.files {
		h.order[i] = i
		total += f.UncompressedSize64
		if strings.HasSuffix(f.Name, "/") {
			if h.dirs == nil {
				h.dirs = make(map[string]*zip.File)
			}
			h.dirs[f.Name] = f
		}
	}
	// Large files first, or the last core would work on one alone at the end. The others in the order of the zip.
	slices.SortStableFunc(h.order, func(a, b int) int {
		return -cmp.Compare(h.files[a].UncompressedSize64/maxKeep, h.files[b].UncompressedSize64/maxKeep)
	})
	h.most = min(h.cores, len(h.files), int(total>>16)+1) // 64 KiB are hashed faster than shared out
	h.workers = 1
	h.work()
	h.group.Wait()
	return h.err
}

// grow starts workers until there are as many as cores; 0 means all.
func (h *hashing) grow(cores int) {
	if cores == 0 {
		cores = h.most
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; h.workers < min(cores, h.most); h.workers++ {
		h.group.Go(h.work)
	}
}

// work hashes files until there are none, or an error.
func (h *hashing) work() {
	buf := hashBuffers.Get().(*[]byte)
	defer func() {
		hashBuffers.Put(buf)
		if p := recover(); p != nil {
			h.fail(h.watch.panicked("verification", p))
		}
	}()
	for {
		n := int(h.next.Add(1)) - 1
		if n >= len(h.order) {
			return
		}
		h.grow(h.watch.Turn(h.ctx))
		if h.ctx.Err() != nil {
			h.fail(context.Cause(h.ctx))
			return
		}
		i := h.order[n]
		name := h.files[i].Name
		if err := h.hash(i, buf); err != nil {
			h.fail(fmt.Errorf("%q: %w", clip(name), err))
			return
		}
		if h.watch.Sum != nil && !strings.HasSuffix(name, "/") {
			h.watch.Sum(name[h.prefix:], h.sums[i])
		}
	}
}

// fail makes all workers stop. The first error is the one that counts.
func (h *hashing) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
	h.next.Store(int64(len(h.order)))
}

// hashBuffers are for the workers. A buffer grows to what the largest file needs, up to maxKeep.
var hashBuffers = sync.Pool{New: func() any { return new([]byte) }}

// hash hashes one file. buf is what it is inflated into.
func (h *hashing) hash(i int, buf *[]byte) error {
	f := h.files[i]
	if dir := h.dirs[f.Name]; dir != nil {
		f = dir
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	// The size is the directory's word. It has been checked against all limits, so to allocate it is safe.
	size := int(min(f.UncompressedSize64, maxKeep))
	if cap(*buf) < size {
		*buf = make([]byte, max(size, 64<<10))
	}
	data := (*buf)[:size]
	if _, err := io.ReadFull(r, data); err != nil && err != io.EOF {
		return err
	}
	if h.watch.File != nil && !strings.HasSuffix(f.Name, "/") {
		h.watch.File(f.Name[h.prefix:], data, int64(f.UncompressedSize64))
	}
	if f.UncompressedSize64 > maxKeep {
		sum := sha256.New()
		sum.Write(data)
		if err := copyAll(h.ctx, sum, r, data); err != nil {
			return err
		}
		sum.Sum(h.sums[i][:0])
		return nil
	}
	// The end is where archive/zip checks size and CRC-32.
	var end [1]byte
	switch n, err := io.ReadFull(r, end[:]); {
	case n > 0:
		return zip.ErrFormat
	case err != io.EOF:
		return err
	}
	h.sums[i] = sha256.Sum256(data)
	return nil
}

// copyAll is io.CopyBuffer, and ends with the context.
func copyAll(ctx context.Context, w io.Writer, r io.Reader, buf []byte) error {
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		w.Write(buf[:n]) // a hash does not fail
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// h1 returns the dirhash.Hash1 of what was hashed.
func (h *hashing) h1() (string, error) {
	slices.SortFunc(h.order, func(a, b int) int { return strings.Compare(h.files[a].Name, h.files[b].Name) })
	sum := sha256.New()
	var line []byte
	for _, i := range h.order {
		name := h.files[i].Name
		if strings.Contains(name, "\n") {
			return "", errors.New("file names with newlines are not supported")
		}
		line = hex.AppendEncode(line[:0], h.sums[i][:])
		line = append(append(append(line, "  "...), name...), '\n')
		sum.Write(line)
	}
	return "h1:" + base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}
