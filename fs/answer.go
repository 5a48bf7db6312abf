package fs

import (
	"bytes"
	"context"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"modfs/fetch"
)

// answer asks upstream for what may change with time: which versions there are, which one is the latest, and which one a
// revision stands for. Where upstream cannot be reached, the last answer will do: a build that worked yesterday works today.
//
// What was asked a short time ago is not asked again.
func (f *FS) answer(ctx context.Context, pp Path) (answer, error) {
	key := question(pp)
	if a, ok := f.answers.get(key); ok {
		return a, nil
	}
	return once(f, ctx, key, func(ctx context.Context) (answer, error) {
		var data []byte
		var err error = fetch.ErrOffline // what upstream said last is better than what a seed has, which is only part of it
		if !f.opts.Fetch.Offline {
			data, err = f.askUpstream(ctx, pp)
		}
		if err == nil {
			f.keepAnswer(pp, key, data)
		} else if errno(err) != syscall.ENOENT {
			old, oldErr := f.stored(key, maxAnswer, func(data []byte) error { return f.pins.checkAnswer(pp.Mod.Path, path.Base(key), data) })
			if oldErr == nil && old != nil {
				f.log.Warn("upstream not asked; using its last answer", "module", pp.Mod.Path, "key", key, "err", err)
				data, err = old, nil
			} else if f.opts.Fetch.Offline {
				data, err = f.askUpstream(ctx, pp)
			}
		}
		err = f.notReplaced(key, err)
		if pp.Kind == KindList {
			data, err = f.mergeList(pp.Mod.Path, data, err)
		}
		if err != nil {
			return answer{}, err
		}
		return f.answers.keep(key, data), nil // here, as who asked may be gone
	})
}

// keepAnswer stores what upstream said.
func (f *FS) keepAnswer(pp Path, key string, data []byte) {
	if err := f.pins.pinAnswer(pp.Mod.Path, path.Base(key), hashInfo(data)); err != nil {
		f.log.Warn("not stored", "key", key, "err", err)
		return
	}
	f.put(key, data)
}

func (f *FS) askUpstream(ctx context.Context, pp Path) ([]byte, error) {
	switch pp.Kind {
	case KindLatest:
		return f.client.Latest(ctx, pp.Mod.Path)
	case KindQuery:
		return f.client.Query(ctx, pp.Mod.Path, pp.Rest)
	}
	return f.client.List(ctx, pp.Mod.Path)
}

// mergeList adds to upstream's list the versions that the store has. What was served once is served for ever, so a version that
// was taken away upstream is still there, and is listed. Pseudo-versions are in no list.
func (f *FS) mergeList(modPath string, list []byte, err error) ([]byte, error) {
	listed := make(map[string]bool)
	for line := range bytes.Lines(list) {
		if words := bytes.Fields(line); len(words) > 0 {
			listed[string(words[0])] = true
		}
	}
	var more []string
	dir := versionsDir(modPath)
	for _, name := range f.readStore(dir) {
		pp := ParsePath(dir + "/" + name)
		if v := pp.Mod.Version; pp.Kind == KindMod && !module.IsPseudoVersion(v) && !listed[v] {
			more = append(more, v)
		}
	}
	if len(more) == 0 {
		return list, err
	}
	slices.SortFunc(more, semver.Compare)
	merged := slices.Clone(list)
	if len(merged) > 0 && !bytes.HasSuffix(merged, []byte{'\n'}) {
		merged = append(merged, '\n')
	}
	return append(merged, strings.Join(more, "\n")+"\n"...), nil
}
