package proxytest

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
)

const (
	faultPrefix = "/fault-"
	// hugeSize bounds the endless answer, so that a client without a limit fails its test instead of the machine.
	hugeSize = 64 << 20
	// floodSize does so, too, and is far beyond what a client may take into memory.
	floodSize = 1 << 30
	// pieces is how many writes a slow body takes.
	pieces = 16
)

// faults are the known faults. Those with a status answer nothing but that.
var faults = map[string]int{
	"none": 0, // for redirects around SetFault
	"404":  http.StatusNotFound,
	"410":  http.StatusGone,
	"403":  http.StatusForbidden,
	"500":  http.StatusInternalServerError,
	"503":  http.StatusServiceUnavailable,
	"429":  http.StatusTooManyRequests,
	"401":  http.StatusUnauthorized,
	"502":  http.StatusBadGateway,
	"504":  http.StatusGatewayTimeout,

	"429later": http.StatusTooManyRequests,

	"503once": 0, "stall": 0, "stallbody": 0, "truncate": 0, "reset": 0, "slow": 0, "html": 0, "tamper": 0, "norange": 0,
	"nosumdb": 0, "sumdbwrong": 0, "hugeinfo": 0, "redirect": 0, "badjson": 0, "nolength": 0,
	"resetbody": 0, "halfbody": 0, "toolong": 0, "tooshort": 0, "trickle": 0, "flood": 0, "floodlength": 0, "bomb": 0,
	"badtypes": 0, "badlist": 0, "other": 0, "redirectloop": 0, "redirectscheme": 0, "garbage": 0,
	"sumdbsig": 0, "sumdblong": 0, "sumdbstale": 0, "sumdbtiles": 0, "sumdbnotiles": 0,
}

// FaultURL returns the address, usable as GOPROXY, of the same proxy with a fault. It panics if there is no such fault.
//
//	404 410 401 403 429 500 502 503 504
//	                          that status for everything; 429 says Retry-After: 0
//	429later                  429 with Retry-After: 86400, a day
//	503once                   503 for the first request of each path, then no fault
//	stall                     the header, then nothing until Release
//	stallbody                 half of the body, then nothing until Release
//	truncate                  Content-Length of the whole body, half of it, and the connection is cut
//	reset                     the connection is reset without an answer
//	slow                      the body in 16 pieces a few milliseconds apart
//	html                      200 and a page of HTML for everything
//	tamper                    well-formed zips with one file changed, .mod files with a comment appended
//	nolength                  bodies of unannounced length, whole
//	norange                   Range headers are ignored
//	nosumdb                   404 for the database
//	sumdbwrong                the database has other hashes (those of tamper), all rightly signed; to a client that knows
//	                          the right tree, it is a fork
//	hugeinfo                  .info and @latest of 64 MiB, of unannounced length
//	badjson                   .info and @latest are not JSON
//	redirect                  302 to the same path without the fault
//	resetbody                 Content-Length of the whole body, half of it, and the connection is reset
//	halfbody                  half of the body, of unannounced length, with an orderly end
//	toolong                   Content-Length of more than the body, and the connection is cut after that
//	tooshort                  Content-Length of half of the body, which follows whole
//	trickle                   the header, then the body byte by byte, one each 300 ms
//	flood                     1 GiB of zeros for everything, of unannounced length
//	floodlength               the same with Content-Length: 8 GiB, and the connection is cut after that
//	bomb                      1 GiB of spaces for everything, as gzip of 1 MiB in Content-Encoding
//	garbage                   what is no HTTP: a line of 64 KiB
//	badtypes                  .info and @latest are JSON, but of other types
//	badlist                   list has lines, none of which is a version
//	other                     .info and @latest of version v9.9.9, .mod and .zip of example.com/other@v1.0.0
//	redirectloop              302 to the same path, for ever
//	redirectscheme            302 to an address with the scheme ftp
//	sumdbsig                  the database's tree heads have a wrong signature
//	sumdblong                 the database's tree heads are followed by 12 KiB that are no signature
//	sumdbstale                the database's tree heads are rightly signed, but of the tree that had its first record only
//	sumdbtiles                the database's tiles have a bit flipped
//	sumdbnotiles              404 for the database's tiles
//
// Where a request has a Range, half of the body is half of that range. The database answers below FaultURL too, at
// sumdb/NAME and at sumdb-direct.
func (s *Server) FaultURL(name string) string {
	if _, ok := faults[name]; !ok {
		panic("proxytest: no fault " + strconv.Quote(name))
	}
	return s.ts.URL + faultPrefix + name
}

