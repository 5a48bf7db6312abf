package fs

import (
	iofs "io/fs"
	"strings"
	"testing"

	"golang.org/x/mod/module"
)

func TestParsePath(t *testing.T) {
	m := func(path, version string) module.Version { return module.Version{Path: path, Version: version} }
	const (
		tool   = "golang.org/toolchain"
		toolV  = "v0.0.1-go1.24.1.linux-amd64"
		pseudo = "v0.0.0-20180905225744-ee1a9a0726d2"
	)
	tests := []struct {
		path string
		want Path
	}{
		{"", Path{Kind: KindRoot}},

		{"github.com", Path{KindPrefix, m("github.com", ""), ""}},
		{"github.com/!burnt!sushi", Path{KindPrefix, m("github.com/BurntSushi", ""), ""}},
		{"github.com/!burnt!sushi/toml", Path{KindPrefix, m("github.com/BurntSushi/toml", ""), ""}},
		{"gopkg.in", Path{KindPrefix, m("gopkg.in", ""), ""}},
		{"gopkg.in/user", Path{KindPrefix, m("gopkg.in/user", ""), ""}},
		{"gopkg.in/yaml.v3", Path{KindPrefix, m("gopkg.in/yaml.v3", ""), ""}},
		{"example.com/m/v1", Path{KindPrefix, m("example.com/m/v1", ""), ""}}, // of example.com/m/v1/sub
		{"example.com/m/v2", Path{KindPrefix, m("example.com/m/v2", ""), ""}},
		{"example.com/cache", Path{KindPrefix, m("example.com/cache", ""), ""}},

		{"example.com/m@v1.2.3", Path{KindModule, m("example.com/m", "v1.2.3"), ""}},
		{"example.com@v1.2.3", Path{KindModule, m("example.com", "v1.2.3"), ""}},
		{"github.com/!burnt!sushi/toml@v1.0.0-!r!c1", Path{KindModule, m("github.com/BurntSushi/toml", "v1.0.0-RC1"), ""}},
		{"example.com/m@v2.0.0+incompatible", Path{KindModule, m("example.com/m", "v2.0.0+incompatible"), ""}},
		{"example.com/m@" + pseudo, Path{KindModule, m("example.com/m", pseudo), ""}},
		{"example.com/m/v2@v2.0.0", Path{KindModule, m("example.com/m/v2", "v2.0.0"), ""}},
		{"gopkg.in/yaml.v3@v3.0.1", Path{KindModule, m("gopkg.in/yaml.v3", "v3.0.1"), ""}},
		{"gopkg.in/user/p.v1@v1.0.0", Path{KindModule, m("gopkg.in/user/p.v1", "v1.0.0"), ""}},
		{"gopkg.in/check.v1@" + pseudo, Path{KindModule, m("gopkg.in/check.v1", pseudo), ""}}, // an old mistake that is let pass
		{"gopkg.in/p.v1-unstable@v1.1.0", Path{KindModule, m("gopkg.in/p.v1-unstable", "v1.1.0"), ""}},
		{tool + "@" + toolV, Path{KindModule, m(tool, toolV), ""}},
		{tool + "@v0.0.1-go1.21rc2.darwin-arm64", Path{KindModule, m(tool, "v0.0.1-go1.21rc2.darwin-arm64"), ""}},

		{"example.com/m@v1.2.3/go.mod", Path{KindFile, m("example.com/m", "v1.2.3"), "go.mod"}},
		{"example.com/m@v1.2.3/a b/ü@v.go", Path{KindFile, m("example.com/m", "v1.2.3"), "a b/ü@v.go"}},
		{"example.com/m@v1.2.3/vendor/x", Path{KindFile, m("example.com/m", "v1.2.3"), "vendor/x"}},

		{"cache", Path{Kind: KindCache}},
		{"cache/lock", Path{Kind: KindOwn}},
		{"cache/vcs", Path{Kind: KindOwn}},
		{"cache/vcs/0123abcd/objects/\xff", Path{Kind: KindOwn}},
		{"cache/download", Path{Kind: KindDownload}},
		{"cache/download/sumdb", Path{Kind: KindSumDB}},
		{"cache/download/sumdb/sum.example", Path{Kind: KindSumDB, Rest: "sum.example"}},
		{"cache/download/sumdb/sum.example/lookup/example.com/m@v1.0.0",
			Path{Kind: KindSumDB, Rest: "sum.example/lookup/example.com/m@v1.0.0"}},
		{"cache/download/gopkg.in", Path{KindEscPath, m("gopkg.in", ""), ""}},
		{"cache/download/github.com/!burnt!sushi", Path{KindEscPath, m("github.com/BurntSushi", ""), ""}},
		{"cache/download/example.com/m/@v", Path{KindVersions, m("example.com/m", ""), ""}},
		{"cache/download/example.com/m/@v/list", Path{KindList, m("example.com/m", ""), ""}},
		{"cache/download/example.com/m/@latest", Path{KindLatest, m("example.com/m", ""), ""}},
		{"cache/download/example.com/m/@v/v1.2.3.info", Path{KindInfo, m("example.com/m", "v1.2.3"), ""}},
		{"cache/download/example.com/m/@v/v1.2.3-!r!c1.mod", Path{KindMod, m("example.com/m", "v1.2.3-RC1"), ""}},
		{"cache/download/example.com/m/@v/v2.0.0+incompatible.zip", Path{KindZip, m("example.com/m", "v2.0.0+incompatible"), ""}},
		{"cache/download/example.com/m/@v/" + pseudo + ".ziphash", Path{KindZipHash, m("example.com/m", pseudo), ""}},
		{"cache/download/" + tool + "/@v/" + toolV + ".zip", Path{KindZip, m(tool, toolV), ""}},

		{"cache/download/example.com/m/@v/master.info", Path{KindQuery, m("example.com/m", ""), "master"}},
		{"cache/download/example.com/m/@v/!fix.!it.info", Path{KindQuery, m("example.com/m", ""), "Fix.It"}},
		{"cache/download/example.com/m/@v/0123abcd.info", Path{KindQuery, m("example.com/m", ""), "0123abcd"}},
		{"cache/download/example.com/m/@v/v2.0.0.info", Path{KindQuery, m("example.com/m", ""), "v2.0.0"}}, // upstream makes it +incompatible
		{"cache/download/example.com/m/@v/v1.0.0+meta.info", Path{KindQuery, m("example.com/m", ""), "v1.0.0+meta"}},

		{".modfs", Path{Kind: KindControl}},
		{".modfs/status.json", Path{Kind: KindControl, Rest: "status.json"}},
	}
	for _, tt := range tests {
		if got := ParsePath(tt.path); got != tt.want {
			t.Errorf("ParsePath(%q) = %+v, want %+v", tt.path, got, tt.want)
		}
	}
}

