package proxytest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// archives are the small modules of the default set.
var archives = []string{
	`example.com/a@v1.0.0

-- go.mod --
module example.com/a

go 1.21
-- a.go --
// Package a says hello.
package a

// Hello returns a greeting.
func Hello() string { return "hello from a" }
-- sub/sub.go --
// Package sub is below a.
package sub

// Name is the package's name.
const Name = "sub"
-- testdata/input.txt --
some test data
-- LICENSE --
Do as you like.
`, `example.com/b@v1.0.0

-- go.mod --
module example.com/b

go 1.21

require example.com/a v1.0.0
-- b.go --
// Package b says hello by way of a.
package b

import "example.com/a"

// Hello returns a's greeting.
func Hello() string { return "b v1.0.0: " + a.Hello() }
`, `example.com/b@v1.1.0

-- go.mod --
module example.com/b

go 1.21

require example.com/a v1.0.0
-- b.go --
// Package b says hello by way of a.
package b

import (
	"example.com/a"
	"example.com/a/sub"
)

// Hello returns a's greeting.
func Hello() string { return "b v1.1.0: " + a.Hello() + " " + sub.Name }
`, `example.com/Upper/Case@v1.0.0-RC.1

-- go.mod --
module example.com/Upper/Case

go 1.21
-- Case.go --
// Package Case has capitals in its path and version.
package Case
-- README.md --
Capitals.
`, `example.com/inc@v2.0.0+incompatible

-- inc.go --
// Package inc has no go.mod file.
package inc
`, `example.com/two/v2@v2.1.0

-- go.mod --
module example.com/two/v2

go 1.21
-- two.go --
// Package two has a major version suffix.
package two
`, `example.com/pseudo@v0.0.0-20200102030405-abcdefabcdef

-- go.mod --
module example.com/pseudo

go 1.21
-- pseudo.go --
// Package pseudo has no tagged version.
package pseudo
`, `gopkg.in/x.v1@v1.2.3

-- go.mod --
module gopkg.in/x.v1
-- x.go --
// Package x has a gopkg.in path.
package x
`, `example.com/odd@v1.0.0

-- go.mod --
module example.com/odd

go 1.21
-- odd.go --
// Package odd has files with odd names.
package odd
-- with space.txt --
a space
-- dir with space/näme.txt --
an umlaut
-- 日本語.txt --
no Latin letters
-- empty.txt --
`, `example.com/nested@v1.0.0

-- go.mod --
module example.com/nested

go 1.21
-- nested.go --
// Package nested surrounds another module.
package nested
-- beside/beside.go --
// Package beside is beside the inner module.
package beside
`, `example.com/nested/inner@v1.0.0

-- go.mod --
module example.com/nested/inner

go 1.21
-- inner.go --
// Package inner is a module of its own.
package inner
`,
}

// defaults is computed once: the large module takes a moment under the race detector.
var defaults = sync.OnceValue(func() []Module {
	var mods []Module
	for _, a := range archives {
		mods = append(mods, mustParse(a))
	}
	return append(mods, many(), large())
})

// Modules returns the default set, whose every module passes golang.org/x/mod/zip.CheckZip:
//
//   - example.com/a@v1.0.0, and example.com/b@v1.0.0 and v1.1.0, which import it and compile;
//   - example.com/Upper/Case@v1.0.0-RC.1, whose path and version need escaping;
//   - example.com/inc@v2.0.0+incompatible (no go.mod file), example.com/two/v2@v2.1.0, gopkg.in/x.v1@v1.2.3;
//   - example.com/pseudo@v0.0.0-20200102030405-abcdefabcdef, which has no listed version;
//   - example.com/odd@v1.0.0: names with spaces and non-ASCII letters, and an empty file;
//   - example.com/nested@v1.0.0 and example.com/nested/inner@v1.0.0;
//   - example.com/many@v1.0.0: 200 files in 20 directories, dNN/fNN.go;
//   - example.com/large@v1.0.0: large.txt of 5 MiB and medium.txt of 300 KiB.
//
// The slice is the caller's; the Files maps are shared and must not be changed.
func Modules() []Module { return slices.Clone(defaults()) }

// many returns the module of many small files.
func many() Module {
	m := Module{
		Path: "example.com/many", Version: "v1.0.0",
		Files: map[string]string{"go.mod": "module example.com/many\n\ngo 1.21\n"},
	}
	// go.mod is the first of the 200.
	for i := 1; i < 200; i++ {
		name := fmt.Sprintf("d%02d/f%02d.go", i%20, i/20)
		m.Files[name] = fmt.Sprintf("package d%02d\n\nconst F%02d = %d\n", i%20, i/20, i)
	}
	return m.complete()
}

// large returns the module of large files.
func large() Module {
	return Module{
		Path: "example.com/large", Version: "v1.0.0",
		Files: map[string]string{
			"go.mod":     "module example.com/large\n\ngo 1.21\n",
			"large.go":   "// Package large has large files.\npackage large\n",
			"large.txt":  text(1, 5<<20),
			"medium.txt": text(2, 300<<10),
		},
	}.complete()
}

// text returns size bytes of pseudo-random words. They deflate to about half: plain noise would not exercise the
// decompressor and one repeated line would make the zip too small to be interrupted.
func text(seed uint64, size int) string {
	r := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	b.Grow(size + 32)
	for b.Len() < size {
		fmt.Fprintf(&b, "line %d %08x", b.Len(), r.Uint32())
		b.WriteByte("\n \t;"[r.IntN(4)])
	}
	return b.String()[:size]
}

// Toolchain returns golang.org/toolchain@v0.0.1-goVERSION.GOOS-GOARCH (https://go.dev/doc/toolchain). goversion is
// like "1.99.0" or "go1.99.0". With nil files it has bin/go, a shell script that prints "fake go VERSION" and its
// arguments, and a few files from every part of a real toolchain. Like a real one it has no go.mod file but a
// src/_go.mod, which the go command renames; its .mod is a lone module directive.
func Toolchain(goversion, goos, goarch string, files map[string]string) Module {
	v := strings.TrimPrefix(goversion, "go")
	if files == nil {
		script := "#!/bin/sh\necho \"fake go " + v + "\" \"$@\"\n"
		files = map[string]string{
			"VERSION":     "go" + v + "\ntime 2020-01-02T03:04:05Z\n",
			"LICENSE":     "Do as you like.\n",
			"bin/go":      script,
			"bin/gofmt":   "#!/bin/sh\nexec cat\n",
			"lib/x":       "library file\n",
			"src/_go.mod": "module std\n\ngo 1.21\n",
			"src/x/x.go":  "package x\n",

			"pkg/tool/" + goos + "_" + goarch + "/compile": "#!/bin/sh\nexit 1\n",
		}
	}
	return Module{
		Path:    "golang.org/toolchain",
		Version: "v0.0.1-go" + v + "." + goos + "-" + goarch,
		Files:   files,
	}.complete()
}
