package fs

import (
	"strconv"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// Kind says what a path below the mount stands for.
type Kind uint8

// The kinds of paths. What each sets of Path's other fields is said beside it.
const (
	KindNone     Kind = iota // cannot be a name of ours, known without traffic; only a writable layer can have it
	KindRoot                 // the mount itself
	KindPrefix               // a directory above modules (Mod.Path), which may itself be a module path: "github.com/!burnt!sushi"
	KindModule               // M@V itself (Mod)
	KindFile                 // below M@V (Mod, Rest: the slash path in the module)
	KindCache                // "cache"
	KindDownload             // "cache/download"
	KindEscPath              // a directory below cache/download that can lead to an @v (Mod.Path, perhaps only the prefix of one)
	KindVersions             // M/@v (Mod.Path)
	KindInfo                 // M/@v/V.info (Mod)
	KindMod                  // M/@v/V.mod (Mod)
	KindZip                  // M/@v/V.zip (Mod)
	KindZipHash              // M/@v/V.ziphash (Mod)
	KindList                 // M/@v/list (Mod.Path)
	KindLatest               // M/@latest (Mod.Path)
	KindQuery                // M/@v/REVISION.info (Mod.Path, Rest: the revision: a branch, a tag, the hash of a commit)
	KindOwn                  // what the go command makes for itself below cache/: locks, V.partial, *.tmp, vcs/…
	KindSumDB                // cache/download/sumdb and below (Rest: "", "NAME", "NAME/supported", …)
	KindControl              // ".modfs" and below (Rest: "", "status.json", …)
	KindPkg                  // $GOPATH/pkg, which ParsePath knows nothing of; see layout.go
)

// Path is what a path below the mount means. Mod is unescaped; where it has a version, module.Check accepts it and the
// version is canonical.
type Path struct {
	Kind Kind
	Mod  module.Version
	Rest string
}

// The limits of Linux (limits.h: PATH_MAX, NAME_MAX), in bytes. The go command could not unpack what is longer.
const (
	maxPath = 4096
	maxName = 255
)

const (
	controlDir  = ".modfs"
	downloadDir = "cache/download"
)

// ParsePath says what the slash path p below the mount stands for; "" is the mount itself. It accepts any string, and
// what is not a clean relative path is KindNone. No answer needs I/O: a valid name may well not exist.
//
// The layout is that of https://go.dev/ref/mod#module-cache, the escaping that of module.EscapePath.
func ParsePath(p string) Path {
	if p == "" {
		return Path{Kind: KindRoot}
	}
	if !clean(p) {
		return Path{}
	}
	first, rest, _ := strings.Cut(p, "/")
	switch first {
	case controlDir:
		return Path{Kind: KindControl, Rest: rest}
	case "cache":
		return parseCache(rest)
	}

	// A module path cannot hold an @, so the first one ends it; there may be more in the names of files.
	escPath, v, ok := strings.Cut(p, "@")
	if !ok {
		return parsePrefix(KindPrefix, KindNone, p)
	}
	escVersion, rest, below := strings.Cut(v, "/")
	m, ok := parseModule(escPath, escVersion)
	switch {
	case !ok:
		return Path{}
	case below:
		return Path{Kind: KindFile, Mod: m, Rest: rest}
	}
	return Path{Kind: KindModule, Mod: m}
}

// parseCache parses what is below cache/. The go command keeps more there than modules, so whatever is not ours is its own.
func parseCache(p string) Path {
	if p == "" {
		return Path{Kind: KindCache}
	}
	top, p, _ := strings.Cut(p, "/")
	if top != "download" {
		return Path{Kind: KindOwn}
	}
	if p == "" {
		return Path{Kind: KindDownload}
	}
	// Without a dot in it, this cannot be the first element of a module path.
	if first, rest, _ := strings.Cut(p, "/"); first == "sumdb" {
		return Path{Kind: KindSumDB, Rest: rest}
	}
	escPath, name, ok := strings.Cut(p, "/@")
	if !ok {
		return parsePrefix(KindEscPath, KindOwn, p)
	}
	modPath, ok := parseModulePath(escPath)
	if !ok {
		return Path{Kind: KindOwn}
	}
	m := module.Version{Path: modPath}
	switch name {
	case "latest":
		return Path{Kind: KindLatest, Mod: m}
	case "v":
		return Path{Kind: KindVersions, Mod: m}
	case "v/list":
		return Path{Kind: KindList, Mod: m}
	}
	if name, ok = strings.CutPrefix(name, "v/"); !ok {
		return Path{Kind: KindOwn}
	}
	return parseVersionFile(modPath, name)
}

// parseVersionFile parses a name in the @v directory of modPath.
func parseVersionFile(modPath, name string) Path {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return Path{Kind: KindOwn}
	}
	var k Kind
	switch name[dot+1:] {
	case "info":
		k = KindInfo
	case "mod":
		k = KindMod
	case "zip":
		k = KindZip
	case "ziphash":
		k = KindZipHash
	default:
		return Path{Kind: KindOwn}
	}
	v, ok := parseVersion(modPath, name[:dot])
	if !ok {
		if v, ok := parseRevision(name[:dot]); ok && k == KindInfo {
			return Path{Kind: KindQuery, Mod: module.Version{Path: modPath}, Rest: v}
		}
		return Path{Kind: KindOwn}
	}
	return Path{Kind: k, Mod: module.Version{Path: modPath, Version: v}}
}

// parsePrefix returns a path of kind yes if escPath could be continued to an escaped module path, else one of kind no.
func parsePrefix(yes, no Kind, escPath string) Path {
	p, ok := unescape(escPath)
	// What CheckPath demands of a last element (/v2 but not /v1, and .vN at gopkg.in) is not demanded of those before
	// it; "x.v1" satisfies it anywhere.
	if !ok || reserved(p) || module.CheckPath(p+"/x.v1") != nil {
		return Path{Kind: no}
	}
	return Path{Kind: yes, Mod: module.Version{Path: p}}
}

