package fetch

import (
	"regexp"
	"strings"
	"syscall"
)

// The go command has no exit codes for what went wrong, so its words must do, and those of git, which it repeats. All of them have
// spaces in them, so that no path or version can be taken for one. What cannot be told has no class: to take the failure of a
// network for "not found" would send clients elsewhere for a private module, or have them conclude that there is none. So
// those come first, and what is not known at all is no "not found" either.
var classTexts = []struct {
	class error
	texts []string
}{
	{syscall.ENOSPC, []string{"no space left on device"}},
	{ErrTimeout, []string{
		"i/o timeout", "tls handshake timeout", "connection timed out", "operation timed out", "operation too slow", "context deadline exceeded",
		"timeout awaiting response", "timed out after", "504 gateway timeout", "408 request timeout", "client.timeout exceeded",
	}},
	{ErrUnreachable, []string{
		"connection refused", "no such host", "could not resolve host", "temporary failure in name resolution", "name or service not known",
		"network is unreachable", "no route to host", "unable to look up", "failed to connect to", "couldn't connect to server",
		"unable to connect to", "server misbehaving", "nodename nor servname", "could not resolve proxy", "could not resolve hostname",
		"network is down", "host is down",
	}},
	{ErrNotFound, []string{
		"access denied or repository not exported", // git daemon, which tells no more
	}},
	{ErrForbidden, []string{
		"could not read username", "could not read password", "terminal prompts disabled", "authentication failed", "permission denied",
		"401 unauthorized", "403 forbidden", "returned error: 401", "returned error: 403", "access denied", "invalid credentials",
		"govcs disallows", "authentication required", "authorization failed",
	}},
	{nil, []string{ // something is wrong, and it is neither us nor the module
		"500 internal server error", "502 bad gateway", "503 service unavailable", "429 too many requests", "returned error: 5", "returned error: 429",
		"connection reset", "unexpected eof", "early eof", "remote end hung up", "unexpected disconnect", "broken pipe", "certificate",
		"executable file not found", "host key verification failed", "tls: ", "ssl ",
	}},
	{ErrNotFound, []string{
		"unknown revision", "unknown branch", "404 not found", "410 gone", "returned error: 404", "returned error: 410",
		"repository not found", "repository does not exist", "either does not exist", "couldn't find remote ref", "does not appear to be a git repository", "no matching versions for query", "no commits",
		"is not a tag", "go.mod at revision", "module path must match major version", "go.mod has ", "should be v0 or v1",
		"invalid pseudo-version", "does not match version-control timestamp", "does not match go.mod", "no go-import meta tag", "module declares its path as",
		"does not contain package", "no such tag", "not a tag", "unexpected module path", "invalid module path", "malformed module path",
		"/ import path", // invalid github.com/ import path: there are no repositories of that form there
		"is not using modules", "not a semantic version", "disallowed version string", "ambiguous revision", "server response: not found",
	}},
}

// gitNotFound is how git says that a repository is not there.
var gitNotFound = regexp.MustCompile(`repository '[^']*' not found`)

// classOfText returns the class of what the go command said, nil if it has none.
func classOfText(text string) error {
	text = strings.ToLower(text)
	for _, c := range classTexts {
		for _, t := range c.texts {
			if strings.Contains(text, t) {
				return c.class
			}
		}
	}
	if gitNotFound.MatchString(text) {
		return ErrNotFound
	}
	return nil
}
