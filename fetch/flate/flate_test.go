package flate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

func goroot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// samples are contents that make a compressor use all that the format has.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	skewed := make([]byte, 300_000) // long codes: the frequencies are those of Fibonacci
	for i := range skewed {
		for skewed[i] = 0; skewed[i] < 40 && rnd.IntN(1000) < 382; skewed[i]++ {
		}
	}
	s := map[string][]byte{
		"empty": nil, "one": {'x'}, "noise": noise, "skewed": skewed,
		"zeros": make([]byte, 1<<20), "pairs": bytes.Repeat([]byte("ab"), 5000), "short": []byte("hello, hello, hello"),
		"periods": nil,
	}
	for n := range 40 {
		s["periods"] = append(s["periods"], bytes.Repeat(noise[:n+1], 400/(n+1)+1)...)
	}
	for _, name := range []string{"fmt/print.go", "net/http/server.go", "unicode/tables.go", "cmd/compile/internal/ssa/rewriteAMD64.go"} {
		data, err := os.ReadFile(filepath.Join(goroot(t), "src", name))
		if err != nil {
			t.Fatal(err)
		}
		s[name] = data
	}
	return s
}

// deflate compresses data in several ways.
func deflate(t testing.TB, data []byte) map[string][]byte {
	t.Helper()
	packed := make(map[string][]byte)
	for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // and blocks between
			w.Write(data[len(data)*i/3 : len(data)*(i+1)/3])
			if level == 9 {
				w.Flush()
			}
		}
		w.Close()
		packed[fmt.Sprint("level ", level)] = b.Bytes()
	}
	return packed
}

func TestInflate(t *testing.T) {
	var z Inflater
	for name, data := range samples(t) {
		for how, packed := range deflate(t, data) {
			what := name + ", " + how
			for _, tail := range []int{0, 1, 7, 100} { // what follows is nobody's business
				dst := make([]byte, len(data)+tail)
				n, err := z.Inflate(dst, append(bytes.Clone(packed), make([]byte, tail)...))
				if err != nil || n != len(data) || !bytes.Equal(dst[:n], data) {
					t.Fatalf("%s, %d more: %d bytes of %d, %v", what, tail, n, len(data), err)
				}
			}
			for _, room := range []int{0, 1, len(data) / 2, len(data) - 300, len(data) - 1} {
				if room < 0 || room >= len(data) {
					continue
				}
				dst := make([]byte, room)
				if n, err := z.Inflate(dst, packed); err != ErrFull || n != room || !bytes.Equal(dst, data[:room]) {
					t.Fatalf("%s, room for %d: %d, %v", what, room, n, err)
				}
			}
			for _, size := range []int{0, 1, len(packed) / 2, len(packed) - 20, len(packed) - 1} {
				if size < 0 || size >= len(packed) {
					continue
				}
				if _, err := z.Inflate(make([]byte, len(data)), packed[:size:size]); err != io.ErrUnexpectedEOF {
					t.Fatalf("%s, %d bytes of %d: %v", what, size, len(packed), err)
				}
			}
		}
	}
}

// agree fails unless the standard library thinks the same of src, as far as limit bytes of content go.
func agree(t *testing.T, z *Inflater, src []byte, limit int) {
	t.Helper()
	want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(src)), int64(limit)+1))
	dst := make([]byte, limit)
	n, err := z.Inflate(dst, src)
	if both := min(n, len(want)); !bytes.Equal(dst[:both], want[:both]) {
		t.Fatalf("%x: the first %d bytes are others than those of the standard library", src, both)
	}
	switch {
	case err == ErrFull:
		if n != limit || wantErr == nil && len(want) <= limit {
			t.Fatalf("%x: full with %d bytes; the standard library has %d, %v", src, n, len(want), wantErr)
		}
	case (err == nil) != (wantErr == nil) || err == nil && n != len(want):
		t.Fatalf("%x: %d bytes, %v; the standard library: %d, %v", src, n, err, len(want), wantErr)
	}
}

// Whatever one bit that is wrong makes of the data, it is accepted or not as by the standard library.
func TestDamaged(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var z Inflater
	for _, data := range samples(t) {
		data = data[:min(len(data), 5000)]
		for _, packed := range deflate(t, data) {
			for range 200 {
				src := bytes.Clone(packed)
				for range 1 + rnd.IntN(3) {
					src[min(rnd.IntN(len(src)), rnd.IntN(len(src)))] ^= 1 << rnd.IntN(8)
				}
				agree(t, &z, src[:len(src)-rnd.IntN(2)*rnd.IntN(len(src))], len(data)+rnd.IntN(500))
			}
		}
	}
}

// Whatever the pieces, the content is the same.
func TestNext(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var z Inflater
	for name, data := range samples(t) {
		for how, packed := range deflate(t, data) {
			for _, piece := range []int{1, 300, 50_000} {
				if piece == 1 && len(data) > 5000 {
					continue
				}
				buf := make([]byte, Window+piece)
				var got []byte
				n, err := z.Inflate(buf[:rnd.IntN(piece+1)], packed)
				got = append(got, buf[:n]...)
				for err == ErrFull {
					have := copy(buf[:Window], got[max(0, len(got)-Window):])
					n, err = z.Next(buf[:have+1+rnd.IntN(piece)], have)
					got = append(got, buf[have:have+n]...)
				}
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%s, %s, pieces of %d: %d bytes of %d, %v", name, how, piece, len(got), len(data), err)
				}
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, data := range samples(f) {
		for _, packed := range deflate(f, data[:min(len(data), 1000)]) {
			f.Add(packed, uint16(1000))
		}
	}
	var z Inflater // used again and again, as it is by others
	f.Fuzz(func(t *testing.T, src []byte, limit uint16) { agree(t, &z, src, int(limit)) })
}

func BenchmarkInflate(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(goroot(b), "src/net/http/server.go"))
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{4000, len(data)} {
		data := data[:size]
		packed := deflate(b, data)["level 6"]
		dst := make([]byte, len(data))
		run := func(name string, inflate func() error) {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					if err := inflate(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		var z Inflater
		run("slices", func() error {
			_, err := z.Inflate(dst, packed)
			return err
		})
		for name, r := range map[string]io.ReadCloser{"klauspost": kflate.NewReader(nil), "standard": flate.NewReader(nil)} {
			in := bytes.NewReader(nil)
			run(name, func() error {
				in.Reset(packed)
				r.(flate.Resetter).Reset(in, nil)
				_, err := io.ReadFull(r, dst)
				return err
			})
		}
	}
}
