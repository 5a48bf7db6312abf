package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// authority is a certificate authority of the test's. Its certificate is in the file ca.pem, alone in the directory roots.
type authority struct {
	t     *testing.T
	dir   string
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = template, a.newKey()
	a.cert = a.sign(template, a.key)
	a.roots = filepath.Join(a.dir, "roots")
	if err := os.Mkdir(a.roots, 0o755); err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(a.roots, "ca.pem"), "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) file() string { return filepath.Join(a.roots, "ca.pem") }

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue writes a certificate for name and its key, for servers at loopback addresses and for clients.
func (a *authority) issue(name string) (certFile, keyFile string) {
	a.t.Helper()
	key := a.newKey()
	cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"mod.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4zero},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	writePEM(a.t, certFile, "CERTIFICATE", cert.Raw)
	writePEM(a.t, keyFile, "PRIVATE KEY", der)
	return certFile, keyFile
}

func writePEM(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	writeText(t, name, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})), 0o600)
}

func writeText(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// exportTree writes what a proxy has of some module versions as files.
func exportTree(t *testing.T, proxy *proxytest.Server, dir string, modules ...string) {
	t.Helper()
	for _, m := range modules {
		path, version, _ := strings.Cut(m, "@")
		for _, name := range []string{"list", version + ".info", version + ".mod", version + ".zip"} {
			resp, err := http.Get(proxy.URL() + "/" + path + "/@v/" + name)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%s %s: %s, %v", m, name, resp.Status, err)
			}
			file := filepath.Join(dir, filepath.FromSlash(path), "@v", name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			writeText(t, file, string(data), 0o644)
		}
	}
}

// nginx is a running one, which serves a tree of modules over https.
type nginx struct {
	password    string // URL of the server that wants a password, me's
	certificate string // of the one that wants a certificate of the authority's
	htpasswd    string
	access      string // its log: status, URI, user and whose certificate
}

const nginxConf = `daemon off;
worker_processes 1;
%[7]s
pid %[1]s/nginx.pid;
error_log %[1]s/error.log info;
events { worker_connections 128; }
http {
	log_format short '$status $request_uri user=$remote_user cert=$ssl_client_s_dn';
	access_log %[1]s/access.log short;
	client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
	root %[1]s/tree;
	ssl_certificate %[2]s;
	ssl_certificate_key %[3]s;
	server {
		listen %[5]s ssl;
		auth_basic modules;
		auth_basic_user_file %[1]s/htpasswd;
	}
	server {
		listen %[6]s ssl;
		ssl_client_certificate %[4]s;
		ssl_verify_client on;
	}
}
`

// nginxProgram is where nginx is, which is not in every user's PATH.
func nginxProgram(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if program, err := exec.LookPath(name); err == nil {
			return program
		}
	}
	t.Skip("no nginx: install nginx-light or nginx")
	return ""
}

// startNginx starts one that has example.com/a and b of proxy, until t ends.
func startNginx(t *testing.T, proxy *proxytest.Server, ca *authority) *nginx {
	t.Helper()
	program := nginxProgram(t)
	dir := t.TempDir()
	exportTree(t, proxy, filepath.Join(dir, "tree"), "example.com/a@v1.0.0", "example.com/b@v1.0.0")
	n := &nginx{htpasswd: filepath.Join(dir, "htpasswd"), access: filepath.Join(dir, "access.log")}
	writeText(t, n.htpasswd, "me:{PLAIN}s3cret-me\n", 0o644)
	// It inherits the sockets, as from an nginx that it replaces, so their ports are its own from the beginning.
	var addrs []string
	var files []*os.File
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		addrs, files = append(addrs, l.Addr().String()), append(files, f)
	}
	n.password, n.certificate = "https://"+addrs[0], "https://"+addrs[1]
	cert, key := ca.issue("nginx")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root root;" // another one, its default, cannot read our files
	}
	conf := filepath.Join(dir, "nginx.conf")
	writeText(t, conf, fmt.Sprintf(nginxConf, dir, cert, key, ca.file(), addrs[0], addrs[1], user), 0o644)
	cmd := exec.Command(program, "-p", dir, "-c", conf, "-e", filepath.Join(dir, "error.log"))
	cmd.ExtraFiles, cmd.Env = files, append(os.Environ(), "NGINX=3;4;")
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }() // how it ended is of interest only if the test has failed
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			said, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx: %v\n%s\n%s", cmd.ProcessState, out, said)
		}
	})
	return n
}

