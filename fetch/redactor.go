package fetch

import (
	"net/url"
	"regexp"
	"strings"
)

// Redactor hides credentials in texts of any origin that others are to read: those that it knows, in whatever form they come, and
// what looks like some. It is for reports; a Client does the same with its messages by itself. Its methods may be called concurrently.
type Redactor struct{ secrets *strings.Replacer }

// NewRedactor returns one that knows the credentials in the settings, in the proxies of the environment, and in the user's .netrc.
func NewRedactor(cfg Config) *Redactor {
	urls := environmentProxies()
	for _, word := range strings.FieldsFunc(cfg.Proxy+" "+cfg.SumDB, func(r rune) bool { return strings.ContainsRune(",| \t", r) }) {
		// Settings that are wrong are what reports are about, so what they have is not parsed as strictly as by New.
		if !strings.Contains(word, "://") {
			word = "https://" + word
		}
		if u, err := url.Parse(word); err == nil {
			urls = append(urls, u)
		}
	}
	secrets := secretsOf(urls...)
	machines, _ := readNetrc() // best effort: without it, none of its passwords has been read either
	for _, header := range machines {
		secrets = append(secrets, secretsIn(header)...)
	}
	var pairs []string
	for _, s := range secrets {
		if len(s) >= minSecret {
			pairs = append(pairs, s, hidden)
		}
	}
	return &Redactor{strings.NewReplacer(pairs...)}
}

var (
	secretHeader = regexp.MustCompile(`(?im)((?:authorization|cookie|[\w-]*(?:token|(?:api|access|private|secret)[-_]?key|secret|passw(?:or)?d))["']?\s*[:=]\s*["'\[]*).+$`)
	netrcWord    = regexp.MustCompile(`(?i)(\b(?:password|passwd|token|bearer|basic)\s+)[^\s"',:;=]{4,}`)
)

// Text returns s without credentials.
func (r *Redactor) Text(s string) string {
	s = r.secrets.Replace(s)
	s = secretHeader.ReplaceAllString(s, "${1}"+hidden)
	s = netrcWord.ReplaceAllString(s, "${1}"+hidden)
	return redactText(s)
}

// Auth returns a value of GOAUTH with the programs that it names, and without their arguments: those are as often as not what lets
// one in.
func (r *Redactor) Auth(goauth string) string {
	var shown []string
	for command := range strings.SplitSeq(goauth, ";") {
		words := strings.Fields(command)
		switch {
		case len(words) > 1 && words[0] == "git":
			shown = append(shown, "git "+words[1])
		case len(words) > 1:
			shown = append(shown, words[0]+" "+hidden)
		case len(words) == 1:
			shown = append(shown, words[0])
		}
	}
	return r.Text(strings.Join(shown, "; "))
}
