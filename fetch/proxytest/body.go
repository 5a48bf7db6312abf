package proxytest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// interrupt sends the good answer in a bad way.
func (s *Server) interrupt(w http.ResponseWriter, r *http.Request, name string) {
	rec := httptest.NewRecorder()
	s.plain(rec, r, false, false)
	body := rec.Body.Bytes()
	maps.Copy(w.Header(), rec.Header())
	length := len(body)
	if n, err := strconv.Atoi(rec.Header().Get("Content-Length")); err == nil && r.Method == http.MethodHead {
		length = n
	}
	switch name {
	case "toolong":
		length += 1000
	case "tooshort":
		length /= 2
	}
	w.Header().Set("Content-Length", strconv.Itoa(length))
	switch name {
	case "halfbody":
		w.Header().Del("Content-Length")
	case "tooshort":
		w.Header().Set("Connection", "close")
		raw(w, rec.Code, body)
		return
	}
	w.WriteHeader(rec.Code)
	// Errors of writing below mean that the client left, which ends the handler soon anyway.
	switch half := len(body) / 2; name {
	case "stall":
		flush(w)
		s.stall(r)
		w.Write(body)
	case "stallbody":
		w.Write(body[:half])
		flush(w)
		s.stall(r)
		w.Write(body[half:])
	case "truncate":
		w.Write(body[:half])
		flush(w)
		panic(http.ErrAbortHandler) // cuts the connection
	case "resetbody":
		w.Write(body[:half])
		flush(w)
		reset(w)
	case "halfbody":
		flush(w)
		w.Write(body[:half])
	case "toolong":
		w.Write(body)
	case "trickle":
		flush(w)
		for i := range body {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-r.Context().Done():
				return
			case <-s.done:
				return
			}
			w.Write(body[i : i+1])
			flush(w)
		}
	case "slow":
		for piece := range slices.Chunk(body, max(1, (len(body)+pieces-1)/pieces)) {
			w.Write(piece)
			flush(w)
			select {
			case <-time.After(5 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
}

// stall returns after Release. It ends the handler when the client leaves or the server closes.
func (s *Server) stall(r *http.Request) {
	s.mu.Lock()
	release := s.release
	s.stalled++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.stalled--
		s.mu.Unlock()
	}()
	select {
	case <-release:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-s.done:
		panic(http.ErrAbortHandler)
	}
}

// huge sends hugeSize bytes that begin like an .info file.
func (s *Server) huge(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	chunk := bytes.Repeat([]byte("a"), 64<<10)
	if _, err := w.Write([]byte(`{"Version":"v1.0.0`)); err != nil {
		return
	}
	for range hugeSize / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// flood sends zeros until the client has enough.
func flood(w http.ResponseWriter, r *http.Request, announced bool) {
	if announced {
		w.Header().Set("Content-Length", strconv.Itoa(8<<30))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	flush(w)
	chunk := make([]byte, 64<<10)
	for range floodSize / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// bomb is gzip of floodSize spaces. It is made of many small files, which is one file to gzip.
var bomb = sync.OnceValue(func() []byte {
	const part = 16 << 20
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(bytes.Repeat([]byte(" "), part)) // cannot fail, nor can Close: it goes into memory
	z.Close()
	return bytes.Repeat(b.Bytes(), floodSize/part)
})

// raw answers with the header of w and a body that need not have the length that the header says.
func raw(w http.ResponseWriter, code int, body []byte) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	fmt.Fprintf(buf, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	w.Header().Write(buf)
	buf.WriteString("\r\n")
	buf.Write(body)
	buf.Flush() // an error means that the client left
}

// garbage answers with a long line.
func garbage(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	conn.Write(append(bytes.Repeat([]byte("nonsense"), 8<<10), "\r\n\r\n"...)) // an error means that the client left
}

// other answers with what belongs to another module or version.
func (s *Server) other(w http.ResponseWriter, r *http.Request) {
	m := Module{Path: "example.com/other", Version: "v1.0.0", Files: map[string]string{"other.go": "package other\n"}}.complete()
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, ".info"), strings.HasSuffix(path, "/@latest"):
		w.Write([]byte(`{"Version":"v9.9.9","Time":"2020-01-02T03:04:05Z"}`)) // the client's loss
	case strings.HasSuffix(path, ".mod"):
		w.Write([]byte(m.Mod)) // the client's loss
	case strings.HasSuffix(path, ".zip"):
		data, err := m.zip()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		http.ServeContent(w, r, "", fixedTime, bytes.NewReader(data))
	default:
		s.plain(w, r, false, false)
	}
}

// reset closes the connection so that the client gets a reset, not an orderly end.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // best effort: without it the client sees an end of file
	}
	conn.Close() // best effort
}

// flush sends what is written so far; an error means that the client left.
func flush(w http.ResponseWriter) { http.NewResponseController(w).Flush() }

// noRange keeps the answer from announcing ranges.
type noRange struct{ http.ResponseWriter }

// WriteHeader is where http.ServeContent has set all headers.
func (w noRange) WriteHeader(code int) {
	w.Header().Del("Accept-Ranges")
	w.ResponseWriter.WriteHeader(code)
}