// forget empties the access log.
func (n *nginx) forget(t *testing.T) {
	t.Helper()
	if err := os.Truncate(n.access, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// requests waits until the access log has text, which comes after the answer, and returns all of it.
func (n *nginx) requests(m *mounted, text string) string {
	m.t.Helper()
	var data []byte
	m.eventually("nginx has logged "+text, func() bool {
		data, _ = os.ReadFile(n.access)
		return strings.Contains(string(data), text)
	})
	return string(data)
}

// wantModule reads a file of example.com/a or b, at v1.0.0, which must be there.
func (m *mounted) wantModule(path string) {
	m.t.Helper()
	file := path + "@v1.0.0/" + filepath.Base(path) + ".go"
	if data, err := m.read(file); err != nil || !strings.Contains(string(data), "package "+filepath.Base(path)) {
		m.t.Errorf("%s: %v\n%s\n%v", file, err, data, m.errors())
	}
}

// wantNoSecrets looks for secrets in all that modfs says.
func (m *mounted) wantNoSecrets() {
	m.t.Helper()
	status, err := m.read(".modfs/status.json")
	if err != nil {
		m.t.Error(err)
	}
	for where, text := range map[string]string{"the log": m.log(), ".modfs/status.json": string(status), ".modfs/errors": fmt.Sprint(m.errors())} {
		for _, secret := range []string{"s3cret", "bWU6czNjcmV0" /* me:s3cret in base64 */} {
			if strings.Contains(text, secret) {
				m.t.Errorf("%s has a secret:\n%s", where, text)
			}
		}
	}
}

// TestNginx gets modules from a real web server that wants passwords or certificates, in all ways in which it can be told them.
func TestNginx(t *testing.T) {
	t.Parallel()
	fusetest.Require(t)
	proxy := proxytest.New(t)
	ca := newAuthority(t)
	n := startNginx(t, proxy, ca)
	host := strings.TrimPrefix(n.password, "https://")
	dir := t.TempDir()
	netrc, gitconfig, helper := filepath.Join(dir, "netrc"), filepath.Join(dir, "gitconfig"), filepath.Join(dir, "helper")
	writeText(t, netrc, "machine "+host+" login me password s3cret-me\n", 0o600)
	writeText(t, helper, "#!/bin/sh\n[ $1 = get ] && echo username=me && echo password=s3cret-me\nexit 0\n", 0o700)
	writeText(t, gitconfig, "[credential]\n\thelper = "+helper+"\n", 0o600)
	token := filepath.Join(dir, "token")
	writeText(t, token, "#!/bin/sh\n[ $# = 1 ] && printf '"+n.password+"\\n\\nAuthorization: Basic bWU6czNjcmV0LW1l\\n\\n'\n", 0o700)
	trust := "SSL_CERT_FILE=" + ca.file()
	start := func(t *testing.T, env []string, args ...string) *mounted {
		t.Helper()
		n.forget(t)
		// Nothing of the user's own.
		env = append([]string{"NETRC=" + dir + "/none", "GOAUTH=", "SSL_CERT_FILE=", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + gitconfig}, env...)
		return mountEnv(t, proxy, env, append([]string{"--read-only", "--log-level", "debug"}, args...)...)
	}
	for _, test := range []struct {
		name, proxy string
		env         []string
		refused     bool // the first request is, for want of a password
	}{
		{"netrc", n.password, []string{trust, "NETRC=" + netrc}, false},
		{"URL", strings.Replace(n.password, "//", "//me:s3cret-me@", 1), []string{trust}, false},
		{"git", n.password, []string{trust, "GOAUTH=git " + dir}, true},
		{"program", n.password, []string{"SSL_CERT_FILE=" + dir + "/none", "SSL_CERT_DIR=" + ca.roots, "GOAUTH=" + token + ";netrc"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := start(t, test.env, "--proxy", test.proxy)
			m.wantModule("example.com/a")
			m.wantModule("example.com/b")
			got := n.requests(m, "200 /example.com/b/@v/v1.0.0.zip user=me")
			if strings.Contains(got, "401 ") != test.refused {
				t.Errorf("nginx got\n%s", got)
			}
			m.wantNoSecrets()
		})
	}
	t.Run("changed", func(t *testing.T) {
		m := start(t, []string{trust, "NETRC=" + netrc}, "--prefetch", "off", "--proxy", n.password)
		m.wantModule("example.com/a")
		writeText(t, n.htpasswd, "me:{PLAIN}s3cret-next\n", 0o644)
		_, err := m.read("example.com/b@v1.0.0/b.go")
		m.wantErrno(err, syscall.EACCES, "401 Unauthorized")
		writeText(t, netrc, "machine "+host+" login me password s3cret-next\n", 0o600)
		m.wantModule("example.com/b")
		m.wantNoSecrets()
		writeText(t, n.htpasswd, "me:{PLAIN}s3cret-me\n", 0o644)
	})
	t.Run("no password", func(t *testing.T) {
		m := start(t, []string{trust, "GOAUTH=false s3cret-argument"}, "--proxy", n.password)
		_, err := m.read("example.com/a@v1.0.0/a.go")
		m.wantErrno(err, syscall.EACCES, "401 Unauthorized", "GOAUTH: false: exit status 1")
		m.wantNoSecrets()
	})
	t.Run("unknown authority", func(t *testing.T) {
		m := start(t, nil, "--proxy", n.password)
		_, err := m.read("example.com/a@v1.0.0/a.go")
		m.wantErrno(err, syscall.EIO, "certificate signed by unknown authority")
	})
	t.Run("client certificate", func(t *testing.T) {
		cert, key := ca.issue("one")
		m := start(t, []string{trust}, "--prefetch", "off", "--proxy", n.certificate, "--client-cert", cert, "--client-key", key)
		m.wantModule("example.com/a")
		n.requests(m, "200 /example.com/a/@v/v1.0.0.zip user=- cert=CN=one")
	})
	t.Run("no client certificate", func(t *testing.T) {
		m := start(t, []string{trust}, "--proxy", n.certificate)
		_, err := m.read("example.com/a@v1.0.0/a.go")
		m.wantErrno(err, syscall.EIO, "400 Bad Request")
	})
	t.Run("bad client certificate", func(t *testing.T) {
		cert, key := ca.issue("two")
		for want, args := range map[string][]string{
			"--client-key needs --client-cert":                          {"--client-key", key},
			"client certificate " + key + " with key " + key + ": tls:": {"--client-cert", key},
			"none: no such file or directory":                           {"--client-cert", cert, "--client-key", dir + "/none"},
		} {
			m := &mounted{t: t, env: append(os.Environ(), "HOME="+dir, "GOPROXY=off", "GOSUMDB=off")}
			out, err := m.modfs(append([]string{"mount", "--store", filepath.Join(dir, "store")}, append(args, filepath.Join(dir, "mnt"))...)...)
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%q: %v\n%s", args, err, out)
			}
		}
	})
}

// TestConnect gets modules through a proxy for the web that wants a password, from a module proxy that wants another.
func TestConnect(t *testing.T) {
	t.Parallel()
	fusetest.Require(t)
	origin := proxytest.New(t)
	ca := newAuthority(t)
	cert, err := tls.LoadX509KeyPair(ca.issue("origin"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(origin.URL())
	if err != nil {
		t.Fatal(err)
	}
	relay := httputil.NewSingleHostReverseProxy(to)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "s3cret-me" || r.Header.Get("Proxy-Authorization") != "" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		relay.ServeHTTP(w, r)
	}))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	_, port, _ := net.SplitHostPort(secure.Listener.Addr().String())

	var mu sync.Mutex
	var tunnels []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if r.Method != http.MethodConnect || password != "s3cret-web" {
			http.Error(w, "no", http.StatusProxyAuthRequired)
			return
		}
		mu.Lock()
		tunnels = append(tunnels, r.Host)
		mu.Unlock()
		up, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			up.Close()
			return
		}
		io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(up, down); up.Close() }()
		io.Copy(down, up)
		down.Close()
	}))
	t.Cleanup(web.Close)

	for _, test := range []struct {
		name, proxy, password, noProxy string
		tunnel                         string // what the web proxy was asked for
		want                           string // in the error
	}{
		{"by name", "https://me:s3cret-me@mod.example.com", "s3cret-web", "", "mod.example.com:443", ""},
		{"by address", "https://me:s3cret-me@0.0.0.0:" + port, "s3cret-web", "other.example,10.0.0.0/8", "0.0.0.0:" + port, ""},
		{"NO_PROXY", "https://me:s3cret-me@0.0.0.0:" + port, "s3cret-web", "other.example,0.0.0.0/8", "", ""},
		{"wrong password", "https://me:s3cret-me@mod.example.com", "s3cret-wrong", "", "", "407 Proxy Authentication Required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			mu.Lock()
			tunnels = nil
			mu.Unlock()
			m := mountEnv(t, origin, []string{
				"SSL_CERT_FILE=" + ca.file(), "HTTPS_PROXY=" + strings.Replace(web.URL, "//", "//web:"+test.password+"@", 1), "https_proxy=",
				"NO_PROXY=" + test.noProxy, "no_proxy=",
			}, "--read-only", "--log-level", "debug", "--proxy", test.proxy)
			if test.want == "" {
				m.wantModule("example.com/a")
			} else {
				_, err := m.read("example.com/a@v1.0.0/a.go")
				m.wantErrno(err, syscall.EACCES, test.want)
			}
			mu.Lock()
			got := strings.Join(tunnels, " ")
			mu.Unlock()
			if test.tunnel == "" && got != "" || test.tunnel != "" && !strings.HasPrefix(got, test.tunnel) {
				t.Errorf("tunnels to %q, want %q", got, test.tunnel)
			}
			m.wantNoSecrets()
		})
	}
}
