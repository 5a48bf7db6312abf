package fs

import (
	"os"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// TestReadOnly tries to change what must not change.
func TestReadOnly(t *testing.T) {
	s := proxytest.New(t)
	dir, f := mountTest(t, s, nil)
	m := module1(t, "example.com/a@v1.0.0")
	before := snapshot(t, in(dir, m.String()))
	info := in(dir, infoKey(moduleA))
	readFile(t, info)
	for _, d := range []string{"", "example.com", m.String(), m.String() + "/sub", "cache", "cache/download/example.com/a/@v", ".modfs"} {
		d := in(dir, d)
		// A capital: what could be the path of a module is there already.
		for what, do := range map[string]func() error{
			"create":  func() error { return os.WriteFile(in(d, "NEW"), []byte("x"), 0o666) },
			"mkdir":   func() error { return os.Mkdir(in(d, "NEW"), 0o777) },
			"symlink": func() error { return os.Symlink("x", in(d, "NEW")) },
			"link":    func() error { return os.Link(info, in(d, "NEW")) },
			"rename":  func() error { return os.Rename(info, in(d, "NEW")) },
			"chmod":   func() error { return os.Chmod(d, 0o777) },
			"chtimes": func() error { return os.Chtimes(d, time.Time{}, time.Unix(1, 0)) },
			"chown":   func() error { return os.Chown(d, 1, 1) },
		} {
			if err := do(); err == nil {
				t.Errorf("%s in %s: no error", what, d)
			} else {
				wantErr(t, err, syscall.EROFS)
			}
		}
	}
	for _, p := range []string{m.String() + "/a.go", infoKey(moduleA), zipKey(moduleA), ".modfs/errors"} {
		p := in(dir, p)
		open := func(flag int) error {
			file, err := os.OpenFile(p, flag, 0o666)
			if err == nil {
				file.Close()
			}
			return err
		}
		for what, do := range map[string]func() error{
			"write":    func() error { return open(os.O_WRONLY) },
			"append":   func() error { return open(os.O_RDWR | os.O_APPEND) },
			"truncate": func() error { return os.Truncate(p, 0) },
			"open new": func() error { return open(os.O_RDWR | os.O_CREATE | os.O_TRUNC) },
			"unlink":   func() error { return syscall.Unlink(p) },
			"chmod":    func() error { return os.Chmod(p, 0o666) },
			"replace":  func() error { return os.Rename(in(dir, m.String()+"/LICENSE"), p) },
		} {
			if err := do(); err == nil {
				t.Errorf("%s %s: no error", what, p)
			} else {
				wantErr(t, err, syscall.EROFS)
			}
		}
	}
	wantErr(t, syscall.Rmdir(in(dir, m.String()+"/sub")), syscall.EROFS)
	wantErr(t, syscall.Rmdir(in(dir, m.String())), syscall.EROFS)
	after := snapshot(t, in(dir, m.String()))
	for p, v := range before {
		if after[p] != v {
			t.Errorf("%s: %q, was %q", p, after[p], v)
		}
	}
	if n := f.errors.count(); n != 0 {
		t.Errorf("%d errors: %s", n, f.errors.lines())
	}
}
