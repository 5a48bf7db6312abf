package control

import (
	"net/http"
	"os"

	modfs "modfs/fs"
)

// Hello is the answer to GET /v1/: who is there.
type Hello struct {
	API        int    `json:"api"`     // the version of what is offered: 1
	Version    string `json:"version"` // of modfs
	PID        int    `json:"pid"`
	Mountpoint string `json:"mountpoint"`
	Device     uint64 `json:"device"` // the mount's st_dev as fstat(2) gives it; 0: not known
}

// Status is the answer to GET /v1/status.
type Status struct {
	modfs.Status
}

func (s *Server) registerStatus(m *mux) {
	m.handle("GET /v1/{$}", s.hello)
	m.handle("GET /v1/status", s.status)
}

// hello asks nothing of the file system, which may hang.
func (s *Server) hello(w http.ResponseWriter, r *http.Request) error {
	return answer(w, Hello{API: 1, Version: s.version, PID: os.Getpid(), Mountpoint: s.fs.Mountpoint(), Device: s.fs.Device()})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	return answer(w, Status{*s.fs.Status()})
}
