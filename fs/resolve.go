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
	"time"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
)

// Who resolves. On a mount that clients cannot write to, the daemon answers every question about modules. Where they can
// (Options.ResolveClient), the go command has settings and credentials of its own and finds out for itself what versions
// there are; it stores what it learned, V.info, V.mod and list, through the mount. Then the lazy tree
//
//   - shows the .info and .mod files that the store has; it fetches those that the go.sum of a go command lists whose settings
//     are the daemon's;
//   - has no list, @latest or checksum database;
//   - offers M@V, with V.ziphash, once V.mod is there and the daemon's own upstream has the same one: a .mod that
//     the go command got elsewhere says nothing about what the daemon could fetch;
//   - offers M@V before that to a go command that is about to build with a go.sum that has it and whose settings are the
//     daemon's: with a complete go.mod it needs no V.mod, and would download the zip instead of asking for one;
//   - offers V.zip once M@V has been opened; before that, to a go command that has V.lock open. It is about to download the
//     archive, and looks once more for what another may have downloaded meanwhile. An archive without V.ziphash it hashes
//     and checks by itself, which it has to do for its go.sum: there is neither M@V nor V.ziphash until it has stored that.
//     If its settings are the daemon's it gets the archive even where nothing else is known of M@V, or a client removed
//     that; it then finds M@V, too, and need not unpack it;
//   - offers only what was opened to a go command that merely tells what is there, or whose archive a client has stored: the hash
//     of that may be ours, if it was offered while the client downloaded the archive;
//   - offers nothing to a go command with -modcacherw: in what it unpacks, files can be made, and directories removed without
//     ceremony;
//   - offers toolchains whenever upstream has them: the go command gets those without a V.mod.
//
// In both cases nothing is offered that a client is unpacking by itself (V.partial is there) or has removed.

// errNotOffered is the answer for what the daemon may have but does not show, and errNotAsked the one that a go command can
// change by asking.
var (
	errNotOffered = fmt.Errorf("not offered on this mount: %w", fetch.ErrNotFound)
	errNotAsked   = fmt.Errorf("no go command has asked for it: %w", errNotOffered)
)

// offeredDir is offered for M@V: not while a client is unpacking that. Its archive and hash stay there meanwhile, for others that
// have seen them.
func (f *FS) offeredDir(ctx context.Context, m module.Version, caller uint32) error {
	err := f.offered(ctx, m, caller)
	if err == nil && f.overlay != nil && f.overlay.has(partialPath(m)) { // last: it may come while we ask
		return fmt.Errorf("%s: being unpacked by a client: %w", m, errNotOffered)
	}
	return err
}

// offered returns nil if the lazy tree shows m's archive and hash and, but for offeredDir, its directory.
func (f *FS) offered(ctx context.Context, m module.Version, caller uint32) error {
	if f.overlay == nil || !f.opts.ResolveClient {
		return f.exists(ctx, m)
	}
	md := f.modules.find(m) // which may be none: what does not exist is not worth remembering
	if md.isRefused() {
		return fmt.Errorf("%s: its archive cannot be had: %w", m, errNotOffered)
	}
	if f.hashed(md) {
		return fmt.Errorf("%s: a client is checking it: %w", m, errNotOffered)
	}
	if f.removals.has(inMod(moduleDir(m))) {
		return fmt.Errorf("%s: removed by a client: %w", m, errNotAsked)
	}
	if m.Path == toolchainPath {
		return f.exists(ctx, m)
	}
	if !f.opened(m) && !f.overlay.has(inMod(zipKey(m))) && f.callerOf(caller).looks() {
		return fmt.Errorf("%s: nobody has opened it: %w", m, errNotOffered)
	}
	if f.callerOf(caller).writable {
		return fmt.Errorf("%s: a client wants it writable: %w", m, errNotOffered)
	}
	stored, err := f.clientMod(m)
	if errors.Is(err, iofs.ErrNotExist) {
		if f.offeredBefore(m) {
			return nil
		}
		if c := f.callerOf(caller); !c.same || !c.sums().has(m) {
			return fmt.Errorf("%s: %w", m, errNotAsked)
		}
	} else if err != nil {
		return err
	}
	upstream, err := f.mod(ctx, m)
	switch {
	case err != nil:
		return err
	case stored != nil && !bytes.Equal(stored, upstream):
		return fmt.Errorf("%s: the go.mod that a client stored is not that of the proxy: %w", m, errNotOffered)
	}
	return nil
}

