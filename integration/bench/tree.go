package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A tally says what was found in a directory tree.
type tally struct {
	files int64 // for a walk, directories too
	bytes int64 // that were read
}

// walk lists dir and what is below it with all attributes by find -ls, except for what is below dir/cache: there, a plain directory
// has files besides. The listing goes to out; nil: nowhere.
func walk(dir string, out io.Writer) error {
	find, err := exec.LookPath("find")
	if err != nil {
		return &errNotMeasured{"there is no command find"}
	}
	var stderr bytes.Buffer
	cmd := exec.Command(find, dir, "-path", filepath.Join(dir, "cache"), "-prune", "-o", "-ls")
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, &stderr)
	}
	return nil
}

// lineCounter is a writer that counts lines.
type lineCounter int64

func (c *lineCounter) Write(p []byte) (int, error) {
	*c += lineCounter(bytes.Count(p, []byte{'\n'}))
	return len(p), nil
}

// readTree reads each file below dir.
func readTree(dir string) (tally, error) {
	var t tally
	buf := make([]byte, 128<<10)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, err := readFile(name, buf)
		t.files++
		t.bytes += n
		return err
	})
	return t, err
}

// readFile reads a file to its end and returns its size.
func readFile(name string, buf []byte) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// Not io.Copy, which would let a file write itself and so make the size of the reads another one.
	for n := int64(0); ; {
		k, err := f.Read(buf)
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("%s: %w", name, err)
		}
	}
}

// diskUsage returns the bytes that dir takes on disk, as du does. What is linked twice counts twice; nothing here is.
func diskUsage(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file of a daemon
		}
		if err != nil {
			return err
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			n += int64(st.Blocks) * 512
		}
		return nil
	})
	return n, err
}
