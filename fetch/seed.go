package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	modzip "golang.org/x/mod/zip"
)

// Seed is a place on this machine that modules are taken from before any proxy is asked, and where no proxy may be asked:
// somebody's module cache, for example. It is not trusted. What it has is checked like what a proxy sends, and what is wrong
// with it is no error: it is passed over, with a warning, and the proxy is asked.
//
// Only .info, .mod and .zip files are taken from it, lists of versions while Config.Offline is set, and then also what it has of
// the checksum database, which proves itself.
type Seed struct {
	Name string // for messages

	// Open opens a file by its name below a proxy's URL, such as "example.com/a/@v/v1.0.0.zip", and returns its size in
	// bytes. The error wraps io/fs.ErrNotExist if it has none. It may be called concurrently, and must not block for long.
	Open func(elem string) (io.ReadCloser, int64, error)

	// Sum returns a file of the checksum database as TileStore.ReadFile does. Nil has none.
	Sum func(name string) ([]byte, error)

	root *os.Root
}

// OpenSeed opens a directory as a seed: a module cache, which has cache/download in it, or what is below a proxy's URL. The
// caller closes it, after the clients that have it.
//
// The directory stays what it is even if something is mounted over it or it is renamed. Of what is in it only regular files are
// opened, and no symbolic link leads out of it.
func OpenSeed(dir string) (*Seed, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	if fi, err := root.Stat("cache/download"); err == nil && fi.IsDir() {
		inner, err := root.OpenRoot("cache/download")
		root.Close()
		if err != nil {
			return nil, fmt.Errorf("seed: %w", err)
		}
		root = inner
	}
	s := &Seed{Name: dir, root: root}
	s.Open = s.openFile
	s.Sum = func(name string) ([]byte, error) { return s.read("sumdb/"+name, maxSum) }
	return s, nil
}

// Close closes a seed of OpenSeed.
func (s *Seed) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

// FS returns the files of a seed of OpenSeed, for who wants to know all that it has. It does not follow symbolic links.
func (s *Seed) FS() iofs.FS { return s.root.FS() }