func TestParsePathRefuses(t *testing.T) {
	long := strings.Repeat("a", maxName+1)
	for _, p := range []string{
		"/", "/example.com", "example.com/", "cache/", "cache/download/example.com/m/@v/", "example.com//m", ".", "..", "example.com/../m", "example.com/m@v1.0.0/./x", "a\x00.b",
		"nodot", "nodot/m", "go.mod", "go.sum", "go.work", "vendor", ".git", ".gitignore", "example.com/.git", "example.com/go.mod",
		"example.com/vendor", "github.com/go.work", "example.com/go.mod@v1.0.0", "example.com/vendor/m@v1.0.0",
		"GitHub.com", "github.com/BurntSushi", "github.com/!Burnt", "github.com/x!", "github.com/!", "!github.com",
		"-example.com", "example.com/m+", "example.com/a b", "example.com/ü", "example.com/con", "example.com/a~1", "example.com/a.",
		"example.com/m@", "example.com/m@master", "example.com/m@v1", "example.com/m@v1.2", "example.com/m@1.2.3", "example.com/m@v01.2.3",
		"example.com/m@v1.2.3+meta", "example.com/m@v1.0.0-RC1", "example.com/m@v2.0.0", "example.com/m/v2@v1.0.0", "example.com/m/v1@v1.0.0",
		"gopkg.in/yaml@v1.0.0", "gopkg.in/yaml.v3@v2.0.0", "@v1.0.0", "cache@v1.0.0", "example.com/m@v1.2.3@v1.2.3",
		"example.com/m@v1.2.3.tmp-123", "example.com/m@v1.2.3-rc.1.tmp-123", "example.com/m@v0.0.0-20180905225744-ee1a9a0726d2.tmp-9",
		"example.com/m@v1.2.3.lock", "example.com/m@master/x",
		"example.com/" + long, "example.com/m@v1.0.0/" + long, strings.Repeat("a.b/", maxPath/4) + "c",
	} {
		if got := ParsePath(p); got != (Path{}) {
			t.Errorf("ParsePath(%q) = %+v, want nothing", p, got)
		}
	}

	for _, p := range []string{
		"@v", "nodot", "nodot/@v", "gopkg.in/yaml/@v", "Example.com", "example.com/go.mod", "example.com/vendor/x/@v",
		"example.com/m/@v/v1.0.0.lock", "example.com/m/@v/v1.0.0.partial", "example.com/m/@v/v1.0.0.info123.tmp",
		"example.com/m/@v/v1.0.0.zip123.tmp", "example.com/m/@v/v1.0.0.ziphash-tmp", "example.com/m/@v/list.lock", "example.com/m/@v/v1.0.0",
		"example.com/m/@v/v1.info", "example.com/m/@v/v1.2.info", "example.com/m/@v/latest.info", "example.com/m/@v/master.mod",
		"example.com/m/@v/-x.info", "example.com/m/@v/v1.2.3.tmp-123.info", "example.com/m/@v/Main.info", "example.com/m/@v/v2.0.0.mod", "example.com/m/@v/.info",
		"example.com/m/@v/v1.0.0.info/x", "example.com/m/@v/x/y.info", "example.com/m/@latest/x", "example.com/m/@x", "example.com/m@v1.0.0",
	} {
		if got := ParsePath(downloadDir + "/" + p); got != (Path{Kind: KindOwn}) {
			t.Errorf("ParsePath of %q below downloads = %+v, want the go command's own", p, got)
		}
	}
}

