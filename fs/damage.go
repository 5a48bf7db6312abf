package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"syscall"

	"modfs/lru"
)

// Whatever is read from the store was verified once and is checked again: the disk may lie, and others may write to it. What
// turns out to be damaged is never served. It is fetched and verified anew and then replaced; until that works, who wants it
// gets EBADMSG and the reason, and all that is whole is served.

// damage is what was found damaged in the store and is not replaced yet. Its zero value is ready.
type damage struct {
	mu   sync.Mutex
	keys map[string]error
}

// maxDamage bounds of how many files it is known that they are damaged. It is needed to tell and to count, and for nothing else.
const maxDamage = 1 << 12

// add reports whether the damage of the file of key is news.
func (d *damage) add(key string, cause error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.keys[key]; known || len(d.keys) >= maxDamage {
		return !known
	}
	if d.keys == nil {
		d.keys = make(map[string]error)
	}
	d.keys[key] = cause
	return true
}

// remove reports whether the file of key was damaged.
func (d *damage) remove(key string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, known := d.keys[key]
	delete(d.keys, key)
	return known
}

func (d *damage) of(key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[key]
}

// damaged notes that the file of key is damaged.
func (f *FS) damaged(key string, cause error) {
	if f.damage.add(key, cause) {
		f.stats.damaged.Add(1)
		f.log.Error("stored file is damaged; fetching it again", "key", key, "err", cause)
		f.noteKey(ActivityDamaged, key, cause)
	}
}

// replaced notes that the file of key was written anew.
func (f *FS) replaced(key string) {
	if f.damage.remove(key) {
		f.stats.repaired.Add(1)
		f.log.Info("damaged file replaced", "key", key)
		f.noteKey(ActivityReplaced, key, nil)
	}
}

// notReplaced returns err, which says why the file of key cannot be had, with the damage that made it wanted.
func (f *FS) notReplaced(key string, err error) error {
	if cause := f.damage.of(key); cause != nil && err != nil {
		return fmt.Errorf("%s: %w (%v), and cannot be replaced: %w", key, errDamaged, cause, err)
	}
	return err
}

// changedFile is told by the store of a file that somebody changed.
func (f *FS) changedFile(key string, cause error) {
	f.zips.drop(key)
	f.damaged(key, cause)
}

// unreadable reports whether err says that the disk does not give back what it was given: nothing that is lacking at the moment
// (descriptors, memory), nor the end of the mount or of a request.
func unreadable(err error) bool {
	for _, is := range [...]error{io.EOF, io.ErrUnexpectedEOF, syscall.EIO, syscall.EISDIR, syscall.EBADMSG, syscall.ENXIO, lru.ErrTooLarge} {
		if errors.Is(err, is) {
			return true
		}
	}
	return euclean(err)
}

// stored reads a small file of the store and has it checked. It returns nil if it is not there or damaged: it is then to be
// fetched.
func (f *FS) stored(key string, max int64, check func(data []byte) error) ([]byte, error) {
	data, err := f.store.ReadFile(key, max)
	switch {
	case err == nil:
		if err = check(data); err == nil {
			f.damage.remove(key) // it was the disk's passing mood
			return data, nil
		}
	case isNotExist(err):
		return nil, nil
	case !unreadable(err):
		return nil, err
	}
	f.damaged(key, err)
	return nil, nil
}

// repairing runs read. If that finds the module's archive damaged, the archive is fetched and verified anew, and read runs once
// more. The damaged one stays until then, for what is whole in it, and after that in quarantine.
func (f *FS) repairing(ctx context.Context, md *mod, read func() error) error {
	generation := md.generationNow()
	err := read()
	if err == nil || !errors.Is(err, errDamaged) {
		return err
	}
	f.damaged(md.zipKey, err)
	if err2 := f.repair(ctx, md, generation); err2 != nil {
		return fmt.Errorf("%w; it cannot be replaced: %w", err, err2)
	}
	return read()
}

func (md *mod) generationNow() int {
	md.mu.Lock()
	defer md.mu.Unlock()
	return md.generation
}

// repair replaces the archive of a module, unless that was done since the generation was looked at.
func (f *FS) repair(ctx context.Context, md *mod, generation int) error {
	_, err := once(f, ctx, "repair "+md.String(), func(ctx context.Context) (none struct{}, err error) {
		if md.generationNow() != generation {
			return none, nil
		}
		file, err := f.fill(ctx, md, f.store.Refill)
		if err != nil {
			return none, err
		}
		md.mu.Lock()
		md.generation++
		md.mu.Unlock()
		f.zips.drop(md.zipKey)
		f.zips.put(f.keepOpen(md.zipKey, file))
		return none, nil
	})
	return err
}

// addSum appends to the content of a small file a checksum of that and its name, and cutSum takes it off.
func addSum(name string, data []byte) []byte {
	return binary.BigEndian.AppendUint32(data[:len(data):len(data)], nameSum(name, data))
}

func cutSum(name string, data []byte) ([]byte, error) {
	n := len(data) - checksumSize
	if n < 0 || binary.BigEndian.Uint32(data[n:]) != nameSum(name, data[:n]) {
		return nil, fmt.Errorf("%w: wrong checksum", errDamaged)
	}
	return data[:n:n], nil
}

func nameSum(name string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, data)
}
