package fetch

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// Whatever the sizes of the reads, the bytes are the same.
func TestInflate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 100, 5000, 300_000, 3 * maxPacked} {
		data := make([]byte, size)
		for i := range data {
			data[i] = "0123456789abcdef"[rnd.IntN(16)]
		}
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, 6)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		for _, in := range []func() io.Reader{
			func() io.Reader { return io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, int64(b.Len())) },
			func() io.Reader { return bytes.NewReader(b.Bytes()) },
		} {
			for _, first := range []int{0, 1, 60, size / 2, size - 1, size, size + 1} {
				if first < 0 || first > size+1 {
					continue
				}
				what := fmt.Sprintf("%d bytes, the first read of %d", size, first)
				z := Inflate(in())
				got := make([]byte, first)
				n, err := io.ReadFull(z, got)
				if n != min(first, size) || err != nil && first <= size {
					t.Fatalf("%s: %d, %v", what, n, err)
				}
				var in io.Reader = z
				if size <= 5000 {
					in = iotest.OneByteReader(z)
				}
				rest, err := io.ReadAll(in)
				if err != nil || !bytes.Equal(append(got[:n], rest...), data) {
					t.Fatalf("%s: %d bytes more, %v", what, len(rest), err)
				}
				if n, err := z.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Fatalf("%s: after the end: %d, %v", what, n, err)
				}
				z.Close()
			}
		}
	}
}

// What is wrong is an error in both ways, and leaves nothing to the next one.
func TestInflateBad(t *testing.T) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 6)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("some text, "), 1000))
	w.Close()
	packed := b.Bytes()
	section := func(data []byte) io.Reader { return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))) }
	broken := bytes.Clone(packed)
	broken[0] |= 6 // no such block
	for range 3 {
		for name, in := range map[string]io.Reader{
			"cut": section(packed[:len(packed)-1]), "nothing": section(nil), "broken": section(broken),
			"cut stream": bytes.NewReader(packed[:len(packed)-1]), "broken stream": bytes.NewReader(broken),
			"no disk": io.NewSectionReader(&brokenReader{ReaderAt: bytes.NewReader(packed)}, 0, int64(len(packed))),
		} {
			z := Inflate(in)
			n, err := io.ReadFull(z, make([]byte, 11_000))
			if n == 11_000 {
				_, err = z.Read(make([]byte, 1))
			}
			if err == nil || err == io.EOF && name != "nothing" {
				t.Errorf("%s: %d bytes, %v", name, n, err)
			}
			if name == "no disk" && !errors.Is(err, errDisk) {
				t.Errorf("%s: %v", name, err)
			}
			z.Close()
		}
		z := Inflate(section(packed))
		if data, err := io.ReadAll(z); err != nil || len(data) != 11_000 {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		z.Close()
	}
}
