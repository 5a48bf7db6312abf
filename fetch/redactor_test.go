package fetch

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRedactor checks that no credential of any kind stays in a text.
func TestRedactor(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("NETRC", "")
	t.Setenv("HTTPS_PROXY", "http://webuser:web-pa55word@web.example:3128")
	netrc := "machine a.example login me password netrc-pa55word\nmachine b.example login you password other-pa55word\n"
	if err := os.WriteFile(filepath.Join(home, ".netrc"), []byte(netrc), 0o600); err != nil {
		t.Fatal(err)
	}
	r := NewRedactor(Config{
		Proxy: "https://user:proxy-pa55word@p.example|bare:bare-pa55word@q.example,direct",
		SumDB: "sum.example+1+x https://sum:sum-pa55word@s.example",
	})
	basic := base64.StdEncoding.EncodeToString([]byte("me:netrc-pa55word"))
	for text, secret := range map[string]string{
		"dial proxy-pa55word and go on": "proxy-pa55word",
		"q: bare-pa55word":              "bare-pa55word",
		"web-pa55word":                  "web-pa55word",
		"sum-pa55word":                  "sum-pa55word",
		netrc:                           "pa55word",
		"sent netrc-pa55word":           "netrc-pa55word",
		"sent " + basic + " and":        basic,
		"Authorization: Basic " + basic: basic,
		`{"Authorization": ["Bearer eyJhbGciOi"], "a": 1}`:   "eyJhbGciOi",
		"map[Authorization:[Bearer eyJhbGciOi]]":             "eyJhbGciOi",
		"PRIVATE-TOKEN: glpat-unknown":                       "glpat-unknown",
		"Cookie: session=unknown; b=also":                    "also",
		"Proxy-Authorization=Basic dW5rbm93bg==":             "dW5rbm93bg",
		"--proxy=https://x:unknown@p.example/a":              "unknown",
		"get https://p.example/a?X-Amz-Signature=unknown: 5": "unknown",
		"GITLAB_TOKEN=unknown":                               "unknown",
		`"api_key": "unknown"`:                               "unknown",
		"export API_KEY=unknown":                             "unknown",
		"password hunter22":                                  "hunter22",
		"first\nX-Api-Key: unknown\nlast":                    "unknown",
	} {
		if got := r.Text(text); strings.Contains(got, secret) {
			t.Errorf("%q: %q", text, got)
		}
	}
	for _, text := range []string{
		"goroutine 7 [running]:\nmodfs/fs.(*FS).read(0xc000100000, {0x1, 0x2})\n\t/src/modfs/fs/read.go:12 +0x1a4\n",
		"time=2026-01-02T03:04:05.000Z level=INFO msg=mounted mountpoint=/go/pkg/mod store=/var/lib/modfs",
		`{"time":"2026-01-02T03:04:05Z","module":"example.com/a","version":"v1.0.0","op":"zip","errno":"EIO"}`,
		"/root/go/pkg/mod/example.com/a@v1.0.0/a.go:3", "x-a: h1:abc=, not h1:def=",
	} {
		if got := r.Text(text); got != text {
			t.Errorf("changed: %q: %q", text, got)
		}
	}
	for goauth, want := range map[string]string{
		"netrc": "netrc", "off": "off", "git /home/me; helper --tok abcdef;netrc": "git /home/me; helper xxxxx; netrc", "": "",
	} {
		if got := r.Auth(goauth); got != want {
			t.Errorf("GOAUTH %q: %q, want %q", goauth, got, want)
		}
	}
}
