package fs

import "strings"

// Inside this package a path is relative to $GOPATH/pkg: the module cache is at "mod", and below it is what ParsePath
// parses. A mount at GOMODCACHE has "mod" as its root; one at $GOPATH/pkg (Options.Pkg) has "", whose only lazy child is
// "mod" and which can therefore be removed and made anew, as no mountpoint can.
const modRoot = "mod"

// inMod returns where the store's key, or a path as ParsePath wants it, is below $GOPATH/pkg.
func inMod(key string) string { return modRoot + "/" + key }

// storeKey is the reverse of inMod; "" for the module cache itself.
func storeKey(p string) string {
	return strings.TrimPrefix(strings.TrimPrefix(p, modRoot), "/")
}

// parse is ParsePath for a path below $GOPATH/pkg.
func parse(p string) Path {
	switch {
	case p == "":
		return Path{Kind: KindPkg}
	case below(p, modRoot):
		return ParsePath(storeKey(p))
	case below(p, controlDir):
		return ParsePath(p)
	}
	return Path{}
}

// below reports whether p is dir or in it.
func below(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