func parseModule(escPath, escVersion string) (m module.Version, ok bool) {
	if m.Path, ok = parseModulePath(escPath); !ok {
		return module.Version{}, false
	}
	if m.Version, ok = parseVersion(m.Path, escVersion); !ok {
		return module.Version{}, false
	}
	return m, true
}

func parseModulePath(escPath string) (string, bool) {
	p, err := module.UnescapePath(escPath)
	return p, err == nil && !reserved(p)
}

// parseVersion unescapes a version and reports whether the go command would make a file or directory for that version of
// modPath, which must be valid: it resolves branches, hashes and v1 first (CachePath in cmd/go/internal/modfetch/cache.go).
//
// Toolchains need no exception: v0.0.1-go1.24.1.linux-amd64 is a canonical pre-release.
func parseVersion(modPath, escVersion string) (string, bool) {
	v, err := module.UnescapeVersion(escVersion)
	if err != nil || module.CanonicalVersion(v) != v || module.Check(modPath, v) != nil {
		return "", false
	}
	// Go commands before 1.16 unpacked into M@V.tmp-123, and later ones look for such leftovers. After a pre-release
	// or a pseudo-version, that is a canonical version too, but nobody's.
	if i := strings.LastIndex(v, ".tmp-"); i >= 0 {
		if _, err := strconv.ParseUint(v[i+len(".tmp-"):], 10, 64); err == nil {
			return "", false
		}
	}
	return v, true
}

// parseRevision unescapes what is no canonical version, and reports whether the go command would ask a proxy for it as it is: it
// turns v1, v1.2 and words like latest into versions by itself (newQueryMatcher in cmd/go/internal/modload/query.go).
func parseRevision(esc string) (string, bool) {
	v, err := module.UnescapeVersion(esc)
	if err != nil || strings.HasPrefix(v, "-") || strings.Contains(v, ".tmp-") {
		return "", false
	}
	switch v {
	case "latest", "upgrade", "patch", "none":
		return "", false
	}
	return v, !semver.IsValid(v) || strings.Count(v, ".") >= 2
}

// revisionKey is where what a revision stood for is.
func revisionKey(path, revision string) string {
	return versionsDir(path) + "/" + escape(revision) + ".info"
}

// reserved reports whether an element of a path is a name for which tools search the directories above a module. Those
// must find nothing there, although CheckPath has no objection. (It has one to all names that begin with a dot.)
func reserved(p string) bool {
	for elem := range strings.SplitSeq(p, "/") {
		switch elem {
		case "go.mod", "go.sum", "go.work", "go.work.sum", "vendor":
			return true
		}
	}
	return false
}

// clean reports whether p is a relative slash path that the kernel could have asked for. It need not be UTF-8: a writable
// layer may hold any name.
func clean(p string) bool {
	if len(p) > maxPath || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for elem := range strings.SplitSeq(p, "/") {
		if elem == "" || elem == "." || elem == ".." || len(elem) > maxName {
			return false
		}
	}
	return true
}

// unescape undoes escape. It is module.UnescapePath without the check of the result, which the prefix of a path fails.
func unescape(esc string) (string, bool) {
	b := make([]byte, 0, len(esc))
	for i := 0; i < len(esc); i++ {
		c := esc[i]
		switch {
		case c >= 0x80 || 'A' <= c && c <= 'Z':
			return "", false
		case c == '!':
			if i++; i == len(esc) || esc[i] < 'a' || 'z' < esc[i] {
				return "", false
			}
			c = esc[i] - 'a' + 'A'
		}
		b = append(b, c)
	}
	return string(b), true
}

// escape replaces each capital by an exclamation mark and the small letter, as module.EscapePath and EscapeVersion do.
// It cannot fail: module.Check has accepted what it is given.
func escape(s string) string {
	var b []byte // nil until there is something to escape
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			if b == nil {
				b = append(make([]byte, 0, len(s)+8), s[:i]...)
			}
			b = append(b, '!', c-'A'+'a')
		} else if b != nil {
			b = append(b, c)
		}
	}
	if b == nil {
		return s
	}
	return string(b)
}

// moduleDir is the directory of m below the mount.
func moduleDir(m module.Version) string { return escape(m.Path) + "@" + escape(m.Version) }

// versionsDir is the directory of the downloads of all versions of a module, below the mount and as a key of the store.
func versionsDir(path string) string { return downloadDir + "/" + escape(path) + "/@v" }

// The keys of the store. Those of downloads are also their paths below the mount.

func infoKey(m module.Version) string { return versionsDir(m.Path) + "/" + escape(m.Version) + ".info" }
func modKey(m module.Version) string  { return versionsDir(m.Path) + "/" + escape(m.Version) + ".mod" }
func zipKey(m module.Version) string  { return versionsDir(m.Path) + "/" + escape(m.Version) + ".zip" }
func zipHashKey(m module.Version) string {
	return versionsDir(m.Path) + "/" + escape(m.Version) + ".ziphash"
}
func listKey(path string) string   { return versionsDir(path) + "/list" }
func latestKey(path string) string { return downloadDir + "/" + escape(path) + "/@latest" }

// indexKey is where the encoded tree of m is.
func indexKey(m module.Version) string { return "index/" + moduleDir(m) }

// spoolKey is where the inflated content of entry i of the tree of m is.
func spoolKey(m module.Version, i int) string { return "spool/" + moduleDir(m) + "/" + strconv.Itoa(i) }
