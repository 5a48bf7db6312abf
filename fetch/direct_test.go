package fetch_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/vcstest"
)

// useGit makes the go command and git of this process ask s only.
func useGit(t *testing.T, s *vcstest.Server) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GOENV", "off")
}

// directConfig is that of a client that gets everything from version control and verifies nothing.
func directConfig(t *testing.T) fetch.Config {
	return fetch.Config{Proxy: "direct", SumDB: "off", Direct: filepath.Join(t.TempDir(), "direct")}
}

// runs returns how often a client ran the go command.
func runs(c *fetch.Client) int64 {
	for _, u := range c.Upstreams() {
		if u.URL == "direct" {
			return u.Requests
		}
	}
	return 0
}

func infoVersion(t *testing.T, data []byte) string {
	t.Helper()
	var info struct {
		Version string
		Time    time.Time
	}
	if err := json.Unmarshal(data, &info); err != nil {
		t.Fatal(err)
	}
	if info.Time.IsZero() {
		t.Errorf("no time in %s", data)
	}
	return info.Version
}

// One run of the go command serves all that there is of a version, whatever a repository is like.
func TestDirect(t *testing.T) {
	s := vcstest.New(t)
	plain := map[string]string{"go.mod": "module daemon.test/plain.git\n", "plain.go": "package plain\n"}
	s.Repo("plain", plain, "v1.0.0", "v1.1.0-rc.1")
	mono := s.Repo("mono", map[string]string{
		"sub/go.mod": "module vanity.test/mono/sub\n", "sub/sub.go": "package sub\n",
		"v2.go": "package mono\n", "go.mod": "module vanity.test/mono/v2\n",
	}, "v2.3.4", "sub/v0.1.0")
	s.Import("vanity.test/mono", "git "+mono.URL())
	old := s.Repo("old", map[string]string{"old.go": "package old\n"}, "v3.0.0")
	s.Import("vanity.test/old", "git "+old.URL())
	hash := mono.Commit(map[string]string{"sub/sub.go": "package sub // two\n"})
	pseudo := module.PseudoVersion("v0", "v0.1.0", time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC), hash[:12])
	useGit(t, s)
	c := newClient(t, directConfig(t))
	for _, m := range []module.Version{
		{Path: "daemon.test/plain.git", Version: "v1.0.0"},
		{Path: "vanity.test/mono/v2", Version: "v2.3.4"},
		{Path: "vanity.test/mono/sub", Version: "v0.1.0"},
		{Path: "vanity.test/mono/sub", Version: pseudo},
		{Path: "vanity.test/old", Version: "v3.0.0+incompatible"},
	} {
		t.Run(m.Version, func(t *testing.T) {
			before := runs(c)
			info, err := c.Info(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if v := infoVersion(t, info); v != m.Version {
				t.Errorf("Info = %s", info)
			}
			mod, _, err := c.Mod(t.Context(), m, "")
			if err != nil || !strings.Contains(string(mod), "module "+m.Path) {
				t.Errorf("Mod = %q, %v", mod, err)
			}
			n, err := c.ZipSize(t.Context(), m)
			if err != nil {
				t.Error(err)
			}
			dst := newFile(t)
			h1, err := c.Zip(t.Context(), m, "", dst, fetch.Watch{})
			if err != nil || !strings.HasPrefix(h1, "h1:") {
				t.Fatalf("Zip = %s, %v", h1, err)
			}
			if fi, err := dst.Stat(); err != nil || fi.Size() != n {
				t.Errorf("ZipSize = %d, and the zip has %v, %v", n, fi.Size(), err)
			}
			if got := runs(c) - before; got != 1 {
				t.Errorf("the go command ran %d times, want once", got)
			}
			// Again, as after an eviction: the clone is still there, and the hash is the same.
			if again, err := c.Zip(t.Context(), m, h1, newFile(t), fetch.Watch{}); err != nil || again != h1 {
				t.Errorf("Zip again = %s, %v", again, err)
			}
		})
	}
}

