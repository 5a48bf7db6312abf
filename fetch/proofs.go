package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
)

// lookupsAtOnce is how many records are looked up at a time.
const lookupsAtOnce = 8

// Proofs returns the files of the checksum database that prove, to who has nothing but its key, what it says of ms: their
// records, the tiles that show that those are in the tree, and one signed head of that tree, by their names in a TileStore. The
// client asks for what it does not have. With all of them in Seed.Sum, a client that is offline can check ms.
//
// Modules that the database does not cover are left out. failed has the reason for each of which there is no proof.
func (c *Client) Proofs(ctx context.Context, ms []module.Version) (files map[string][]byte, failed map[module.Version]error, err error) {
	if c.db == nil {
		return nil, nil, nil
	}
	ctx, done, err := c.begin(ctx, c.cfg.Timeout)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	// Once to get the records, and the newest head that comes with one of them.
	have := &layer{base: c.cfg.Tiles}
	ms, failed, err = c.prove(ctx, have, ms)
	if err != nil || len(ms) == 0 {
		return nil, failed, err
	}
	head, err := have.ReadFile(c.db.name + "/latest")
	if err != nil {
		return nil, failed, fmt.Errorf("checksum database %s: no tree head: %w", c.db.name, err)
	}
	// Then with that head for all of them, to see what it takes.
	needed := &layer{base: have, head: head, name: c.db.name}
	ms, bad, err := c.prove(ctx, needed, ms)
	if err != nil {
		return nil, failed, err
	}
	maps.Copy(failed, bad) // offline: what there is of the tree need not reach up to that head
	if len(ms) == 0 {
		return nil, failed, nil
	}
	files = maps.Clone(needed.files)
	files[c.db.name+"/latest"] = head
	// And with nothing else, which is what the other side will do.
	sum := func(name string) ([]byte, error) {
		if data, ok := files[name]; ok {
			return data, nil
		}
		return nil, iofs.ErrNotExist
	}
	check, err := New(Config{SumDB: c.cfg.SumDB, NoSumDB: c.noSum, Offline: true, Log: c.log,
		Seeds: []*Seed{{Name: "proofs", Sum: sum}}})
	if err != nil {
		return nil, failed, err
	}
	defer check.Close()
	for _, m := range ms {
		if _, err := check.sum(ctx, m, ""); err != nil {
			return nil, failed, fmt.Errorf("%s: its proof is not complete: %w", m, err)
		}
	}
	return files, failed, nil
}

// prove looks ms up by way of a client with those tiles, and returns those that are proven.
func (c *Client) prove(ctx context.Context, tiles TileStore, ms []module.Version) (proven []module.Version, failed map[module.Version]error, err error) {
	cfg := c.cfg
	cfg.Tiles, cfg.NoSumDB, cfg.Direct, cfg.DirectRoom = tiles, c.noSum, "", nil
	if c.idle != nil {
		cfg.Transport = c.http.Transport // the same connections
	}
	cl, err := New(cfg)
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	errs := make([]error, len(ms))
	var g errgroup.Group
	g.SetLimit(lookupsAtOnce)
	for i, m := range ms {
		g.Go(func() error {
			_, errs[i] = cl.sum(ctx, m, "")
			return nil
		})
	}
	g.Wait()
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	failed = make(map[module.Version]error)
	for i, m := range ms {
		switch {
		case errs[i] == nil:
			proven = append(proven, m)
		case !errors.Is(errs[i], ErrNoSum):
			failed[m] = errs[i]
		}
	}
	return proven, failed, nil
}

// layer is a TileStore on top of another one, which it does not write to. It keeps all that was read through it. With a head,
// all records come with that one, so that no proof is needed that those they came with belong to one tree.
type layer struct {
	base TileStore
	head []byte
	name string // of the database

	mu    sync.Mutex
	files map[string][]byte
}

// ReadFile implements TileStore.
func (l *layer) ReadFile(name string) ([]byte, error) {
	if l.head != nil && name == l.name+"/latest" {
		return l.head, nil
	}
	l.mu.Lock()
	data, ok := l.files[name]
	l.mu.Unlock()
	if ok {
		return data, nil
	}
	data, err := l.base.ReadFile(name)
	if err != nil || len(data) == 0 {
		return data, err
	}
	if l.head != nil && strings.HasPrefix(name, l.name+"/lookup/") {
		if data, err = withHead(data, l.head); err != nil {
			return nil, err
		}
	}
	return data, l.WriteFile(name, data)
}

// WriteFile implements TileStore.
func (l *layer) WriteFile(name string, data []byte) error {
	if l.head != nil && name == l.name+"/latest" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files == nil {
		l.files = make(map[string][]byte)
	}
	l.files[name] = bytes.Clone(data)
	return nil
}

// withHead returns a record with another tree head, signed for a tree that has it, too.
func withHead(record, head []byte) ([]byte, error) {
	id, text, _, err := tlog.ParseRecord(record)
	if err != nil {
		return nil, err
	}
	msg, err := tlog.FormatRecord(id, text)
	if err != nil {
		return nil, err
	}
	return append(msg, head...), nil
}
