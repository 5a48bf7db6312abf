package fs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/mod/module"
)

// kept are the module versions that a user has pinned (modfs pin): their archives are never evicted. They are another thing than pins,
// which are the hashes that were verified once.
//
// They are a file of the store, kept, with a line for each: path and version. It outlives the mount, and may name modules that the
// store does not have yet; those are kept from when they are fetched.
type kept struct {
	file string

	mu    sync.Mutex
	total int64                    // of by
	by    map[module.Version]int64 // bytes of its archive that are spared; 0: it is not there, or there was no room to spare it
}

// keptFile is the name of that file in the store's directory.
const keptFile = "kept"

// MaxKept is how many module versions can be pinned.
const MaxKept = 1 << 16

// keptShare is how much of the store's limit pinned modules may take, in percent. Builds need the rest.
const keptShare = 80

var (
	// ErrPinsTooLarge is the error of pinning more than the store has room for beside them.
	ErrPinsTooLarge = errors.New("they would fill the store")
	// ErrNotResident is the error of a module version whose archive is not in the store.
	ErrNotResident = errors.New("not in the store")
	// ErrPinned is the error of evicting what is pinned.
	ErrPinned = errors.New("pinned")
	// ErrNotPinned is the error of unpinning what is not.
	ErrNotPinned = errors.New("not pinned")
)

// loadKept reads what is pinned in a store's directory. A line that is none is dropped.
func loadKept(dir string) (*kept, error) {
	k := &kept{file: filepath.Join(dir, keptFile), by: make(map[module.Version]int64)}
	data, err := readKept(k.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read which modules are pinned: %w", err)
	}
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) == 2 && module.Check(fields[0], fields[1]) == nil && len(k.by) < MaxKept {
			k.by[module.Version{Path: fields[0], Version: fields[1]}] = 0
		}
	}
	return k, nil
}

// maxKeptFile is how large the file can be, in bytes: far more than MaxKept lines take.
const maxKeptFile = 64 << 20

// readKept reads the file. A named pipe, or a link, that somebody put there is neither waited for nor followed.
func readKept(name string) ([]byte, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, maxKeptFile)
}

// keys are the keys in the store of what is pinned: the archive, and what it takes to offer it.
func (k *kept) keys() (keys []string) {
	for m := range k.by {
		keys = append(keys, keptKeys(m)...)
	}
	return keys
}

func keptKeys(m module.Version) []string {
	return []string{zipKey(m), infoKey(m), modKey(m), indexKey(m)}
}

// has reports whether m is pinned.
func (k *kept) has(m module.Version) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.by[m]
	return ok
}

func (k *kept) all() []module.Version {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(maps.Keys(k.by), compareVersions)
}

// clone returns a copy of by.
func (k *kept) clone() map[module.Version]int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.by)
}

// spare notes that so many bytes are spared for m, if it is pinned and all that is spared takes no more than max bytes; 0: no limit.
func (k *kept) spare(m module.Version, bytes, max int64) (fits bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old, ok := k.by[m]
	if !ok {
		return false
	}
	k.by[m] = 0
	k.total -= old
	if max > 0 && k.total+bytes > max {
		return false
	}
	k.by[m] = bytes
	k.total += bytes
	return true
}

// replace sets what is pinned, on disk first. The file is there whole or not at all. It is not for concurrent use.
func (k *kept) replace(next map[module.Version]int64) error {
	var b bytes.Buffer
	for _, m := range slices.SortedFunc(maps.Keys(next), compareVersions) {
		fmt.Fprintf(&b, "%s %s\n", m.Path, m.Version)
	}
	temp := k.file + ".new"
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(b.Bytes())
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(temp, k.file)
	}
	if err != nil {
		os.Remove(temp) // best effort: the error is what counts
		return fmt.Errorf("note which modules are pinned: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.by, k.total = next, 0
	for _, bytes := range next {
		k.total += bytes
	}
	return nil
}

// Pin spares the archives of module versions from eviction, now and on later mounts; those that the store does not have, from when
// they are fetched. All of them are pinned, or none.
//
// The error wraps ErrPinsTooLarge if what is pinned would take more than 80 % of the store's limit.
func (f *FS) Pin(ms []module.Version) error {
	f.steering.Lock()
	defer f.steering.Unlock()
	next := f.kept.clone()
	for _, m := range ms {
		next[m] = 0
	}
	if len(next) > MaxKept {
		return fmt.Errorf("%d module versions would be pinned, and %d may be", len(next), MaxKept)
	}
	var bytes int64
	for m := range next {
		next[m] = 0
		if i, err := f.store.Stat(zipKey(m)); err == nil {
			bytes += i.Disk
			next[m] = i.Disk
		}
	}
	if max := f.maxKept(); max > 0 && bytes > max {
		return fmt.Errorf("%w: with what is pinned already they take %d bytes, and %d %% of its limit, %d bytes, may be pinned: raise --max-size, or unpin others",
			ErrPinsTooLarge, bytes, keptShare, max)
	}
	if err := f.kept.replace(next); err != nil {
		return err
	}
	for _, m := range ms {
		f.spare(m, next[m] > 0)
		f.arrived(m) // it may have come meanwhile
	}
	return nil
}

// Unpin ends that. None is unpinned if one of them is not pinned: the error wraps ErrNotPinned then, and names it.
func (f *FS) Unpin(ms []module.Version) error {
	f.steering.Lock()
	defer f.steering.Unlock()
	next := f.kept.clone()
	for _, m := range ms {
		if !f.kept.has(m) {
			return fmt.Errorf("%s: %w", m, ErrNotPinned)
		}
		delete(next, m)
	}
	if err := f.kept.replace(next); err != nil {
		return err
	}
	for _, m := range ms {
		for _, key := range keptKeys(m) {
			f.store.Pin(key, false)
		}
	}
	return nil
}

// spare has the store spare what it has of m. What is small is spared in any case.
func (f *FS) spare(m module.Version, zip bool) {
	for _, key := range keptKeys(m) {
		f.store.Pin(key, zip || key != zipKey(m))
	}
}

// maxKept is how many bytes what is pinned may take; 0: no limit.
func (f *FS) maxKept() int64 { return f.opts.Store.MaxSize / 100 * keptShare }

// settleKept spares what is pinned and there, as far as the limit allows, which may be lower than when it was pinned.
func (f *FS) settleKept() {
	for _, m := range f.kept.all() {
		f.arrived(m)
	}
}

// arrived spares the archive of m, which has come, if m is pinned and there is room for that.
func (f *FS) arrived(m module.Version) {
	if !f.kept.has(m) {
		return
	}
	i, err := f.store.Stat(zipKey(m))
	if err != nil {
		f.gone(m)
		return
	}
	fits := f.kept.spare(m, i.Disk, f.maxKept())
	if !fits {
		f.log.Warn("pinned, but not spared from eviction: what is pinned takes too much of the store's limit", "module", m.Path, "version", m.Version, "bytes", i.Disk, "max", f.maxKept())
	}
	f.spare(m, fits)
}

// gone notes that the archive of m is not there: somebody removed it. If m is pinned, it is spared when it comes back.
func (f *FS) gone(m module.Version) {
	if f.kept.has(m) {
		f.kept.spare(m, 0, 0)
		f.spare(m, false) // not yet: what it takes is not known
	}
}
