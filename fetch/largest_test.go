package fetch_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// TestLargest checks zips that are nearly as large as they may be, and one with more files than the zip format's first
// directory has room for. What the go command makes of them is seen by TestHostileZips, where that is not too slow.
func TestLargest(t *testing.T) {
	if testing.Short() {
		t.Skip("inflates half a GiB")
	}
	m := module.Version{Path: "example.com/largest", Version: "v1.0.0"}
	p := m.String() + "/"
	var many []proxytest.RawEntry
	for i := range 70_000 {
		many = append(many, proxytest.RawStored(fmt.Sprintf("%sd%d/f%d", p, i%100, i), ""))
	}
	for name, entries := range map[string][]proxytest.RawEntry{"size": {proxytest.RawZeros(p+"big", 499<<20)}, "files": many} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := proxytest.RawZip{Entries: entries}.Bytes()
			file := filepath.Join(t.TempDir(), "largest.zip")
			if err := os.WriteFile(file, data, 0o666); err != nil {
				t.Fatal(err)
			}
			want, err := dirhash.HashZip(file, dirhash.Hash1)
			if err != nil {
				t.Fatal(err)
			}
			got, err := fetch.HashZip(t.Context(), m, bytes.NewReader(data), int64(len(data)), 0, fetch.Watch{})
			if err != nil || got != want {
				t.Errorf("%s, %v, want %s", got, err, want)
			}
		})
	}
}
