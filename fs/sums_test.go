package fs

import (
	"slices"
	"testing"

	"golang.org/x/mod/module"
)

const anyH1 = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

func TestParseSums(t *testing.T) {
	got := parseSums([]byte("example.com/b v1.0.0 " + anyH1 + "\n" +
		"example.com/b v1.0.0/go.mod " + anyH1 + "\n" +
		"example.com/a v1.2.0 " + anyH1 + "\n" +
		"example.com/a v1.2.0 " + anyH1 + "\n" + // twice
		"example.com/a v1.10.0 " + anyH1 + "\r\n" +
		"example.com/only v1.0.0/go.mod " + anyH1 + "\n" +
		"../../etc v1.0.0 " + anyH1 + "\n" +
		"example.com/c master " + anyH1 + "\n" +
		"example.com/c v1.0.0 h2:x\n" +
		"example.com/c v1.0.0\n\n\x00\xff\n" +
		"example.com/a/v2 v2.0.0 " + anyH1)) // without a newline
	zips := []module.Version{
		{Path: "example.com/a", Version: "v1.10.0"},
		{Path: "example.com/a", Version: "v1.2.0"},
		{Path: "example.com/a/v2", Version: "v2.0.0"},
		{Path: "example.com/b", Version: "v1.0.0"},
	}
	mods := []module.Version{{Path: "example.com/b", Version: "v1.0.0"}, {Path: "example.com/only", Version: "v1.0.0"}}
	if !slices.Equal(got.zips, zips) || !slices.Equal(got.mods, mods) {
		t.Fatalf("%v, want %v and %v", got, zips, mods)
	}
	for _, m := range zips {
		if !got.has(m) {
			t.Errorf("%s is not there", m)
		}
	}
	for _, m := range mods {
		if !got.hasMod(m) {
			t.Errorf("the go.mod of %s is not there", m)
		}
	}
	other := module.Version{Path: "example.com/a", Version: "v1.3.0"}
	if got.has(other) || got.has(module.Version{}) || got.has(mods[1]) || got.hasMod(other) || got.hasMod(zips[0]) {
		t.Error("it has what was not listed")
	}
	for dir, want := range map[string]bool{
		"example.com": true, "example.com/a": true, "example.com/a/v2": true, "example.com/b": true,
		"example.co": false, "example.com/a/v": false, "example.com/only": false, "": false, "z": false,
	} {
		if got.below(dir, false) != want {
			t.Errorf("below %q: %v", dir, !want)
		}
	}
	if !got.below("example.com/only", true) || got.below("example.com/on", true) {
		t.Error("below, with go.mod files")
	}
}

// TestSumsBelow checks a directory whose modules do not follow it at once: - and . sort before /.
func TestSumsBelow(t *testing.T) {
	s := sums{zips: []module.Version{{Path: "a.com/x-y"}, {Path: "a.com/x.z"}, {Path: "a.com/x/v2"}}}.ordered()
	if !s.below("a.com/x", false) || s.below("a.com/x-", false) {
		t.Error(s)
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add([]byte("example.com/b v1.0.0 " + anyH1 + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := parseSums(data)
		for _, m := range slices.Concat(s.zips, s.mods) {
			if err := module.Check(m.Path, m.Version); err != nil {
				t.Fatal(err)
			}
		}
	})
}
