package integration

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
	"modfs/fs/fusetest"
)

// TestRedaction has credentials in all places where they may be, lets requests fail in all ways, and looks for them in all that
// modfs says: its log at the most talkative level, .modfs/errors, .modfs/status.json, and what the commands print.
func TestRedaction(t *testing.T) {
	t.Parallel()
	fusetest.Require(t)
	const secret, signature = "s3cr3t-Pa55", "0123signature4567"
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		to := func(u string) { w.Header().Set("Location", u); w.WriteHeader(http.StatusFound) }
		const query = "?X-Amz-Credential=" + secret + "&X-Amz-Signature=" + signature
		switch fault {
		case "status":
			http.Error(w, "refused: "+r.Header.Get("Authorization")+" at https://"+secret+"@origin.example/x"+query, http.StatusForbidden)
		case "plain":
			to("http://127.0.0.1:1/signed" + query)
		case "ftp":
			to("ftp://user:" + secret + "@origin.example/" + query)
		case "location":
			to("https://user:" + secret + "@origin.example:port/" + query)
		case "unreachable":
			to("https://user:" + secret + "@127.0.0.1:1/signed" + query)
		case "page":
			w.Write([]byte("token=" + secret)) // no .info, and no reason to show it
		}
	}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of each client that refuses its certificate
	secure.StartTLS()
	t.Cleanup(secure.Close)
	with := func(rawURL, path string) string {
		u, err := url.Parse(rawURL)
		if err != nil {
			t.Fatal(err)
		}
		u.User, u.Path = url.UserPassword("user", secret), path
		return u.String()
	}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(roots, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	clean := func(t *testing.T, where, text string) {
		t.Helper()
		for _, s := range []string{secret, signature, url.QueryEscape(secret), "dXNlcjpzM2NyM3Q" /* base64 of how user:… begins */} {
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("%s has a secret: …%s…", where, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	for _, test := range []struct {
		name, proxy string
		untrusted   bool // the certificate of the proxy
		env         []string
		want        string // in .modfs/errors: the failure is the one that it should be
	}{
		{name: "refused", proxy: with("https://127.0.0.1:1", ""), want: "connection refused"},
		{name: "certificate", proxy: with(secure.URL, "/status"), untrusted: true, want: "certificate"},
		{name: "status", proxy: with(secure.URL, "/status"), want: "403 Forbidden"},
		{name: "redirect to http", proxy: with(secure.URL, "/plain"), want: "redirected from https to http://127.0.0.1:1/signed: refused"},
		{name: "redirect to ftp", proxy: with(secure.URL, "/ftp"), want: "redirected to ftp://"},
		{name: "redirect to nonsense", proxy: with(secure.URL, "/location"), want: "not a URL"},
		{name: "redirect to nobody", proxy: with(secure.URL, "/unreachable"), want: "connection refused"},
		{name: "nonsense", proxy: with(secure.URL, "/page"), want: "invalid"},
		{name: "token as name", proxy: strings.Replace(secure.URL, "https://", "https://"+secret+"@", 1) + "/status", want: "403 Forbidden"},
		{name: "several", proxy: with("https://127.0.0.1:1", "") + "|" + with(secure.URL, "/status"), want: "403 Forbidden"},
		{name: "proxy for http", proxy: with("https://origin.example", ""), env: []string{"HTTPS_PROXY=http://user:" + secret + "@127.0.0.1:1"}, want: "refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			env := test.env
			if !test.untrusted {
				env = append(env, "SSL_CERT_FILE="+roots)
			}
			t.Parallel()
			m := mountEnv(t, proxytest.New(t), env, "--read-only", "--log-level", "debug", "--proxy", test.proxy, "--sumdb", "off")
			for _, name := range []string{"@latest", "@v/list", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip"} {
				m.read("cache/download/example.com/a/" + name) // what comes of it is in .modfs/errors
			}
			m.read("example.com/a@v1.0.0/a.go")
			events, err := m.read(".modfs/errors")
			if err != nil || !strings.Contains(string(events), test.want) {
				t.Errorf(".modfs/errors: %v, want %q in\n%s", err, test.want, events)
			}
			clean(t, ".modfs/errors", string(events))
			status, err := m.read(".modfs/status.json")
			if err != nil {
				t.Error(err)
			}
			clean(t, ".modfs/status.json", string(status))
			out, err := m.modfs("status", m.dir)
			if err != nil {
				t.Error(err)
			}
			clean(t, "modfs status", out)
			for _, args := range [][]string{{"why", "--json", "--ask"}, {"why"}} {
				out, err = m.modfs(append(args, m.path("example.com/a@v1.0.0/a.go"))...)
				if err == nil || !strings.Contains(out, "example.com/a/@v/v1.0.0.info") {
					t.Errorf("modfs why: %v\n%s", err, out)
				}
				clean(t, "modfs why", out)
			}
			out, err = m.modfs("run", "--store", m.store, "--", "cat", m.path("example.com/a@v1.0.0/a.go"))
			if err == nil || !strings.Contains(out, "example.com/a@v1.0.0: ") {
				t.Errorf("modfs run: %v\n%s", err, out)
			}
			clean(t, "modfs run", out)
			clean(t, "the log", m.log())
			if !strings.Contains(m.log(), "DEBUG") && !test.untrusted && strings.Contains(test.proxy, "/status") {
				t.Errorf("the log has nothing of what it could have\n%s", m.log())
			}
		})
	}

	// Bad settings are refused by the command that got them.
	for _, args := range [][]string{
		{"--proxy", "ftp://user:" + secret + "@proxy.example"},
		{"--proxy", "http://user:" + secret + "@proxy.example"},
		{"--proxy", "https://user:" + secret + "@proxy.example:port"},
		{"--proxy", "https://user:" + secret + "%zz@proxy.example"},
		{"--proxy", "https://proxy.example/?token=" + secret},
		{"--proxy", "https:///user:" + secret + "@proxy.example"},
		{"--proxy", "foo:/user:" + secret + "@proxy.example"},
		{"--proxy", "file://user:" + secret + "@host/dir"},
		{"--sumdb", "https://user:" + secret + "@sum.example"},
		{"--sumdb", "user:" + secret + "@sum.example"},
		{"--sumdb", "sum.example+0+x https://user:" + secret + "@sum.example"},
	} {
		t.Run(strings.ReplaceAll(args[1], "/", "|"), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			m := &mounted{t: t, env: append(os.Environ(), "HOME="+dir, "GOPROXY=off", "GOSUMDB=off")}
			out, err := m.modfs(append([]string{"mount", "--store", filepath.Join(dir, "store")}, append(args, filepath.Join(dir, "mnt"))...)...)
			if err == nil || !strings.Contains(out, "invalid GO") {
				t.Errorf("%v\n%s", err, out)
			}
			clean(t, "the error", out)
		})
	}
}