// Lists and queries.
func TestDirectQueries(t *testing.T) {
	s := vcstest.New(t)
	r := s.Repo("q", map[string]string{"go.mod": "module daemon.test/q.git\n", "q.go": "package q\n"}, "v1.0.0", "v1.2.0")
	r.Commit(map[string]string{"go.mod": "module daemon.test/q.git\n\nretract v1.2.0\n"}, "v1.3.0")
	hash := r.Commit(map[string]string{"q.go": "package q // main\n"})
	r.Git("branch", "v1.9.0") // no tag
	s.Repo("none", map[string]string{"go.mod": "module daemon.test/none.git\n", "n.go": "package n\n"})
	useGit(t, s)
	c := newClient(t, directConfig(t))
	list, err := c.List(t.Context(), "daemon.test/q.git")
	if err != nil || string(list) != "v1.0.0\nv1.2.0\nv1.3.0\n" {
		t.Errorf("List = %q, %v", list, err)
	}
	if list, err := c.List(t.Context(), "daemon.test/none.git"); err != nil || len(list) != 0 {
		t.Errorf("List of a repository without tags = %q, %v", list, err)
	}
	latest, err := c.Latest(t.Context(), "daemon.test/q.git")
	if err != nil {
		t.Fatal(err)
	}
	if v := infoVersion(t, latest); v != "v1.3.0" {
		t.Errorf("Latest = %s", v)
	}
	latest, err = c.Latest(t.Context(), "daemon.test/none.git")
	if err != nil || !module.IsPseudoVersion(infoVersion(t, latest)) {
		t.Errorf("Latest without tags = %s, %v", latest, err)
	}
	want := module.PseudoVersion("v1", "v1.3.0", time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC), hash[:12])
	for _, q := range []string{"main", hash, hash[:8]} {
		info, err := c.Query(t.Context(), "daemon.test/q.git", q)
		if err != nil {
			t.Errorf("Query(%s): %v", q, err)
			continue
		}
		if v := infoVersion(t, info); v != want {
			t.Errorf("Query(%s) = %s, want %s", q, v, want)
		}
	}
	for _, q := range []string{"nobranch", "a/b", "fffffff", "latest", "patch"} {
		if info, err := c.Query(t.Context(), "daemon.test/q.git", q); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("Query(%s) = %s, %v", q, info, err)
		}
	}
	// A branch that is named like a version is not one.
	m := module.Version{Path: "daemon.test/q.git", Version: "v1.9.0"}
	if info, err := c.Info(t.Context(), m); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("Info of a branch = %s, %v", info, err)
	}
}

// What is wrong is told apart, and credentials are in no message.
func TestDirectErrors(t *testing.T) {
	s := vcstest.New(t)
	ok := s.Repo("ok", map[string]string{"go.mod": "module vanity.test/ok\n", "ok.go": "package ok\n"}, "v1.0.0")
	s.Import("vanity.test/ok", "git "+ok.URL())
	s.Import("vanity.test/gone", "git https://git.test/gone.git")
	s.Import("vanity.test/subversion", "svn https://git.test/svn")
	s.Repo("locked", map[string]string{"go.mod": "module vanity.test/locked\n"}, "v1.0.0")
	s.Private("locked")
	s.Import("vanity.test/locked", "git https://git.test/locked.git")
	s.Import("vanity.test/token", "git https://bot:hunter22@git.test/locked.git")
	s.Import("vanity.test/unexported", "git https://"+vcstest.DaemonHost+"/gone.git")
	s.Import("vanity.test/down", "git https://down.test/x.git")
	s.Import("vanity.test/ill", "git https://git.test/ill.git")
	s.Fail(func(r *http.Request) int {
		if strings.HasPrefix(r.URL.Path, "/ill") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	useGit(t, s)
	c := newClient(t, directConfig(t))
	for _, test := range []struct {
		m    module.Version
		want error // nil: none of the classes
		text string
	}{
		{module.Version{Path: "vanity.test/ok", Version: "v1.0.9"}, fetch.ErrNotFound, "unknown revision"},
		{module.Version{Path: "vanity.test/nowhere", Version: "v1.0.0"}, fetch.ErrNotFound, "404"},
		{module.Version{Path: "vanity.test/gone", Version: "v1.0.0"}, fetch.ErrNotFound, "not found"},
		{module.Version{Path: "vanity.test/unexported", Version: "v1.0.0"}, fetch.ErrNotFound, "not exported"},
		{module.Version{Path: "daemon.test/gone.git", Version: "v1.0.0"}, nil, ""}, // the go command asks each protocol, and says no more
		{module.Version{Path: "vanity.test/locked", Version: "v1.0.0"}, fetch.ErrForbidden, ""},
		{module.Version{Path: "vanity.test/token", Version: "v1.0.0"}, fetch.ErrForbidden, ""},
		{module.Version{Path: "vanity.test/subversion", Version: "v1.0.0"}, fetch.ErrForbidden, "GOVCS disallows"},
		{module.Version{Path: "vanity.test/down", Version: "v1.0.0"}, nil, "502"},
		{module.Version{Path: "down.test/x", Version: "v1.0.0"}, nil, ""},
		{module.Version{Path: "vanity.test/ill", Version: "v1.0.0"}, nil, "503"},
	} {
		t.Run(test.m.Path, func(t *testing.T) {
			for what, err := range map[string]error{
				"info": func() error { _, err := c.Info(t.Context(), test.m); return err }(),
				"list": func() error { _, err := c.List(t.Context(), test.m.Path); return err }(),
			} {
				if what == "list" && test.m.Path == "vanity.test/ok" {
					continue
				}
				if err == nil {
					t.Fatalf("%s: no error", what)
				}
				t.Log(err)
				for _, class := range []error{fetch.ErrNotFound, fetch.ErrForbidden, fetch.ErrUnreachable, fetch.ErrTimeout} {
					if errors.Is(err, class) != (class == test.want) {
						t.Errorf("%s: %v; is it %q? want %v", what, err, class, test.want)
					}
				}
				if !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter22") {
					t.Errorf("%s: %v; want one line with %q in it, and no password", what, err, test.text)
				}
			}
		})
	}
}

// Without a go command the error says what to do, and what proxies said still counts.
func TestDirectWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c := newClient(t, directConfig(t))
	_, err := c.Info(t.Context(), modA)
	if err == nil || errors.Is(err, fetch.ErrNotFound) || !strings.Contains(err.Error(), "install one") {
		t.Errorf("Info: %v", err)
	}
	cfg := directConfig(t)
	cfg.Proxy = "file://" + t.TempDir() + ",direct"
	if _, err := newClient(t, cfg).Info(t.Context(), modA); !errors.Is(err, fetch.ErrNotFound) || !strings.Contains(err.Error(), "install one") {
		t.Errorf("Info, after a proxy that has it not: %v", err)
	}
}

