package fetch

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// maxNetrc bounds a .netrc file, in bytes.
const maxNetrc = 1 << 20

// readNetrc returns the credentials in the user's .netrc file by machine. There need not be one.
func readNetrc() (map[string]http.Header, error) {
	name := os.Getenv("NETRC")
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		name = filepath.Join(home, ".netrc")
	}
	// Looked at first, because to open a fifo would wait for somebody to write to it.
	fi, err := os.Stat(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxNetrc+1))
	if err == nil && len(data) > maxNetrc {
		err = fmt.Errorf("%s: %w: more than %d bytes", name, ErrTooLarge, maxNetrc)
	}
	if err != nil {
		return nil, err
	}
	return parseNetrc(string(data)), nil
}

// parseNetrc parses a .netrc file with the go command's understanding of it (cmd/go/internal/auth/netrc.go), which is narrower
// than that of others: a token and its value are on one line, the first entry of a machine counts, and "default" is for nobody.
func parseNetrc(data string) map[string]http.Header {
	found := make(map[string]http.Header)
	var machine, login, password string
	macro := false // up to the next empty line
	for line := range strings.SplitSeq(data, "\n") {
		if macro {
			macro = line != ""
			continue
		}
		words := strings.Fields(line)
		for ; len(words) >= 2; words = words[2:] {
			switch value := words[1]; words[0] {
			case "machine":
				machine, login, password = value, "", ""
			case "login":
				login = value
			case "password":
				password = value
			case "macdef":
				macro = true
			}
			if machine == "" || login == "" || password == "" {
				continue
			}
			if key := prefixKey(machine); found[key] == nil {
				found[key] = basicAuth(login, password)
			}
			machine, login, password = "", "", ""
		}
	}
	return found
}

// basicAuth returns the header of Basic authentication (RFC 7617).
func basicAuth(user, password string) http.Header {
	r := http.Request{Header: make(http.Header)}
	r.SetBasicAuth(user, password)
	return r.Header
}
