package control

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	modfs "modfs/fs"
)

// maxSocketPath is how long the path of a unix socket may be, in bytes, without the zero at its end: sun_path of unix(7) has 108 of
// them on Linux, and 104 on the others.
const maxSocketPath = 103

// Socket is a unix socket that only its owner can reach.
type Socket struct {
	net.Listener
	Path string // absolute

	link string // in the store, to Path; "" if Path is in the store itself
	dir  string // of Path, which is removed if it is empty; "" if it is not ours
}

// Listen makes the socket of the daemon that has the store at an absolute path, and so its lock. What an earlier daemon left there is
// replaced.
//
// The socket is control.sock in the store, which only its owner can enter. Where that path is too long for a socket, or the file
// system has none, it is in a directory of its own below XDG_RUNTIME_DIR, or that for temporary files, and there is a symbolic link in
// its place. Close it before the store.
func Listen(store string) (*Socket, error) {
	path := filepath.Join(store, modfs.SocketName)
	if err := clear(path); err != nil {
		return nil, err
	}
	var first error
	if len(path) <= maxSocketPath {
		l, err := listenUnix(path)
		if err == nil {
			return &Socket{Listener: l, Path: path}, nil
		}
		first = err
	}
	errs := []error{first}
	for _, dir := range append(shortDirs(), "") {
		s, err := listenIn(dir, store)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Symlink(s.Path, path); err != nil {
			s.Close()
			return nil, err
		}
		s.link = path
		return s, nil
	}
	return nil, fmt.Errorf("no place for the control socket: %w", errors.Join(errs...))
}

// clear removes the socket at path, or the link to one and that.
func clear(path string) error {
	if target, err := os.Readlink(path); err == nil {
		if fi, err := os.Lstat(target); err == nil && fi.Mode().Type() == os.ModeSocket {
			os.Remove(target)               // best effort: nobody answers there
			os.Remove(filepath.Dir(target)) // the same; it is one for sockets, and others may have theirs in it
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// listenUnix makes a socket for its owner. Who gets in before it is made so, whom the directory should keep out, is refused; see
// peer.go.
func listenUnix(path string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// shortDirs returns the directories for sockets, best first.
func shortDirs() []string {
	var dirs []string
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) && private(d) == nil {
		dirs = append(dirs, filepath.Join(d, "modfs"))
	}
	own := "modfs-" + strconv.Itoa(os.Geteuid())
	return append(dirs, filepath.Join(os.TempDir(), own), filepath.Join("/tmp", own))
}

// listenIn makes the socket for a store in a directory, which it creates; "" is for one that nobody else can have made before.
func listenIn(dir, store string) (*Socket, error) {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("/tmp", "modfs-"); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, fmt.Sprintf("%.12x.sock", sha256.Sum256([]byte(store))))
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s is too long for a socket", path)
	}
	var l net.Listener
	var err error
	for range 3 { // another daemon may be removing the directory
		if err = os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		// In a directory for all, somebody else may have made one of that name.
		if err = private(dir); err != nil {
			return nil, err
		}
		if err = clear(path); err != nil {
			return nil, err
		}
		if l, err = listenUnix(path); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return &Socket{Listener: l, Path: path, dir: dir}, nil
}

// private returns an error unless path is a directory that only this user can enter.
func private(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !fi.IsDir() || fi.Mode().Perm()&0o077 != 0 || !ok || st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is not a directory of this user's alone", path)
	}
	return nil
}

// Close removes the socket.
func (s *Socket) Close() error {
	err := s.Listener.Close() // removes it, too
	if s.link != "" {
		os.Remove(s.link) // best effort: nobody answers there
	}
	if s.dir != "" {
		os.Remove(s.dir) // best effort: others may have theirs in it
	}
	return err
}