// format is the inverse of ParsePath, where it has one.
func format(p Path) (string, bool) {
	switch p.Kind {
	case KindRoot:
		return "", true
	case KindPrefix:
		return escape(p.Mod.Path), true
	case KindModule:
		return moduleDir(p.Mod), true
	case KindFile:
		return moduleDir(p.Mod) + "/" + p.Rest, true
	case KindCache:
		return "cache", true
	case KindDownload:
		return downloadDir, true
	case KindEscPath:
		return downloadDir + "/" + escape(p.Mod.Path), true
	case KindVersions:
		return versionsDir(p.Mod.Path), true
	case KindInfo:
		return infoKey(p.Mod), true
	case KindMod:
		return modKey(p.Mod), true
	case KindZip:
		return zipKey(p.Mod), true
	case KindZipHash:
		return zipHashKey(p.Mod), true
	case KindList:
		return listKey(p.Mod.Path), true
	case KindLatest:
		return latestKey(p.Mod.Path), true
	case KindQuery:
		return revisionKey(p.Mod.Path, p.Rest), true
	case KindSumDB:
		return strings.TrimSuffix(downloadDir+"/sumdb/"+p.Rest, "/"), true
	case KindControl:
		return strings.TrimSuffix(controlDir+"/"+p.Rest, "/"), true
	}
	return "", false
}

func FuzzParsePath(f *testing.F) {
	for _, p := range []string{
		"", "github.com/!burnt!sushi", "example.com/m/v2@v2.0.0/a/b", "gopkg.in/yaml.v3@v3.0.1", "example.com/m@v2.0.0+incompatible/x",
		"cache/download/example.com/m/@v/v1.0.0-!r!c1.info", "cache/download/example.com/m/@latest", "cache/download/sumdb/sum.example/latest",
		"cache/vcs/x", ".modfs/errors", "example.com/m@v1.0.0-rc.tmp-1", "golang.org/toolchain@v0.0.1-go1.24.1.linux-amd64/bin/go",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := ParsePath(s)
		if back, ok := format(p); ok && back != s {
			t.Errorf("%q parses as %+v, which is %q", s, p, back)
		}
		if p.Mod.Version != "" {
			if err := module.Check(p.Mod.Path, p.Mod.Version); err != nil {
				t.Errorf("%q: %v", s, err)
			}
			checkEscape(t, p.Mod)
		}
		// The kernel looks up one element after the other: the way to each name must be there.
		for dir := s; p.Kind != KindNone && dir != ""; {
			dir = dir[:max(0, strings.LastIndexByte(dir, '/'))]
			up := ParsePath(dir)
			if up.Kind == KindNone || p.Kind != KindOwn && p.Kind != KindSumDB && up.Kind == KindOwn {
				t.Errorf("%q is %+v, but %q is %+v", s, p, dir, up)
			}
		}
	})
}

