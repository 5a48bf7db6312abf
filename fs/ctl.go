package fs

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// ctlName is the file of .modfs that is a symbolic link to the socket of the daemon's control plane; see package control.
const ctlName = "ctl"

// SetControl makes .modfs/ctl a symbolic link to the socket at that path, for the user whose daemon this is and for root; others
// are not even told that there is one. "", as at first, is for no link.
func (f *FS) SetControl(socket string) { f.control.Store(&socket) }

// OnClose has Close call do before it unmounts, when requests that are under way have been told to end. The last that was given is called first.
func (f *FS) OnClose(do func()) {
	f.closing.Lock()
	defer f.closing.Unlock()
	f.closers = append(f.closers, do)
}

// runClosers calls what OnClose was given.
func (f *FS) runClosers() {
	f.closing.Lock()
	closers := f.closers
	f.closers = nil
	f.closing.Unlock()
	for _, do := range slices.Backward(closers) {
		do()
	}
}

// Device is the device number of the mount, 0 where that is not known. It is the same wherever the mount is bound to.
func (f *FS) Device() uint64 { return f.dev }

// commands reports whether a user may tell the daemon what to do.
func (f *FS) commands(uid uint32) bool { return uid == f.owner.Uid || uid == 0 }

// ctl returns what .modfs/ctl links to for a user. Each lookup and each reading of the link is answered for who asks: the kernel is
// not to keep either.
func (f *FS) ctl(uid uint32) (target string, status fuse.Status) {
	socket := f.control.Load()
	switch {
	case !f.commands(uid):
		return "", fuse.EACCES
	case socket == nil || *socket == "":
		return "", fuse.ENOENT
	}
	return *socket, fuse.OK
}

// isCtl reports whether a node is .modfs/ctl.
func (n *node) isCtl() bool { return n.Kind == KindControl && n.Rest == ctlName }
