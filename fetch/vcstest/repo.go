package vcstest

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Repo is a git repository with a work tree. Its methods fail the test on errors.
type Repo struct {
	s    *Server
	Name string
	work string
}

// Repo makes a repository with a first commit of files, by their slash names, and tags of it.
func (s *Server) Repo(name string, files map[string]string, tags ...string) *Repo {
	s.tb.Helper()
	r := &Repo{s: s, Name: name, work: filepath.Join(s.dir, "work", name)}
	r.run(s.dir, "init", "-q", "-b", "main", "--separate-git-dir="+filepath.Join(s.dir, "git", name+".git"), r.work)
	r.Commit(files, tags...)
	return r
}

// URL is where it is served over https.
func (r *Repo) URL() string { return "https://" + GitHost + "/" + r.Name + ".git" }

// Commit writes files, which are removed where the content is "-", commits, and moves tags there. It returns the hash.
func (r *Repo) Commit(files map[string]string, tags ...string) string {
	r.s.tb.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := filepath.Join(r.work, filepath.FromSlash(name))
		if files[name] == "-" {
			os.Remove(p)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			r.s.tb.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(files[name]), 0o666); err != nil {
			r.s.tb.Fatal(err)
		}
	}
	r.run(r.work, "add", "-A")
	r.run(r.work, "commit", "-q", "--allow-empty", "-m", "test")
	for _, tag := range tags {
		r.Git("tag", "-f", tag)
	}
	return r.Git("rev-parse", "HEAD")
}

// Git runs git in the work tree and returns what it printed.
func (r *Repo) Git(args ...string) string {
	r.s.tb.Helper()
	return r.run(r.work, args...)
}

func (r *Repo) run(dir string, args ...string) string {
	r.s.tb.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com",
		"GIT_AUTHOR_DATE=2021-02-03T04:05:06Z", "GIT_COMMITTER_DATE=2021-02-03T04:05:06Z")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.s.tb.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
