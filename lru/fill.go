package lru

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"runtime/debug"
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
// content and returns nil if it is right; the file then gets its name. Nobody ever sees anything else. Content and name
// outlive a power failure.
//
// ctx bounds only the caller's waiting. The context of fill is the store's life: a fill whose callers have all left goes on,
// and what it makes is kept. If fill returns an error or panics, everybody who waits gets that error, nothing is kept, and
// the next call tries again.
func (s *Store) Fill(ctx context.Context, key string, fill func(ctx context.Context, t *Temp) error) (*File, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for {
		f, err := s.Get(key)
		if err == nil || !errors.Is(err, iofs.ErrNotExist) {
			return f, err
		}
		if fl := s.board(key, fill); fl != nil {
			return s.land(ctx, fl)
		}
		// It has just come.
	}
}

// board joins the flight for key, or starts one. It returns nil if key is there, which Get then finds, or an answer to
// Get is that the store is closed.
func (s *Store) board(key string, fill func(ctx context.Context, t *Temp) error) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.entries[key] != nil {
		return nil
	}
	fl := s.flights[key]
	if fl == nil {
		fl = &flight{key: key, done: make(chan struct{})}
		s.flights[key] = fl
		s.ops.Add(1)
		s.holders++
		go s.fly(key, fl, fill)
	}
	fl.waiters++
	return fl
}

// land waits for the end of the flight on behalf of one of its waiters.
func (s *Store) land(ctx context.Context, fl *flight) (*File, error) {
	select {
	case <-fl.done:
	case <-ctx.Done():
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

// fly runs a flight.
func (s *Store) fly(key string, fl *flight, fill func(ctx context.Context, t *Temp) error) {
	defer s.ops.Done()
	defer s.leave()
	t, err := s.fillTemp(key, fill)
	s.mu.Lock()
	delete(s.flights, key)
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
}

// fillTemp makes the file of key, and returns it open.
func (s *Store) fillTemp(key string, fill func(ctx context.Context, t *Temp) error) (*Temp, error) {
	t, err := s.newTemp(s.ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	err = s.call(key, t, fill)
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
func (s *Store) call(key string, t *Temp, fill func(ctx context.Context, t *Temp) error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover()
		err = fmt.Errorf("%s: fill: panic: %v", key, p)
		s.log.Error("panic", "in", "fill", "key", key, "err", p, "stack", string(debug.Stack()))
	}()
	err = fill(s.ctx, t)
	returned = true
	return err
}
