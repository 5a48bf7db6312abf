package fetch

import (
	"encoding/base64"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// Messages go where more people read than may know a password: logs, .modfs/errors, the state of a mount. So whatever leaves this
// package as text has been through here. What is hidden:
//
//   - who is logged in where, in all URLs: the user's name as well, which may be a token;
//   - queries and fragments of all URLs: a redirect to a signed URL is good for whoever knows its signature;
//   - the credentials of the settings, in whatever form a server or a library gives them back.

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
		basic := name + ":" + password
		for _, s := range []string{password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword("", password).String()[1:],
			base64.StdEncoding.EncodeToString([]byte(basic)), base64.StdEncoding.EncodeToString([]byte(name + ":"))} {
			if len(s) >= minSecret {
				all = append(all, s, hidden)
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
	c.secrets = strings.NewReplacer(secretsOf(urls...)...)
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
	if text = redactText(c.secrets.Replace(text)); text == err.Error() {
		return err
	}
	return &redactedError{text, err}
}

// badLocation is how net/http begins its error about a Location header that it cannot parse.
const badLocation = "failed to parse Location header"
