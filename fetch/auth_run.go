package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Limits of the programs that are asked for credentials. Config.IdleTimeout is their time.
const (
	maxAuthRuns   = 4       // at once
	maxAuthOutput = 1 << 20 // bytes
	maxAuthStderr = 4 << 10 // bytes that are kept of it
)

// run runs a program that knows credentials, in dir, and returns what it printed. An error says what that printed to its standard
// error, and nothing of the rest.
func (a *auth) run(ctx context.Context, dir, stdin string, words ...string) ([]byte, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	limit := a.c.cfg.IdleTimeout
	ctx, end := context.WithTimeoutCause(ctx, limit, lateError(limit))
	defer end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	env := environment(os.Environ())
	quiet(env)
	cmd.Dir, cmd.Env = dir, variableList(env)
	flood := func() { cancel(fmt.Errorf("%w: more than %d bytes of output", ErrTooLarge, maxAuthOutput)) }
	stdout, stderr := &limited{max: maxAuthOutput, more: flood}, &limited{max: maxAuthStderr}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), stdout, stderr
	err := runAlone(cmd)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		if e, ok := errors.AsType[*exec.Error](err); ok {
			err = e.Err // it is said who was run
		}
		if said := excerpt(redactText(stderr.buf.String())); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return nil, err
	}
	return stdout.buf.Bytes(), nil
}

// askProgram runs a program for what it knows or, with a URL, for that.
func (a *auth) askProgram(ctx context.Context, m *authMethod, url string, refusal *statusError) (map[string]http.Header, error) {
	words, stdin := slices.Clone(m.words), ""
	if url != "" {
		words, stdin = append(words, url), refusal.head()
	}
	out, err := a.run(ctx, "", stdin, words...)
	if err != nil {
		return nil, err
	}
	return parseCredentials(string(out))
}

// head is the answer without its body, as programs get it.
func (e *statusError) head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", e.proto, e.fullStatus)
	for name, values := range e.header {
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(values, ", "))
	}
	b.WriteByte('\n')
	return b.String()
}

// parseCredentials parses what a program printed: URLs, an empty line, header fields for them, an empty line, and so on. Errors quote
// nothing of it.
func parseCredentials(data string) (map[string]http.Header, error) {
	found := make(map[string]http.Header)
	n := 0
	next := func() (line string, err error) {
		line, rest, ok := strings.Cut(data, "\n")
		n, data = n+1, rest
		if !ok {
			return "", fmt.Errorf("%w: line %d of the output: the empty line at its end is missing", ErrBadAnswer, n)
		}
		return line, nil
	}
	for data != "" {
		var keys []string
		for {
			line, err := next()
			if err != nil {
				return nil, err
			}
			if line == "" {
				break
			}
			u, err := url.ParseRequestURI(line)
			if err != nil {
				return nil, fmt.Errorf("%w: line %d of the output is not a URL", ErrBadAnswer, n)
			}
			if u.Scheme == "https" { // others would never be used
				keys = append(keys, prefixKey(u.String()))
			}
		}
		header, size := make(http.Header), 0
		for {
			line, err := next()
			if err != nil {
				return nil, err
			}
			if line == "" {
				break
			}
			name, value, ok := strings.Cut(line, ": ")
			value = strings.TrimSpace(value)
			if size += len(line); size > maxAuthHeader {
				return nil, fmt.Errorf("%w: line %d of the output: more than %d bytes for one credential", ErrTooLarge, n, maxAuthHeader)
			}
			if !ok || !validField(name, value) {
				return nil, fmt.Errorf("%w: line %d of the output is not a header field", ErrBadAnswer, n)
			}
			header.Add(name, value)
		}
		for _, key := range keys {
			found[key] = header
		}
	}
	return found, nil
}

// validField reports whether name and value can be a header field (RFC 9110, 5.5 and 5.6.2).
func validField(name, value string) bool {
	token := func(r rune) bool {
		return r > ' ' && r < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	return name != "" && strings.IndexFunc(name, func(r rune) bool { return !token(r) }) < 0 && strings.IndexFunc(value, control) < 0
}

// gitCredential is what git's helpers have said, for them to know it again.
type gitCredential struct{ dir, text string }

// askGit has git's credential helpers find a credential for a URL.
func (a *auth) askGit(ctx context.Context, m *authMethod, target string) (map[string]*credential, error) {
	if fi, err := os.Stat(m.dir); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("%s is not a directory that can be used", m.dir)
	}
	out, err := a.run(ctx, m.dir, "url="+target+"\n", "git", "credential", "fill")
	if err != nil {
		return nil, err
	}
	prefix, user, password := parseGitCredential(string(out))
	// The go command compares texts. That credentials for one host go to another whose name goes on is prevented by lookup.
	if prefix.Scheme != "https" || prefix.Host == "" || !strings.HasPrefix(target, prefix.String()) {
		return nil, fmt.Errorf("%w: git credential fill answered for something else", ErrBadAnswer)
	}
	if user == "" && password == "" {
		return nil, fmt.Errorf("%w: git credential fill answered without a user and a password", ErrBadAnswer)
	}
	return map[string]*credential{
		prefixKey(prefix.String()): {header: basicAuth(user, password), git: &gitCredential{m.dir, string(out)}},
	}, nil
}

// parseGitCredential parses git's description of a credential (git-credential(1)).
func parseGitCredential(data string) (prefix *url.URL, user, password string) {
	prefix = new(url.URL)
	for line := range strings.SplitSeq(data, "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "protocol":
			prefix.Scheme = value
		case "host":
			prefix.Host = value
		case "path":
			prefix.Path = value
		case "username":
			user = value
		case "password":
			password = value
		case "url":
			if u, err := url.ParseRequestURI(value); err == nil {
				prefix = u
			}
		}
	}
	prefix.User = nil
	return prefix, user, password
}

// tellGit has git's credential helpers keep ("approve") or forget ("reject") a credential. They need not do anything.
func (a *auth) tellGit(ctx context.Context, what string, cred *credential) {
	start := time.Now()
	_, err := a.run(ctx, cred.git.dir, cred.git.text, "git", "credential", what)
	a.c.log.Debug("credential helpers told", "what", what, "err", a.c.redact(err), "dur", time.Since(start))
}
