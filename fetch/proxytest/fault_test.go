package proxytest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const atA = "/example.com/a/@v/"

// TestBodyFaults checks what a client is sent that does not look at what it gets.
func TestBodyFaults(t *testing.T) {
	s := New(t)
	zip := s.ZipBytes("example.com/a", "v1.0.0")
	size, half := int64(len(zip)), zip[:len(zip)/2]
	for _, tt := range []struct {
		fault, file string
		length      int64 // -1: not announced; -2: whatever
		want        []byte
		err         error // of the body
	}{
		{"halfbody", "v1.0.0.zip", -1, half, nil},
		{"tooshort", "v1.0.0.zip", size / 2, half, nil},
		{"toolong", "v1.0.0.zip", size + 1000, zip, io.ErrUnexpectedEOF},
		{"badtypes", "v1.0.0.info", -2, []byte(`{"Version": 1, "Time": ["v1.0.0"]}`), nil},
		{"badlist", "list", -2, []byte("master\nv1\n../v1.0.0\nlatest\n"), nil},
		{"other", "v1.0.0.info", -2, []byte(`{"Version":"v9.9.9","Time":"2020-01-02T03:04:05Z"}`), nil},
		{"other", "v1.0.0.mod", -2, []byte("module example.com/other\n"), nil},
		{"other", "list", -2, []byte("v1.0.0\n"), nil},
		{"trickle", "list", -2, []byte("v1.0.0\n"), nil},
	} {
		resp, data, err := get(t, "GET", s.FaultURL(tt.fault)+atA+tt.file)
		if resp == nil || resp.StatusCode != http.StatusOK || !errors.Is(err, tt.err) || !bytes.Equal(data, tt.want) {
			t.Errorf("%s of %s: %v, %d bytes, %v", tt.fault, tt.file, resp, len(data), err)
		} else if tt.length >= -1 && resp.ContentLength != tt.length {
			t.Errorf("%s of %s: Content-Length %d, want %d", tt.fault, tt.file, resp.ContentLength, tt.length)
		}
	}
	if resp, data, err := get(t, "GET", s.FaultURL("resetbody")+atA+"v1.0.0.zip"); err == nil || resp != nil && resp.ContentLength != size {
		t.Errorf("resetbody: %v, %d bytes", resp, len(data))
	}
	if resp, _, err := get(t, "GET", s.FaultURL("other")+atA+"v1.0.0.zip"); err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength == size {
		t.Errorf("other zip: %v, %v", resp, err)
	}
	if resp, _, err := get(t, "HEAD", s.FaultURL("toolong")+atA+"v1.0.0.zip"); err != nil || resp.ContentLength != size+1000 {
		t.Errorf("HEAD: %v, %v", resp, err)
	}
	if resp, _, err := get(t, "GET", s.FaultURL("429later")+atA+"list"); err != nil || resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "86400" {
		t.Errorf("429later: %v, %v", resp, err)
	}
	for fault, text := range map[string]string{"garbage": "malformed HTTP", "redirectloop": "stopped after 10 redirects", "redirectscheme": "unsupported protocol scheme"} {
		if _, _, err := get(t, "GET", s.FaultURL(fault)+atA+"list"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", fault, err)
		}
	}
}

// TestFloods looks at how floods begin.
func TestFloods(t *testing.T) {
	s := New(t)
	for fault, length := range map[string]int64{"flood": -1, "floodlength": 8 << 30, "bomb": -1} {
		resp, err := http.Get(s.FaultURL(fault) + atA + "v1.0.0.info")
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, 40<<20)) // more than one part of the bomb
		resp.Body.Close()
		if err != nil || len(data) != 40<<20 || resp.ContentLength != length {
			t.Errorf("%s: %d bytes of %d, %v", fault, len(data), resp.ContentLength, err)
		}
	}
	resp, data, err := get(t, "GET", s.FaultURL("bomb")+atA+"list", "Accept-Encoding", "gzip")
	if err != nil || resp.Header.Get("Content-Encoding") != "gzip" || len(data) > 4<<20 {
		t.Fatalf("bomb: %v, %d bytes, %v", resp, len(data), err)
	}
	if testing.Short() {
		return // inflating all of it takes seconds with the race detector
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, z); n != floodSize || err != nil {
		t.Errorf("bomb: %d bytes, %v", n, err)
	}
}

// TestSumFaults has a client that verifies everything look at the database, and what it finds is what is wrong.
func TestSumFaults(t *testing.T) {
	s := New(t)
	lookup := func(base, path string) error {
		_, err := sumdb.NewClient(&dbOps{base: base, key: s.SumDBKey()}).Lookup(path, "v1.0.0")
		return err
	}
	for _, path := range []string{"example.com/a", "example.com/b", "example.com/many"} {
		if err := lookup(s.URL()+directPath, path); err != nil {
			t.Fatal(err)
		}
	}
	for fault, text := range map[string]string{
		"sumdbsig":     "invalid signature",
		"sumdblong":    "malformed note",
		"sumdbstale":   "cannot validate record 2 in tree of size 1",
		"sumdbtiles":   "downloaded inconsistent tile",
		"sumdbnotiles": "404 Not Found",
	} {
		if err := lookup(s.FaultURL(fault)+directPath, "example.com/many"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want %q", fault, err, text)
		}
	}
	// What it has of the stale tree is right.
	if err := lookup(s.FaultURL("sumdbstale")+directPath, "example.com/a"); err != nil {
		t.Errorf("sumdbstale: %v", err)
	}
	verifier, err := note.NewVerifier(s.SumDBKey())
	if err != nil {
		t.Fatal(err)
	}
	for fault, size := range map[string]int64{"none": 3, "sumdbstale": 1} {
		_, data, err := get(t, "GET", s.FaultURL(fault)+directPath+"/latest")
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open(data, note.VerifierList(verifier))
		if err != nil {
			t.Fatalf("%s: %v", fault, err)
		}
		if head, err := tlog.ParseTree([]byte(n.Text)); err != nil || head.N != size {
			t.Errorf("%s: latest is of %s records, %v; want %d", fault, strconv.FormatInt(head.N, 10), err, size)
		}
	}
}
