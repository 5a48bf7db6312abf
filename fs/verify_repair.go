package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/module"
)

// readPins reads the pins, and reports lines that are damaged.
func (v *verifier) readPins() error {
	bad, err := v.loadPins()
	if err != nil {
		v.found(module.Version{}, pinsFile, err.Error(), "")
		return nil
	}
	if bad == 0 {
		return nil
	}
	f := Finding{File: pinsFile, Problem: fmt.Sprintf("%d of its lines are damaged", bad), Bad: true}
	if v.o.Repair {
		f.Action = "the damaged lines were removed"
		if err := v.f.pins.rewrite(); err != nil {
			f.Action = fmt.Sprintf("not repaired: %v", err)
		} else {
			f.Bad = false
		}
	}
	v.report(f)
	return nil
}

// loadPins reads the pins, unless they are as they were last time. It returns how many lines are damaged.
func (v *verifier) loadPins() (bad int, err error) {
	file, err := openStored(filepath.Join(v.o.Dir, pinsFile))
	if isNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pins != nil && fi.Size() == v.pinned {
		return 0, nil
	}
	data, err := readAtMost(file, maxPins)
	if err != nil {
		return 0, err
	}
	v.pinned = fi.Size()
	v.pins, bad, _ = parsePins(string(data))
	return bad, nil
}

// maxPins bounds the file of pins, in bytes: that of a million modules has some 300 MB.
const maxPins = 1 << 30

// pin returns the pinned hash of m, "" if there is none. A daemon that uses the store may have pinned it only now.
func (v *verifier) pin(m module.Version) string {
	for again := v.f == nil; ; again = false {
		v.mu.Lock()
		h1 := v.pins[m]
		if h1 == "" {
			h1 = v.pins[doubtKey(m)]
		}
		v.mu.Unlock()
		if h1 != "" || !again {
			return h1
		}
		v.loadPins() // best effort: without, there is none
	}
}

// repair does what can be done about a damaged file. It reports whether the damage is out of the store.
func (v *verifier) repair(ctx context.Context, m module.Version, f *found) (action string, repaired bool) {
	if v.f == nil {
		return "", false
	}
	again := v.again(m, f.kind)
	if again != nil && !v.o.Fetch.Offline {
		err := again(ctx)
		if err == nil {
			return "fetched again", true
		}
		action = fmt.Sprintf("; not fetched again: %v", err)
	}
	if f.kind == KindNone {
		return "left alone", false
	}
	if err := v.f.store.Quarantine(f.key); err != nil {
		return fmt.Sprintf("not repaired: %v", err), false
	}
	// What is not known to the store is not a file, or was put there behind its back.
	name := filepath.Join(v.o.Dir, filepath.FromSlash(f.key))
	if _, err := os.Lstat(name); err == nil {
		if err := os.Remove(name); err != nil {
			return fmt.Sprintf("not repaired: %v", err), false
		}
		return "removed" + action, true
	}
	return "quarantined" + action, true
}

// again returns what fetches or makes a file anew, nil if that is done when it is needed.
func (v *verifier) again(m module.Version, kind Kind) func(context.Context) error {
	switch kind {
	case KindZip:
		md := v.f.modules.intern(m)
		return func(ctx context.Context) error {
			file, err := v.f.fill(ctx, md, v.f.store.Refill)
			if err != nil {
				return err
			}
			v.mu.Lock()
			delete(v.broken, md.zipKey)
			v.mu.Unlock()
			return file.Close()
		}
	case KindMod:
		return func(ctx context.Context) error {
			if err := v.f.store.Quarantine(modKey(m)); err != nil {
				return err
			}
			_, err := v.f.mod(ctx, m)
			return err
		}
	case KindInfo:
		return func(ctx context.Context) error {
			if err := v.f.store.Quarantine(infoKey(m)); err != nil {
				return err
			}
			_, err := v.f.info(ctx, m)
			return err
		}
	}
	return nil
}
