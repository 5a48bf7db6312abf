package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A trash keeps what was used until it is emptied. What is deleted makes what follows slower, for a while: ext4 looks for inodes
// that were not deleted in the last minute (recently_deleted in its ialloc.c), and does so anew for each file that is created. A
// plain directory creates 60,000, and took three times as long right after another one had been deleted.
type trash struct {
	dir string
	n   int
}

// put takes the file or directory of that name away. It is no error if there is none.
func (t *trash) put(name string) error {
	if err := os.MkdirAll(t.dir, 0o777); err != nil {
		return err
	}
	t.n++
	if err := os.Rename(name, filepath.Join(t.dir, strconv.Itoa(t.n))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// settling is how long ext4 avoids the inodes of deleted files.
const settling = 61 * time.Second

// empty deletes all, and waits until that makes nothing slower.
func (t *trash) empty(ctx context.Context) error {
	if err := removeAll(t.dir); err != nil {
		return err
	}
	syncDisks()
	select {
	case <-time.After(settling):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
