package control

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// evil is what an upstream may say.
const evil = `<script>alert(1)</script><img src=x onerror="alert(2)">`

// evilProxy is a proxy that says evil things about example.com/b.
func evilProxy(t *testing.T, s *proxytest.Server) string {
	t.Helper()
	to, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	good := httputil.NewSingleHostReverseProxy(to)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "example.com/b/") {
			http.Error(w, evil, http.StatusForbidden)
			return
		}
		good.ServeHTTP(w, r)
	}))
	t.Cleanup(ts.Close)
	return ts.URL
}

func TestPage(t *testing.T) {
	s := proxytest.New(t)
	proxy := evilProxy(t, s)
	f, w := webMount(t, s, func(o *modfs.Options) { o.Fetch.Proxy, o.Store.MaxSize = proxy, 1<<30 })
	readModule(t, f, "example.com/a@v1.0.0/a.go")
	if _, err := os.ReadFile(filepath.Join(f.Mountpoint(), "example.com/b@v1.0.0/b.go")); err == nil {
		t.Fatal("a module was read that is forbidden")
	}
	resp, body := w.get(t, "/", "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	for _, want := range []string{f.Mountpoint(), "of 1.0 GiB", "example.com/a", "EACCES", "403 Forbidden", "&lt;script&gt;alert(1)", "v1.2.3", "read-only"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img") {
		t.Errorf("what the upstream said is part of the page:\n%s", body)
	}
	// The policy allows nothing that is written into the page itself.
	if m := regexp.MustCompile(`<script[^>]*>[^<]|<[a-z][^<>]*\s(?:style|on\w+)=`).FindString(body); m != "" {
		t.Errorf("the page has %q", m)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/web/[^"#]*)`).FindAllStringSubmatch(body, -1) {
		w.wantStatus(t, m[1], http.StatusOK)
	}
	w.wantStatus(t, "/web/page.html", http.StatusNotFound)
	w.wantStatus(t, "/web/nothing", http.StatusNotFound)

	if body := w.wantStatus(t, "/?q="+url.QueryEscape(`"><script>alert(3)</script>`), http.StatusOK); strings.Contains(body, "<script>alert") {
		t.Errorf("a query is part of the page:\n%s", body)
	}
	if body := w.wantStatus(t, "/?q=nothing+like+it", http.StatusOK); strings.Contains(body, `<td class="mod">`) || !strings.Contains(body, "None with that") {
		t.Error("modules are listed that were not searched for")
	}
}

// TestModuleTable searches and sorts as the page does without JavaScript.
func TestModuleTable(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(int64(3600*h), 0) }
	all := []webModule{
		{Module: "example.com/a", Version: "v1.10.0", Size: 5, Used: at(2)},
		{Module: "example.com/a", Version: "v1.9.0", Size: 9, Used: at(3)},
		{Module: "example.com/B", Version: "v0.1.0", Size: 7, Used: at(1)},
	}
	for query, want := range map[string]int{"": 3, "a": 3, "b": 1, "EXAMPLE.com/a": 2, "a@v1.9": 1, "v1 /a": 2, "  ": 3, "a x y": 0} {
		if got := search(all, query); len(got) != want {
			t.Errorf("%q finds %v, want %d", query, got, want)
		}
	}
	for sort, want := range map[string]string{
		"": "v1.9.0 v1.10.0 v0.1.0", "used": "v1.9.0 v1.10.0 v0.1.0", "-used": "v0.1.0 v1.10.0 v1.9.0",
		"size": "v1.9.0 v0.1.0 v1.10.0", "-size": "v1.10.0 v0.1.0 v1.9.0",
		"version": "v0.1.0 v1.9.0 v1.10.0", "-version": "v1.10.0 v1.9.0 v0.1.0", "module": "v0.1.0 v1.9.0 v1.10.0", "nonsense": "v1.9.0 v1.10.0 v0.1.0",
	} {
		rows, cols := sorted(slices.Clone(all), sort, "x y")
		var got []string
		for _, m := range rows {
			got = append(got, m.Version)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("sorted by %q: %q, want %q", sort, got, want)
		}
		orders := 0
		for _, c := range cols {
			if c.Order != "" {
				orders++
			}
			if !strings.HasPrefix(c.Link, "/?q=x+y&sort=") {
				t.Errorf("column %s leads to %q", c.Name, c.Link)
			}
		}
		if orders != 1 {
			t.Errorf("sorted by %q: %d columns say so", sort, orders)
		}
	}
}

func TestPeriods(t *testing.T) {
	now := time.Unix(1e6, 0)
	var all []sample
	for i := range 15 { // one each minute, the last one now
		all = append(all, sample{Time: now.Add(time.Duration(i-14) * time.Minute).UnixMilli(), Hits: int64(i), Store: int64(100 * i)})
	}
	ps := periods(all, now)
	if len(ps) != 2 || ps[0].Hits != 10 || ps[0].Store != 1400 || ps[1].Hits != 4 || ps[1].Store != 400 || ps[0].Until != now.UTC().Format("15:04") {
		t.Errorf("%+v", ps)
	}
	if ps := periods(nil, now); len(ps) != 0 {
		t.Errorf("of nothing: %+v", ps)
	}
}

