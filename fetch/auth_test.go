package fetch_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

const (
	infoPath = "/example.com/a/@v/v1.0.0.info"
	basicMe  = "Basic bWU6czNjcmV0LW1l" // me:s3cret-me
)

// guarded is a proxy that wants credentials. It has one file, below any prefix.
type guarded struct {
	*httptest.Server
	host string

	mu     sync.Mutex
	status int                      // of a refusal
	accept func(*http.Request) bool // nil: nobody
	seen   []string                 // Authorization and X-Token of each request for the file
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{status: http.StatusUnauthorized}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, infoPath) {
			http.NotFound(w, r)
			return
		}
		g.mu.Lock()
		g.seen = append(g.seen, strings.TrimSpace(r.Header.Get("Authorization")+" "+r.Header.Get("X-Token")))
		ok, status := g.accept != nil && g.accept(r), g.status
		g.mu.Unlock()
		if !ok {
			w.Header().Set("Www-Authenticate", `Basic realm="modules"`)
			http.Error(w, "refused "+r.Header.Get("Authorization")+r.Header.Get("X-Token"), status)
			return
		}
		io.WriteString(w, infoA)
	}))
	g.Config.ErrorLog = log.New(io.Discard, "", 0)
	g.StartTLS()
	t.Cleanup(g.Close)
	g.host = strings.TrimPrefix(g.URL, "https://")
	return g
}

// wants makes the server accept a value of Authorization or X-Token only.
func (g *guarded) wants(value string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accept = func(r *http.Request) bool {
		return r.Header.Get("Authorization") == value || r.Header.Get("X-Token") == value
	}
}

// take returns what was seen, and forgets it.
func (g *guarded) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := g.seen
	g.seen = nil
	return seen
}

// config are settings for the server, below a path.
func (g *guarded) config(path, goauth string) fetch.Config {
	cfg := quick(g.URL + path)
	cfg.Transport, cfg.Auth = g.Client().Transport, goauth
	return cfg
}

// goAsks has the go command ask the server, with the settings of the environment and goauth.
func (g *guarded) goAsks(t *testing.T, path, goauth string) error {
	t.Helper()
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	replace(t, roots, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw})), 0o600)
	cmd := exec.Command("go", "list", "-m", "example.com/a@v1.0.0")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY="+g.URL+path, "GOAUTH="+goauth, "GONOSUMDB=*", "GONOPROXY=", "GOPRIVATE=", "GOINSECURE=", "GOFLAGS=-modcacherw", "GOENV=off",
		"GOWORK=off", "GOTOOLCHAIN=local", "GOMODCACHE="+filepath.Join(dir, "mod"), "SSL_CERT_FILE="+roots)
	_, err := cmd.Output()
	return err
}

func replace(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	// Replaced, and not written to: another thread that is just starting a program would have it open.
	if err := os.WriteFile(name+".new", []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	return name
}

// program writes a script for GOAUTH. It notes its arguments and standard input in the file calls beside it.
func program(t *testing.T, script string) (name, calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	head := "#!/bin/sh\n{ echo \"args:$*\"; cat; } >>'" + calls + "'\n"
	return replace(t, filepath.Join(dir, "token-program"), head+script, 0o700), calls
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func netrc(t *testing.T, text string) string {
	t.Helper()
	name := replace(t, filepath.Join(t.TempDir(), "netrc"), text, 0o600)
	t.Setenv("NETRC", name)
	return name
}

// credentialSet is what a program prints.
func credentialSet(url, field string) string {
	return "printf '%s\\n\\n%s\\n\\n' '" + url + "' '" + field + "'\n"
}

// gitHelper makes a directory for GOAUTH=git whose helper gives what is in the file password, and notes what it is told.
func gitHelper(t *testing.T) (dir, password, told string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	dir = t.TempDir()
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "gitconfig"))
	password, told = filepath.Join(dir, "password"), filepath.Join(dir, "told")
	helper := replace(t, filepath.Join(dir, "helper"), `#!/bin/sh
if [ "$1" = get ]; then
	[ -s '`+password+`' ] && echo username=me && echo "password=$(cat '`+password+`')"
	exit 0
fi
echo "$1 $(grep ^password=)" >>'`+told+"'\n", 0o700)
	replace(t, filepath.Join(dir, "gitconfig"), "[credential]\n\thelper = "+helper+"\n", 0o600)
	return dir, password, told
}

