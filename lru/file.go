package lru

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// File is an open file of the store. It stays readable, with the same content, when it is evicted, removed or replaced,
// and until it is closed its bytes count. It may be read concurrently.
type File struct {
	s      *Store
	key    string
	e      *entry
	sh     *shared
	closed atomic.Bool
}

// shared is a descriptor that several Files have: those who waited for the same fill.
type shared struct {
	f    *os.File
	refs int // guarded by Store.mu
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.closed.Load() {
		return 0, os.ErrClosed
	}
	return f.sh.f.ReadAt(p, off)
}

// Size returns the size of the content in bytes.
func (f *File) Size() int64 { return f.e.size }

// Key returns the key that the file was got by.
func (f *File) Key() string { return f.key }

// Close ends the use of the file. It may be called after the store's Close.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return os.ErrClosed
	}
	f.s.mu.Lock()
	f.sh.refs--
	last := f.sh.refs == 0
	f.s.mu.Unlock()
	if !last {
		return nil
	}
	return f.s.closeFile(f.sh.f, f.e)
}

// closeFile closes f, a descriptor that is counted in e.refs. Only then may its bytes be given back: the file may have no
// name any more.
func (s *Store) closeFile(f *os.File, e *entry) error {
	err := f.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unref(e)
	return err
}

// lockKey makes key busy, which is a lock for one key that may be held during I/O: until unlockKey, nobody else looks it up
// or changes what it stands for. s.mu is held, and is given up while another has the key.
func (s *Store) lockKey(key string) {
	s.await(key)
	s.busy[key] = struct{}{}
}

func (s *Store) unlockKey(key string) {
	delete(s.busy, key)
	s.cond.Broadcast()
}

// await returns when key is not busy. s.mu is held, and given up meanwhile. It never takes longer than a rename or unlink.
func (s *Store) await(key string) {
	for {
		if _, ok := s.busy[key]; !ok {
			return
		}
		s.cond.Wait()
	}
}

// Get opens the file of key and marks it as used. The caller closes it. The error wraps io/fs.ErrNotExist if there is none.
//
// The file is opened without a lock, and is the right one if before and after that the key had the same entry and was not
// busy: entries are never reused.
func (s *Store) Get(key string) (*File, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.ops.Done()
	now := s.cfg.Now()
	for {
		s.mu.Lock()
		s.await(key)
		e := s.entries[key]
		if e == nil {
			s.mu.Unlock()
			return nil, fmt.Errorf("%s: %w", key, iofs.ErrNotExist)
		}
		e.refs++ // before it is open: what is evicted in between counts until we know that we don't have it
		due := s.use(e, now)
		s.mu.Unlock()

		f, err := s.openEntry(key, e)

		s.mu.Lock()
		_, busy := s.busy[key]
		current := s.entries[key] == e && !busy
		if current && err == nil {
			s.mu.Unlock()
			if due {
				s.stamp(key, now) // best effort: it costs at most the order after a restart
			}
			return &File{s: s, key: key, e: e, sh: &shared{f: f, refs: 1}}, nil
		}
		s.mu.Unlock()
		// While we opened it, the name changed its meaning, or is changing it: f may be either file. Or somebody else
		// removed it behind our back.
		if f != nil {
			f.Close()
		}
		s.mu.Lock()
		s.unref(e)
		s.mu.Unlock()
		if !current {
			continue
		}
		// If this hits a file that came just now, that is fetched again.
		switch {
		case isGone(err):
			s.log.Warn("file is gone from the store's directory", "key", key)
			err = s.Remove(key) // also tidies up the account and the directories
			s.missed()
		case errors.Is(err, errChanged):
			s.log.Error("file in the store's directory was changed", "key", key, "err", err)
			if err2 := s.Quarantine(key); err2 != nil {
				return nil, err2
			}
			if s.cfg.OnDamage != nil {
				s.guard("OnDamage", func() { s.cfg.OnDamage(key, err) })
			}
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
}

// errChanged says that what has a file's name is not the file that was put there.
var errChanged = errors.New("not what was put there")

// openEntry opens the file of key, whose entry is e. What has its name may be another one by now: a named pipe, on which an
// ordinary open would wait for ever, or a link to anywhere. Its size tells a good part of what can be wrong with a file, and costs
// next to nothing.
func (s *Store) openEntry(key string, e *entry) (*os.File, error) {
	if err := s.hooked("open", key); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EMLINK), errors.Is(err, syscall.ENXIO): // links; sockets
		return nil, fmt.Errorf("%w: %w", errChanged, err)
	case err != nil:
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() != e.size) {
		err = fmt.Errorf("%w: %s, %d bytes, and it was a file of %d", errChanged, fi.Mode(), fi.Size(), e.size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isGone reports whether err says that there is no such file, maybe because something else is where its directory was.
func isGone(err error) bool {
	return errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// ReadFile returns the content of the file of key, of at most max bytes: if it is larger, the error wraps ErrTooLarge. It
// marks the file as used. The error wraps io/fs.ErrNotExist if there is none.
func (s *Store) ReadFile(key string, max int64) ([]byte, error) {
	f, err := s.Get(key)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > max {
		return nil, fmt.Errorf("%s: %w: %d bytes, and %d wanted at most", key, ErrTooLarge, f.Size(), max)
	}
	data := make([]byte, f.Size())
	if _, err := f.ReadAt(data, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", key, err)
	} else if err == io.EOF && len(data) > 0 {
		return nil, fmt.Errorf("%s: %w", key, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// Info describes a file of the store.
type Info struct {
	Size   int64     // of its content, in bytes
	Disk   int64     // what the limit counts for it, in bytes
	Used   time.Time // when it was last used, written or touched; after Open within a few minutes of that
	Pinned bool
}

// Stat returns what is known of the file of key, without I/O and without marking it as used. The error wraps
// io/fs.ErrNotExist if there is none.
func (s *Store) Stat(key string) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Info{}, ErrClosed
	}
	e := s.entries[key]
	if e == nil {
		return Info{}, fmt.Errorf("%s: %w", key, iofs.ErrNotExist)
	}
	_, pinned := s.pins[key]
	return Info{Size: e.size, Disk: e.disk, Used: e.used, Pinned: pinned}, nil
}

// All returns what is known of the files whose keys have a suffix, by key, without I/O and without marking any as used.
func (s *Store) All(suffix string) map[string]Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]Info)
	for key, e := range s.entries {
		if strings.HasSuffix(key, suffix) {
			_, pinned := s.pins[key]
			all[key] = Info{Size: e.size, Disk: e.disk, Used: e.used, Pinned: pinned}
		}
	}
	return all
}

// ReadDir lists the files and directories whose keys are directly below the prefix dir, "." for all, in order of names.
// The error wraps io/fs.ErrNotExist if there are none. It reads the directory from disk and marks nothing as used. What
// others put there since Open is not listed, since Get would not find it.
func (s *Store) ReadDir(dir string) ([]iofs.DirEntry, error) {
	if dir != "." {
		if err := s.checkKey(dir); err != nil {
			return nil, err
		}
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.ops.Done()
	des, err := os.ReadDir(s.path(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := des[:0]
	for _, de := range des {
		name := de.Name()
		if dir != "." {
			name = dir + "/" + name
		} else if s.reserved(name) {
			continue
		}
		if s.entries[name] != nil || de.IsDir() && s.dirs[name] != nil {
			known = append(known, de)
		}
	}
	return known, nil
}
