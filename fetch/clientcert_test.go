package fetch_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"modfs/fetch"
)

// selfSigned returns a certificate for name and its key.
func selfSigned(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// identified starts a server that asks for a client certificate and notes whose it gets.
func identified(t *testing.T, to *string) (url string, who func() []string) {
	t.Helper()
	var mu sync.Mutex
	var names []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		names = append(names, name)
		w.Header().Set("Connection", "close") // the next one is asked, too
		if *to != "" {
			http.Redirect(w, r, *to, http.StatusFound)
			return
		}
		io.WriteString(w, infoA)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		got := names
		names = nil
		return got
	}
}

// The client certificate is shown to the proxy, in the state in which its files are, and to nobody else.
func TestClientCert(t *testing.T) {
	none, elsewhere := "", ""
	other, otherSaw := identified(t, &none)
	proxy, proxySaw := identified(t, &elsewhere)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := selfSigned(t, "one")
	replace(t, certFile, cert, 0o600)
	replace(t, keyFile, key, 0o600)
	cfg := quick(proxy)
	cfg.ClientCert, cfg.ClientKey = certFile, keyFile
	c := trusting(t, cfg)
	ask := func(want ...string) {
		t.Helper()
		if _, err := c.Info(t.Context(), modA); err != nil {
			t.Error(err)
		}
		if got := proxySaw(); !slices.Equal(got, want) {
			t.Errorf("the proxy saw %q, want %q", got, want)
		}
	}
	ask("one")
	cert2, key2 := selfSigned(t, "number two")
	replace(t, certFile, cert2, 0o600)
	ask("one") // the key is still the old one
	replace(t, keyFile, key2, 0o600)
	ask("number two")
	os.Remove(keyFile)
	ask("number two")
	elsewhere = other
	ask("number two")
	if got := otherSaw(); !slices.Equal(got, []string{"nobody"}) {
		t.Errorf("the other server saw %q", got)
	}
	elsewhere = ""
	// Both in one file.
	replace(t, certFile, key+cert, 0o600)
	cfg.ClientKey = ""
	c = trusting(t, cfg)
	ask("one")
	cfg.ClientCert = ""
	c = trusting(t, cfg)
	ask("nobody")
}

// trusting makes a client that trusts httptest's certificates, with a transport of its own.
func trusting(t *testing.T, cfg fetch.Config) *fetch.Client {
	t.Helper()
	c := newClient(t, cfg)
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	fetch.Trust(c, s.Certificate())
	return c
}

func TestBadClientCert(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, "me")
	_, otherKey := selfSigned(t, "you")
	file := func(name, text string) string { return replace(t, filepath.Join(dir, name), text, 0o600) }
	goodCert, goodKey := file("cert", cert), file("key", key)
	for _, test := range []struct{ cert, key, want string }{
		{"", goodKey, "client key without a client certificate"},
		{filepath.Join(dir, "none"), goodKey, "none: no such file"},
		{goodCert, filepath.Join(dir, "none"), "none: no such file"},
		{goodCert, file("other", otherKey), "does not match"},
		{goodCert, "", "found a certificate rather than a key"},
		{file("text", "hello"), goodKey, "failed to find any PEM data"},
		{dir, goodKey, "is not a PEM file"},
		{file("huge", strings.Repeat("x", 2<<20)), goodKey, "is not a PEM file"},
	} {
		_, err := fetch.New(fetch.Config{ClientCert: test.cert, ClientKey: test.key})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "client ") {
			t.Errorf("%s with %s: %v; want %q", test.cert, test.key, err, test.want)
		}
	}
}
