package fetch

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Messages go where more people read than may know a password: logs, .modfs/errors, the state of a mount. So whatever leaves this
// package as text has been through here. What is hidden:
//
//   - who is logged in where, in all URLs: the user's name as well, which may be a token;
//   - queries and fragments of all URLs: a redirect to a signed URL is good for whoever knows its signature;
//   - the credentials of the settings, in whatever form a server or a library gives them back;
//   - those that were had as GOAUTH says, and the last of those that were.

// hidden stands for what is not shown.
const hidden = "xxxxx"

var (
	urlUser  = regexp.MustCompile(`(://)[^\s/?#"']*@`)
	bareUser = regexp.MustCompile(`[^\s/"'@]*:[^\s/"']*@`) // as in "user:password@host", where a scheme is missing
	urlQuery = regexp.MustCompile(`(://[^\s"'?#]*)[?#][^\s"']*?([:;,.)]*)(\s|["']|$)`)
	assigned = regexp.MustCompile(`(?i)([\w-]*(?:signature|credential|token|passw(?:or)?d|secret|sig)=)[^\s&"']+`)
)

// redactText hides what looks like credentials.
func redactText(s string) string {
	if !strings.ContainsAny(s, "@?#=") {
		return s
	}
	s = urlUser.ReplaceAllString(s, "${1}"+hidden+"@")
	s = bareUser.ReplaceAllString(s, hidden+"@")
	s = urlQuery.ReplaceAllString(s, "${1}?"+hidden+"${2}${3}")
	return assigned.ReplaceAllString(s, "${1}"+hidden)
}

// minSecret is how many bytes a user's name or password must have to be looked for in texts: shorter ones are in words, too.
const minSecret = 4

// minToken is how many bytes a user's name must have to be hidden although there is a password: some services take a token for the name.
const minToken = 16

// secretsOf returns the credentials in URLs, in the forms in which they may come back.
func secretsOf(urls ...*url.URL) []string {
	var all []string
	for _, u := range urls {
		if u == nil || u.User == nil {
			continue
		}
		name := u.User.Username()
		password, ok := u.User.Password()
		if !ok || password == "" {
			password = name // a token
		}
		all = append(all, forms(password)...)
		if len(name) >= minToken {
			all = append(all, forms(name)...)
		}
		all = append(all, base64.StdEncoding.EncodeToString([]byte(name+":"+password)), base64.StdEncoding.EncodeToString([]byte(name+":")))
	}
	return all
}

// forms returns the forms in which a secret may come back.
func forms(s string) []string {
	return []string{s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:]}
}

// secretsIn returns what must not be shown of the header fields of a credential: their values, the words in those after the first,
// which names the scheme, and what is encoded in that of Basic authentication.
func secretsIn(header http.Header) []string {
	var all []string
	for _, values := range header {
		for _, value := range values {
			all = append(all, value)
			if words := strings.Fields(value); len(words) > 1 {
				all = append(all, words[1:]...)
			}
			r := http.Request{Header: http.Header{"Authorization": {value}}}
			if user, password, ok := r.BasicAuth(); ok {
				all = append(all, secretsOf(&url.URL{User: url.UserPassword(user, password)})...)
			}
		}
	}
	return all
}

// environmentProxies returns the HTTP proxies that the environment names, as far as they are URLs.
func environmentProxies() []*url.URL {
	var urls []*url.URL
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		for _, v := range []string{os.Getenv(name), os.Getenv(strings.ToLower(name))} {
			if u, err := url.Parse(v); err == nil {
				urls = append(urls, u)
			}
		}
	}
	return urls
}

// learnSecrets makes the client know what to hide.
func (c *Client) learnSecrets() {
	urls := environmentProxies()
	for _, u := range c.proxies {
		urls = append(urls, u.base)
	}
	if c.db != nil {
		urls = append(urls, c.db.direct.base)
	}
	c.settings = secretsOf(urls...)
	c.hide(nil)
}

// hide makes secrets what is hidden besides those of the settings.
func (c *Client) hide(secrets []string) {
	var pairs []string
	for _, s := range slices.Concat(c.settings, secrets) {
		if len(s) >= minSecret {
			pairs = append(pairs, s, hidden)
		}
	}
	c.secrets.Store(strings.NewReplacer(pairs...))
}

// redactedError is an error with another text.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// redact returns err with a text that may be shown.
func (c *Client) redact(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if i := strings.Index(text, badLocation); i >= 0 {
		text = text[:i] + "the Location header of the redirect is not a URL" // it would be quoted, whatever it is
	}
	if text = redactText(c.secrets.Load().Replace(text)); text == err.Error() {
		return err
	}
	return &redactedError{text, err}
}

// badLocation is how net/http begins its error about a Location header that it cannot parse.
const badLocation = "failed to parse Location header"