// TestWebUpstreams has two paths of one host, which are one row, as they are one label of the metrics.
func TestWebUpstreams(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	got := upstreams([]fetch.Upstream{
		{URL: "https://a.example/one", Requests: 1, Failures: 2, Bytes: 3, LastError: "new", LastTime: at(9), DownSince: at(8)},
		{URL: "https://b.example", Requests: 5},
		{URL: "https://a.example/two", Requests: 10, Failures: 20, Bytes: 30, LastError: "old", LastTime: at(7), DownSince: at(6)},
		{URL: "https://a.example/three", Requests: 100},
		{URL: "https://b.example/two", LastError: "only", LastTime: at(4), DownSince: at(3)},
	})
	want := []webUpstream{
		{Host: "a.example", Requests: 111, Failures: 22, Bytes: 33, LastError: "new", LastTime: at(9), DownSince: at(6)},
		{Host: "b.example", Requests: 5, LastError: "only", LastTime: at(4), DownSince: at(3)},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := upstreams(nil); got == nil || len(got) != 0 {
		t.Errorf("of none: %#v", got) // null in JSON
	}
}

// event is one server-sent event.
type event struct{ name, data string }

// events reads the stream of a page.
func events(t *testing.T, w *Web) (next func() event, leave func()) {
	t.Helper()
	resp, err := http.Get(w.URL() + "api/live")
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %v", resp.Status, resp.Header)
	}
	r := bufio.NewScanner(resp.Body)
	r.Buffer(nil, 16<<20)
	return func() (e event) {
		for r.Scan() {
			switch name, value, _ := strings.Cut(r.Text(), ": "); {
			case name == "event":
				e.name = value
			case name == "data":
				e.data = value
			case name == "" && e.name != "":
				return e
			}
		}
		return event{}
	}, func() { resp.Body.Close() }
}

// TestLive follows the stream while a module is fetched.
func TestLive(t *testing.T) {
	s := proxytest.New(t)
	f, w := webMount(t, s, nil)
	next, leave := events(t, w)
	defer leave()
	first := next()
	var some webSamples
	if err := json.Unmarshal([]byte(first.data), &some); err != nil || first.name != "samples" || !some.Reset {
		t.Errorf("first: %+v, %v", first, err)
	}
	state := func(ok func(*webState) bool) *webState {
		t.Helper()
		for {
			e := next()
			if e.name == "" {
				t.Fatal("the stream has ended")
			}
			if e.name != "state" {
				continue
			}
			v := new(webState)
			if err := json.Unmarshal([]byte(e.data), v); err != nil {
				t.Fatal(err)
			}
			if ok(v) {
				return v
			}
		}
	}
	v := state(func(*webState) bool { return true })
	if v.Mountpoint != f.Mountpoint() || v.Version != "v1.2.3" || v.Mode != "read-only" || len(v.Transfers) != 0 || v.Ending {
		t.Errorf("at first: %+v", v)
	}
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "stallbody"
		}
		return ""
	})
	read := make(chan error)
	go func() {
		_, err := os.ReadFile(filepath.Join(f.Mountpoint(), "example.com/a@v1.0.0/a.go"))
		read <- err
	}()
	v = state(func(v *webState) bool { return len(v.Transfers) == 1 && v.Transfers[0].Bytes > 0 })
	d := v.Transfers[0]
	if d.Module != "example.com/a" || d.Version != "v1.0.0" || d.Total <= d.Bytes || !strings.HasPrefix(d.Who, "for ") {
		t.Errorf("a download: %+v", d)
	}
	s.Release()
	if err := <-read; err != nil {
		t.Error(err)
	}
	v = state(func(v *webState) bool { return len(v.Transfers) == 0 })
	if v.Now.Misses != 1 || v.Store.Modules != 1 {
		t.Errorf("afterwards: %+v", v)
	}
	var all []webModule
	if err := json.Unmarshal([]byte(w.wantStatus(t, "/api/modules", http.StatusOK)), &all); err != nil || len(all) != 1 || all[0].Module != "example.com/a" || all[0].Size == 0 {
		t.Errorf("modules: %+v, %v", all, err)
	}
	w.Ending()
	state(func(v *webState) bool { return v.Ending })
	w.Close()
	if e := next(); e.name != "" {
		for e.name != "" {
			e = next() // what was on its way
		}
	}
}

// TestLiveLimit has more pages than may be live: one that leaves makes room.
func TestLiveLimit(t *testing.T) {
	_, w := webMount(t, proxytest.New(t), nil)
	var leaves []func()
	for range maxStreams {
		next, leave := events(t, w)
		next()
		leaves = append(leaves, leave)
	}
	resp, _ := w.get(t, "/api/live", "")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %s", resp.Status)
	}
	leaves[0]()
	for deadline := time.Now().Add(time.Minute); w.free() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a page that has left still counts")
		}
	}
	_, leave := events(t, w)
	leave()
	for _, leave := range leaves[1:] {
		leave()
	}
}

// free is how many streams may still be opened.
func (w *Web) free() int { return cap(w.streams) - len(w.streams) }
