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
	want := sums{
		{Path: "example.com/a", Version: "v1.10.0"},
		{Path: "example.com/a", Version: "v1.2.0"},
		{Path: "example.com/a/v2", Version: "v2.0.0"},
		{Path: "example.com/b", Version: "v1.0.0"},
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for _, m := range want {
		if !got.has(m) {
			t.Errorf("%s is not there", m)
		}
	}
	if got.has(module.Version{Path: "example.com/a", Version: "v1.3.0"}) || got.has(module.Version{}) {
		t.Error("it has what was not listed")
	}
	for dir, want := range map[string]bool{
		"example.com": true, "example.com/a": true, "example.com/a/v2": true, "example.com/b": true,
		"example.co": false, "example.com/a/v": false, "example.com/only": false, "": false, "z": false,
	} {
		if got.below(dir) != want {
			t.Errorf("below %q: %v", dir, !want)
		}
	}
}

// TestSumsBelow checks a directory whose modules do not follow it at once: - and . sort before /.
func TestSumsBelow(t *testing.T) {
	s := sums{{Path: "a.com/x-y"}, {Path: "a.com/x.z"}, {Path: "a.com/x/v2"}}.ordered()
	if !s.below("a.com/x") || s.below("a.com/x-") {
		t.Error(s)
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add([]byte("example.com/b v1.0.0 " + anyH1 + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range parseSums(data) {
			if err := module.Check(m.Path, m.Version); err != nil {
				t.Fatal(err)
			}
		}
	})
}
