package lru

import (
	"context"
	"fmt"
	"testing"
)

func BenchmarkGet(b *testing.B) {
	for _, limit := range []int64{0, 1 << 30} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			s := open(b, Config{MaxSize: limit})
			fill(b, s, "a/b/c.zip", mib)
			b.ReportAllocs()
			for b.Loop() {
				f, err := s.Get("a/b/c.zip")
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

func BenchmarkStat(b *testing.B) {
	s := open(b, Config{})
	mustPut(b, s, "a/b/c.mod", []byte("x"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Stat("a/b/c.mod"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut puts new files, and replaces the same few. The latter costs what the file system does so that a crash leaves
// the old content or the new: ext4 writes the new one out (https://docs.kernel.org/admin-guide/ext4.html, auto_da_alloc).
func BenchmarkPut(b *testing.B) {
	for _, keys := range []int{1 << 40, 10} {
		b.Run(fmt.Sprintf("replace=%v", keys == 10), func(b *testing.B) {
			s := open(b, Config{MaxSize: 1 << 30})
			data := content("x", 500)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if err := s.Put(fmt.Sprintf("m/%d/%d.mod", i%10, i%keys), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFill writes new files; in the store that evicts, each one costs an older one.
func BenchmarkFill(b *testing.B) {
	for _, evicts := range []bool{false, true} {
		for _, size := range []int{64 << 10, mib} {
			b.Run(fmt.Sprintf("size=%dKiB/evicts=%v", size>>10, evicts), func(b *testing.B) {
				limit := int64(0)
				if evicts {
					limit = 16 * mib
				}
				s := open(b, Config{MaxSize: limit})
				data := content("x", size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					f, err := s.Fill(context.Background(), fmt.Sprintf("d%d/%d.zip", i%10, i), func(_ context.Context, t *Temp) error {
						if err := t.Reserve(int64(len(data))); err != nil {
							return err
						}
						_, err := t.Write(data)
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
					f.Close()
				}
			})
		}
	}
}
