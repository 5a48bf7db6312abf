package fetch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"
)

// clientCert is a certificate that servers are shown which ask for one. Certificates that last for hours are replaced while a daemon
// runs, so its files are read again when they are not what they were.
type clientCert struct {
	certFile, keyFile string
	log               *slog.Logger

	mu    sync.Mutex
	pair  *tls.Certificate
	files [2]os.FileInfo // that pair was read from, or tried to be
}

// openClientCert reads a certificate and its key. It returns nil without a name.
func openClientCert(certFile, keyFile string, log *slog.Logger) (*clientCert, error) {
	if certFile == "" {
		if keyFile != "" {
			return nil, errors.New("client key without a client certificate")
		}
		return nil, nil
	}
	c := &clientCert{certFile: certFile, keyFile: orDefault(keyFile, certFile), log: log}
	var err error
	if c.files, err = c.stat(); err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	if c.pair, err = c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *clientCert) stat() (files [2]os.FileInfo, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if files[i], err = os.Stat(name); err != nil {
			return files, err
		}
		// To open a fifo would wait for somebody to write to it.
		if !files[i].Mode().IsRegular() || files[i].Size() > maxClientCert {
			return files, fmt.Errorf("%s is not a PEM file", name)
		}
	}
	return files, nil
}

// maxClientCert bounds each of the files, in bytes.
const maxClientCert = 1 << 20

func (c *clientCert) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %v", c.certFile, c.keyFile, err)
	}
	if now := time.Now(); pair.Leaf != nil && now.After(pair.Leaf.NotAfter) {
		c.log.Warn("client certificate has expired", "file", c.certFile, "expired", pair.Leaf.NotAfter)
	}
	return &pair, nil
}

// get is tls.Config.GetClientCertificate. Files that are just being replaced may not fit each other: until they do, what was
// there before is shown.
func (c *clientCert) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.stat()
	if err == nil && sameFiles(files, c.files) {
		return c.pair, nil
	}
	if err == nil {
		var pair *tls.Certificate
		if pair, err = c.read(); err == nil {
			c.pair, c.files = pair, files
			c.log.Info("client certificate read again", "file", c.certFile)
			return pair, nil
		}
	}
	c.log.Warn("client certificate cannot be read again: the one from before is used", "err", err)
	return c.pair, nil
}

func sameFiles(a, b [2]os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

// useTransport gives the client a transport of its own.
func (c *Client) useTransport() error {
	plain := newTransport()
	c.http.Transport, c.idle = plain, plain
	cert, err := openClientCert(c.cfg.ClientCert, c.cfg.ClientKey, c.log)
	if err != nil || cert == nil {
		return err
	}
	known := newTransport()
	known.TLSClientConfig = &tls.Config{GetClientCertificate: cert.get}
	t := &certTransport{c: c, known: known, others: plain}
	c.http.Transport, c.idle = t, t
	return nil
}

// certTransport shows the client certificate to the servers of the settings only: where a redirect leads to is none of its
// business who we are.
type certTransport struct {
	c             *Client
	known, others *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *certTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.c.names(req) {
		return t.known.RoundTrip(req)
	}
	return t.others.RoundTrip(req)
}

// CloseIdleConnections closes the connections that nobody uses.
func (t *certTransport) CloseIdleConnections() {
	t.known.CloseIdleConnections()
	t.others.CloseIdleConnections()
}

// names reports whether a request is to a server that the settings name.
func (c *Client) names(req *http.Request) bool {
	for _, u := range c.proxies {
		if u.base != nil && sameOrigin(req.URL, u.base) {
			return true
		}
	}
	return c.db != nil && sameOrigin(req.URL, c.db.direct.base)
}