// offeredBefore reports whether the store has what it got when m was offered, and no client removed that.
func (f *FS) offeredBefore(m module.Version) bool {
	if _, err := f.store.Stat(indexKey(m)); err == nil {
		return true
	}
	_, err := f.store.Stat(modKey(m))
	return err == nil && !f.removals.has(inMod(modKey(m)))
}

// opened reports whether somebody opened a module that is offered: what was stored of it then tells.
func (f *FS) opened(m module.Version) bool {
	for _, key := range [...]string{zipKey(m), indexKey(m)} {
		if _, err := f.store.Stat(key); err == nil {
			return true
		}
	}
	return false
}

// offeredZip is offered for V.zip.
func (f *FS) offeredZip(ctx context.Context, m module.Version, caller uint32) error {
	if f.overlay == nil || !f.opts.ResolveClient {
		return f.offered(ctx, m, caller)
	}
	lock := "/" + storeKey(ownPath(m, "lock"))
	if f.hashed(f.modules.find(m)) && f.opened(m) && process(caller).hasOpen(lock) {
		return nil
	}
	err := f.offered(ctx, m, caller)
	if err == nil && f.opened(m) {
		if !f.show(f.modules.intern(m)) {
			return fmt.Errorf("%s: zip: a client is checking it: %w", m, errNotOffered)
		}
		return nil
	}
	if err != nil && !errors.Is(err, errNotAsked) {
		return err
	}
	if !process(caller).hasOpen(lock) || err != nil && !f.callerOf(caller).same {
		return fmt.Errorf("%s: zip: %w", m, errNotAsked)
	}
	md := f.modules.intern(m)
	if !md.beginHash() {
		return fmt.Errorf("%s: zip: %w", m, errNotAsked)
	}
	// It is going to read it all. What is wrong with it, it had better find out for itself.
	z, err := f.openZip(ctx, md)
	if err != nil {
		md.refuse()
		md.endHash()
		return err
	}
	f.zips.put(z)
	f.offer(m)
	return nil
}

// refuse notes that a module cannot be offered, although it seemed so. The client gets all of it by itself, so that for a
// while nothing of it may be ours.
func (md *mod) refuse() {
	md.mu.Lock()
	defer md.mu.Unlock()
	md.refused = time.Now()
}

// isRefused is false for nil, of which nobody knows anything. So is hashed.
func (md *mod) isRefused() bool {
	if md == nil {
		return false
	}
	md.mu.Lock()
	defer md.mu.Unlock()
	return time.Since(md.refused) < refusedTimeout
}

const refusedTimeout = time.Minute

// hashGrace is for how long V.ziphash stays there after a client was told that it is, or V.zip or M@V that somebody had opened:
// having seen any of them, the go command takes it for an error if it cannot be read.
const hashGrace = 10 * time.Second

// beginHash notes that a client is about to hash the archive. It returns false if that cannot be.
func (md *mod) beginHash() bool {
	md.mu.Lock()
	defer md.mu.Unlock()
	md.hashing = time.Since(md.hashShown) > hashGrace
	return md.hashing
}

func (md *mod) endHash() {
	md.mu.Lock()
	defer md.mu.Unlock()
	md.hashing = false
}

// show notes that a client is told of a module, its archive or the hash of that. It returns false if a client is making the hash.
func (f *FS) show(md *mod) bool {
	if f.overlay == nil || !f.opts.ResolveClient {
		return true
	}
	md.mu.Lock()
	defer md.mu.Unlock()
	if md.hashing {
		return false
	}
	md.hashShown = time.Now()
	return true
}

// hashed reports whether a client is hashing the archive of a module: until it has stored V.ziphash.
func (f *FS) hashed(md *mod) bool {
	if md == nil {
		return false
	}
	md.mu.Lock()
	defer md.mu.Unlock()
	if md.hashing && f.hasHash(inMod(zipHashKey(md.Version))) {
		md.hashing = false
	}
	return md.hashing
}

// hasHash reports whether the overlay has a V.ziphash at p, and not only its beginning.
func (f *FS) hasHash(p string) bool {
	file, err := f.overlay.root.Open(p)
	if err != nil {
		return false
	}
	defer file.Close()
	data, err := readAtMost(file, ziphashSize)
	return err == nil && validH1(string(data))
}

// offer ends the removal of a module by clients.
func (f *FS) offer(m module.Version) {
	dir := inMod(moduleDir(m))
	f.back(dir)
	f.removals.remove(inMod(zipKey(m)))
	f.removals.remove(inMod(zipHashKey(m)))
	f.touch(dir)
}

// partialPath is the marker of a module that the go command is unpacking.
func partialPath(m module.Version) string { return ownPath(m, "partial") }

