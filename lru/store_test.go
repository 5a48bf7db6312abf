package lru

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// clock is one that stands still unless told otherwise.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// open opens a store for the test, in a new directory unless c has one. When the test ends, it is verified and closed.
func open(t testing.TB, c Config) *Store {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "store")
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// content is what the file of key has in these tests: n bytes that follow from the key.
func content(key string, n int) []byte {
	h := fnv.New64a()
	io.WriteString(h, key)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	data := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			data[i+j] = byte(v >> (8 * j))
		}
	}
	return data[:n]
}

// filler writes the content of key in pieces, announced.
func filler(key string, n int) func(context.Context, *Temp) error {
	return func(_ context.Context, t *Temp) error {
		if err := t.Reserve(int64(n)); err != nil {
			return err
		}
		return writeAll(t, key, n)
	}
}

func writeAll(t *Temp, key string, n int) error {
	data := content(key, n)
	for len(data) > 0 {
		k, err := t.Write(data[:min(len(data), 32<<10)])
		if err != nil {
			return err
		}
		data = data[k:]
	}
	return nil
}

// fill puts n bytes at key and closes the file.
func fill(t testing.TB, s *Store, key string, n int) {
	t.Helper()
	f, err := s.Fill(context.Background(), key, filler(key, n))
	if err != nil {
		t.Fatal(err)
	}
	if f.Size() != int64(n) || f.Key() != key {
		t.Errorf("%s: got %s of %d bytes, want %d", key, f.Key(), f.Size(), n)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func mustPut(t testing.TB, s *Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(key, data); err != nil {
		t.Fatal(err)
	}
}

func has(s *Store, key string) bool {
	_, err := s.Stat(key)
	return err == nil
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// await waits until ok is true. The deadline is for a test that has gone wrong.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

func TestPutReadRemove(t *testing.T) {
	s := open(t, Config{})
	_, err := s.Get("a/b")
	wantErr(t, err, iofs.ErrNotExist)
	_, err = s.Stat("a/b")
	wantErr(t, err, iofs.ErrNotExist)
	for _, data := range []string{"one", "", "and another"} {
		mustPut(t, s, "a/b", []byte(data))
		got, err := s.ReadFile("a/b", 20)
		if err != nil || string(got) != data {
			t.Errorf("got %q, %v, want %q", got, err, data)
		}
	}
	mustPut(t, s, "a/c/d", []byte("another"))
	_, err = s.ReadFile("a/b", 5)
	wantErr(t, err, ErrTooLarge)
	if i, err := s.Stat("a/b"); err != nil || i.Size != 11 || i.Disk != block {
		t.Errorf("stat: %+v, %v", i, err)
	}
	verify(t, s, 0)
	for range 2 {
		if err := s.Remove("a/b"); err != nil {
			t.Error(err)
		}
	}
	if has(s, "a/b") {
		t.Error("removed file is there")
	}
	verify(t, s, 0)
	if err := s.Remove("a/c/d"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "a")); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("empty directories stay: %v", err)
	}
	verify(t, s, 0)
}

func TestKeys(t *testing.T) {
	s := open(t, Config{Exclude: []string{"overlay"}})
	for _, key := range []string{"", ".", "/a", "a/", "a//b", "../a", "a/../b", "tmp/1", "tmp", "quarantine/x", "lock", "version",
		"overlay/a", "lost+found/a"} {
		_, err := s.Get(key)
		wantErr(t, err, iofs.ErrInvalid)
		wantErr(t, s.Put(key, nil), iofs.ErrInvalid)
		wantErr(t, s.Remove(key), iofs.ErrInvalid)
		wantErr(t, s.Quarantine(key), iofs.ErrInvalid)
		_, err = s.Fill(t.Context(), key, nil)
		wantErr(t, err, iofs.ErrInvalid)
	}
	for _, key := range []string{"a/tmp/lock", "sumdb/x/latest", "cache/download/x/@v/v1.0.0 ü.zip"} {
		mustPut(t, s, key, []byte(key))
	}
	// A file where a directory is wanted, and the other way round.
	if s.Put("sumdb/x/latest/y", nil) == nil || s.Put("sumdb/x", nil) == nil {
		t.Error("a file is a directory")
	}
	fill(t, s, "a/x", 100)
	verify(t, s, 0)
}

func TestReadDir(t *testing.T) {
	s := open(t, Config{Exclude: []string{"log"}})
	for _, key := range []string{"b/2", "b/1", "b/c/3", "a"} {
		mustPut(t, s, key, []byte(key))
	}
	os.WriteFile(s.path("log"), nil, 0o600)
	os.WriteFile(s.path("b/foreign"), nil, 0o600)
	for dir, want := range map[string]string{".": "a b/", "b": "1 2 c/", "b/c": "3"} {
		des, err := s.ReadDir(dir)
		var got []string
		for _, de := range des {
			name := de.Name()
			if de.IsDir() {
				name += "/"
			}
			got = append(got, name)
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", dir, got, err, want)
		}
	}
	_, err := s.ReadDir("nothing")
	wantErr(t, err, iofs.ErrNotExist)
	_, err = s.ReadDir("tmp")
	wantErr(t, err, iofs.ErrInvalid)
}

func TestClosed(t *testing.T) {
	s := open(t, Config{})
	mustPut(t, s, "a", []byte("a"))
	f, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err = s.Get("a")
	wantErr(t, err, ErrClosed)
	_, err = s.Stat("a")
	wantErr(t, err, ErrClosed)
	_, err = s.Fill(t.Context(), "b", filler("b", 1))
	wantErr(t, err, ErrClosed)
	wantErr(t, s.Put("a", nil), ErrClosed)
	wantErr(t, s.Remove("a"), ErrClosed)
	wantErr(t, s.Quarantine("a"), ErrClosed)
	s.Touch("a")
	s.Pin("a", true)
	if n := s.Evict(0); n != 0 {
		t.Errorf("%d bytes evicted from a closed store", n)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("open file: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	wantErr(t, f.Close(), os.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantErr(t, err, os.ErrClosed)
}

func TestQuarantine(t *testing.T) {
	clk := newClock()
	c := Config{Dir: filepath.Join(t.TempDir(), "s"), Now: clk.now}
	s := open(t, c)
	f, err := s.Fill(t.Context(), "k/0.zip", filler("k/0.zip", 9000))
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxQuarantine + 3 {
		key := fmt.Sprintf("k/%d.zip", i)
		fill(t, s, key, 9000)
		for range 2 { // the second finds nothing
			if err := s.Quarantine(key); err != nil {
				t.Fatal(err)
			}
		}
		if has(s, key) {
			t.Errorf("%s is there", key)
		}
		clk.advance(time.Second)
	}
	got := make([]byte, 9000)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content("k/0.zip", 9000)) {
		t.Errorf("reader disturbed: %v", err)
	}
	if f.Key() != "k/0.zip" {
		t.Errorf("key is now %s", f.Key())
	}
	if u := s.Usage(); u.UnlinkedOpen != 3*block {
		t.Errorf("unlinked and open: %d", u.UnlinkedOpen)
	}
	f.Close()
	verify(t, s, 0)
	s.Close()

	s = open(t, c)
	verify(t, s, 0)
	if len(s.quar) != maxQuarantine || !strings.HasSuffix(s.quar[0].key, "-3.zip") {
		t.Errorf("quarantine: %d files, oldest %s", len(s.quar), s.quar[0].key)
	}
	fill(t, s, "k/0.zip", 10)
	s.Evict(s.Usage().Bytes - 1) // takes from the quarantine first
	if !has(s, "k/0.zip") || len(s.quar) != maxQuarantine-1 {
		t.Errorf("%d in quarantine", len(s.quar))
	}
	verify(t, s, 0)
}

// TestGone: somebody removed a file behind the store's back.
func TestGone(t *testing.T) {
	s := open(t, Config{})
	fill(t, s, "a/b", 5000)
	os.RemoveAll(s.path("a"))
	_, err := s.Get("a/b")
	wantErr(t, err, iofs.ErrNotExist)
	verify(t, s, 0)
	fill(t, s, "a/b", 5000)
	verify(t, s, 0)
}

// TestReplaceWhileOpening replaces the file between the look-up and the open of a Get, and evicts it there.
func TestReplaceWhileOpening(t *testing.T) {
	s := open(t, Config{})
	mustPut(t, s, "k", []byte("old"))
	var once sync.Once
	s.hook = func(op, name string) error {
		if op == "open" {
			once.Do(func() { mustPut(t, s, "k", []byte("new content")) })
		}
		return nil
	}
	got, err := s.ReadFile("k", 100)
	if err != nil || string(got) != "new content" {
		t.Errorf("got %q, %v", got, err)
	}
	once = sync.Once{}
	s.hook = func(op, name string) error {
		if op == "open" {
			once.Do(func() { s.Evict(0) })
		}
		return nil
	}
	_, err = s.Get("k")
	wantErr(t, err, iofs.ErrNotExist)
	verify(t, s, 0)
}
