package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
)

// Trust makes a client that has a transport of its own trust root.
func Trust(c *Client, root *x509.Certificate) {
	transports := []*http.Transport{}
	switch t := c.http.Transport.(type) {
	case *http.Transport:
		transports = append(transports, t)
	case *certTransport:
		transports = append(transports, t.known, t.others)
	}
	for _, t := range transports {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = new(tls.Config)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		t.TLSClientConfig.RootCAs.AddCert(root)
	}
}
