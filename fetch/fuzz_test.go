package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// proxyEntry is what the go command makes of an entry of GOPROXY.
type proxyEntry struct {
	url   string // or a word
	onAny bool   // what follows is asked after any error
}

// goProxyList is the go command's reading of GOPROXY, written after the documentation and
// cmd/go/internal/modfetch/proxy.go; ok is false if it refuses the list.
func goProxyList(list string) (entries []proxyEntry, ok bool) {
	for len(list) > 0 {
		end := strings.IndexFunc(list, func(r rune) bool { return r == ',' || r == '|' })
		item, onAny := list, false
		if end < 0 {
			list = ""
		} else {
			item, onAny, list = list[:end], list[end] == '|', list[end+1:]
		}
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if item == "off" || item == "direct" {
			return append(entries, proxyEntry{item, false}), true
		}
		hasMark := strings.Contains(item, ".") || strings.Contains(item, ":") || strings.Contains(item, "/")
		if hasMark && !strings.Contains(item, ":/") && !path.IsAbs(item) {
			item = "https://" + item
		}
		u, err := url.Parse(item)
		if err != nil {
			return nil, false
		}
		switch u.Scheme {
		case "http", "https":
		case "file":
			if *u != (url.URL{Scheme: "file", Path: u.Path, RawPath: u.RawPath}) {
				return nil, false
			}
		default:
			return nil, false
		}
		entries = append(entries, proxyEntry{item, onAny})
	}
	return entries, len(entries) > 0
}

// stricter reports whether one of the entries is refused here although the go command takes it: it would refuse each request,
// or ask for something else than what the entry says.
func stricter(entries []proxyEntry) bool {
	for _, e := range entries {
		u, err := url.Parse(e.url)
		if err != nil || e.url == "off" || e.url == "direct" {
			continue
		}
		web := u.Scheme != "file"
		if !web && !path.IsAbs(u.Path) || web && u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme == "http" && u.User != nil {
			return true
		}
	}
	return false
}

// FuzzProxyList compares how a GOPROXY list is read, and who is asked when those before have failed, with what the go command
// does.
func FuzzProxyList(f *testing.F) {
	for _, list := range []string{
		"", "off", "direct", ",", " | ", "https://a.example,https://b.example|https://c.example,direct", "a.example", "a.example/x|off,b.example",
		"https://u:sECRET@a.example, http://u:sECRET@b.example", "file:///x|file://host/x", "/x", "word", "https://a.example?x", "http://a.example|direct|b.example",
		"https://a.example:sECRET", "://", "a.example|,|b.example", "u:sECRET@a.example:/x", "x:/u:sECRET@a.example", "file://host/u:sECRET@a.example", "https://a.example/%2Fx",
	} {
		f.Add(list, []byte{1, 2, 0})
		f.Add(list, []byte{2, 1, 1, 2})
	}
	missing, other := fmt.Errorf("a: %w", ErrNotFound), errors.New("b")
	f.Fuzz(func(t *testing.T, list string, outcomes []byte) {
		got, err := parseProxies(list)
		if err != nil && strings.Contains(err.Error(), "sECRET") && strings.Contains(list, ":sECRET@") {
			t.Errorf("%q: the error has the password: %v", list, err)
		}
		want, ok := goProxyList(orDefault(list, "off"))
		if err != nil {
			if ok && !stricter(want) {
				t.Errorf("%q: %v; the go command takes it", list, err)
			}
			return
		}
		if !ok || stricter(want) || len(got) != len(want) {
			t.Fatalf("%q: %d entries; the go command has %v, %v", list, len(got), want, ok)
		}
		for i, u := range got {
			text := u.word
			if u.base != nil {
				text = u.base.String()
				parsed, err := url.Parse(want[i].url)
				if err != nil || parsed.String() != text {
					t.Errorf("%q: entry %d is %s, want %s", list, i, text, want[i].url)
				}
			} else if text != want[i].url {
				t.Errorf("%q: entry %d is %s, want %s", list, i, text, want[i].url)
			}
			if u.fallBack != want[i].onAny {
				t.Errorf("%q: entry %d: any error %v, want %v", list, i, u.fallBack, want[i].onAny)
			}
		}
		outcome := func(i int) error {
			if i >= len(outcomes) || want[i].url == "off" || want[i].url == "direct" {
				return missing
			}
			return []error{nil, missing, other}[outcomes[i]%3]
		}
		// Who is asked, and what comes of it, by the rules.
		last, result := -1, error(nil)
		for i := range want {
			last = i
			err := outcome(i)
			if err == nil {
				result = nil
				break
			}
			if result == nil || err == other {
				result = err
			}
			if err == other && !want[i].onAny {
				break
			}
		}
		asked := 0
		err = tryAll(t.Context(), got, func(u *upstream) error {
			if u != got[asked] {
				t.Errorf("%q: entry %d is not the next that is asked", list, asked)
			}
			asked++
			return outcome(asked - 1)
		})
		if asked != last+1 || (err == nil) != (result == nil) || !errors.Is(err, result) {
			t.Errorf("%q, %v: %d were asked: %v; want %d: %v", list, outcomes, asked, err, last+1, result)
		}
	})
}

