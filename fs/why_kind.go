package fs

import "fmt"

// kinds has for each kind of paths its name and what such a path is.
var kinds = map[Kind]struct{ name, means string }{
	KindNone:     {"none", "no name that a module cache can have: it is refused without asking anybody, and only a writable layer can have it"},
	KindRoot:     {"root", "the module cache itself"},
	KindPrefix:   {"prefix", "a directory above modules; listing it shows what the store has seen, and fetches nothing"},
	KindModule:   {"module", "the directory of a module version; it exists if the version does"},
	KindFile:     {"file", "a file or directory of a module; the module's zip is fetched when it is first opened"},
	KindCache:    {"cache", "the directory of downloads"},
	KindDownload: {"download", "the directory of downloads, laid out as a module proxy"},
	KindEscPath:  {"download", "a directory of downloads, laid out as a module proxy"},
	KindVersions: {"versions", "the directory of a module's versions; listing it shows what the store has seen"},
	KindInfo:     {"info", "a version's time and origin; not covered by any hash"},
	KindMod:      {"mod", "a version's go.mod file, checked against the checksum database's /go.mod line"},
	KindZip:      {"zip", "a version's archive as the proxy sent it, checked against the checksum database"},
	KindZipHash:  {"ziphash", "the h1 hash of a version's archive"},
	KindList:     {"list", "the versions that there are; asked for upstream, and remembered for half a minute"},
	KindLatest:   {"latest", "the latest version; asked for upstream, and remembered for half a minute"},
	KindQuery:    {"query", "the version that a branch, tag or commit stands for; asked for upstream, and remembered for half a minute"},
	KindOwn:      {"own", "what the go command makes for itself (locks, unfinished downloads, clones): it is not fetched, and only a writable layer can have it"},
	KindSumDB:    {"sumdb", "a file of the checksum database, as it was verified"},
	KindControl:  {"control", "modfs's own state; never listed"},
	KindPkg:      {"pkg", "the pkg directory of a GOPATH; the module cache is in mod"},
}

// String returns the kind's name.
func (k Kind) String() string {
	if k, ok := kinds[k]; ok {
		return k.name
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// means says what the path is.
func (p Path) means() string { return kinds[p.Kind].means }
