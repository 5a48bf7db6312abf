package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"

	"modfs/fetch"
)

func checkProxies(ctx context.Context, s *System) []Finding {
	reached, err := s.upstreams(ctx)
	if err != nil {
		return fail("go env GOPROXY GOSUMDB says the settings; correct them with go env -w, or give flags", "%v", err)
	}
	var found []Finding
	for _, r := range reached {
		if !r.SumDB {
			found = append(found, answered(r)...)
		}
	}
	if len(found) > 0 {
		return found
	}
	if strings.TrimSpace(s.Fetch.Proxy) == "direct" {
		return ok("none: GOPROXY=direct")
	}
	return note("", "none: GOPROXY=off")
}

func checkSumDB(ctx context.Context, s *System) []Finding {
	reached, err := s.upstreams(ctx)
	if err != nil {
		return note("", "not known, for what the check proxy says")
	}
	for _, r := range reached {
		if r.SumDB {
			return answered(r)
		}
	}
	return note("", "none: GOSUMDB=off")
}

// answered makes a finding of what an upstream said.
func answered(r fetch.Reached) []Finding {
	if r.Err == nil {
		return ok("%s answers (%v)", r.Upstream, r.Took.Round(time.Millisecond))
	}
	if errors.Is(r.Err, fetch.ErrOffline) {
		return note("", "%s is not asked: --offline", r.Upstream)
	}
	fix := "look whether it works in a browser, and ask whoever runs it"
	// What it is is told by its type: its text has addresses and names in it, which may look like anything.
	invalid, _ := errors.AsType[x509.CertificateInvalidError](r.Err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](r.Err)
	remote, _ := errors.AsType[*net.OpError](r.Err)
	alert := remote != nil && remote.Op == "remote error" // crypto/tls: the server's, such as that it wants a certificate
	switch {
	case errors.Is(r.Err, fetch.ErrSumDB):
		fix = "find out who answers in its name: a proxy of your network, or a setting (GOSUMDB) that is wrong. Turn it off for nothing but private modules"
	case errors.Is(r.Err, fetch.ErrForbidden):
		fix = "credentials are missing or wrong: GOAUTH, ~/.netrc or the URL has them ('go help goauth'); a web proxy's are in HTTPS_PROXY"
	case errors.Is(r.Err, fetch.ErrBadAnswer):
		fix = "a login page or another web server answers in its place: log in to the network, or correct the address"
	case untrusted && invalid.Reason == x509.Expired: // or not yet valid
		fix = "correct the clock, or have its certificate renewed"
	case untrusted, alert:
		fix = "name a certificate authority of your own with SSL_CERT_FILE, a certificate for you with --client-cert"
	case errors.Is(r.Err, fetch.ErrUnreachable), errors.Is(r.Err, fetch.ErrTimeout):
		fix = "look at the network and at HTTPS_PROXY and NO_PROXY; without a network, mount with --offline"
	}
	text := r.Err.Error()
	if !strings.Contains(text, r.Upstream) {
		text = r.Upstream + ": " + text
	}
	return fail(fix, "%s", text)
}

// maxSkew is how far the clock may be off: certificates and signed answers bear a few minutes.
const maxSkew = 5 * time.Minute

func checkClock(ctx context.Context, s *System) []Finding {
	reached, err := s.upstreams(ctx)
	if err != nil {
		return note("", "not known: no proxy can be asked")
	}
	// The one that is nearest: a date may come from somebody's cache, or from a clock that is wrong itself.
	var best *fetch.Reached
	skew := func(r *fetch.Reached) time.Duration { return r.Asked.Sub(r.Date) }
	for i := range reached {
		if r := &reached[i]; !r.Date.IsZero() && (best == nil || skew(r).Abs() < skew(best).Abs()) {
			best = r
		}
	}
	if best == nil {
		return note("", "not known: no proxy said its time")
	}
	switch d := skew(best).Round(time.Second); {
	case d > maxSkew:
		return fail("have it set by NTP: timedatectl set-ntp true", "it is %v ahead of that of %s", d, best.Upstream)
	case d < -maxSkew:
		return fail("have it set by NTP: timedatectl set-ntp true", "it is %v behind that of %s", -d, best.Upstream)
	}
	return ok("it agrees with that of %s", best.Upstream)
}

func checkVCS(_ context.Context, s *System) []Finding {
	if s.FetchErr != nil {
		return note("", "not known, for what the check proxy says")
	}
	why := ""
	for item := range strings.FieldsFuncSeq(s.Fetch.Proxy, func(r rune) bool { return r == ',' || r == '|' }) {
		if item = strings.TrimSpace(item); item == "off" || item == "direct" {
			if item == "direct" {
				why = "GOPROXY comes to direct"
			}
			break
		}
	}
	if s.Fetch.NoProxy != "" && s.Fetch.NoProxy != "none" || s.Fetch.Private != "" && s.Fetch.Private != "none" {
		why = "there are private modules (GOPRIVATE, GONOPROXY)"
	}
	if why == "" {
		return ok("not needed")
	}
	for _, name := range []string{"git", "go"} {
		if _, err := s.LookPath(name); err != nil {
			return warn("install "+name, "%s is not in PATH, but %s", name, why)
		}
	}
	return ok("git is there")
}
