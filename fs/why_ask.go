package fs

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"modfs/fetch"
)

// Ask is Why after having tried just now what a reader of the path would: it fetches what is not in the store. The context bounds
// the waiting; what is under way goes on.
func (f *FS) Ask(ctx context.Context, p string) *Why {
	w, pp := f.why(p)
	answer := f.foresee(w, pp)
	if !askable(w, answer) {
		w.Answer = answer
		w.Answer.advise()
		return w
	}
	err := f.ask(ctx, pp)
	if err != nil && ctx.Err() == nil && pp.Mod.Path != "" {
		a := f.failed(about(ActivityError, pp.Mod, "why"), err)
		a.Errno = unix.ErrnoName(errno(err))
		f.note(a)
	}
	w, pp = f.why(p) // with what was found out
	w.Asked = true
	if err != nil {
		w.Answer = f.answerOf(err)
	} else {
		w.Answer = there("it was read just now")
	}
	w.Answer.advise()
	return w
}

// askable reports whether trying could tell more than what is known already. What a mount does not show is not tried, but for what is
// not offered only because nobody with a go.sum that lists it has come: whether the daemon could get that is worth knowing.
func askable(w *Why, a Answer) bool {
	switch {
	case w.Route == nil && w.Kind != "sumdb", w.Kind == "versions", w.Overlay != nil:
		return false
	}
	switch a.Class {
	case "hidden", "removed", "name", "own", "no_such_file":
		return false
	}
	return true
}

// ask does what a reader of a path would have done.
func (f *FS) ask(ctx context.Context, pp Path) error {
	m := pp.Mod
	switch pp.Kind {
	case KindInfo:
		_, err := f.info(ctx, m)
		return err
	case KindMod:
		_, err := f.mod(ctx, m)
		return err
	case KindZipHash:
		_, err := f.hash(ctx, m)
		return err
	case KindList, KindLatest, KindQuery:
		_, err := f.answer(ctx, pp)
		return err
	case KindSumDB:
		name, rest := cutSumDB(pp.Rest)
		_, err := f.client.SumDB(ctx, name, rest)
		return err
	}
	if err := f.exists(ctx, m); err != nil {
		return err
	}
	md := f.modules.intern(m)
	return f.repairing(ctx, md, func() error {
		ix, err := f.load(ctx, md)
		if err != nil {
			return err
		}
		i, ok := ix.find(pp.Rest)
		if !ok {
			return fmt.Errorf("%s: %s: %w in its zip", m, pp.Rest, fetch.ErrNotFound)
		}
		if ix.isDir(i) {
			z, err := f.openZip(ctx, md)
			if err == nil {
				f.zips.put(z)
			}
			return err
		}
		_, release, err := f.openFile(ctx, md, i, 0, 1)
		if err != nil {
			return err
		}
		release()
		return nil
	})
}
