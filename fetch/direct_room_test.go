package fetch_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/vcstest"
)

// room is a fetch.Room with a limit.
type room struct {
	mu        sync.Mutex
	max       int64 // 0: none
	want, top int64
}

var errNoRoom = errors.New("no room")

func (r *room) Resize(_ context.Context, want, have int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.max > 0 && want > r.max && want > r.want {
		return errNoRoom
	}
	if want < have {
		panic("asked for less than there is")
	}
	r.want, r.top = want, max(r.top, want)
	return nil
}

func (r *room) state() (want, top int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.want, r.top
}

// Clones are bounded and accounted for: what would take too much is ended, and when all is over nothing is left.
func TestDirectRoom(t *testing.T) {
	s := vcstest.New(t)
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	s.Repo("big", map[string]string{"go.mod": "module vanity.test/big\n", "noise": hex.EncodeToString(noise)}, "v1.0.0")
	s.Import("vanity.test/big", "git https://git.test/big.git")
	s.Repo("small", map[string]string{"go.mod": "module vanity.test/small\n", "s.go": "package small\n"}, "v1.0.0")
	s.Import("vanity.test/small", "git https://git.test/small.git")
	useGit(t, s)
	big, small := module.Version{Path: "vanity.test/big", Version: "v1.0.0"}, module.Version{Path: "vanity.test/small", Version: "v1.0.0"}
	zip := func(c *fetch.Client, m module.Version) error {
		_, err := c.Zip(t.Context(), m, "", newFile(t), fetch.Watch{})
		return err
	}
	t.Run("limit", func(t *testing.T) {
		cfg, r := directConfig(t), new(room)
		cfg.DirectMax, cfg.DirectRoom = 1<<20, r
		c := newClient(t, cfg)
		// However fast it was: what it leaves is measured, too.
		if err := zip(c, big); !errors.Is(err, fetch.ErrTooLarge) {
			t.Errorf("Zip of 2 MiB with 1 MiB: %v", err)
		}
		if err := zip(c, small); err != nil {
			t.Errorf("Zip of a small one after it: %v", err)
		}
		c.Close()
		if want, top := r.state(); want != 0 || top == 0 {
			t.Errorf("accounted for %d bytes after Close, at most %d", want, top)
		}
		if _, err := os.Stat(cfg.Direct); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Close: %v", err)
		}
	})
	t.Run("no room", func(t *testing.T) {
		cfg := directConfig(t)
		cfg.DirectRoom = &room{max: 1 << 10}
		if err := zip(newClient(t, cfg), small); !errors.Is(err, errNoRoom) {
			t.Errorf("Zip: %v", err)
		}
	})
	t.Run("kept for the next one", func(t *testing.T) {
		cfg, r := directConfig(t), new(room)
		cfg.DirectRoom = r
		c := newClient(t, cfg)
		if err := zip(c, big); err != nil {
			t.Fatal(err)
		}
		s.ResetRequests()
		if err := zip(c, big); err != nil {
			t.Fatal(err)
		}
		if n := s.Count("git-upload-pack"); n > 1 { // a list of tags; no transfer
			t.Errorf("cloned again: %q", s.Requests())
		}
		if want, _ := r.state(); want < 1<<20 || want > 10<<20 {
			t.Errorf("accounted for %d bytes of a clone", want)
		}
		// What was unpacked is gone, and so is the zip, which its reader has.
		for _, pattern := range []string{"*/vanity.test/big@*", "*/cache/download/vanity.test/big/@v/*.zip"} {
			if names, err := filepath.Glob(filepath.Join(cfg.Direct, pattern)); err != nil || len(names) > 0 {
				t.Errorf("left: %q, %v", names, err)
			}
		}
	})
	t.Run("left by another", func(t *testing.T) {
		cfg := directConfig(t)
		if err := os.MkdirAll(filepath.Join(cfg.Direct, "123", "cache"), 0o777); err != nil {
			t.Fatal(err)
		}
		newClient(t, cfg)
		if _, err := os.Stat(cfg.Direct); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("not emptied: %v", err)
		}
	})
}

// Who wants the same at the same time shares one run, which goes on as long as one of them waits.
func TestDirectShared(t *testing.T) {
	s := vcstest.New(t)
	r := s.Repo("one", map[string]string{"go.mod": "module vanity.test/one\n", "o.go": "package one\n"}, "v1.0.0")
	s.Import("vanity.test/one", "git "+r.URL())
	useGit(t, s)
	c := newClient(t, directConfig(t))
	m := module.Version{Path: "vanity.test/one", Version: "v1.0.0"}
	var stalled sync.WaitGroup
	s.Stall(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/one") && r.Host == "vanity.test" })
	errs := make(chan error, 8)
	stalled.Go(func() { _, err := c.Info(t.Context(), m); errs <- err })
	stalled.Go(func() { _, _, err := c.Mod(t.Context(), m, ""); errs <- err })
	for range 3 {
		stalled.Go(func() { _, err := c.ZipSize(t.Context(), m); errs <- err })
	}
	stalled.Go(func() { _, err := c.Zip(t.Context(), m, "", newFile(t), fetch.Watch{}); errs <- err })
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := c.Info(ctx, m); gone <- err }()
	for s.Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	s.Stall(nil)
	s.Release()
	stalled.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	// Two: the zip may be with its reader when somebody asks for its size.
	if n := runs(c); n > 2 {
		t.Errorf("the go command ran %d times", n)
	}
}

// What the user has stored for git is used: nobody is asked for it.
func TestDirectCredentials(t *testing.T) {
	s := vcstest.New(t)
	r := s.Repo("secret", map[string]string{"go.mod": "module vanity.test/secret\n", "s.go": "package secret\n"}, "v1.0.0")
	s.Import("vanity.test/secret", "git "+r.URL())
	s.Private("secret")
	useGit(t, s)
	m := module.Version{Path: "vanity.test/secret", Version: "v1.0.0"}
	if _, err := newClient(t, directConfig(t)).Info(t.Context(), m); !errors.Is(err, fetch.ErrForbidden) {
		t.Errorf("Info without credentials: %v", err)
	}
	netrc := "machine " + vcstest.GitHost + " login " + vcstest.User + " password " + vcstest.Password + "\n"
	if err := os.WriteFile(filepath.Join(os.Getenv("HOME"), ".netrc"), []byte(netrc), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, directConfig(t)).Info(t.Context(), m); err != nil {
		t.Errorf("Info with them: %v", err)
	}
}
