package fetch

import (
	"errors"
	"syscall"
	"testing"
)

// What the go command and git say, as they say it.
func TestClassOfText(t *testing.T) {
	for _, test := range []struct {
		want error
		text string
	}{
		// A network that fails must not look like a module that is not there.
		{ErrUnreachable, `unrecognized import path "x.example/a": https fetch: Get "https://x.example/a?go-get=1": dial tcp: lookup x.example on 127.0.0.53:53: no such host`},
		{ErrUnreachable, `unrecognized import path "x.example/a": https fetch: Get "https://x.example/a?go-get=1": dial tcp 127.0.0.1:443: connect: connection refused`},
		{ErrTimeout, `unrecognized import path "x.example/a": https fetch: Get "https://x.example/a?go-get=1": dial tcp 192.0.2.1:443: i/o timeout`},
		{nil, `unrecognized import path "x.example/a": https fetch: Get "https://x.example/a?go-get=1": EOF`},
		{nil, `unrecognized import path "x.example/a": https fetch: Get "https://x.example/a?go-get=1": tls: failed to verify certificate: x509: certificate signed by unknown authority`},
		{nil, `unrecognized import path "x.example/a": reading https://x.example/a?go-get=1: 503 Service Unavailable`},
		{ErrUnreachable, `git ls-remote -q origin in /x: exit status 128: fatal: unable to access 'https://x.example/': Could not resolve host: x.example`},
		{ErrUnreachable, `git ls-remote -q origin: exit status 128: fatal: unable to access 'https://x.example/': Failed to connect to x.example port 443 after 3 ms: Couldn't connect to server`},
		{ErrTimeout, `git fetch: exit status 128: error: RPC failed; curl 28 Operation too slow. Less than 1 bytes/sec transferred the last 30 seconds fatal: expected flush after ref listing`},
		{ErrUnreachable, `git ls-remote: exit status 128: ssh: Could not resolve hostname x.example: Name or service not known fatal: Could not read from remote repository. Please make sure you have the correct access rights and the repository exists.`},
		{ErrTimeout, `git ls-remote: exit status 128: ssh: connect to host x.example port 22: Connection timed out fatal: Could not read from remote repository. Please make sure you have the correct access rights and the repository exists.`},
		{nil, `git fetch: exit status 128: fatal: the remote end hung up unexpectedly`},
		{nil, `git fetch: exit status 128: error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502`},
		{nil, `no secure protocol found for repository`},
		{nil, `git ls-remote: exit status 128: Host key verification failed. fatal: Could not read from remote repository.`},
		{nil, `exec: "git": executable file not found in $PATH`},
		{nil, `something that nobody has ever said`},
		{syscall.ENOSPC, `git fetch: exit status 128: fatal: write error: No space left on device`},

		{ErrForbidden, `git ls-remote: exit status 128: git@x.example: Permission denied (publickey). fatal: Could not read from remote repository. Please make sure you have the correct access rights and the repository exists.`},
		{ErrForbidden, `git ls-remote: exit status 128: fatal: could not read Username for 'https://x.example': terminal prompts disabled`},
		{ErrForbidden, `git ls-remote: exit status 128: remote: HTTP Basic: Access denied fatal: Authentication failed for 'https://x.example/a.git/'`},
		{ErrForbidden, `unrecognized import path "x.example/a": reading https://x.example/a?go-get=1: 401 Unauthorized`},
		{ErrForbidden, `unrecognized import path "x.example/a": GOVCS disallows using svn for public x.example/a; see 'go help vcs'`},

		{ErrNotFound, `unrecognized import path "x.example/a": reading https://x.example/a?go-get=1: 404 Not Found`},
		{ErrNotFound, `unrecognized import path "x.example/a": parse https://x.example/a?go-get=1: no go-import meta tags ()`},
		{ErrNotFound, `invalid github.com/ import path "github.com/a"`},
		{ErrNotFound, `git ls-remote: exit status 128: remote: Repository not found. fatal: repository 'https://x.example/a/' not found`},
		{ErrNotFound, `git ls-remote: exit status 128: fatal: repository 'https://x.example/a/' not found`},
		{ErrNotFound, `git ls-remote: exit status 128: fatal: remote error: access denied or repository not exported: /a.git`},
		{ErrNotFound, `unknown revision v1.0.0`},
		{ErrNotFound, `resolves to version v0.0.0-20210203040506-913eace47724 (v1.9.0 is not a tag)`},
		{ErrNotFound, `module contains a go.mod file, so module path must match major version ("x.example/a/v2")`},
		{ErrNotFound, `missing x.example/a/go.mod at revision v1.0.0`},
		{ErrNotFound, `go.mod has post-v1 module path "x.example/a/v2" at revision 913eace47724`},
	} {
		if got := classOfText(test.text); !errors.Is(got, test.want) || (got == nil) != (test.want == nil) {
			t.Errorf("%s:\n\t%v, want %v", test.text, got, test.want)
		}
	}
}

func TestRedactDirect(t *testing.T) {
	for text, want := range map[string]string{
		"fetch https://bot:hunter2@x.example/a: no":   "fetch https://xxxxx@x.example/a: no",
		"fetch https://token@x.example/a: no":         "fetch https://xxxxx@x.example/a: no",
		"unknown revision in https://x.example/a@v1":  "unknown revision in https://x.example/a@v1",
		"'ssh://git@x.example/a' https://x.example/@": "'ssh://xxxxx@x.example/a' https://x.example/@",
	} {
		if got := redactText(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
