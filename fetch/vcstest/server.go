// Package vcstest serves git repositories on loopback, for tests: by `git daemon`, and over https with go-import tags, as hosts of
// modules do. Nothing leaves the machine: the environment of Env has git and the go command take this server for every host.
package vcstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"modfs/fetch/proxytest"
)

// The names of the hosts. Repository NAME is at https://GitHost/NAME.git, and module DaemonHost/NAME.git is what `git daemon`
// serves. Any other host below .test answers go-import tags.
const (
	GitHost    = "git.test"
	DaemonHost = "daemon.test"
	PlainHost  = "plain.test" // has no https
)

// User and Password are what private repositories want.
const (
	User     = "gopher"
	Password = "s3cr3t-t0ken"
)

// A Server serves repositories. Its methods may be called concurrently.
type Server struct {
	// "GET git.test/NAME.git/info/refs" and the like, and "git daemon" for a connection to that.
	proxytest.RequestLog

	tb       testing.TB
	dir      string
	tls      *httptest.Server
	proxy    *httptest.Server
	daemon   net.Listener
	backend  string
	release  chan struct{}
	tunnels  sync.WaitGroup
	children sync.WaitGroup

	mu      sync.Mutex
	imports map[string]string // the content of a go-import tag by its prefix
	private map[string]bool
	stalled func(r *http.Request) bool
	status  func(r *http.Request) int
	waiting int
	conns   map[net.Conn]bool
}

// New returns a running server, which ends with tb. It skips the test where there is no git, or another certificate store than
// files.
func New(tb testing.TB) *Server {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("the go command does not read SSL_CERT_FILE on all systems")
	}
	backend := ""
	if path, err := exec.Command("git", "--exec-path").Output(); err != nil {
		tb.Skipf("no git: %v", err)
	} else if backend = filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"); !exists(backend) {
		tb.Skip("git has no http-backend")
	}
	s := &Server{tb: tb, dir: tb.TempDir(), backend: backend, release: make(chan struct{}), imports: make(map[string]string),
		private: make(map[string]bool), conns: make(map[net.Conn]bool)}
	for _, d := range []string{"git", "work"} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o777); err != nil {
			tb.Fatal(err)
		}
	}
	s.tls = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.tls.TLS = &tls.Config{Certificates: []tls.Certificate{s.certificate()}}
	s.tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.tls.StartTLS()
	s.proxy = httptest.NewServer(http.HandlerFunc(s.connect))
	var err error
	if s.daemon, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	s.children.Go(s.serveDaemon)
	tb.Cleanup(s.close)
	return s
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func (s *Server) close() {
	s.Release()
	s.daemon.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.tls.CloseClientConnections()
	s.tls.Close()
	s.proxy.CloseClientConnections()
	s.proxy.Close()
	s.tunnels.Wait()
	s.children.Wait()
}

// certificate makes a certificate for all hosts below .test, and leaves it in cert.pem.
func (s *Server) certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vcstest"}, DNSNames: []string{"*.test", GitHost},
		// (GnuTLS wants two labels after the star.)
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		s.tb.Fatal(err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(s.certFile(), data, 0o666); err != nil {
		s.tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (s *Server) certFile() string { return filepath.Join(s.dir, "cert.pem") }

// Env returns the environment variables, KEY=value, with which the go command and git ask this server only.
func (s *Server) Env() []string {
	return []string{
		"HTTPS_PROXY=" + s.proxy.URL, "https_proxy=" + s.proxy.URL, "HTTP_PROXY=" + s.proxy.URL, "http_proxy=" + s.proxy.URL, "NO_PROXY=", "no_proxy=",
		"SSL_CERT_FILE=" + s.certFile(), "GIT_SSL_CAINFO=" + s.certFile(),
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=url.git://" + s.daemon.Addr().String() + "/.insteadOf", "GIT_CONFIG_VALUE_0=https://" + DaemonHost + "/",
	}
}

// Import makes the host of prefix, an import path, answer with a go-import tag: vcs and url, and perhaps a subdirectory.
func (s *Server) Import(prefix, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports[prefix] = prefix + " " + content
}

// Private makes a repository want User and Password.
func (s *Server) Private(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.private[name] = true
}

// Stall makes requests over https for which match returns true get no answer, from now on; nil: none.
func (s *Server) Stall(match func(r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = match
}

// Fail makes requests over https get a status other than 0, from now on; nil: none.
func (s *Server) Fail(status func(r *http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// Release lets the stalled requests go on.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.release)
	s.release = make(chan struct{})
}

// Waiting returns how many requests are stalled.
func (s *Server) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// connect is an http proxy that knows one host, and that there is nothing behind https at some.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect && strings.HasSuffix(r.URL.Host, ".test") {
		s.serve(w, r)
		return
	}
	host, _, _ := net.SplitHostPort(r.Host)
	if r.Method != http.MethodConnect || !strings.HasSuffix(host, ".test") || host == "down.test" || host == PlainHost {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	out, err := net.Dial("tcp", s.tls.Listener.Addr().String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	in, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		out.Close()
		return
	}
	io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n") // best effort: who has gone misses nothing
	s.mu.Lock()
	s.conns[in], s.conns[out] = true, true
	s.mu.Unlock()
	pass := func(dst io.Writer, src io.Reader) {
		io.Copy(dst, src) // best effort
		in.Close()
		out.Close()
	}
	s.tunnels.Go(func() { pass(in, out) })
	s.tunnels.Go(func() { pass(out, buf) }) // which has read ahead
}

// serve answers what came through the proxy.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.Note(r.Method + " " + r.Host + r.URL.Path)
	s.mu.Lock()
	stall := s.stalled != nil && s.stalled(r)
	status := 0
	if s.status != nil {
		status = s.status(r)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git")
	release := s.release
	private := r.Host == GitHost && s.private[name]
	if stall {
		s.waiting++
	}
	s.mu.Unlock()
	if stall {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}
	switch user, password, _ := r.BasicAuth(); {
	case status != 0:
		http.Error(w, http.StatusText(status), status)
	case private && (user != User || password != Password):
		w.Header().Set("WWW-Authenticate", `Basic realm="vcstest"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
	case r.Host == GitHost:
		(&cgi.Handler{
			Path: s.backend, Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(s.dir, "git"), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=" + os.DevNull},
			Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
		}).ServeHTTP(w, r)
	default:
		s.serveImport(w, r)
	}
}

// serveImport answers with the go-import tag of the longest prefix.
func (s *Server) serveImport(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	content, best := "", -1
	for prefix, c := range s.imports {
		if p := r.Host + r.URL.Path; (p == prefix || strings.HasPrefix(p, prefix+"/")) && len(prefix) > best {
			content, best = c, len(prefix)
		}
	}
	s.mu.Unlock()
	if content == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprintf(w, `<html><head><meta name="go-import" content="%s"></head></html>`, content)
}

// serveDaemon runs a `git daemon` for each connection.
func (s *Server) serveDaemon() {
	for {
		conn, err := s.daemon.Accept()
		if err != nil {
			return
		}
		f, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err != nil {
			continue
		}
		s.Note("git daemon")
		cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+filepath.Join(s.dir, "git"))
		cmd.Stdin, cmd.Stdout = f, f
		if cmd.Start() == nil {
			s.children.Go(func() { cmd.Wait() })
		}
		f.Close()
	}
}
