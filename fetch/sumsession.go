package fetch

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

// maxLookups is how many lookups share a session, which remembers some 20 KiB of each that succeeds: records, and tiles of 8 KiB. Of
// none it remembers more than some files of maxRecord.
const maxLookups = 1000

// session is a sumdb.Client, and the world for it.
type session struct {
	d        *database
	client   *sumdb.Client
	distrust bool // do not read stored files

	lookups atomic.Int64 // that were answered

	mu       sync.Mutex
	failures []error           // of ReadRemote: what Lookup returns has only their texts
	security string            // what SecurityError was told
	pending  map[string][]byte // what is to be stored once a lookup has succeeded
	missing  map[string]bool   // records, as M@V, that were not found, which the client remembers
	dropped  bool              // a lookup has failed
}

// forget notes that a record was not found.
func (s *session) forget(record string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing == nil {
		s.missing = make(map[string]bool)
	}
	s.missing[record] = true
}

// forgot reports whether a record was not found, which the client would say again without asking.
func (s *session) forgot(record string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing[record]
}

// explain returns the error of a failed Lookup with its class, and whether a stored file may be to blame.
func (s *session) explain(err error) (_ error, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// First of all: whatever else went wrong, a database that lies must be seen to.
	if s.security != "" {
		return fmt.Errorf("%w: %s", ErrSumDB, s.security), false
	}
	// Lookup wraps with %v, so a cause is found by its text. That has the URL in it, so it is no other one's.
	for _, failure := range s.failures {
		if strings.Contains(err.Error(), failure.Error()) {
			return failure, false
		}
	}
	return fmt.Errorf("%w: %s", ErrSumDB, proof(err.Error())), !s.distrust
}

// proof makes what there is to say of a database that misbehaves fit for one line.
func proof(s string) string { return printable(s[:min(len(s), maxProof)]) }

// ReadRemote implements sumdb.ClientOps.
func (s *session) ReadRemote(file string) (data []byte, err error) {
	defer func() {
		if err != nil {
			if e, ok := errors.AsType[*statusError](err); ok {
				e.header = nil // nobody asks for it any more, and it may be large
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.failures = append(s.failures, err)
		}
	}()
	defer s.d.c.recovered("checksum database: read "+file, &err) // sumdb.Client has goroutines of its own
	limit := s.d.c.cfg.MetaTimeout
	ctx, cancel := context.WithTimeoutCause(s.d.c.ctx, limit, lateError(limit))
	defer cancel()
	data, err = s.d.read(ctx, strings.TrimPrefix(file, "/"), maxRecord)
	if err == nil {
		return data, nil
	}
	// A missing tile does not mean that the module does not exist, and no file of a database is that large, or a page.
	if errors.Is(err, ErrNotFound) && !strings.HasPrefix(file, "/lookup/") || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrBadAnswer) {
		err = fmt.Errorf("%w: %v", ErrSumDB, err)
	}
	return nil, err
}

// ReadConfig implements sumdb.ClientOps: "key" and "NAME/latest".
func (s *session) ReadConfig(file string) ([]byte, error) {
	d := s.d
	if file == "key" {
		return []byte(d.key), nil
	}
	d.headMu.Lock()
	defer d.headMu.Unlock()
	if d.latest == nil {
		d.latest = d.stored(file)
	}
	return d.latest, nil
}

// stored returns the tree head in the store, not nil. One that is not signed by the database was damaged; it would be in
// the way of every lookup.
func (d *database) stored(file string) []byte {
	data, err := d.c.cfg.Tiles.ReadFile(file)
	if err != nil {
		if !errors.Is(err, iofs.ErrNotExist) {
			d.c.log.Warn("stored file of the checksum database not read", "file", file, "err", err)
		}
		return []byte{}
	}
	if _, err := note.Open(data, d.verifiers); err != nil && len(data) > 0 {
		d.c.log.Error("stored tree head of the checksum database is damaged", "file", file, "err", err)
		return []byte{}
	}
	return data
}

// WriteConfig implements sumdb.ClientOps.
func (s *session) WriteConfig(file string, old, new []byte) error {
	d := s.d
	d.headMu.Lock()
	defer d.headMu.Unlock()
	// A session that was replaced may still be at work: it reads again, and merges.
	if string(d.latest) != string(old) {
		return sumdb.ErrWriteConflict
	}
	d.latest = new
	d.store(file, new)
	return nil
}

// store keeps a file. If it cannot, that is asked for again some day.
func (d *database) store(file string, data []byte) (stored bool) {
	err := d.c.cfg.Tiles.WriteFile(file, data)
	if err != nil {
		d.c.log.Warn("file of the checksum database not stored", "file", file, "err", err)
	}
	return err == nil
}

// ReadCache implements sumdb.ClientOps.
func (s *session) ReadCache(file string) (data []byte, err error) {
	defer s.d.c.recovered("checksum database: stored "+file, &err)
	if s.distrust {
		return nil, iofs.ErrNotExist
	}
	data, err = s.d.c.cfg.Tiles.ReadFile(file)
	if err == nil && (len(data) == 0 || len(data) > maxRecord) {
		err = iofs.ErrNotExist // it is damaged
	}
	return data, err
}

// WriteCache implements sumdb.ClientOps. A tile comes here once it fits the tree head that it was asked for with, and that may
// be the head of a fork, which is found out only afterwards. So nothing is stored before a lookup has succeeded, and nothing
// of a session in which one has failed.
func (s *session) WriteCache(file string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped {
		return
	}
	if s.pending == nil {
		s.pending = make(map[string][]byte)
	}
	s.pending[file] = data
}

// keep stores what a lookup that succeeded has verified.
func (s *session) keep() {
	s.mu.Lock()
	files := s.pending
	s.pending = nil
	s.mu.Unlock()
	for file, data := range files {
		if !s.d.store(file, data) {
			return // where there is no room for one, the lookup need not wait for the others
		}
	}
}

// Log implements sumdb.ClientOps.
func (s *session) Log(msg string) { s.d.c.log.Debug("checksum database", "msg", msg) }

// SecurityError implements sumdb.ClientOps.
func (s *session) SecurityError(msg string) {
	msg = proof(msg)
	s.mu.Lock()
	s.security = msg
	s.mu.Unlock()
	s.d.c.log.Error("checksum database misbehaves", "database", s.d.name, "msg", msg)
}

// memoryTiles is a TileStore for clients without one.
type memoryTiles struct{ files sync.Map }

func (t *memoryTiles) ReadFile(name string) ([]byte, error) {
	if data, ok := t.files.Load(name); ok {
		return data.([]byte), nil
	}
	return nil, iofs.ErrNotExist
}

func (t *memoryTiles) WriteFile(name string, data []byte) error {
	t.files.Store(name, data)
	return nil
}
