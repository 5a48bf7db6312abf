package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"strings"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
)

// Who resolves. On a mount that clients cannot write to, the daemon answers every question about modules. Where they can
// (Options.ResolveClient), the go command has settings and credentials of its own and finds out for itself what versions
// there are; it stores what it learned, V.info, V.mod and list, through the mount. Then the lazy tree
//
//   - shows the .info and .mod files that the store has, and fetches none;
//   - has no list, @latest or checksum database;
//   - offers M@V, with V.zip and V.ziphash, once V.mod is there and the daemon's own upstream has the same one: a .mod that
//     the go command got elsewhere says nothing about what the daemon could fetch;
//   - offers M@V before that to a go command that is about to build with a go.sum that has it and whose settings are the
//     daemon's: with a complete go.mod it needs no V.mod, and would download the zip instead of asking for one;
//   - offers toolchains whenever upstream has them: the go command gets those without a V.mod.
//
// In both cases nothing is offered that a client is unpacking by itself (V.partial is there) or has removed.

// errNotOffered is the answer for what the daemon may have but does not show.
var errNotOffered = fmt.Errorf("not offered on this mount: %w", fetch.ErrNotFound)

// offered returns nil if the lazy tree shows m's directory, archive and hash.
func (f *FS) offered(ctx context.Context, m module.Version, caller uint32) error {
	if f.overlay == nil {
		return f.exists(ctx, m)
	}
	if f.overlay.has(partialPath(m)) {
		return fmt.Errorf("%s: being unpacked by a client: %w", m, errNotOffered)
	}
	if !f.opts.ResolveClient {
		return f.exists(ctx, m)
	}
	if f.removals.has(inMod(moduleDir(m))) {
		return fmt.Errorf("%s: removed by a client: %w", m, errNotOffered)
	}
	if m.Path == toolchainPath {
		return f.exists(ctx, m)
	}
	stored, err := f.clientMod(m)
	if errors.Is(err, iofs.ErrNotExist) {
		if _, err := f.store.Stat(modKey(m)); err != nil || f.removals.has(inMod(modKey(m))) {
			if !f.wanted(m, caller) {
				return fmt.Errorf("%s: no go command has asked for it: %w", m, errNotOffered)
			}
		}
	} else if err != nil {
		return err
	}
	upstream, err := f.mod(ctx, m)
	if err != nil {
		return err
	}
	if stored != nil && !bytes.Equal(stored, upstream) {
		return fmt.Errorf("%s: the go.mod that a client stored is not that of the proxy: %w", m, errNotOffered)
	}
	return nil
}

// partialPath is the marker of a module that the go command is unpacking.
func partialPath(m module.Version) string {
	return inMod(strings.TrimSuffix(modKey(m), "mod") + "partial")
}

// clientMod returns the V.mod that a client stored.
func (f *FS) clientMod(m module.Version) ([]byte, error) {
	file, err := f.overlay.root.Open(inMod(modKey(m)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, modzip.MaxGoMod)
}

// promise finds out, in the background, whether upstream has a version whose V.mod a client has just stored: the client is
// likely to look for M@V next.
func (f *FS) promise(m module.Version) {
	if !f.opts.ResolveClient {
		return
	}
	f.background(func() {
		if _, err := f.mod(f.ctx, m); err != nil {
			f.log.Debug("not offered", "module", m.Path, "version", m.Version, "err", err)
		}
	})
}

// lazily reports whether the lazy tree shows something at p, as far as that is known. It asks nobody.
func (f *FS) lazily(p string, pp Path) bool {
	switch pp.Kind {
	case KindNone, KindOwn, KindFile:
		return false
	case KindPkg, KindControl:
		return true
	}
	if f.removals.has(p) && (f.opts.ResolveClient || !pp.Kind.isDir()) {
		return false
	}
	switch pp.Kind {
	case KindModule, KindZip, KindZipHash:
		if f.overlay.has(partialPath(pp.Mod)) || f.removals.has(inMod(moduleDir(pp.Mod))) {
			return false
		}
		return f.known(pp.Mod)
	case KindInfo, KindMod:
		_, err := f.store.Stat(storeKey(p))
		return err == nil
	case KindList, KindLatest:
		return false
	}
	return pp.Kind.isDir() && !(pp.Kind == KindSumDB && !sumdbIsDir(pp.Rest))
}

// resolvable reports whether a file of cache/download may be fetched because a client looked it up.
func (f *FS) resolvable(p string, pp Path) bool {
	if f.overlay == nil || !f.opts.ResolveClient {
		return true
	}
	switch pp.Kind {
	case KindInfo, KindMod:
		return f.lazily(p, pp)
	case KindList, KindLatest, KindSumDB:
		return false
	}
	return true
}

// readAtMost reads all of r, which may not be longer than max bytes.
func readAtMost(r io.Reader, max int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(data)) > max {
		err = os.ErrInvalid
	}
	return data, err
}
