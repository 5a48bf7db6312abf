package fetch

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// serveSumDB answers what go commands ask a proxy about the checksum database.
func (c *Client) serveSumDB(ctx context.Context, name, rest string) ([]byte, error) {
	d := c.db
	if d == nil || name != d.name {
		return nil, fmt.Errorf("%w: it is not the one in GOSUMDB", ErrNotFound)
	}
	// Only what a database serves (sumdb.ServerPaths), so that no other path is asked for there.
	kind, arg, _ := strings.Cut(rest, "/")
	switch {
	case rest == "supported":
		return nil, nil
	case rest == "latest":
		return d.serveLatest(ctx)
	case kind == "lookup":
		return d.serveLookup(ctx, arg)
	case kind == "tile":
		return d.serveTile(ctx, rest)
	}
	return nil, fmt.Errorf("%w: no such file", ErrNotFound)
}

// serveLatest returns the newest tree head that we have verified, or the database's own.
func (d *database) serveLatest(ctx context.Context) ([]byte, error) {
	if data, _ := d.current("").ReadConfig(d.name + "/latest"); len(data) > 0 {
		return data, nil
	}
	data, err := d.read(ctx, "latest", maxRecord)
	if err != nil {
		return nil, err
	}
	if _, err := note.Open(data, d.verifiers); err != nil {
		return nil, fmt.Errorf("%w: latest: %v", ErrSumDB, err)
	}
	return data, nil
}

// serveLookup returns a record, after it was verified. arg is an escaped M@V.
func (d *database) serveLookup(ctx context.Context, arg string) ([]byte, error) {
	m, err := parseLookup(arg)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	// Who asks us may have other settings than we have. The name is ours to keep secret all the same.
	if m.Path != toolchain && (module.MatchPrefixPatterns(d.c.noSum, m.Path) || module.MatchPrefixPatterns(d.c.noProxy, m.Path)) {
		return nil, fmt.Errorf("%w: private: it matches GONOPROXY, GONOSUMDB or GOPRIVATE", ErrNotFound)
	}
	// The lookup also stores the record and the tiles that prove it, which are asked for next.
	if _, err := d.lookup(ctx, m, m.Version); err != nil {
		return nil, err
	}
	if data, err := d.c.cfg.Tiles.ReadFile(d.name + "/lookup/" + arg); err == nil {
		return data, nil
	}
	return d.read(ctx, "lookup/"+arg, maxRecord) // it was not possible to store it
}

// parseLookup parses an escaped M@V. What it accepts is a valid name of a file, too.
func parseLookup(arg string) (m module.Version, err error) {
	escPath, escVersion, ok := strings.Cut(arg, "@")
	if !ok {
		return m, fmt.Errorf("%q is not M@V", arg)
	}
	if m.Path, err = module.UnescapePath(escPath); err != nil {
		return m, err
	}
	if m.Version, err = module.UnescapeVersion(escVersion); err != nil {
		return m, err
	}
	return m, checkModule(m)
}

// serveTile returns a tile. All tiles that we have are verified.
func (d *database) serveTile(ctx context.Context, rest string) ([]byte, error) {
	tile, err := tlog.ParseTilePath(rest)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	// The records in a tile of data have no fixed length, so it cannot be cut.
	if tile.L >= 0 && tile.H == 8 { // others are not what our own client reads
		if data := d.storedTile(tile); data != nil {
			return data, nil
		}
	}
	return d.read(ctx, rest, maxSum)
}
