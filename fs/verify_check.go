package fs

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
)

// checkFile returns an error that says what is wrong with a file, and wraps iofs.ErrNotExist if it is no longer there.
func (v *verifier) checkFile(ctx context.Context, j *job, f *found) error {
	m := j.m
	file, err := openStored(filepath.Join(v.o.Dir, filepath.FromSlash(f.key)))
	if err != nil {
		return err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	switch f.kind {
	case KindZip:
		err = v.checkZip(ctx, j, file, fi.Size())
	case KindModule:
		err = v.checkIndex(j)
	case KindFile:
		err = v.checkSpool(m, f.key, file, fi.Size())
	case KindNone:
		err = errors.New("no file of a store")
	default:
		err = v.checkSmall(ctx, m, f, file)
	}
	if err != nil && (f.kind == KindZip || f.kind == KindModule) {
		v.mu.Lock()
		v.broken[f.key] = true
		v.mu.Unlock()
	}
	return err
}

// openStored opens a file, if it is one.
func openStored(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK) {
		return nil, errors.New("a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("not a file: %v", fi.Mode())
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// manyCores is the size from which an archive is worth all cores, in bytes: one that is larger would otherwise be waited for.
const manyCores = 16 << 20

func (v *verifier) checkZip(ctx context.Context, j *job, file *os.File, size int64) error {
	cores := 1
	if size > manyCores {
		cores = v.o.Jobs
	}
	m := j.m
	kept := keeper{allowance: &allowance{}} // nothing but digests
	h1, err := fetch.HashZip(ctx, m, file, size, cores, fetch.Watch{File: kept.add, Sum: kept.sum})
	if err != nil {
		return err
	}
	j.sums = kept.sums
	if err := v.checkSum(ctx, m, h1, "", v.client.ZipHash); err != nil {
		return err
	}
	// The hash is of what is in the archive. That nothing else in it was changed, its blocks tell.
	ix, err := v.index(m)
	if err != nil {
		return nil // there is none, or that is a finding of its own
	}
	sums, err := sumsOf(file, size)
	if err != nil {
		return err
	}
	if ix.sums.size != sums.size || !slices.Equal(ix.sums.crcs, sums.crcs) {
		return errors.New("it is not, byte for byte, what was fetched")
	}
	return nil
}

// checkSum compares the hash of a file with its pin, and that with the checksum database.
func (v *verifier) checkSum(ctx context.Context, m module.Version, h1, suffix string, ask func(context.Context, module.Version) (string, error)) error {
	pin := v.pin(module.Version{Path: m.Path, Version: m.Version + suffix})
	if pin != "" && h1 != pin {
		return fmt.Errorf("its hash is %s, and its pin %s", h1, pin)
	}
	if v.down.Load() {
		v.notAsked(nil)
		return nil
	}
	want, err := ask(ctx, m)
	switch {
	case errors.Is(err, fetch.ErrNoSum):
		v.mu.Lock()
		defer v.mu.Unlock()
		v.sum.Uncovered++
		if pin == "" {
			return errors.New("it has no pin, and the checksum database does not cover it")
		}
	case errors.Is(err, fetch.ErrNotFound):
		return fmt.Errorf("the checksum database does not know it: %w", notMissing{err})
	case err != nil:
		if errors.Is(err, fetch.ErrUnreachable) || errors.Is(err, fetch.ErrTimeout) || errors.Is(err, fetch.ErrOffline) {
			v.down.Store(true)
		}
		v.notAsked(err)
		if pin == "" {
			return fmt.Errorf("it has no pin, and the checksum database cannot be asked: %w", err)
		}
	case want != h1:
		return fmt.Errorf("its hash is %s, and the checksum database has %s", h1, want)
	}
	return nil
}

// notMissing hides that an error says that something is missing: it is not the file.
type notMissing struct{ err error }

func (e notMissing) Error() string { return e.err.Error() }

func (v *verifier) notAsked(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sum.Unasked++
	if v.sum.Why == "" && err != nil {
		v.sum.Why = err.Error()
	}
}

// index reads m's index.
func (v *verifier) index(m module.Version) (*indexed, error) {
	file, err := openStored(filepath.Join(v.o.Dir, filepath.FromSlash(indexKey(m))))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := readAtMost(file, maxIndex)
	if err != nil {
		return nil, err
	}
	return decodeIndex(m, data)
}

// checkIndex checks an index, and that it is what its archive makes, unless that is damaged or gone.
func (v *verifier) checkIndex(j *job) error {
	m := j.m
	ix, err := v.index(m)
	if errors.Is(err, errOldIndex) {
		return nil // it will be made anew
	}
	if err != nil {
		return err
	}
	archive, size := v.archive(m)
	if archive == nil || j.sums.files == nil {
		return nil
	}
	defer archive.Close()
	zr, err := zip.NewReader(archive, size)
	if err != nil {
		return err
	}
	t, err := newTree(m, zr, size, j.sums, m.Path == toolchainPath)
	if err != nil {
		return err
	}
	if t.names != ix.names || !slices.Equal(t.entries, ix.entries) {
		return errors.New("it is not that of the archive")
	}
	return nil
}

// archive opens m's archive; nil if there is none, or it is damaged, which is a finding of its own.
func (v *verifier) archive(m module.Version) (*os.File, int64) {
	key := zipKey(m)
	v.mu.Lock()
	broken := v.broken[key]
	v.mu.Unlock()
	if broken {
		return nil, 0
	}
	file, err := openStored(filepath.Join(v.o.Dir, filepath.FromSlash(key)))
	if err != nil {
		return nil, 0
	}
	fi, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0
	}
	return file, fi.Size()
}

// plainFile is an archive, as far as its size goes.
type plainFile struct {
	*os.File
	size int64
}

func (s plainFile) Size() int64 { return s.size }

// checkSpool checks the inflated content of a file against its own checksums, and the archive's, which the index has.
func (v *verifier) checkSpool(m module.Version, key string, file *os.File, size int64) error {
	v.mu.Lock()
	broken := v.broken[indexKey(m)]
	v.mu.Unlock()
	if broken {
		return nil // it is checked when it is used
	}
	ix, err := v.index(m)
	if err != nil {
		return nil // there is none, or that is a finding of its own
	}
	i := -1
	if _, err := fmt.Sscan(key[strings.LastIndexByte(key, '/')+1:], &i); err != nil || i < 0 || i >= ix.len() || ix.isDir(i) {
		return errors.New("the module has no such file")
	}
	sums, err := spoolSums(plainFile{file, size}, key, ix.size(i))
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(checked{file, sums}, 0, sums.size)); err != nil {
		return err
	}
	return ix.data(i).check(sums.size, makeDigest([sha256.Size]byte(sum.Sum(nil))))
}

// checkSmall checks the files that are read whole.
func (v *verifier) checkSmall(ctx context.Context, m module.Version, f *found, file *os.File) error {
	limit := int64(maxAnswer)
	switch f.kind {
	case KindMod:
		limit = modzip.MaxGoMod
	case KindInfo, KindLatest, KindQuery:
		limit = maxInfo
	case KindSumDB:
		limit = maxTile
	}
	data, err := readAtMost(file, limit)
	if err != nil {
		return fmt.Errorf("%w: more than %d bytes, or not readable", err, limit)
	}
	switch f.kind {
	case KindMod:
		return v.checkSum(ctx, m, hashMod(data), "/go.mod", v.client.ModHash)
	case KindInfo:
		if pin := v.pin(module.Version{Path: m.Path, Version: m.Version + infoSuffix}); pin != "" && pin != hashInfo(data) {
			return errors.New("it is not what was fetched")
		}
		_, err = infoTime(m, data)
	case KindSumDB:
		_, err = cutSum(f.key, data)
	case KindList, KindLatest, KindQuery:
		question := path.Base(f.key)
		if pin := v.pin(module.Version{Path: m.Path, Version: "/" + question}); pin != "" && pin != hashInfo(data) {
			return errors.New("it is not what was fetched")
		}
		if err = checkList(data); f.kind != KindList {
			err = checkLatest(data)
		}
	}
	return err
}

// checkList returns an error unless data is a list of versions, one a line, as package fetch returns them.
func checkList(data []byte) error {
	for line := range strings.Lines(string(data)) {
		if v, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); !semver.IsValid(v) { // a time may follow
			return fmt.Errorf("%.40q is no version", v)
		}
	}
	return nil
}

// checkLatest returns an error unless data is an .info file of any version.
func checkLatest(data []byte) error {
	var info struct{ Version string }
	if err := json.Unmarshal(data, &info); err != nil {
		return err
	}
	if !semver.IsValid(info.Version) {
		return fmt.Errorf("%.40q is no version", info.Version)
	}
	return nil
}
