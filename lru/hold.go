package lru

import (
	"context"
	"sync"
)

// Hold is room in a store for what others write below its directory, in one of Config.Exclude: bytes that count towards the limit and
// the partition, and for which files are evicted. Its methods may be called concurrently.
type Hold struct {
	s *Store

	mu      sync.Mutex // before Store.mu
	charged int64
	pending int64 // of charged: what the partition has not given
}

// NewHold returns a hold of no bytes.
func (s *Store) NewHold() *Hold { return &Hold{s: s} }

// Resize makes it a hold of want bytes, of which have are on disk already. More room is made as for a file; the error is
// ErrTooLarge, ErrNoSpace, ErrClosed or that of ctx, and nothing has changed then. Less never fails.
func (h *Hold) Resize(ctx context.Context, want, have int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.s
	if more := want - h.charged; more > 0 {
		if err := s.tooLarge(want); err != nil {
			return err
		}
		s.hold()
		defer s.leave()
		if err := s.reserve(ctx, more, terms{own: h.charged}); err != nil {
			return err
		}
		h.charged, h.pending = want, h.pending+more
	}
	// What is on disk the partition has given, be it more than was asked for.
	pending := max(0, want-have)
	s.release(h.charged-want, h.pending-pending)
	h.charged, h.pending = want, pending
	return nil
}
