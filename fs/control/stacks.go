package control

import (
	"net/http"
	"runtime"
)

// maxStacks bounds the stacks of all goroutines, in bytes; what does not fit is cut off.
const maxStacks = 4 << 20

// Stacks is the answer to GET /v1/stacks: what each goroutine of the daemon is doing, as runtime.Stack writes it. It asks nothing of
// the file system, so that a daemon that hangs answers as well. All goroutines stop for a moment.
type Stacks struct {
	Stacks string `json:"stacks"`
}

func (s *Server) registerStacks(m *mux) {
	m.handle("GET /v1/stacks", func(w http.ResponseWriter, _ *http.Request) error {
		buf := make([]byte, maxStacks)
		return answer(w, Stacks{string(buf[:runtime.Stack(buf, true)])})
	})
}