// A repository that hangs is given up, by its own deadline or when nobody waits, and no process is left behind.
func TestDirectHangs(t *testing.T) {
	s := vcstest.New(t)
	r := s.Repo("slow", map[string]string{"go.mod": "module vanity.test/slow\n", "s.go": "package slow\n"}, "v1.0.0")
	s.Import("vanity.test/slow", "git "+r.URL())
	useGit(t, s)
	m := module.Version{Path: "vanity.test/slow", Version: "v1.0.0"}
	for _, test := range []struct {
		name  string
		stall string // what never answers
		end   func(cfg *fetch.Config, cancel context.CancelFunc, c func() *fetch.Client)
		want  error
	}{
		{"deadline", "/info/refs", nil, fetch.ErrTimeout},
		{"deadline of a transfer", "/git-upload-pack", nil, fetch.ErrTimeout},
		{"deadline of a tag", "/slow", nil, fetch.ErrTimeout},
		{"canceled", "/info/refs", func(_ *fetch.Config, cancel context.CancelFunc, _ func() *fetch.Client) { cancel() }, context.Canceled},
		{"closed", "/info/refs", func(_ *fetch.Config, _ context.CancelFunc, c func() *fetch.Client) { c().Close() }, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.Stall(func(r *http.Request) bool { return strings.Contains(r.URL.Path, test.stall) })
			defer s.Stall(nil)
			cfg := directConfig(t)
			cfg.Timeout = time.Second
			if test.end != nil {
				cfg.Timeout = time.Minute
			}
			marker := "GOMODCACHE=" + cfg.Direct
			c := newClient(t, cfg)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan error, 1)
			go func() {
				_, err := c.Info(ctx, m)
				failed <- err
			}()
			if test.end != nil {
				for s.Waiting() == 0 {
					time.Sleep(time.Millisecond)
				}
				test.end(&cfg, cancel, func() *fetch.Client { return c })
			}
			err := <-failed
			if !errors.Is(err, test.want) {
				t.Errorf("Info: %v, want %v", err, test.want)
			}
			c.Close() // waits for what is under way
			// What was killed takes a moment to go.
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				left := processesWith(t, marker)
				if len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("left behind: %q", left)
				}
			}
			if _, err := os.Stat(cfg.Direct); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("directory after Close: %v", err)
			}
		})
	}
}

// processesWith returns the command lines of the processes whose environment contains text.
func processesWith(t *testing.T, text string) (found []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if env, err := os.ReadFile(name); err == nil && strings.Contains(string(env), text) { // it may have gone, or be another user's
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
			found = append(found, strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}
