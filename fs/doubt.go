package fs

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/mod/module"

	"modfs/fetch"
)

// What came from a seed or a bundle while the checksum database could not be asked (--offline), and that nothing else vouches
// for, is in doubt: it is served offline, as the user said, and its pin says so:
//
//	example.com/a v1.0.0/unchecked h1:… 1a2b3c4d
//
// The first mount that may ask the database asks before it serves anything of it. If the database agrees, the pin becomes one
// like any other. If not, what the store has of the module is removed, and the database's hash becomes the pin.
const doubtSuffix = "/unchecked"

// Suffixes of a pin's version, and of that of a go.sum line: those of archives have none.
const modSuffix = "/go.mod"

func doubtKey(m module.Version) module.Version {
	m.Version += doubtSuffix
	return m
}

// doubt pins a hash that was not checked. m's version has the suffix of its file.
func (p *pins) doubt(m module.Version, h1 string) error {
	return p.add(doubtKey(m), h1, func(old string) bool { return old != "" })
}

// inDoubt returns the hash of a file that is only known by an unchecked pin; "" for all others.
func (p *pins) inDoubt(m module.Version) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doubts == 0 || p.h1[m] != "" {
		return ""
	}
	return p.h1[doubtKey(m)]
}

// decide ends the doubt about m: h1 is its hash.
func (p *pins) decide(m module.Version, h1 string) error {
	return p.add(m, h1, func(old string) bool { return old != "" })
}

// seeded is told what was taken from a seed.
func (f *FS) seeded(c fetch.Check) error {
	f.stats.seeded.Add(1)
	if f.opts.Fetch.Offline {
		a := about(ActivityVerified, c.Module, strings.TrimPrefix(c.File, "go."))
		a.H1, a.By = c.H1, c.Source
		f.note(a)
	}
	if f.onSeed != nil {
		f.onSeed(c)
	}
	if !c.Deferred {
		return nil
	}
	return f.pins.doubt(sumKey(c.Module, c.File), c.H1) // without it, the pin that is written next would say that it was checked
}

// confirm asks the checksum database about a file of m that is in doubt, if that is possible on this mount. What it refutes is
// gone when confirm returns. The error says that it could not be asked: then nothing may be served.
func (f *FS) confirm(ctx context.Context, m module.Version, suffix string) error {
	key := module.Version{Path: m.Path, Version: m.Version + suffix}
	if f.opts.Fetch.Offline || f.pins.inDoubt(key) == "" {
		return nil
	}
	return f.askAgain(ctx, m, suffix)
}

// askAgain is confirm for a file that is in doubt.
func (f *FS) askAgain(ctx context.Context, m module.Version, suffix string) error {
	key := module.Version{Path: m.Path, Version: m.Version + suffix}
	_, err := once(f, ctx, "confirm "+key.String(), func(ctx context.Context) (struct{}, error) {
		var none struct{}
		h1 := f.pins.inDoubt(key)
		if h1 == "" {
			return none, nil // another flight has landed
		}
		ask := f.client.ZipHash
		if suffix != "" {
			ask = f.client.ModHash
		}
		sum, err := ask(ctx, m)
		if errors.Is(err, fetch.ErrNoSum) {
			sum, err = h1, nil // the settings have changed, and nobody has a say
		}
		if err != nil {
			return none, err
		}
		if sum != h1 {
			f.log.Error("what was taken on trust is not what the checksum database says; removed", "module", m.Path, "version", m.Version,
				"file", strings.TrimPrefix(suffix, "/"), "got", h1, "want", sum)
			f.stats.refuted.Add(1)
			if err := f.purge(m, suffix); err != nil {
				return none, err
			}
		}
		return none, f.pins.decide(key, sum)
	})
	return err
}

// purge removes what the store has of m's archive, or of its go.mod file. Nobody has seen any of it on this mount.
func (f *FS) purge(m module.Version, suffix string) error {
	if suffix != "" {
		return f.store.Remove(modKey(m))
	}
	md := f.modules.intern(m)
	f.zips.drop(md.zipKey)
	for _, key := range append(f.spooled(m), zipKey(m), indexKey(m)) {
		if err := f.store.Remove(key); err != nil {
			return err
		}
	}
	f.touch(inMod(zipKey(m)), inMod(moduleDir(m)))
	return nil
}
