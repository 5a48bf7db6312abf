package fetch

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestParseNetrc(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"machine a login b password c":     "a b:c",
		"machine a\nlogin b\npassword c\n": "a b:c",
		"machine a password c login b":     "a b:c",
		"machine a login b\nmachine d password c":                                   "",
		"machine a login b password c machine a login d password e":                 "a b:c",
		"machine a account x login b password c":                                    "a b:c",
		"machine\na login b password c":                                             "", // token and value are on one line
		"default login b password c":                                                "",
		"login b password c":                                                        "",
		"macdef init\nmachine a login b password c\n\nmachine d login e password f": "d e:f",
		"# machine a login b password c":                                            "", // not in pairs any more
		"machine a login b password c\r\n":                                          "a b:c",
		"machine https://a/ login b password c":                                     "a b:c",
		"machine a login b password c login d password e":                           "a b:c",
	} {
		got := ""
		for key, header := range parseNetrc(in) {
			user, password, _ := (&http.Request{Header: header}).BasicAuth()
			got += key + " " + user + ":" + password
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseCredentials(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"https://a\n\nX: y\n\n":      "a X:y",
		"https://a/\n\nX: y\n\n":     "a X:y",
		"https://a:1/b/\n\nx: y\n\n": "a:1/b X:y",
		"https://b\nhttps://a\n\nX: y\nX: z\n\nhttps://c\n\nV: w\n\n": "a X:y,z|b X:y,z|c V:w",
		"https://a\n\nX: y\n\nhttps://a\n\nX: z\n\n":                  "a X:z",
		"https://a\n\n\n":                        "a ",
		"http://a\n\nX: y\n\n":                   "",
		"https://a":                              "error",
		"https://a\n":                            "error",
		"https://a\n\nX: y":                      "error",
		"https://a\n\nX: y\n":                    "error",
		"https://a\n\nX:y\n\n":                   "error",
		"https://a\n\nX y\n\n":                   "error",
		"https://a\n\nX\u00fc: y\n\n":            "error",
		"https://a\n\nX: y\x00\n\n":              "error",
		"https://a\n\n: y\n\n":                   "error",
		"https://a\r\n\r\nX: y\r\n\r\n":          "error",
		"a\n\nX: y\n\n":                          "error",
		"\nX: y\n\n":                             "",
		"https://a\n\nX: y\n\n\n\n":              "a X:y",
		"https://a\n\nAuthorization: \tb c \n\n": "a Authorization:b c",
	} {
		found, err := parseCredentials(in)
		var all []string
		for key, header := range found {
			text := key + " "
			for _, name := range slices.Sorted(maps.Keys(header)) {
				text += name + ":" + strings.Join(header[name], ",")
			}
			all = append(all, text)
		}
		slices.Sort(all)
		got := strings.Join(all, "|")
		if err != nil {
			got = "error"
			if !errors.Is(err, ErrBadAnswer) {
				t.Errorf("%q: %v", in, err)
			}
		}
		if got != want {
			t.Errorf("%q: %q (%v), want %q", in, got, err, want)
		}
	}
}

// Whatever a program prints, what is taken from it can be sent.
func FuzzParseCredentials(f *testing.F) {
	f.Add("https://a\n\nX: y\n\n")
	f.Add("https://b\nhttps://a/%2f?x#y\n\nX: y\nX: z\n\nhttps://c\n\nV: w\n\n")
	f.Add("https://u:p@a\n\n\n")
	f.Fuzz(func(t *testing.T, data string) {
		found, err := parseCredentials(data)
		if err != nil && found != nil {
			t.Error("both")
		}
		for key, header := range found {
			if strings.HasPrefix(key, "https://") && !strings.Contains(data, "https://https://") {
				t.Errorf("%q", key)
			}
			for name, values := range header {
				for _, v := range values {
					if !validField(name, v) || strings.ContainsAny(name+v, "\r\n\x00") {
						t.Errorf("%q: %q", name, v)
					}
				}
			}
		}
	})
}

// What is forgotten stays hidden for a while, and what is remembered of it has a limit.
func TestSecretsBounded(t *testing.T) {
	c, err := New(Config{Auth: "netrc"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, m := c.auth, c.auth.methods[0]
	for i := range 10 * maxOldSecrets {
		header := http.Header{"X-Token": {"secret-" + string(rune('a'+i%26)) + strings.Repeat("x", i%7+1)}}
		a.keep(m, credentials(map[string]http.Header{"a": header}), true)
	}
	if len(a.old) > maxOldSecrets || len(m.known) != 1 {
		t.Errorf("%d old secrets, %d credentials", len(a.old), len(m.known))
	}
	a.keep(m, credentials(map[string]http.Header{"a": basicAuth("a-user-that-is-a-token", "last")}), true)
	a.keep(m, nil, true)
	for _, text := range []string{"a-user-that-is-a-token", "password last", basicAuth("a-user-that-is-a-token", "last").Get("Authorization")} {
		if got := c.redact(errors.New(text)).Error(); !strings.Contains(got, hidden) || strings.Contains(got, "last") {
			t.Errorf("%s", got)
		}
	}
	// Nor can a program make us remember ever more.
	many := make(map[string]http.Header)
	for i := range maxCredentials {
		many[strings.Repeat("x", i)] = http.Header{"X": {"y"}}
	}
	a.keep(m, credentials(many), false)
	for _, key := range []string{"a", "b", "c"} {
		a.keep(m, credentials(map[string]http.Header{key: {"X": {"y"}}}), false)
		if m.known[key] == nil {
			t.Errorf("the newest is not known")
		}
	}
	if len(m.known) > maxCredentials {
		t.Errorf("%d credentials", len(m.known))
	}
}
