package fs

import (
	"testing"

	"golang.org/x/sys/unix"

	"modfs/fetch/proxytest"
)

// statfs returns what df(1) would show of a mount, in bytes.
func statfs(tb testing.TB, dir string) (total, free int64) {
	tb.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		tb.Fatal(err)
	}
	if st.Bavail != st.Bfree || st.Namelen != 255 || st.Frsize != st.Bsize {
		tb.Errorf("%+v", st)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bfree) * st.Bsize
}

// TestStatFs checks that the mount is as large as its store may become.
func TestStatFs(t *testing.T) {
	m := noise("example.com/noise", 1, 1<<20)
	s := proxytest.New(t, m)
	const limit = 64 << 20
	dir, f := mountTest(t, s, func(o *Options) { o.Store.MaxSize = limit })
	if u := f.store.Usage(); u.Free < limit {
		t.Skip("the partition has no 64 MiB free")
	}
	total, before := statfs(t, dir)
	if total != limit || before > limit || before < limit-1<<20 {
		t.Errorf("an empty store of %d bytes: %d of %d are free", limit, before, total)
	}
	readFile(t, in(dir, m.String()+"/go.mod"))
	zip := int64(len(s.ZipBytes(m.Path, m.Version)))
	if _, after := statfs(t, dir); before-after < zip || before-after > zip+1<<20 {
		t.Errorf("a zip of %d bytes took %d", zip, before-after)
	}

	// Without a limit, or one that the partition cannot hold, it is the partition's size.
	for _, max := range []int64{0, 1 << 60} {
		dir, f := mountTest(t, s, func(o *Options) { o.Store.MaxSize = max })
		u := f.store.Usage()
		if total, _ := statfs(t, dir); total != u.Total/blockSize*blockSize {
			t.Errorf("limit %d: %d bytes, the partition has %d", max, total, u.Total)
		}
	}
}
