package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 9, 2}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	of := func(arm string, round int, value float64, daemon *daemonSample) sample {
		return sample{Measurement: "cold", Arm: arm, Round: round, Unit: seconds, Value: value, Daemon: daemon}
	}
	got := summarize([]sample{
		of("plain", 1, 10, nil),
		of("modfs", 1, 4, &daemonSample{CPU: 1, PeakRSS: 100, Counters: map[string]int64{"reads": 10}}),
		of("plain", 2, 20, nil),
		of("modfs", 2, 8, &daemonSample{CPU: 3, PeakRSS: 300, Counters: map[string]int64{"reads": 30, "lookups": 2}}),
		{Measurement: "read", Arm: "plain", Round: 1, Value: 1}, // of one arm only
	})
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	c := got[0]
	if c.Plain != (spread{15, 10, 20}) || c.Modfs != (spread{6, 4, 8}) {
		t.Errorf("%+v", c)
	}
	if c.Ratio != 0.4 || c.RoundRatios != (spread{0.4, 0.4, 0.4}) {
		t.Errorf("%+v", c)
	}
	d := c.Detail["modfs"]
	if d.DaemonCPU != 2 || d.PeakRSS != 200 || d.Counters["reads"] != 20 || d.Counters["lookups"] != 1 {
		t.Errorf("%+v", d)
	}
}

func TestTable(t *testing.T) {
	tab := table{head: []string{"what", "plain"}, rows: [][]string{{"cold", "1.0 s"}, {"µ", "10.0 s"}}}
	if got, want := tab.String(false), "what   plain\ncold   1.0 s\nµ     10.0 s\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	want := "| what |  plain |\n| ---- | -----: |\n| cold |  1.0 s |\n| µ    | 10.0 s |\n"
	if got := tab.String(true); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFlatten(t *testing.T) {
	got, err := flatten(json.RawMessage(
		`{"reads": 3, "bytes": 1.5, "name": "x", "fuse": {"lookup": 4, "deep": {"n": 5}}, "list": [1]}`))
	want := map[string]int64{"reads": 3, "bytes": 1, "fuse.lookup": 4, "fuse.deep.n": 5}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, err := flatten(nil); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
	if _, err := flatten(json.RawMessage(`[1]`)); err == nil {
		t.Error("no error for a list")
	}
}

func TestChoose(t *testing.T) {
	gs := groups(40 * time.Millisecond)
	all, err := choose(gs, "")
	if err != nil || len(all) != len(gs) {
		t.Fatalf("%d of %d groups, %v", len(all), len(gs), err)
	}
	some, err := choose(gs, "warm-warm, cold-sumdb")
	if err != nil || len(some) != 2 {
		t.Fatalf("%+v, %v", some, err)
	}
	// What fills the cache is always done, but measured only if that is wanted.
	if got := some[0].steps; len(got) != 2 || got[0].name != "cold" || got[1].name != "warm-warm" || some[0].wanted["cold"] {
		t.Errorf("%+v", some[0])
	}
	if _, err := choose(gs, "hot"); err == nil || !strings.Contains(err.Error(), `"hot"`) {
		t.Errorf("error %v for an unknown measurement", err)
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-only", "hot"}, {"-latency", "0s"}, {"more"}, {"-nope"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// testTree is a cache/download tree of two modules.
func testTree(t *testing.T) string {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"example.com/a/@v/v1.0.0.mod":     "module example.com/a\n",
		"example.com/a/@v/v1.0.0.info":    `{"Version":"v1.0.0"}`,
		"example.com/a/@v/v1.0.0.zip":     "0123456789",
		"example.com/a/@v/v1.0.0.ziphash": "h1:aaaa",
		"example.com/!b/@v/v1.0.0.mod":    "module example.com/B\n",
	} {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProxy(t *testing.T) {
	p, err := startProxy(testTree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ask := func(method, path, rang string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, p.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rang != "" {
			req.Header.Set("Range", rang)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	const zip = "/example.com/a/@v/v1.0.0.zip"
	for _, c := range []struct {
		method, path, rang string
		status             int
		body               string
	}{
		{"GET", zip, "", 200, "0123456789"},
		{"HEAD", zip, "", 200, ""},
		{"GET", zip, "bytes=4-", 206, "456789"},
		{"GET", "/example.com/!b/@v/v1.0.0.mod", "", 200, "module example.com/B\n"},
		{"GET", "/example.com/a/@v/v1.0.0.ziphash", "", 404, "*"},
		{"GET", "/example.com/a/@v/v9.0.0.zip", "", 404, "*"},
		{"GET", "/../a/@v/v1.0.0.zip", "", 404, "*"},
		{"GET", "/sumdb/" + dbName + "/supported", "", 200, ""},
		{"GET", "/sumdb/" + dbName + "/lookup/example.com/a@v1.0.0", "", 200, "*"},
		{"GET", "/sumdb/" + dbName + "/lookup/example.com/c@v1.0.0", "", 404, "*"},
	} {
		status, body := ask(c.method, c.path, c.rang)
		if status != c.status || c.body != "*" && body != c.body {
			t.Errorf("%s %s %s: %d %q", c.method, c.path, c.rang, status, body)
		}
	}
	_, lines := ask("GET", "/sumdb/"+dbName+"/lookup/example.com/a@v1.0.0", "")
	if !strings.Contains(lines, "\nexample.com/a v1.0.0 h1:aaaa\n") {
		t.Errorf("lookup: %q", lines)
	}
	counts := p.snapshot()
	if counts["head"] != 1 || counts["range"] != 1 || counts["sumdb"] != 4 || counts["not_found"] < 3 {
		t.Errorf("counts: %v", counts)
	}

	// A lower bound: the answer waits for at least so long.
	p.setLatency(30 * time.Millisecond)
	start := time.Now()
	ask("GET", zip, "")
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("an answer after %v", took)
	}
}

func TestWorkloads(t *testing.T) {
	for _, w := range workloads() {
		dir := filepath.Join(t.TempDir(), w.name)
		if err := w.unpack(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"go.mod", "go.sum"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	if m, err := large.required(readModule); err != nil || m.Version == "" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/x", "a/b/y", "cache/download/z"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("12345"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var lines lineCounter
	if err := walk(dir, &lines); err != nil || lines != 5 {
		t.Errorf("walk: %d, %v", lines, err)
	}
	if got, err := readTree(dir); err != nil || got != (tally{3, 15}) {
		t.Errorf("readTree: %+v, %v", got, err)
	}
	if err := keepOnly(dir, "a"); err != nil {
		t.Fatal(err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 || es[0].Name() != "a" {
		t.Errorf("keepOnly left %v", es)
	}
}

func TestBenchEnv(t *testing.T) {
	env := benchEnv([]string{"PATH=/bin", "GOPROXY=x", "GOFLAGS=-v", "GOROOT=/go", "CGO_ENABLED=1", "GOPRIVATE=y"}, "GOPROXY=z")
	for _, kv := range []string{"PATH=/bin", "GOROOT=/go", "GOPROXY=z", "CGO_ENABLED=0", "GOPRIVATE="} {
		if !slices.Contains(env, kv) {
			t.Errorf("%s is not in %q", kv, env)
		}
	}
	for _, kv := range []string{"GOPROXY=x", "GOFLAGS=-v", "CGO_ENABLED=1", "GOPRIVATE=y"} {
		if slices.Contains(env, kv) {
			t.Errorf("%s is in %q", kv, env)
		}
	}
}