// ownPath is where the go command has a file of its own beside V.mod.
func ownPath(m module.Version, ext string) string {
	return inMod(strings.TrimSuffix(modKey(m), "mod") + ext)
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
func (f *FS) lazily(p string, pp Path) bool { return f.shows(p, pp) && f.leads(p, pp) }

// shows is lazily for what the store is known to have, or to have something below.
func (f *FS) shows(p string, pp Path) bool {
	switch pp.Kind {
	case KindNone, KindOwn, KindFile:
		return false
	case KindPkg, KindControl:
		return true
	}
	if f.removals.has(p) {
		return false
	}
	switch pp.Kind {
	case KindModule:
		return f.showsModule(pp.Mod) && !f.overlay.has(partialPath(pp.Mod))
	case KindZipHash:
		return f.showsModule(pp.Mod)
	case KindZip:
		return f.showsModule(pp.Mod) && (!f.opts.ResolveClient || f.opened(pp.Mod))
	case KindSumDB:
		if sumdbIsDir(pp.Rest) {
			return true
		}
		_, err := f.store.Stat("sumdb/" + pp.Rest)
		return err == nil && !f.opts.ResolveClient
	case KindInfo, KindMod:
		_, err := f.store.Stat(storeKey(p))
		return err == nil
	case KindList, KindLatest, KindQuery:
		_, err := f.store.Stat(storeKey(p))
		return err == nil && !f.opts.ResolveClient
	}
	return pp.Kind.isDir()
}

// leads reports whether the lazy tree shows a directory. Where clients resolve, one above modules is there only if it leads
// to some: it would be in the way of what a client wants to make there.
func (f *FS) leads(p string, pp Path) bool {
	esc, ok := f.escPath(p, pp)
	if !ok || below(toolchainPath, esc) {
		return true
	}
	for _, dir := range [...]string{"index/" + esc, downloadDir + "/" + esc} {
		if len(f.readStore(dir)) > 0 {
			return true
		}
	}
	// The daemon may be about to find out that it has what is in there.
	return pp.Kind == KindPrefix && f.overlay.has(inMod(downloadDir+"/"+esc))
}

// wantedBelow reports whether a directory above modules leads to one that the caller is about to build with.
func (f *FS) wantedBelow(p string, pp Path, caller uint32) bool {
	esc, ok := f.escPath(p, pp)
	if !ok {
		return false
	}
	dir, ok := unescape(esc)
	if !ok {
		return false
	}
	c := f.callerOf(caller)
	return c.same && c.sums().below(dir, pp.Kind != KindPrefix)
}

// escPath returns the escaped module path, or the prefix of one, that a directory above modules is for. It returns false
// for all other directories, and on mounts where all that could be there is.
func (f *FS) escPath(p string, pp Path) (string, bool) {
	if f.overlay == nil || !f.opts.ResolveClient {
		return "", false
	}
	switch p = storeKey(p); pp.Kind {
	case KindPrefix:
		return p, true
	case KindEscPath:
		return strings.TrimPrefix(p, downloadDir+"/"), true
	case KindVersions:
		return strings.TrimSuffix(strings.TrimPrefix(p, downloadDir+"/"), "/@v"), true
	}
	return "", false
}

// showsModule is offered, as far as the answer is known.
func (f *FS) showsModule(m module.Version) bool {
	if f.removals.has(inMod(moduleDir(m))) {
		return false
	}
	if !f.opts.ResolveClient || m.Path == toolchainPath {
		return f.known(m)
	}
	if md := f.modules.find(m); md.isRefused() || f.hashed(md) {
		return false
	}
	stored, err := f.clientMod(m)
	if err != nil {
		return f.offeredBefore(m)
	}
	upstream, err := f.store.ReadFile(modKey(m), modzip.MaxGoMod)
	return err == nil && bytes.Equal(stored, upstream)
}

// resolvable reports whether a file of cache/download may be fetched because a client looked it up.
func (f *FS) resolvable(p string, pp Path, caller uint32) bool {
	if f.overlay == nil || !f.opts.ResolveClient {
		return true
	}
	switch pp.Kind {
	case KindInfo, KindMod:
		return f.lazily(p, pp) || f.summed(p, pp, caller)
	case KindList, KindLatest, KindQuery, KindSumDB:
		return false
	}
	return true
}

// summed reports whether the caller is a go command with the daemon's settings whose go.sum has the module that a .mod or
// .info file is of. It is about to get the file from our upstream, so it may as well have it from us.
func (f *FS) summed(p string, pp Path, caller uint32) bool {
	c := f.callerOf(caller)
	if !c.same || !c.sums().hasMod(pp.Mod) || f.removals.has(p) {
		return false
	}
	f.hint(caller, c.builds())
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
