package fs

import (
	"path"
	"strings"

	"golang.org/x/mod/module"
)

// A daemon fetches with its own credentials, and what it has, all can read who can read the mount. So a mount that is shared may
// have no private modules (Options.HidePrivate): the lazy tree knows of none, whatever the store has and the daemon could get,
// and nobody is asked. On a read-write mount the go command then gets them by itself, as the user that it runs as.

// private are the patterns of modules that the lazy tree does not have, as in GOPRIVATE; "" hides nothing.
type private string

// patterns joins lists of patterns.
func patterns(lists ...string) private {
	var all []string
	for _, l := range lists {
		if l != "" {
			all = append(all, l)
		}
	}
	return private(strings.Join(all, ","))
}

func (v private) has(modPath string) bool {
	return v != "" && modPath != "" && module.MatchPrefixPatterns(string(v), modPath)
}

// parse is the package's parse, but what belongs to a private module means nothing: only the writable layer can have it.
func (v private) parse(p string) Path {
	pp := parse(p)
	if v == "" {
		return pp
	}
	modPath := pp.Mod.Path
	if pp.Kind == KindSumDB {
		_, file := cutSumDB(pp.Rest)
		if esc, ok := strings.CutPrefix(file, "lookup/"); ok {
			esc, _, _ = strings.Cut(esc, "@")
			modPath, _ = unescape(esc)
		}
	}
	switch {
	case !v.has(modPath):
		return pp
	case below(p, inMod("cache")):
		return Path{Kind: KindOwn}
	}
	return Path{}
}

// leadsTo reports whether a directory above modules leads to one that is not hidden, as far as the store has any.
func (f *FS) leadsTo(p string, pp Path) bool {
	key := storeKey(p)
	switch {
	case f.private == "":
		return true
	case pp.Kind == KindPrefix:
		key = "index/" + key
	case pp.Kind == KindSumDB && isLookups(pp.Rest):
		key = "sumdb/" + pp.Rest
	case pp.Kind != KindEscPath:
		return true
	}
	for _, name := range f.readStore(key) {
		child := path.Join(p, name)
		switch cp := f.private.parse(child); cp.Kind {
		case KindNone, KindOwn:
		case KindPrefix, KindEscPath, KindSumDB:
			if f.leadsTo(child, cp) {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// isLookups reports whether a path below cache/download/sumdb is a directory of records.
func isLookups(rest string) bool {
	_, file := cutSumDB(rest)
	return strings.HasPrefix(file, "lookup/") && sumdbIsDir(rest)
}

// Hides reports whether modules of a path are not shown on the mount: private ones, with Options.HidePrivate.
func (f *FS) Hides(modPath string) bool { return f.private.has(modPath) }
