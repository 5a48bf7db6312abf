package control

import (
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"modfs/fetch"
	modfs "modfs/fs"
)

// metrics are what /metrics has. docs/monitoring.md lists them; a test compares.
//
// Most are read from the file system when they are asked for. Counted here is what happens seldom, beside what it costs: requests to
// upstreams and lookups in the checksum database.
type metrics struct {
	registry *prometheus.Registry
	upstream *prometheus.HistogramVec // by upstream and outcome
	lookups  *prometheus.HistogramVec // by outcome
}

// networkBuckets are those of what waits for a network, in seconds: from a proxy on this machine to --timeout, roughly.
var networkBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "modfs_upstream_request_duration_seconds",
			Help:    "How long requests to upstreams took, until the end of the answer.",
			Buckets: networkBuckets,
		}, []string{"upstream", "outcome"}),
		lookups: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "modfs_sumdb_lookup_duration_seconds",
			Help:    "How long lookups in the checksum database took, verification included.",
			Buckets: networkBuckets,
		}, []string{"outcome"}),
	}
	// There from the start, so that a rate is known at the first failure.
	for _, o := range []fetch.Outcome{fetch.OutcomeOK, fetch.OutcomeMismatch, fetch.OutcomeUnreachable} {
		m.lookups.WithLabelValues(string(o))
	}
	m.registry.MustRegister(m.upstream, m.lookups, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch has a mount that is about to be made tell what it does.
func (m *metrics) watch(o *modfs.Options) {
	o.Measure = true
	o.Fetch.OnRequest = m.requested
	o.Fetch.OnLookup = func(took time.Duration, err error) {
		m.lookups.WithLabelValues(string(fetch.OutcomeOf(err))).Observe(took.Seconds())
	}
}

func (m *metrics) requested(r fetch.Request) {
	m.upstream.WithLabelValues(upstreamLabel(r.Upstream), string(fetch.OutcomeOf(r.Err))).Observe(r.Took.Seconds())
}

// upstreamLabel returns the label for an upstream: its host and port. There are as many as the settings have upstreams; what is in their
// paths, or where seeds lie, is nobody's business who reads metrics.
func upstreamLabel(upstream string) string {
	if strings.HasPrefix(upstream, "seed ") {
		return "seed"
	}
	u, err := url.Parse(upstream)
	switch {
	case err != nil:
		return "unknown" // cannot be: it was made from a URL
	case u.Scheme == "file":
		return "file"
	case u.Host == "":
		return upstream // a word: direct
	}
	return u.Host
}

// serve reads the rest from a file system from now on.
func (m *metrics) serve(f *modfs.FS, version string) {
	m.registry.MustRegister(&collector{f, version})
}

// maxScrapes is how many may read the metrics at a time.
const maxScrapes = 4

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: probePatience})
}

// desc is a metric that is read from the state of a file system.
type desc struct {
	*prometheus.Desc
	kind prometheus.ValueType
	read func(s *modfs.Status) float64
}

func counter(name, help string, read func(*modfs.Status) int64) desc {
	return desc{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, func(s *modfs.Status) float64 { return float64(read(s)) }}
}

func gauge(name, help string, read func(*modfs.Status) float64) desc {
	return desc{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, read}
}

// count is a counter of Status.Counters.
func count(name, help, key string) desc {
	return counter(name, help, func(s *modfs.Status) int64 { return s.Counters[key] })
}

