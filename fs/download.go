package fs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"modfs/fetch"
)

// lookupDownload looks up a file of cache/download.
func (f *FS) lookupDownload(ctx context.Context, p string, pp Path, caller uint32, out *fuse.EntryOut) fuse.Status {
	n := node{path: p, Path: pp}
	op, timeout := "info", f.nameTimeout()
	var err error
	if !f.resolvable(p, pp, caller) {
		return missing(out, 0)
	}
	switch pp.Kind {
	case KindInfo:
		var data []byte
		data, err = f.info(ctx, pp.Mod)
		n.size = int64(len(data))
	case KindMod:
		op = "mod"
		var data []byte
		data, err = f.mod(ctx, pp.Mod)
		n.size = int64(len(data))
	case KindZipHash:
		// Every h1 hash has the same length, so its size can be told without knowing it. A go command that lists modules
		// stats the .ziphash of each.
		err = f.offered(ctx, pp.Mod, caller)
		if err == nil && !f.show(f.modules.intern(pp.Mod)) {
			err = fmt.Errorf("%s: ziphash: a client is making it: %w", pp.Mod, errNotOffered)
		}
		n.size = ziphashSize
		if timeout = moduleTimeout; !f.opened(pp.Mod) {
			timeout = f.offerTimeout(timeout)
		}
	case KindZip:
		if err = f.offeredZip(ctx, pp.Mod, caller); err == nil {
			op, timeout = "zip", f.offerTimeout(moduleTimeout) // the size may be upstream's word only
			n.size, err = f.zipSize(ctx, f.modules.intern(pp.Mod))
		}
	case KindList, KindLatest, KindQuery:
		op, timeout = "list", answerTimeout
		switch pp.Kind {
		case KindLatest:
			op = "latest"
		case KindQuery:
			op = "revision"
		}
		var a answer
		a, err = f.answer(ctx, pp)
		n.data, n.born = a.data, a.at
		n.size = int64(len(n.data))
	default:
		err = fmt.Errorf("%s: %w", p, fetch.ErrNotFound)
	}
	if err != nil {
		return f.failLookup(op, pp, err, out)
	}
	f.entryOut(out, f.nodes.lookup(n), timeout)
	return fuse.OK
}

// zipSize returns the size of a module's zip: the index's, else the store's, else upstream's word; if it gives none, that of
// the zip, which is then fetched.
func (f *FS) zipSize(ctx context.Context, md *mod) (int64, error) {
	// The index has the size that was verified; the file may have changed since.
	if ix, ok := f.trees.get(md.slot); ok {
		return ix.zipSize, nil
	}
	if ix, err := f.storedIndex(md.Version); err == nil && ix != nil {
		return ix.zipSize, nil
	}
	if n, ok := f.knownZipSize(md); ok {
		return n, nil
	}
	n, err := f.announcedSize(ctx, md)
	if err != nil {
		return 0, err
	}
	if n <= 0 { // not announced, or no zip: nobody would read an empty file to find that out
		z, err := f.openZip(ctx, md)
		if err != nil {
			return 0, err
		}
		f.zips.put(z)
		return z.Size(), nil
	}
	md.mu.Lock()
	md.zipSize = n
	md.mu.Unlock()
	return n, nil
}

// announcedSize returns upstream's word for the size of a module's zip; -1 if it gives none.
func (f *FS) announcedSize(ctx context.Context, md *mod) (int64, error) {
	return once(f, ctx, "zipsize "+md.String(), func(ctx context.Context) (int64, error) {
		return f.client.ZipSize(ctx, md.Version)
	})
}

// maxAnswer bounds a list of versions, in bytes.
const maxAnswer = 64 << 20