// Which requests get which credentials is the go command's decision, for all methods.
func TestAuth(t *testing.T) {
	const tokenX = "Authorization: Bearer token-xyz"
	for _, test := range []struct {
		name   string
		goauth func(t *testing.T, g *guarded) string
		path   string // below which the proxy is
		wants  string
		status int // of refusals; 0 means 401
		seen   []string
		err    error
		text   string // in the error
	}{
		{name: "netrc", wants: basicMe, seen: []string{basicMe}, goauth: func(t *testing.T, g *guarded) string {
			netrc(t, "machine other.example login you password s3cret-you\nmachine "+g.host+" login me password s3cret-me\nmachine "+g.host+" login no password no")
			return "netrc"
		}},
		{name: "netrc of others", seen: []string{""}, err: fetch.ErrForbidden, goauth: func(t *testing.T, g *guarded) string {
			name, _, _ := strings.Cut(g.host, ":")
			netrc(t, "machine "+name+" login me password s3cret-me\nmachine other.example login me password s3cret-me\ndefault login me password s3cret-me\n")
			return "netrc"
		}},
		{name: "no netrc", seen: []string{""}, err: fetch.ErrForbidden, goauth: func(t *testing.T, g *guarded) string {
			t.Setenv("NETRC", filepath.Join(t.TempDir(), "missing"))
			return "netrc"
		}},
		{name: "off", seen: []string{""}, err: fetch.ErrForbidden, goauth: func(t *testing.T, g *guarded) string {
			netrc(t, "machine "+g.host+" login me password s3cret-me")
			return "off"
		}},
		{name: "program", wants: "Bearer token-xyz", seen: []string{"Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, credentialSet(g.URL, tokenX))
			return p
		}},
		{name: "first of two", wants: "Bearer token-xyz", seen: []string{"Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			netrc(t, "machine "+g.host+" login me password s3cret-me")
			p, _ := program(t, credentialSet(g.URL+"/", tokenX))
			return p + " ; netrc"
		}},
		{name: "second of two", wants: "Bearer token-xyz", seen: []string{"Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			netrc(t, "")
			p, _ := program(t, credentialSet(g.URL, tokenX))
			return "netrc;" + p + ` "with arguments" 'too'`
		}},
		{name: "longest prefix", path: "/team/go", wants: "Bearer token-xyz", seen: []string{"Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			netrc(t, "machine "+g.host+" login me password s3cret-me")
			p, _ := program(t, credentialSet(g.URL+"/team/", tokenX)+credentialSet(g.URL+"/team/gopher", "X-Token: wrong-one"))
			return "netrc;" + p
		}},
		{name: "another prefix", path: "/teams", seen: []string{""}, err: fetch.ErrForbidden, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, credentialSet(g.URL+"/team", tokenX))
			return p
		}},
		{name: "nothing for a prefix", path: "/team", seen: []string{""}, err: fetch.ErrForbidden, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, "[ $# = 0 ] && printf '%s\\n\\n\\n' '"+g.URL+"'\n")
			q, _ := program(t, "[ $# = 0 ] && "+credentialSet(g.URL, tokenX))
			return p + ";" + q
		}},
		{name: "any field", wants: "token-xyz", seen: []string{"token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, credentialSet(g.URL, "x-token: token-xyz"))
			return p
		}},
		{name: "asked for the URL", wants: "Bearer token-xyz", seen: []string{"", "Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, "[ $# = 1 ] && "+credentialSet(g.URL, tokenX))
			return p
		}},
		{name: "asked after 404", status: 404, wants: "Bearer token-xyz", seen: []string{"", "Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, "[ $# = 1 ] && "+credentialSet(g.URL, tokenX))
			return p
		}},
		{name: "another one after 403", status: 403, wants: "Bearer token-xyz", seen: []string{"wrong-one", "Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, "if [ $# = 1 ]; then "+credentialSet(g.URL, tokenX)+"else "+credentialSet(g.URL, "X-Token: wrong-one")+"fi\n")
			return p
		}},
		{name: "refused", wants: "something else", seen: []string{"Bearer token-xyz"}, err: fetch.ErrForbidden, text: "401 Unauthorized: refused xxxxx",
			goauth: func(t *testing.T, g *guarded) string {
				p, _ := program(t, credentialSet(g.URL, tokenX))
				return p
			}},
		{name: "not asked after 500", status: 500, wants: "something else", seen: []string{"", "", "", ""}, err: errAny, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, "[ $# = 1 ] && "+credentialSet(g.URL, tokenX))
			return p
		}},
		{name: "git", wants: basicMe, seen: []string{"", basicMe}, goauth: func(t *testing.T, g *guarded) string {
			dir, password, _ := gitHelper(t)
			replace(t, password, "s3cret-me", 0o600)
			return "git " + dir
		}},
		{name: "git knows nothing", seen: []string{""}, err: fetch.ErrForbidden, text: "GOAUTH: git: exit status 128", goauth: func(t *testing.T, g *guarded) string {
			dir, _, _ := gitHelper(t)
			return "git " + dir
		}},
		{name: "no program", seen: []string{""}, err: fetch.ErrForbidden, text: "GOAUTH: modfs-none-such: executable file not found", goauth: func(t *testing.T, g *guarded) string {
			return "modfs-none-such --token=token-xyz"
		}},
		{name: "program fails", seen: []string{""}, err: fetch.ErrForbidden, text: "GOAUTH: token-program: exit status 3: log in first, token=xxxxx", goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, credentialSet(g.URL, tokenX)+"echo log in first, token=token-xyz >&2\nexit 3\n")
			return p
		}},
		{name: "wrong output", seen: []string{""}, err: fetch.ErrForbidden, text: "line 3 of the output is not a header field", goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, "printf '%s\\n\\ntoken-xyz\\n\\n' '"+g.URL+"'\n")
			return p
		}},
		{name: "one fails, the other knows", wants: "Bearer token-xyz", seen: []string{"Bearer token-xyz"}, goauth: func(t *testing.T, g *guarded) string {
			p, _ := program(t, credentialSet(g.URL, tokenX))
			q, _ := program(t, "exit 1\n")
			return q + ";" + p
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuarded(t)
			goauth := test.goauth(t, g)
			if test.wants != "" {
				g.wants(test.wants)
			}
			if test.status != 0 {
				g.status = test.status
			}
			var logged bytes.Buffer
			cfg := g.config(test.path, goauth)
			cfg.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			c := newClient(t, cfg)
			_, err := c.Info(t.Context(), modA)
			seen := g.take()
			if !slices.Equal(seen, test.seen) || !is(err, test.err) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v after requests with %q; want %v (%s) after %q", err, seen, test.err, test.text, test.seen)
			}
			for _, text := range []string{fmt.Sprint(err), fmt.Sprint(c.Upstreams()), logged.String()} {
				for _, secret := range []string{"token-xyz", "s3cret", basicMe[6:]} {
					if strings.Contains(text, secret) {
						t.Errorf("%s is in %s", secret, text)
					}
				}
			}
			if test.status == 500 {
				return // the go command does not try again
			}
			// And now the go command, which also asks again where nothing has changed.
			goErr := g.goAsks(t, test.path, goauth)
			goSeen := slices.Compact(g.take())
			if !slices.Equal(goSeen, slices.Compact(seen)) || (goErr == nil) != (err == nil) {
				t.Errorf("the go command: %v after requests with %q; modfs: %v after %q", goErr, goSeen, err, seen)
			}
		})
	}
}

