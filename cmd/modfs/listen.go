package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	modfs "modfs/fs"
	"modfs/fs/control"
)

// listenUsage is that of --listen.
const listenUsage = "serve a web page, metrics and health at `address` [HOST:]PORT, on this machine unless HOST is another (default: none)"

// openWeb opens the address of --listen, before there is a mount that would be in vain, and has the mount that o is for tell what it
// does. It returns nil if there is no such flag.
func (f *serveFlags) openWeb(o *modfs.Options) (*control.Web, error) {
	if f.listen == "" {
		return nil, nil
	}
	w, err := control.ListenWeb(f.listen)
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return nil, usagef("--listen: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--listen: %w: give another address", err)
	}
	w.Watch(o)
	return w, nil
}

// startWeb serves what w is for, and says where.
func startWeb(w *control.Web, m *modfs.FS, o *modfs.Options, say io.Writer) {
	if w == nil {
		return
	}
	w.Start(control.Options{FS: m, Version: version(), Log: o.Log})
	fmt.Fprintf(say, "modfs: page and metrics at %s\n", w.URL())
	if !w.Loopback() {
		o.Log.Warn("whoever can reach this address can read which modules are used here", "url", w.URL())
	}
}