// readDownload answers a read of a file whose content is not kept with its node.
func (f *FS) readDownload(cancel <-chan struct{}, n *node, caller uint32, off int64, buf []byte) (fuse.ReadResult, fuse.Status) {
	ctx, done := f.request(cancel, caller)
	defer done()
	defer f.waitedPath(caller, n.Path)()
	var data []byte
	var err error
	op := "info"
	switch n.Kind {
	case KindInfo:
		data, err = f.info(ctx, n.Mod)
	case KindMod:
		op = "mod"
		data, err = f.mod(ctx, n.Mod)
	case KindZipHash:
		op = "ziphash"
		var h1 string
		if h1, err = f.hash(ctx, n.Mod); err == nil {
			data = []byte(h1)
			f.hintIfMissing(caller, n.Mod) // now: it will not be missing when it is opened
			f.soon(n.Mod)
		}
	case KindZip:
		got, err := f.readArchive(ctx, f.modules.intern(n.Mod), n.size, off, buf)
		if err != nil {
			return nil, f.fail("zip", n.Mod, err)
		}
		f.stats.served.Add(int64(got))
		return fuse.ReadResultData(buf[:got]), fuse.OK
	default:
		err = fmt.Errorf("%s: %w", n.path, fetch.ErrNotFound)
	}
	if err == nil && int64(len(data)) != n.size {
		// The kernel would cut it or fill it up with zeros. The next lookup makes a new node with the right size.
		f.forgetName(n.path)
		err = fmt.Errorf("%s: %w: it was listed with %d bytes and has %d: look again", n.path, errDamaged, n.size, len(data))
	}
	if err != nil {
		return nil, f.fail(op, n.Mod, err)
	}
	return f.slice(data, off, len(buf)), fuse.OK
}

// lookupSumDB looks up a file of the checksum database: our verified tiles and lookups, as the go command asks a proxy for
// them (https://go.dev/ref/mod#checksum-database).
func (f *FS) lookupSumDB(ctx context.Context, p string, pp Path, out *fuse.EntryOut) fuse.Status {
	if !f.resolvable(p, pp, 0) {
		return missing(out, 0)
	}
	name, rest := cutSumDB(pp.Rest)
	data, err := once(f, ctx, "sumdb "+pp.Rest, func(ctx context.Context) ([]byte, error) {
		return f.client.SumDB(ctx, name, rest)
	})
	if err != nil {
		return f.failLookup("sumdb", pp, fmt.Errorf("checksum database %s: %s: %w", name, rest, err), out)
	}
	n := f.nodes.lookup(node{path: p, Path: pp, size: int64(len(data)), data: notNil(data), born: f.started})
	timeout := forever
	if rest == "latest" {
		timeout = answerTimeout
	}
	f.entryOut(out, n, timeout)
	return fuse.OK
}

// notNil returns data as a slice that is not nil: an empty file is a file too.
func notNil(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

// cutSumDB cuts a path below cache/download/sumdb behind the database's name, which may have slashes in it.
func cutSumDB(rest string) (name, file string) {
	for i := range rest {
		if rest[i] != '/' {
			continue
		}
		file = rest[i+1:]
		switch elem, _, _ := strings.Cut(file, "/"); elem {
		case "supported", "latest", "lookup", "tile":
			return rest[:i], file
		}
	}
	return rest, ""
}

// sumdbIsDir reports whether a path below cache/download/sumdb is a directory. Its files are NAME/supported,
// NAME/latest, NAME/lookup/M@V and NAME/tile/H/L/K[.p/W], where K is split into directories x123
// (https://research.swtch.com/tlog#tiling_a_log).
func sumdbIsDir(rest string) bool {
	_, file := cutSumDB(rest)
	if file == "" {
		return true // sumdb itself, or NAME or what leads to that
	}
	elems := strings.Split(file, "/")
	last := elems[len(elems)-1]
	switch elems[0] {
	case "lookup":
		return !strings.Contains(last, "@")
	case "tile":
		return len(elems) <= 3 || strings.HasPrefix(last, "x") || strings.HasSuffix(last, ".p")
	}
	return false
}

// answers remembers for a short time what upstream said about things that change.
type answers struct{ by *budget[string, answer] }

type answer struct {
	data []byte
	at   time.Time // since when it has been this one
}

// answersMemory bounds what is remembered, in bytes. A list of versions has a few hundred.
const answersMemory = 8 << 20

func newAnswers() *answers { return &answers{newBudget[string, answer](answersMemory)} }

// question is the one whose answer is the list or @latest at a path.
func question(pp Path) string {
	switch pp.Kind {
	case KindLatest:
		return latestKey(pp.Mod.Path)
	case KindQuery:
		return revisionKey(pp.Mod.Path, pp.Rest)
	}
	return listKey(pp.Mod.Path)
}

// get returns the answer to a question if it is remembered and not too old.
func (a *answers) get(question string) (answer, bool) {
	old, ok := a.by.get(question)
	return old, ok && time.Since(old.at) < answerTimeout
}

// keep remembers the answer that was just given to a question.
func (a *answers) keep(question string, data []byte) answer {
	n := answer{notNil(data), time.Now()}
	a.by.add(strings.Clone(question), n, int64(len(question)+cap(n.data)))
	return n
}
