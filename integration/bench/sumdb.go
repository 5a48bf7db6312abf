package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
)

const (
	// dbName is the name of the checksum database. Below .example there is none that it could be taken for.
	dbName = "sum.example"
	// dbPadding is how many records of other modules there are for each one of ours. A tile of the database has the hashes
	// of 256 records. So each of ours is in a tile of its own and takes a request more than the lookup, as in the real
	// database, where millions of others are between them.
	dbPadding = 256
)

// A sumDB is a checksum database (https://go.dev/ref/mod#checksum-database), signed with a key made for it.
type sumDB struct {
	handler http.Handler // for what is below sumdb/NAME
	key     string       // its verifier key, NAME+HASH+KEY
}

// newSumDB returns a database that has each module in tree, a cache/download tree, and before each one so many others.
func newSumDB(tree string, padding int) (*sumDB, error) {
	signer, verifier, err := note.GenerateKey(rand.Reader, dbName)
	if err != nil {
		return nil, fmt.Errorf("checksum database: %w", err)
	}
	bases := make(map[module.Version]string)
	full := false
	ops := sumdb.NewTestServer(signer, func(modPath, version string) ([]byte, error) {
		m := module.Version{Path: modPath, Version: version}
		base, ok := bases[m]
		switch {
		case ok:
			return record(m, base)
		case full: // a module that is not ours; this error is answered with 404
			return nil, fs.ErrNotExist
		}
		return fmt.Appendf(nil, "%s %s h1:none\n", modPath, version), nil
	})
	// All records are there before the first question, so that the tree does not grow from one round to the next.
	ctx := context.Background() // it is all in memory
	n := 0
	err = eachModule(tree, func(m module.Version, base string) error {
		bases[m] = base
		for range padding {
			n++
			if _, err := ops.Lookup(ctx, module.Version{Path: "other.example", Version: fmt.Sprintf("v1.0.%d", n)}); err != nil {
				return err
			}
		}
		_, err := ops.Lookup(ctx, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("checksum database: %w", err)
	}
	full = true
	return &sumDB{sumdb.NewServer(ops), verifier}, nil
}

// record returns the go.sum lines of a module whose files in the tree begin with base.
func record(m module.Version, base string) ([]byte, error) {
	mod, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(base + ".mod") })
	if err != nil {
		return nil, err
	}
	lines := fmt.Appendf(nil, "%s %s/go.mod %s\n", m.Path, m.Version, mod)
	// The go command has written down what it has verified, which spares hashing it all.
	hash, err := os.ReadFile(base + ".ziphash")
	if errors.Is(err, fs.ErrNotExist) {
		return lines, nil // only its go.mod file is ever needed
	}
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(lines, "%s %s %s\n", m.Path, m.Version, strings.TrimSpace(string(hash))), nil
}