// Faults returns the names FaultURL takes, sorted.
func Faults() []string { return slices.Sorted(maps.Keys(faults)) }

// SetFault sets the function that chooses the fault of each request not made through FaultURL. It gets the request's
// path, such as "/example.com/a/@v/list", and returns a name as FaultURL takes, or "" for no fault; a name that is none
// is answered with 501. It is called concurrently. A nil f ends the faults.
func (s *Server) SetFault(f func(path string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Release lets the responses go on that are stalled now; they are then sent completely. Later ones stall again.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.release)
	s.release = make(chan struct{})
}

// Stalled returns how many responses are stalled now; all of them have sent what they send before.
func (s *Server) Stalled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stalled
}

// serve takes the fault off the URL, notes the request and answers it.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	name, byPrefix := "", false
	if rest, ok := strings.CutPrefix(r.URL.Path, faultPrefix); ok {
		name, _, _ = strings.Cut(rest, "/")
		http.StripPrefix(faultPrefix+name, http.HandlerFunc(func(_ http.ResponseWriter, inner *http.Request) {
			r, byPrefix = inner, true
		})).ServeHTTP(w, r)
		if !byPrefix {
			return // the name was percent-encoded; StripPrefix has answered 404
		}
	}
	path := r.URL.Path
	s.Note(r.Method + " " + path)
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if !byPrefix && fault != nil {
		name = fault(path)
	}
	if name == "503once" {
		s.mu.Lock()
		if !s.seen[path] {
			s.seen[path] = true
			name = "503"
		}
		s.mu.Unlock()
	}
	status, ok := faults[name]
	switch {
	case name == "":
		s.plain(w, r, false, false)
	case !ok:
		http.Error(w, "no fault "+strconv.Quote(name), http.StatusNotImplemented)
	case status != 0:
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", map[string]string{"429": "0", "429later": "86400"}[name])
		}
		http.Error(w, "fault "+name, status)
	case strings.HasPrefix(name, "redirect"):
		target := r.URL.EscapedPath()
		switch {
		case name == "redirectscheme":
			target = "ftp://files.example" + target
		case name == "redirectloop" && byPrefix:
			target = faultPrefix + name + target
		case name == "redirect" && !byPrefix:
			target = faultPrefix + "none" + target // else SetFault's function would redirect it for ever
		}
		http.Redirect(w, r, target, http.StatusFound)
	default:
		s.misbehave(w, r, name)
	}
}

// misbehave answers with one of the faults that are more than a status.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, name string) {
	path := r.URL.Path
	isInfo := strings.HasSuffix(path, ".info") || strings.HasSuffix(path, "/@latest")
	isSum := strings.HasPrefix(path, "/sumdb/") || strings.HasPrefix(path, directPath+"/")
	switch {
	case name == "reset":
		reset(w)
	case name == "html":
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.Write([]byte("<!DOCTYPE html>\n<title>Welcome</title>\n<p>Please log in.\n")) // the client's loss
	case name == "nosumdb" && isSum:
		http.Error(w, "fault nosumdb", http.StatusNotFound)
	case name == "hugeinfo" && isInfo:
		s.huge(w)
	case name == "badjson" && isInfo:
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"Version": `)) // the client's loss
	case name == "badtypes" && isInfo:
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"Version": 1, "Time": ["v1.0.0"]}`)) // the client's loss
	case name == "badlist" && strings.HasSuffix(path, "/@v/list"):
		w.Write([]byte("master\nv1\n../v1.0.0\nlatest\n")) // the client's loss
	case name == "other" && !isSum:
		s.other(w, r)
	case name == "flood", name == "floodlength":
		flood(w, r, name == "floodlength")
	case name == "garbage":
		garbage(w)
	case name == "bomb":
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb()) // the client's loss
	case isSum && strings.HasPrefix(name, "sumdb") && name != "sumdbwrong":
		s.misbehaveSum(w, r, name)
	case name == "stall", name == "stallbody", name == "truncate", name == "slow", name == "resetbody", name == "halfbody",
		name == "toolong", name == "tooshort", name == "trickle":
		s.interrupt(w, r, name)
	case name == "nolength":
		rec := httptest.NewRecorder()
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		s.plain(rec, r, false, false)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		flush(w)
		w.Write(rec.Body.Bytes()) // the client's loss
	case name == "norange":
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		s.plain(noRange{w}, r, false, false)
	default:
		s.plain(w, r, name == "tamper", name == "sumdbwrong")
	}
}