// A program gets nothing at first and, once a request was refused, its URL and the answer.
func TestAuthProtocol(t *testing.T) {
	g := newGuarded(t)
	p, calls := program(t, "")
	c := newClient(t, g.config("", p))
	for range 2 {
		if _, err := c.Info(t.Context(), modA); !errors.Is(err, fetch.ErrForbidden) {
			t.Fatal(err)
		}
	}
	got := strings.Split(read(t, calls), "args:")
	if len(got) != 4 || got[1] != "\n" {
		t.Fatalf("calls: %q; want one with nothing, and two with the answer", got)
	}
	arg, stdin, _ := strings.Cut(got[2], "\n")
	if arg != g.URL+infoPath {
		t.Errorf("argument %q", arg)
	}
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(stdin)), nil)
	if err != nil || resp.StatusCode != 401 || resp.Header.Get("Www-Authenticate") == "" {
		t.Errorf("standard input %q: %v", stdin, err)
	}
	if n := len(g.take()); n != 2 {
		t.Errorf("%d requests; want one for each call, there is nothing to try again with", n)
	}
}

// Who has a credential that expires gets the next one, without a new client, and its secrets stay hidden.
func TestAuthExpiry(t *testing.T) {
	for _, test := range []struct {
		name  string
		setup func(t *testing.T, g *guarded) (goauth string, set func(token string))
		first []string // Authorization at first
		next  []string // after the change
	}{
		{"program", func(t *testing.T, g *guarded) (string, func(string)) {
			file := filepath.Join(t.TempDir(), "token")
			p, _ := program(t, "[ $# = 0 ] && printf '%s\\n\\nAuthorization: %s\\n\\n' '"+g.URL+"' \"$(cat '"+file+"')\"\n")
			return p, func(token string) { replace(t, file, token, 0o600) }
		}, []string{"ONE"}, []string{"ONE", "TWO"}},
		{"netrc", func(t *testing.T, g *guarded) (string, func(string)) {
			name := netrc(t, "")
			return "netrc", func(token string) {
				_, password, _ := strings.Cut(basicOf(token), ":")
				replace(t, name, "machine "+g.host+" login me password "+password+"\n", 0o600)
			}
		}, []string{"ONE"}, []string{"ONE", "TWO"}},
		{"git", func(t *testing.T, g *guarded) (string, func(string)) {
			dir, file, told := gitHelper(t)
			t.Cleanup(func() {
				for deadline := time.Now().Add(time.Minute); strings.Count(read(t, told), "\n") < 4 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				}
				if got, want := read(t, told), "store password=s3cret-1111\nerase password=s3cret-1111\nstore password=s3cret-2222\nerase password=s3cret-2222\n"; got != want {
					t.Errorf("the helper was told:\n%swant:\n%s", got, want)
				}
			})
			return "git " + dir, func(token string) {
				last := map[string]string{basic("s3cret-2222"): "store password=s3cret-1111\n", "": "store password=s3cret-2222\n"}[token]
				for deadline := time.Now().Add(time.Minute); !strings.HasSuffix(read(t, told), last); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) { // it learns in the background what was right
						t.Fatalf("the helper was told:\n%s", read(t, told))
					}
				}
				if token == "" {
					return
				}
				_, password, _ := strings.Cut(basicOf(token), ":")
				replace(t, file, password, 0o600)
			}
		}, []string{"", "ONE"}, []string{"ONE", "TWO"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuarded(t)
			goauth, set := test.setup(t, g)
			var logged bytes.Buffer
			cfg := g.config("", goauth)
			cfg.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			c := newClient(t, cfg)
			one, two := basic("s3cret-1111"), basic("s3cret-2222")
			step := func(token string, want []string) {
				t.Helper()
				set(token)
				g.wants(token)
				for range 2 { // the second time it is known
					if _, err := c.Info(t.Context(), modA); err != nil {
						t.Fatal(err)
					}
				}
				names := strings.NewReplacer(one, "ONE", two, "TWO")
				got := g.take()
				for i := range got {
					got[i] = names.Replace(got[i])
				}
				if !slices.Equal(got, append(slices.Clone(want), want[len(want)-1])) {
					t.Errorf("requests with %q; want %q, and the last one again", got, want)
				}
			}
			step(one, test.first)
			step(two, test.next)
			if test.name == "git" {
				set("")
			}
			g.mu.Lock()
			g.accept = func(r *http.Request) bool { return false }
			g.mu.Unlock()
			_, err := c.Info(t.Context(), modA)
			if !errors.Is(err, fetch.ErrForbidden) {
				t.Errorf("%v", err)
			}
			for _, text := range []string{fmt.Sprint(err), logged.String(), fmt.Sprint(c.Upstreams())} {
				for _, secret := range []string{"s3cret", one[6:], two[6:]} {
					if strings.Contains(text, secret) {
						t.Errorf("%s is in %s", secret, text)
					}
				}
			}
		})
	}
}