// oneLine fails the test unless err, of what a server sent, is short and fit for a terminal.
func oneLine(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); len(text) > 4*maxExcerpt || printable(text) != text || !utf8.ValidString(text) {
		t.Errorf("the error has %d bytes: %.2000q", len(text), text)
	}
}

// FuzzInfo checks that what becomes of an .info file is one of the version asked for, in the form that the go command would not
// change, and small enough to be read again.
func FuzzInfo(f *testing.F) {
	for _, data := range []string{
		`{"Version":"v1.0.0","Time":"2020-01-02T03:04:05Z"}`, `{"Version":"v1.0.1"}`, `{"Version":1}`, `[]`, `null`, `<html>`, ``,
		`{"Version":"v1.0.0","Origin":{"VCS":"git","URL":"<&>","TagSum":"t","Ref":"r","Extra":{}}}`, `{"version":"v1.0.0","Time":"0000-01-01T00:00:00+23:59"}`,
		`{"Version":"v1.0.0","Version":"v2.0.0"}`, "{\"Version\":\"v1.0.0\",\"Origin\":{\"URL\":\"\xff\u2028\"}}", `{"Time":"` + strings.Repeat("9", 1000) + `"}`,
	} {
		f.Add([]byte(data), "v1.0.0", false)
		f.Add([]byte(data), "", true)
	}
	f.Add([]byte(`{"Version":"v1.0.0","Origin":{"URL":"`+strings.Repeat("<", maxInfo/2)+`"}}`), "v1.0.0", false)
	f.Fuzz(func(t *testing.T, data []byte, want string, html bool) {
		if len(data) > maxInfo || want != "" && !semver.IsValid(want) {
			return // what get and checkModule refuse
		}
		got, err := parseInfo(answer{data: data, html: html}, want)
		if err != nil {
			if !errors.Is(err, ErrBadAnswer) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("an error of no class: %v", err)
			}
			oneLine(t, err)
			return
		}
		var info struct {
			Version string
			Time    time.Time
		}
		if err := json.Unmarshal(got, &info); err != nil || want != "" && info.Version != want || !semver.IsValid(info.Version) || len(got) > maxInfo {
			t.Errorf("%q: %q, %v", data, got, err)
		}
		if again, err := parseInfo(answer{data: got}, want); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%q becomes %q, %v", got, again, err)
		}
	})
}

// FuzzList checks that what becomes of a list has versions in it that can be asked for, and nothing else.
func FuzzList(f *testing.F) {
	for _, data := range []string{
		"", "v1.0.0\n", "v1.0.0 2020-01-02T03:04:05Z\r\nv1.1.0", "v1\nv1.0\n", "master\n", "../v1.0.0\n", "v2.0.0+incompatible\nv2.0.0+meta\n",
		"<html>\nv1.0.0\n", "v1.0.0\x00\n", "\n\n \t\n", "v1.0.0\u2028v1.1.0", "v1.0.0 now\n", "\xff\n",
	} {
		f.Add([]byte(data), false)
		f.Add([]byte(data), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, html bool) {
		got, err := parseList(answer{data: data, html: html})
		if err != nil {
			if !errors.Is(err, ErrBadAnswer) {
				t.Errorf("an error of no class: %v", err)
			}
			oneLine(t, err)
			return
		}
		if len(got) > len(data)+1 {
			t.Errorf("%d bytes have become %d", len(data), len(got))
		}
		for line := range strings.Lines(string(got)) {
			version, when, timed := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if module.CanonicalVersion(version) != version || !strings.HasSuffix(line, "\n") {
				t.Errorf("%q: line %q", data, line)
			}
			if _, err := time.Parse(time.RFC3339, when); timed && err != nil {
				t.Errorf("%q: line %q: %v", data, line, err)
			}
		}
		if again, err := parseList(answer{data: got, html: html && len(got) > 0}); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%q becomes %q, %v", got, again, err)
		}
	})
}

// FuzzRetryAfter checks that a Retry-After is what it says or nothing, and that who asks for much is not waited for.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "1", "60", "61", "-1", "1.5", "99999999999999999999999", "18446744073709551615", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT", "soon", "1e9", "18700000000000000000A", "+1", " 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := retryAfter(s)
		digits := s != "" && strings.Trim(s, "0123456789") == ""
		_, dateErr := http.ParseTime(s)
		switch {
		case d < 0 && d != -1, d == -1 && (digits || dateErr == nil), d != -1 && !digits && dateErr != nil:
			t.Errorf("%q: %v", s, d)
		case digits && len(s) <= 9 && fmt.Sprintf("%09d", int64(d/time.Second)) != strings.Repeat("0", 9-len(s))+s:
			t.Errorf("%q: %v", s, d)
		case digits && len(strings.TrimLeft(s, "0")) > 9 && d < 30*365*24*time.Hour:
			t.Errorf("%q: %v", s, d)
		}
		e := &statusError{code: 503, after: d}
		if e.transient() != (d <= time.Minute) {
			t.Errorf("%q: tried again after %v: %v", s, d, e.transient())
		}
	})
}
