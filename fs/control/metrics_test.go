package control

import (
	"maps"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

// scrape reads the metrics as Prometheus does.
func scrape(t *testing.T, w *Web) map[string]*dto.MetricFamily {
	t.Helper()
	resp, body := w.get(t, "/metrics", "")
	if resp.StatusCode != 200 {
		t.Fatalf("metrics: %s: %s", resp.Status, body)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value returns the value of a metric with labels, given as pairs; of a histogram, how many values it has. It is 0 where there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	for _, m := range families[name].GetMetric() {
		got := make(map[string]string)
		for _, l := range m.GetLabel() {
			got[l.GetName()] = l.GetValue()
		}
		match := true
		for i := 0; i < len(labels); i += 2 {
			match = match && got[labels[i]] == labels[i+1]
		}
		if !match {
			continue
		}
		switch {
		case m.Counter != nil:
			return m.GetCounter().GetValue()
		case m.Gauge != nil:
			return m.GetGauge().GetValue()
		case m.Histogram != nil:
			return float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}

// TestMetrics looks which metrics have moved after modules were read, and some could not be.
func TestMetrics(t *testing.T) {
	s := proxytest.New(t)
	f, w := webMount(t, s, func(o *modfs.Options) { o.Store.MaxSize = 1 << 30 })
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	before := scrape(t, w)
	readModule(t, f, "example.com/a@v1.0.0/a.go")
	readModule(t, f, "example.com/a@v1.0.0/go.mod")
	s.SetFault(func(string) string { return "403" })
	if _, err := os.ReadFile(f.Mountpoint() + "/example.com/b@v1.0.0/b.go"); err == nil {
		t.Fatal("a module was read that is forbidden")
	}
	after := scrape(t, w)
	zip := float64(len(s.ZipBytes("example.com/a", "v1.0.0")))
	for _, m := range []struct {
		name   string
		labels []string
		want   float64 // -1: more than before
	}{
		{"modfs_misses_total", nil, 1},
		{"modfs_hits_total", nil, 0},
		{"modfs_fetched_bytes_total", nil, zip},
		{"modfs_served_bytes_total", nil, -1},
		{"modfs_errors_total", []string{"errno", "EACCES"}, -1},
		{"modfs_errors_total", []string{"errno", "EIO"}, 0},
		{"modfs_upstream_request_duration_seconds", []string{"upstream", u.Host, "outcome", "ok"}, -1},
		{"modfs_upstream_request_duration_seconds", []string{"upstream", u.Host, "outcome", "forbidden"}, -1},
		{"modfs_upstream_received_bytes_total", []string{"upstream", u.Host}, -1},
		{"modfs_sumdb_lookup_duration_seconds", []string{"outcome", "ok"}, -1},
		{"modfs_sumdb_lookup_duration_seconds", []string{"outcome", "mismatch"}, 0},
		{"modfs_fuse_request_duration_seconds", []string{"request", "lookup"}, -1},
		{"modfs_fuse_request_duration_seconds", []string{"request", "read"}, -1},
		{"modfs_fuse_request_duration_seconds", []string{"request", "write"}, 0},
		{"modfs_store_bytes", nil, -1},
		{"modfs_store_limit_bytes", nil, 0},
		{"modfs_modules", nil, -1},
	} {
		moved := value(after, m.name, m.labels...) - value(before, m.name, m.labels...)
		if m.want >= 0 && moved != m.want || m.want < 0 && moved <= 0 {
			t.Errorf("%s %v has moved by %v, want %v", m.name, m.labels, moved, m.want)
		}
	}
	if got := value(after, "modfs_build_info", "version", "v1.2.3", "goversion", runtime.Version()); got != 1 {
		t.Errorf("modfs_build_info is %v", got)
	}
	if got := value(after, "modfs_store_limit_bytes"); got != 1<<30 {
		t.Errorf("modfs_store_limit_bytes is %v", got)
	}
	if value(after, "process_resident_memory_bytes") == 0 && runtime.GOOS == "linux" || value(after, "go_goroutines") == 0 {
		t.Error("nothing is told of the process")
	}
}

func TestUpstreamLabel(t *testing.T) {
	for in, want := range map[string]string{
		"https://proxy.example/secret/path":      "proxy.example",
		"https://xxxxx@proxy.example:8443/":      "proxy.example:8443",
		"http://[::1]:80":                        "[::1]:80",
		"file:///home/gopher/mod/cache/download": "file",
		"direct":                                 "direct",
		"seed /home/gopher/mod":                  "seed",
	} {
		if got := upstreamLabel(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// series are the names of families in the form in which they are queried.
func series(families map[string]*dto.MetricFamily) map[string]bool {
	names := make(map[string]bool)
	for name, f := range families {
		names[name] = true
		if f.GetType() == dto.MetricType_HISTOGRAM {
			names[name+"_bucket"], names[name+"_sum"], names[name+"_count"] = true, true, true
		}
	}
	return names
}

// TestMetricsDocs compares the table in docs/monitoring.md with what is exported, and what the rules and the dashboard in deploy use.
func TestMetricsDocs(t *testing.T) {
	s := proxytest.New(t)
	f, w := webMount(t, s, nil)
	readModule(t, f, "example.com/a@v1.0.0/a.go")
	families := scrape(t, w)
	docs := readFile(t, "../../docs/monitoring.md")
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `(modfs_\\w+)(?:\\{([\\w,]+)\\})?` \\|").FindAllStringSubmatch(docs, -1) {
		name := m[1]
		documented[name] = true
		family := families[name]
		if family == nil {
			t.Errorf("docs/monitoring.md has %s, which is not exported", name)
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want := strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })
		slices.Sort(want)
		if !slices.Equal(labels, want) {
			t.Errorf("docs/monitoring.md gives %s the labels %q, it has %q", name, want, labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if strings.HasPrefix(name, "modfs_") && !documented[name] {
			t.Errorf("%s is not in docs/monitoring.md", name)
		}
	}
	exported := series(families)
	for _, file := range []string{"../../deploy/prometheus/alerts.yml", "../../deploy/grafana/modfs.json", "../../docs/monitoring.md"} {
		used := regexp.MustCompile(`\b(?:modfs|go|process)_\w+`).FindAllString(readFile(t, file), -1)
		if len(used) == 0 {
			t.Errorf("%s uses no metric", file)
		}
		for _, name := range used {
			if !exported[name] {
				t.Errorf("%s has %s, which is not exported", file, name)
			}
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