func basic(password string) string {
	r := http.Request{Header: make(http.Header)}
	r.SetBasicAuth("me", password)
	return r.Header.Get("Authorization")
}

func basicOf(value string) string {
	user, password, _ := (&http.Request{Header: http.Header{"Authorization": {value}}}).BasicAuth()
	return user + ":" + password
}

// A program that hangs, or prints without end, keeps nobody waiting for longer than Config.IdleTimeout, and nor does Close.
func TestAuthHang(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"hangs", "sleep 600\n", "timeout: not done in 500ms"},
		{"child hangs", "sleep 600 &\nsleep 600\n", "timeout: not done in 500ms"},
		{"floods", "exec yes https://flood.example/\n", "too large: more than 1048576 bytes of output"},
		{"many", "i=0; while [ $i -le 1024 ]; do echo https://a.example/$i; i=$((i+1)); done; printf '\\nA: b\\n\\n'\n", "too large: more than 1024 credentials"},
		{"large", "printf 'https://a.example\\n\\nX: '; head -c 70000 /dev/zero | tr '\\0' x; printf '\\n\\n'\n", "too large: line 3 of the output: more than 65536 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuarded(t)
			p, _ := program(t, test.script)
			cfg := g.config("", p)
			if strings.Contains(test.name, "hangs") {
				cfg.IdleTimeout = 500 * time.Millisecond
			}
			start := time.Now()
			_, err := newClient(t, cfg).Info(t.Context(), modA)
			if !errors.Is(err, fetch.ErrForbidden) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %s", err, test.want)
			}
			if dur := time.Since(start); dur > 50*time.Second {
				t.Errorf("%v", dur)
			}
		})
	}
	t.Run("close", func(t *testing.T) {
		g := newGuarded(t)
		p, calls := program(t, "sleep 600\n")
		c := newClient(t, g.config("", p))
		done := make(chan error, 1)
		go func() { _, err := c.Info(t.Context(), modA); done <- err }()
		for read(t, calls) == "" {
			time.Sleep(time.Millisecond)
		}
		c.Close()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Many requests at once have each method asked once, and few programs run at a time.
func TestAuthConcurrent(t *testing.T) {
	g := newGuarded(t)
	dir := t.TempDir()
	p, calls := program(t, "d='"+dir+"'; touch $d/$$; ls $d | wc -l >>$d.most; sleep 0.02; rm $d/$$\n[ $# = 1 ] && "+credentialSet(g.URL, "Authorization: Bearer token-xyz"))
	g.wants("Bearer token-xyz")
	c := newClient(t, g.config("", p))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Info(t.Context(), modA); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(read(t, calls), "args:\n"); n != 1 {
		t.Errorf("asked %d times for all", n)
	}
	for line := range strings.Lines(read(t, dir+".most")) {
		if n := strings.TrimSpace(line); len(n) != 1 || n > "4" {
			t.Errorf("%s programs at a time", n)
		}
	}
}

// No credential goes where it does not belong, whatever the proxy redirects to.
func TestAuthRedirect(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	target := ""
	note := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fields := ""
		for _, name := range []string{"Authorization", "Cookie", "X-Token", "Referer"} {
			if v := r.Header.Get(name); v != "" && !(name == "Referer" && strings.HasPrefix(r.Host, "example.com")) {
				fields += " " + name
			}
		}
		seen = append(seen, r.Host+fields)
		if r.Header.Get("User-Agent") != "modfs" {
			t.Errorf("User-Agent %q", r.Header.Get("User-Agent"))
		}
		to := target
		if strings.HasPrefix(r.URL.Path, "/back") {
			to = "https://example.com/file"
		}
		if r.URL.Path == "/file" || to == "" {
			io.WriteString(w, infoA)
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	}
	secure := httptest.NewTLSServer(http.HandlerFunc(note))
	defer secure.Close()
	plain := httptest.NewServer(http.HandlerFunc(note))
	defer plain.Close()
	transport := secure.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := secure
		if strings.HasSuffix(addr, ":80") {
			to = plain
		}
		return new(net.Dialer).DialContext(ctx, network, to.Listener.Addr().String())
	}
	const all = " Authorization Cookie X-Token"
	p, _ := program(t, "printf 'https://example.com\\nhttp://example.com\\nhttp://plain.example\\n\\nAuthorization: Bearer token-xyz\\nX-Token: token-xyz\\nCookie: t=token-xyz\\n\\n'\n")
	for _, test := range []struct {
		proxy, target string
		want          []string
	}{
		{"https://example.com", "", []string{"example.com" + all}},
		{"https://example.com:443", "", []string{"example.com:443"}}, // the go command compares texts
		{"https://example.com", "/file", []string{"example.com" + all, "example.com" + all}},
		{"https://example.com", "https://example.com:443/file", []string{"example.com" + all, "example.com:443" + all}},
		{"https://example.com", "https://www.example.com/file", []string{"example.com" + all, "www.example.com"}},
		{"https://example.com", "https://example.com:8443/file", []string{"example.com" + all, "example.com:8443"}},
		{"https://example.com", "http://example.com/file", []string{"example.com" + all}}, // refused
		{"https://example.com", "https://www.example.com/back", []string{"example.com" + all, "www.example.com", "example.com"}},
		{"https://www.example.com", "https://example.com/file", []string{"www.example.com", "example.com"}},
		{"http://example.com", "", []string{"example.com"}},
		{"http://plain.example", "https://example.com/file", []string{"plain.example", "example.com"}},
	} {
		mu.Lock()
		target, seen = test.target, nil
		mu.Unlock()
		cfg := quick(test.proxy)
		cfg.Transport, cfg.Auth = transport, p
		if _, err := newClient(t, cfg).Info(t.Context(), modA); (err != nil) != strings.HasPrefix(test.target, "http:") {
			t.Errorf("%s to %s: %v", test.proxy, test.target, err)
		}
		mu.Lock()
		if !slices.Equal(seen, test.want) {
			t.Errorf("%s to %s: %q; want %q", test.proxy, test.target, seen, test.want)
		}
		mu.Unlock()
	}
}

// For http, and where there is a user in the URL, nobody is asked.
func TestAuthNotAsked(t *testing.T) {
	g := newGuarded(t)
	p, calls := program(t, credentialSet(g.URL, "Authorization: Bearer token-xyz"))
	g.wants(basicMe)
	cfg := g.config("", p)
	cfg.Proxy = strings.Replace(g.URL, "https://", "https://me:s3cret-me@", 1)
	if _, err := newClient(t, cfg).Info(t.Context(), modA); err != nil {
		t.Error(err)
	}
	g.wants("nothing")
	if _, err := newClient(t, cfg).Info(t.Context(), modA); !errors.Is(err, fetch.ErrForbidden) {
		t.Error(err)
	}
	if got := g.take(); !slices.Equal(got, []string{basicMe, basicMe}) {
		t.Errorf("requests with %q", got)
	}
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	cfg.Proxy = plain
	if _, err := newClient(t, cfg).Info(t.Context(), modA); !errors.Is(err, fetch.ErrForbidden) {
		t.Error(err)
	}
	if got := read(t, calls); got != "" {
		t.Errorf("the program was run: %s", got)
	}
}

// The checksum database gets its credentials, too, directly and by way of the proxy; and all the kinds of requests do.
func TestAuthSumDB(t *testing.T) {
	origin := proxytest.New(t)
	to, err := url.Parse(origin.URL())
	if err != nil {
		t.Fatal(err)
	}
	relay := httputil.NewSingleHostReverseProxy(to)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != basicMe {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		relay.ServeHTTP(w, r)
	}))
	t.Cleanup(secure.Close)
	key, _, _ := strings.Cut(origin.SumDB(), " ")
	for _, sumdb := range []string{key, key + " " + secure.URL + "/sumdb-direct"} {
		netrc(t, "machine "+strings.TrimPrefix(secure.URL, "https://")+" login me password s3cret-me\n")
		cfg := quick(secure.URL)
		cfg.SumDB, cfg.Transport, cfg.Auth = sumdb, secure.Client().Transport, "netrc"
		c := newClient(t, cfg)
		m := module.Version{Path: "example.com/a", Version: "v1.0.0"}
		if h1, err := c.ZipHash(t.Context(), m); err != nil || h1 != origin.ZipHash(m.Path, m.Version) {
			t.Errorf("ZipHash = %s, %v", h1, err)
		}
		if h1, err := c.Zip(t.Context(), m, "", newFile(t), fetch.Watch{}); err != nil || h1 != origin.ZipHash(m.Path, m.Version) {
			t.Errorf("Zip = %s, %v", h1, err)
		}
		if n, err := c.ZipSize(t.Context(), m); err != nil || n <= 0 {
			t.Errorf("ZipSize = %d, %v", n, err)
		}
		cfg.Auth = "off"
		if _, err := newClient(t, cfg).ZipHash(t.Context(), m); !errors.Is(err, fetch.ErrForbidden) {
			t.Errorf("without credentials: %v", err)
		}
	}
}

func TestBadAuth(t *testing.T) {
	for setting, want := range map[string]string{
		" ": "empty", "netrc;": "entry 2 is empty", ";netrc": "entry 1 is empty", "off;netrc": "only entry", "netrc; off": "only entry", "git": "absolute", "git .": "absolute",
		"git /a s3cret": "absolute", "prog 's3cret": "not closed", `"" s3cret`: "no program", strings.Repeat("netrc;", 16) + "netrc": "more than 16",
	} {
		if _, err := fetch.New(fetch.Config{Auth: setting}); err == nil || !strings.Contains(err.Error(), "invalid GOAUTH") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("GOAUTH=%s: %v; want %q", setting, err, want)
		}
	}
}