// openFile is Open for a directory.
func (s *Seed) openFile(elem string) (io.ReadCloser, int64, error) {
	if fi, err := s.root.Lstat(elem); err != nil {
		return nil, 0, err
	} else if !fi.Mode().IsRegular() && fi.Mode().Type() != iofs.ModeSymlink {
		return nil, 0, fmt.Errorf("%s is not a regular file (%v)", elem, fi.Mode().Type()) // to open a device may do something
	}
	// It may be another one by now: one that nobody writes to would have us wait.
	f, err := s.root.OpenFile(elem, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file (%v)", elem, fi.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// read reads a file of at most limit bytes.
func (s *Seed) read(elem string, limit int64) ([]byte, error) {
	f, size, err := s.Open(elem)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	return readLimited(f, limit)
}

// Check says against what something that came from a seed was checked.
type Check struct {
	Module module.Version
	File   string // "zip" or "go.mod"
	H1     string
	Source string // "pin", "checksum database NAME", "go.sum"; "" if nothing vouches for it

	// Deferred says that the checksum database covers it, and could not be asked because of Config.Offline. It is to be
	// checked as soon as it can be.
	Deferred bool
}

// errNotSeeded says that no seed has what is wanted.
var errNotSeeded = fmt.Errorf("no seed has it: %w", ErrNotFound)

// seeds calls take with each seed that has a file, until one is good. Those that are not are passed over. The error is
// errNotSeeded, that of the last one that has it, or a *finalError.
func (c *Client) seeds(ctx context.Context, m module.Version, elem string, limit int64, take func(from string, r io.Reader, size int64) error) error {
	last := errNotSeeded
	for _, s := range c.cfg.Seeds {
		start := time.Now()
		f, size, err := s.Open(elem)
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err == nil {
			if size > limit {
				err = fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
			} else {
				err = take("seed "+s.Name, f, size)
			}
			f.Close()
		}
		c.tellSeed(m, s, elem, start, size, err)
		if err == nil {
			c.log.Debug("taken from a seed", "seed", s.Name, "file", elem)
			return nil
		}
		if _, final := errors.AsType[*finalError](err); final || ctx.Err() != nil {
			return &finalError{err}
		}
		if _, ok := errors.AsType[*MismatchError](err); !ok {
			err = fmt.Errorf("seed %s: %s: %w", s.Name, elem, err)
		}
		c.log.Warn("file of a seed passed over", "seed", s.Name, "file", elem, "module", m.Path, "version", m.Version, "err", err)
		last = err
	}
	return last
}

// unseeded returns the error of what could not be had elsewhere either. err is what the proxies say, seed what seeds does.
func (c *Client) unseeded(seed, err error) error {
	if err == nil || errors.Is(seed, errNotSeeded) {
		return err
	}
	return fmt.Errorf("%w (%v)", err, seed)
}

// settled reports whether what seeds says is the answer, whatever the proxies have.
func (c *Client) settled(err error) bool {
	_, final := errors.AsType[*finalError](err)
	return err == nil || final || c.cfg.SeedsOnly
}

// Seeded reports whether a seed has m's go.mod file or its zip, good or not.
func (c *Client) Seeded(m module.Version) bool {
	for _, ext := range [...]string{".mod", ".zip"} {
		elem, err := file(m, ext)
		if err != nil {
			return false
		}
		for _, s := range c.cfg.Seeds {
			if f, _, err := s.Open(elem); err == nil {
				f.Close()
				return true
			}
		}
	}
	return false
}

// seededInfo is Info, from a seed or the proxies.
func (c *Client) seededInfo(ctx context.Context, m module.Version) (data []byte, err error) {
	elem, err := file(m, ".info")
	if err != nil {
		return nil, err
	}
	err = c.seeds(ctx, m, elem, maxInfo, func(_ string, r io.Reader, _ int64) error {
		raw, err := readLimited(r, maxInfo)
		if err == nil {
			data, err = parseInfo(answer{data: raw}, m.Version)
		}
		return err
	})
	if c.settled(err) {
		return data, err
	}
	data, perr := c.info(ctx, m)
	return data, c.unseeded(err, perr)
}

// readLimited reads all of r, which may have limit bytes.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return data, err
}

// seededMod is Mod, from a seed or the proxies.
func (c *Client) seededMod(ctx context.Context, m module.Version, want string) (data []byte, h1 string, err error) {
	elem, err := file(m, ".mod")
	if err != nil {
		return nil, "", err
	}
	err = c.seeds(ctx, m, elem, modzip.MaxGoMod, func(from string, r io.Reader, _ int64) (err error) {
		if data, err = readLimited(r, modzip.MaxGoMod); err != nil {
			return err
		}
		if h1, err = hashMod(data); err != nil {
			return err
		}
		source, err := c.vouch(ctx, m, "/go.mod", from, h1, want)
		if err != nil || source != "" {
			return err
		}
		// Nobody vouches for it, so it must at least look like a go.mod file.
		if _, err := modfile.ParseLax("go.mod", data, nil); err != nil {
			return fmt.Errorf("%w: %v", ErrInvalid, firstLine(err))
		}
		return nil
	})
	if c.settled(err) {
		return data, h1, err
	}
	data, h1, perr := c.mod(ctx, m, want)
	return data, h1, c.unseeded(err, perr)
}

// seededZip is Zip, from a seed or the proxies.
func (c *Client) seededZip(ctx context.Context, m module.Version, want string, dst Dst, w Watch) (h1 string, err error) {
	elem, err := file(m, ".zip")
	if err != nil {
		return "", err
	}
	of := w
	if w.Again == nil {
		of.File, of.Sum = nil, nil // who cannot forget what it was told must be told the truth at once
	}
	d := &download{c: c, dst: dst, failed: func() error { return nil }}
	err = c.seeds(ctx, m, elem, modzip.MaxZipFile, func(from string, r io.Reader, size int64) error {
		if err := d.restart(); err != nil {
			return err
		}
		if err := d.dst.Reserve(size); err != nil {
			return &finalError{err}
		}
		if err := d.write(ctx, r); err != nil {
			return err
		}
		v, err := verify(ctx, m, dst, d.size, c.cfg.Cores, of)
		if err == nil {
			if _, err = c.vouch(ctx, m, "", from, v.h1, want); err == nil {
				h1, err = v.h1, v.invalid
			}
		}
		if err != nil && w.Again != nil {
			w.Again()
		}
		return err
	})
	if c.settled(err) {
		return h1, err
	}
	if rerr := d.restart(); rerr != nil {
		return "", rerr
	}
	h1, perr := c.zip(ctx, m, want, dst, w)
	return h1, c.unseeded(err, perr)
}

// seededSize is ZipSize. That of a seed's zip is known when it has been checked, which the caller has done by fetching it.
func (c *Client) seededSize(ctx context.Context, m module.Version) (int64, error) {
	elem, err := file(m, ".zip")
	if err != nil {
		return 0, err
	}
	for _, s := range c.cfg.Seeds {
		if f, _, err := s.Open(elem); err == nil {
			f.Close()
			return -1, nil
		}
	}
	return c.zipSize(ctx, m)
}

// vouch returns who says that h1 is the hash of a file of m that came from a seed: the pin want, if there is one, the checksum
// database, or, where that does not cover m or cannot be asked offline, Config.Sums; "" if nobody has a say. It tells
// Config.OnSeed. The error wraps ErrMismatch if one of them says otherwise.
func (c *Client) vouch(ctx context.Context, m module.Version, suffix, from, h1, want string) (source string, err error) {
	check := Check{Module: m, File: "zip", H1: h1}
	if suffix != "" {
		check.File = "go.mod"
	}
	compare := func(known, by string) error {
		if known != h1 {
			return &MismatchError{Module: m, File: check.File, Want: known, Got: h1, From: from, Source: by}
		}
		check.Source = by
		return nil
	}
	known := c.cfg.Sums[module.Version{Path: m.Path, Version: m.Version + suffix}]
	if want != "" {
		if err := compare(want, "pin"); err != nil {
			return "", err
		}
	} else {
		sum, err := c.seededSum(ctx, m, suffix)
		switch {
		case err == nil:
			if err := compare(sum, c.sumSource()); err != nil {
				return "", err
			}
		case c.cfg.Offline && errors.Is(err, ErrOffline):
			check.Deferred = known == ""
		case !errors.Is(err, ErrNoSum):
			return "", err
		}
	}
	if known != "" {
		by := check.Source
		if err := compare(known, "go.sum"); err != nil {
			return "", err
		}
		if by != "" {
			check.Source = by // the higher authority
		}
	}
	if c.cfg.OnSeed != nil {
		if err := c.cfg.OnSeed(check); err != nil {
			return "", &finalError{err}
		}
	}
	return check.Source, nil
}

// seededList is List: offline it is what the seeds list.
func (c *Client) seededList(ctx context.Context, m module.Version) ([]byte, error) {
	data, err := c.list(ctx, m)
	if !errors.Is(err, ErrOffline) || len(c.cfg.Seeds) == 0 {
		return data, err
	}
	escPath, eerr := module.EscapePath(m.Path)
	if eerr != nil {
		return nil, err
	}
	versions := make(map[string]bool)
	for _, s := range c.cfg.Seeds {
		raw, rerr := s.read(escPath+"/@v/list", maxList)
		if rerr != nil {
			continue // it has none, or none that can be read: it is a fallback
		}
		if list, perr := parseList(answer{data: raw}); perr == nil {
			for line := range strings.Lines(string(list)) {
				versions[strings.Fields(line)[0]] = true
			}
		}
	}
	if len(versions) == 0 {
		return nil, err
	}
	all := slices.SortedFunc(maps.Keys(versions), semver.Compare)
	return []byte(strings.Join(all, "\n") + "\n"), nil
}

// seedSum returns a file of the checksum database from a seed, offline. Whoever asked verifies it.
func (c *Client) seedSum(name string) ([]byte, error) {
	for _, s := range c.cfg.Seeds {
		if s.Sum == nil {
			continue
		}
		if data, err := s.Sum(name); err == nil && len(data) > 0 {
			return data, nil
		}
	}
	return nil, errOffline
}

// seededSum is sum, with what seeds have of the checksum database where that cannot be asked.
func (c *Client) seededSum(ctx context.Context, m module.Version, suffix string) (string, error) {
	sum, err := c.sum(ctx, m, suffix)
	if c.cfg.Offline && errors.Is(err, ErrOffline) && len(c.cfg.Seeds) > 0 {
		return c.sumFromSeeds(ctx, m, suffix)
	}
	return sum, err
}

// sumFromSeeds returns what the checksum database says of a file of m according to what the seeds have of that, and to nothing
// else. It is signed, and the record is in the tree that is signed; that the tree continues the one that we know from before
// could not be proven with what is here.
func (c *Client) sumFromSeeds(ctx context.Context, m module.Version, suffix string) (string, error) {
	c.mu.Lock()
	if c.alone == nil {
		c.alone, _ = New(Config{
			SumDB: c.cfg.SumDB, NoSumDB: c.noSum, Private: c.cfg.Private, Offline: true, Seeds: c.cfg.Seeds, Log: c.log,
		}) // the error would have been ours
	}
	alone := c.alone
	c.mu.Unlock()
	ctx, done, err := alone.begin(ctx, c.cfg.MetaTimeout)
	if err != nil {
		return "", err
	}
	defer done()
	return alone.sum(ctx, m, suffix)
}