// FuzzFormatPath goes the other way: whatever module the go command would have a directory for, its paths mean what they are.
func FuzzFormatPath(f *testing.F) {
	for _, m := range []module.Version{
		{Path: "github.com/BurntSushi/toml", Version: "v1.0.0-RC1"}, {Path: "gopkg.in/yaml.v3", Version: "v3.0.1"}, {Path: "example.com/m/v2", Version: "v2.0.0"},
		{Path: "example.com/m", Version: "v2.0.0+incompatible"}, {Path: "example.com/go.mod", Version: "v1.0.0"}, {Path: "sumdb.example/x", Version: "v1.0.0"},
		{Path: "golang.org/toolchain", Version: "v0.0.1-go1.24.1.linux-amd64"}, {Path: "example.com/m", Version: "v1.2.3-rc.1.tmp-9"},
	} {
		f.Add(m.Path, m.Version, "a/B c/ü")
	}
	f.Fuzz(func(t *testing.T, modPath, version, rest string) {
		m := module.Version{Path: modPath, Version: version}
		if module.Check(modPath, version) != nil || module.CanonicalVersion(version) != version || len(moduleDir(m)) > maxName-len(".ziphash") {
			return // too long for names that the kernel takes, or not a module
		}
		got := ParsePath(moduleDir(m))
		if got.Kind != KindModule && (reserved(modPath) || strings.Contains(version, ".tmp-")) {
			return
		}
		if got != (Path{Kind: KindModule, Mod: m}) {
			t.Errorf("%q is %+v, want %v", moduleDir(m), got, m)
		}
		for key, kind := range map[string]Kind{infoKey(m): KindInfo, modKey(m): KindMod, zipKey(m): KindZip, zipHashKey(m): KindZipHash} {
			if got := ParsePath(key); got != (Path{Kind: kind, Mod: m}) {
				t.Errorf("%q is %+v, want %v", key, got, kind)
			}
		}
		for key, kind := range map[string]Kind{listKey(modPath): KindList, latestKey(modPath): KindLatest, versionsDir(modPath): KindVersions, escape(modPath): KindPrefix} {
			if got := ParsePath(key); got != (Path{Kind: kind, Mod: module.Version{Path: modPath}}) {
				t.Errorf("%q is %+v, want %v", key, got, kind)
			}
		}
		want := Path{Kind: KindFile, Mod: m, Rest: rest}
		if p := moduleDir(m) + "/" + rest; !clean(p) {
			want = Path{}
		}
		if got := ParsePath(moduleDir(m) + "/" + rest); got != want {
			t.Errorf("%q in %v is %+v, want %+v", rest, m, got, want)
		}
	})
}

// checkEscape compares our escaping, which cannot fail, with the module package's.
func checkEscape(t *testing.T, m module.Version) {
	t.Helper()
	escPath, err := module.EscapePath(m.Path)
	if err != nil {
		t.Fatal(err)
	}
	escVersion, err := module.EscapeVersion(m.Version)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := moduleDir(m), escPath+"@"+escVersion; got != want {
		t.Errorf("directory of %v is %q, want %q", m, got, want)
	}
	for _, key := range []string{infoKey(m), modKey(m), zipKey(m), zipHashKey(m), listKey(m.Path), latestKey(m.Path), indexKey(m), spoolKey(m, 7)} {
		if !iofs.ValidPath(key) {
			t.Errorf("%v has the key %q", m, key)
		}
	}
}

func TestKeys(t *testing.T) {
	m := module.Version{Path: "github.com/BurntSushi/toml", Version: "v1.0.0-RC1"}
	for got, want := range map[string]string{
		moduleDir(m):        "github.com/!burnt!sushi/toml@v1.0.0-!r!c1",
		versionsDir(m.Path): "cache/download/github.com/!burnt!sushi/toml/@v",
		infoKey(m):          "cache/download/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.info",
		modKey(m):           "cache/download/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.mod",
		zipKey(m):           "cache/download/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.zip",
		zipHashKey(m):       "cache/download/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.ziphash",
		listKey(m.Path):     "cache/download/github.com/!burnt!sushi/toml/@v/list",
		latestKey(m.Path):   "cache/download/github.com/!burnt!sushi/toml/@latest",
		indexKey(m):         "index/github.com/!burnt!sushi/toml@v1.0.0-!r!c1",
		spoolKey(m, 12):     "spool/github.com/!burnt!sushi/toml@v1.0.0-!r!c1/12",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func BenchmarkParsePath(b *testing.B) {
	for name, p := range map[string]string{
		"kind=file": "github.com/!burnt!sushi/toml@v1.4.0/internal/tz.go",
		"kind=info": "cache/download/github.com/!burnt!sushi/toml/@v/v1.4.0.info",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ParsePath(p)
			}
		})
	}
}
