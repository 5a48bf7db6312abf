package lru

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
)

// flight is a fill under way. It belongs to the store and not to those who wait for it, so it goes on when they leave.
type flight struct {
	key     string
	done    chan struct{} // closed when the rest is final
	waiters int           // guarded by Store.mu
	e       *entry
	sh      *shared
	err     error
}

// Fill returns the file of key, as Get does. If there is none, it runs fill, once however many ask for key, which writes the
// content and returns nil if it is right; the file then gets its name. Nobody ever sees anything else. The content is synced
// before, so that this holds after a power failure, too.
//
// ctx bounds only the caller's waiting. The context of fill is the store's life: a fill whose callers have all left goes on,
// and what it makes is kept. If fill returns an error or panics, everybody who waits gets that error, nothing is kept, and
// the next call tries again. A fill may itself use the store, and fill another key, but not its own.
//
// The error wraps ErrTooLarge or ErrNoSpace if there is no room, and is the cause of ctx if that ended first.
func (s *Store) Fill(ctx context.Context, key string, fill func(ctx context.Context, t *Temp) error) (*File, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for {
		f, err := s.Get(key)
		if err == nil || !errors.Is(err, iofs.ErrNotExist) {
			return f, err
		}
		if fl := s.board(key, fill, false); fl != nil {
			return s.land(ctx, fl)
		}
		// It has just come.
	}
}

// board joins the flight for key, or starts one; both under the lock under which flights land, so none is missed. It returns
// nil if the key is there by now, unless that is to be replaced, or the store is closed: Get then tells which.
func (s *Store) board(key string, fill func(ctx context.Context, t *Temp) error, replace bool) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.entries[key] != nil && !replace {
		return nil
	}
	fl := s.flights[key]
	if fl == nil {
		fl = &flight{key: key, done: make(chan struct{})}
		s.flights[key] = fl
		s.ops.Add(1)
		s.holders++
		go s.fly(key, fl, fill, replace)
	}
	fl.waiters++
	return fl
}

// land waits for the end of the flight on behalf of one of its waiters.
func (s *Store) land(ctx context.Context, fl *flight) (*File, error) {
	select {
	case <-fl.done:
	case <-ctx.Done():
		// One that has landed has counted us in sh.refs, so the descriptor must be taken. The lock keeps it from
		// landing while we look.
		s.mu.Lock()
		select {
		case <-fl.done: // after all, and a descriptor is counted for us
			s.mu.Unlock()
		default:
			fl.waiters--
			s.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
	if fl.err != nil {
		return nil, fl.err
	}
	return &File{s: s, key: fl.key, e: fl.e, sh: fl.sh}, nil
}

// fly runs a flight. Its end is one step: who looks later finds the file, and all who came before get this very descriptor,
// which stays good even if the file is evicted before they have noticed.
func (s *Store) fly(key string, fl *flight, fill func(ctx context.Context, t *Temp) error, replace bool) {
	defer s.ops.Done()
	t, err := s.fillTemp(key, fill, replace)
	s.mu.Lock()
	delete(s.flights, key)
	s.holders--
	s.moved()
	unused := false
	if err == nil {
		fl.e, fl.sh = t.e, &shared{f: t.f, refs: fl.waiters}
		unused = fl.waiters == 0
	}
	fl.err = err
	close(fl.done)
	s.mu.Unlock()
	if unused {
		s.closeFile(t.f, t.e) // best effort: it is synced
	}
	// Nobody has to wait for this: the content is on disk, and if the name is lost, so is only a file that can be filled
	// again.
	if err == nil {
		if err := s.syncDir(path.Dir(key)); err != nil {
			s.log.Warn("directory not synced", "key", key, "err", err)
		}
	}
}

// fillTemp makes the file of key, and returns it open. Its descriptor, with which it was written, is the one that is read
// from later: opening it by name could find another file by then.
//
// That it panics outside of fill means that the store is in disorder. Those who wait get an error all the same, and the file
// stays counted, under tmp/, until the next Open.
func (s *Store) fillTemp(key string, fill func(ctx context.Context, t *Temp) error, replace bool) (t *Temp, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked("fill of "+key, p)
			t, err = nil, fmt.Errorf("%s: panic: %v", key, p)
		}
	}()
	t, err = s.newTemp(s.ctx, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	err = s.call(key, t, fill)
	if err == nil && replace {
		if err := s.Quarantine(key); err != nil {
			s.log.Error("damaged file is replaced and not kept", "key", key, "err", err)
		}
	}
	if err == nil {
		if err = s.commit(t, key, true); err != nil {
			err = fmt.Errorf("%s: %w", key, err)
		}
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	s.fills.Add(1)
	return t, nil
}

// call runs the callback of a fill. That it panics or ends its goroutine is an error of its own.
func (s *Store) call(key string, t *Temp, fill func(ctx context.Context, t *Temp) error) error {
	result := make(chan error, 1)
	go func() { // one that it may end
		var err error
		returned := false
		defer func() {
			if !returned {
				p := recover()
				err = fmt.Errorf("%s: fill: panic: %v", key, p)
				s.panicked("fill of "+key, p)
			}
			result <- err
		}()
		err = fill(s.ctx, t)
		returned = true
	}()
	return <-result
}

// Refill is Fill for a file that is there and was found damaged. It stays what it is until fill has returned nil, and goes to the
// quarantine then.
func (s *Store) Refill(ctx context.Context, key string, fill func(ctx context.Context, t *Temp) error) (*File, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	fl := s.board(key, fill, true)
	if fl == nil {
		return nil, ErrClosed
	}
	return s.land(ctx, fl)
}
