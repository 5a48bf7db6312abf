package fetch_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// reached asks with the settings of cfg, which are completed so that nothing is tried again.
func reached(t *testing.T, cfg fetch.Config) []fetch.Reached {
	t.Helper()
	cfg.Tries = 1
	c, err := fetch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Reach(t.Context())
}

func TestReach(t *testing.T) {
	s := proxytest.New(t)
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	answer := func(code int, kind string) string {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/sumdb/") {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Date", past.Add(-2*time.Minute).UTC().Format(http.TimeFormat))
			w.Header().Set("Age", "120") // in a cache
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(code)
			w.Write([]byte("hello"))
		}))
		t.Cleanup(ts.Close)
		return ts.URL
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	list := []string{s.URL(), answer(404, "text/plain"), answer(401, "text/plain"), answer(503, "text/plain"), answer(200, "text/html"), closed.URL,
		"file://" + t.TempDir(), "file:///nonexistent", "direct"}
	got := reached(t, fetch.Config{Proxy: strings.Join(list, "|"), SumDB: s.SumDB()})
	if len(got) != len(list) { // the database in place of direct
		t.Fatalf("%d answers, want %d: %v", len(got), len(list), got)
	}
	for i, class := range []error{nil, nil, fetch.ErrForbidden, errAny, fetch.ErrBadAnswer, fetch.ErrUnreachable, nil, errAny, nil} {
		switch r := got[i]; {
		case class == nil && r.Err != nil, class == errAny && r.Err == nil, class != nil && class != errAny && !errors.Is(r.Err, class):
			t.Errorf("%s: %v, want %v", r.Upstream, r.Err, class)
		case (1 <= i && i <= 4) && !r.Date.Equal(past):
			t.Errorf("%s: date %v, want %v", r.Upstream, r.Date, past)
		case r.SumDB != (i == len(got)-1):
			t.Errorf("%s: SumDB is %v", r.Upstream, r.SumDB)
		}
	}
}

// TestReachEach checks that each proxy is asked although the first one has an answer, that no private name is sent, and that an
// offline client asks nobody.
func TestReachEach(t *testing.T) {
	a, b := proxytest.New(t), proxytest.New(t)
	reached(t, fetch.Config{Proxy: a.URL() + "," + b.URL(), SumDB: "off"})
	if n, m := a.Count("golang.org/x/mod/@v/list"), b.Count("golang.org/x/mod/@v/list"); n != 1 || m != 1 {
		t.Errorf("asked %d and %d times, want once each", n, m)
	}
	reached(t, fetch.Config{Proxy: a.URL(), Private: "golang.org/*", SumDB: "off"})
	if n := a.Count("golang.org"); n != 1 {
		t.Error("a private name was sent:", a.Requests())
	}
	before := len(a.Requests())
	for _, r := range reached(t, fetch.Config{Proxy: a.URL(), SumDB: a.SumDB(), Offline: true}) {
		if !errors.Is(r.Err, fetch.ErrOffline) {
			t.Errorf("%s: %v, want ErrOffline", r.Upstream, r.Err)
		}
	}
	if n := len(a.Requests()); n != before {
		t.Error("asked although offline:", a.Requests()[before:])
	}
}

func TestReachRedacts(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	got := reached(t, fetch.Config{Proxy: strings.Replace(closed.URL, "http://", "https://user:hunter22@", 1), SumDB: "off"})
	if text := got[0].Upstream + got[0].Err.Error(); strings.Contains(text, "hunter22") || strings.Contains(text, "user") {
		t.Error("credentials are shown:", text)
	}
}

// TestReachSum checks that a head that the database has not signed does not count.
func TestReachSum(t *testing.T) {
	s := proxytest.New(t)
	key := strings.Fields(s.SumDB())[0]
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("go.sum database tree\n1\nx\n\n")) }))
	defer ts.Close()
	got := reached(t, fetch.Config{SumDB: key + " " + ts.URL})
	if len(got) != 1 || !errors.Is(got[0].Err, fetch.ErrSumDB) {
		t.Errorf("%v, want one ErrSumDB", got)
	}
}