// descs are those without labels.
var descs = []desc{
	count("modfs_hits_total", "Modules that were opened and in the store.", "hits"),
	count("modfs_misses_total", "Modules that were opened, or fetched ahead, and had to be fetched.", "misses"),
	count("modfs_prefetched_total", "Modules that were fetched before they were opened.", "prefetched"),
	count("modfs_fetched_bytes_total", "Bytes of module zips that were fetched and verified.", "fetched_bytes"),
	count("modfs_saved_bytes_total", "Bytes of module zips that were in the store when a module was first opened.", "saved_bytes"),
	count("modfs_served_bytes_total", "Bytes of files that clients were given.", "served_bytes"),
	count("modfs_inflated_bytes_total", "Bytes inflated to answer reads.", "inflated_bytes"),
	count("modfs_pushed_files_total", "Files given to the kernel before they were read.", "pushed"),
	count("modfs_forgets_total", "FORGET requests of the kernel.", "forgets"),
	count("modfs_not_found_total", "Lookups of versions that no upstream has.", "not_found"),
	count("modfs_seeded_total", "Files taken from a seed.", "seeded"),
	count("modfs_refuted_total", "Files taken on trust that the checksum database does not know.", "refuted"),
	count("modfs_damaged_total", "Stored files that were found damaged.", "damaged"),
	count("modfs_repaired_total", "Damaged files that were replaced.", "repaired"),
	count("modfs_security_errors_total", "Wrong hashes, and answers of a checksum database that is not to be trusted.", "security_errors"),
	count("modfs_late_requests_total", "Requests that were given up without an answer.", "late"),
	count("modfs_panics_total", "Mistakes of this program that were caught.", "panics"),

	gauge("modfs_store_bytes", "Bytes of disk that the store uses.", func(s *modfs.Status) float64 { return float64(s.Store.Bytes) }),
	gauge("modfs_store_limit_bytes", "What it may use (--max-size); +Inf without a limit.", func(s *modfs.Status) float64 { return limit(s.Store.Limit) }),
	gauge("modfs_store_evictable_bytes", "Bytes of the store that eviction could free at once.", func(s *modfs.Status) float64 { return float64(s.Store.EvictableBytes) }),
	gauge("modfs_store_in_flight_bytes", "Bytes of the store that are being written, or announced.", func(s *modfs.Status) float64 { return float64(s.Store.InFlight) }),
	gauge("modfs_store_modules", "Module versions whose archives are in the store.", func(s *modfs.Status) float64 { return float64(s.Resident.Modules) }),
	gauge("modfs_store_too_small", "1 if the store is too small for its work: what it evicted in the last hour was fetched again.", func(s *modfs.Status) float64 {
		if s.LastHour.TooSmall {
			return 1
		}
		return 0
	}),
	gauge("modfs_store_files", "Files in the store.", func(s *modfs.Status) float64 { return float64(s.Store.Files) }),
	counter("modfs_store_evicted_files_total", "Files that were evicted.", func(s *modfs.Status) int64 { return s.Store.Evictions }),
	counter("modfs_store_evicted_bytes_total", "Bytes that were evicted.", func(s *modfs.Status) int64 { return s.Store.EvictedBytes }),
	gauge("modfs_store_partition_free_bytes", "Bytes free on the partition of the store.", func(s *modfs.Status) float64 { return float64(s.Store.Free) }),
	gauge("modfs_store_partition_bytes", "Size of that partition in bytes.", func(s *modfs.Status) float64 { return float64(s.Store.Total) }),

	gauge("modfs_slow_requests", "Requests of the kernel that have waited for a second or longer.", func(s *modfs.Status) float64 { return float64(s.Requests.Slow) }),
	gauge("modfs_oldest_request_seconds", "For how long the first of them has waited.", func(s *modfs.Status) float64 { return s.Requests.Oldest }),
	gauge("modfs_modules", "Module versions that clients asked for and that are remembered.", func(s *modfs.Status) float64 { return float64(s.Modules) }),
	gauge("modfs_nodes", "Files and directories above modules that the kernel knows.", func(s *modfs.Status) float64 { return float64(s.Nodes) }),
	gauge("modfs_memory_content_bytes", "Inflated files in memory.", func(s *modfs.Status) float64 { return float64(s.Memory.Content) }),
	gauge("modfs_memory_trees_bytes", "Module trees in memory.", func(s *modfs.Status) float64 { return float64(s.Memory.Trees) }),
	gauge("modfs_overlay_bytes", "Bytes of files in the writable layer.", func(s *modfs.Status) float64 {
		if s.Overlay == nil {
			return 0
		}
		return float64(s.Overlay.Bytes)
	}),
	gauge("modfs_overlay_limit_bytes", "What they may take (--overlay-max); +Inf without a limit, 0 on a read-only mount.", func(s *modfs.Status) float64 {
		if s.Overlay == nil {
			return 0
		}
		return limit(s.Overlay.Limit)
	}),
}

// limit is a limit of which 0 means none.
func limit(bytes int64) float64 {
	if bytes == 0 {
		return math.Inf(1)
	}
	return float64(bytes)
}
