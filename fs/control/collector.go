package control

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	modfs "modfs/fs"
)

// collector reads metrics from a file system. There is one look at its state for each time that it is asked, so that they fit
// together.
type collector struct {
	fs      *modfs.FS
	version string
}

// Metrics with labels. What the values of a label can be is bounded: by the settings, or by a list in the program.
var (
	buildInfo = prometheus.NewDesc("modfs_build_info", "1, with the version of modfs and of Go.", []string{"version", "goversion"}, nil)
	mountInfo = prometheus.NewDesc("modfs_mount_info", "1, with what is mounted and how: read-only or read-write.", []string{"mountpoint", "mode"}, nil)

	errorsTotal   = prometheus.NewDesc("modfs_errors_total", "Errors that clients got, by errno; missing files excepted.", []string{"errno"}, nil)
	queueLength   = prometheus.NewDesc("modfs_queue_length", "What waits its turn, or has it: archives and go.mod files to be fetched ahead, archives that somebody waits for, archives being verified.", []string{"queue"}, nil)
	upstreamUp    = prometheus.NewDesc("modfs_upstream_up", "0 while no connection to the upstream can be made.", []string{"upstream"}, nil)
	upstreamBytes = prometheus.NewDesc("modfs_upstream_received_bytes_total", "Bytes of answers of upstreams, as they come.", []string{"upstream"}, nil)
	fuseDuration  = prometheus.NewDesc("modfs_fuse_request_duration_seconds", "How long requests of the kernel took.", []string{"request"}, nil)
)

// knownErrnos are those that are there from the start, so that a rate is known at the first error: those of the table in docs/design.md.
var knownErrnos = []string{"EACCES", "EBADMSG", "EFBIG", "EHOSTUNREACH", "EIO", "ENOSPC", "ETIMEDOUT"}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d.Desc
	}
	for _, d := range []*prometheus.Desc{buildInfo, mountInfo, errorsTotal, queueLength, upstreamUp, upstreamBytes, fuseDuration} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.fs.Status()
	for _, d := range descs {
		ch <- prometheus.MustNewConstMetric(d.Desc, d.kind, d.read(s))
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildInfo, 1, c.version, runtime.Version())
	gauge(mountInfo, 1, strings.ToValidUTF8(s.Mountpoint, "?"), mode(s))
	gauge(queueLength, float64(s.Queues.PrefetchZips), "prefetch_zip")
	gauge(queueLength, float64(s.Queues.PrefetchMods), "prefetch_mod")
	gauge(queueLength, float64(s.Queues.Wanted), "wanted")
	gauge(queueLength, float64(s.Queues.Verifying), "verify")
	c.errors(ch, s)
	c.upstreams(ch, s)
	c.requests(ch)
}

func mode(s *modfs.Status) string {
	if s.ReadOnly {
		return "read-only"
	}
	return "read-write"
}

func (c *collector) errors(ch chan<- prometheus.Metric, s *modfs.Status) {
	all := make(map[string]uint64)
	for _, name := range knownErrnos {
		all[name] = 0
	}
	for name, n := range s.ErrorsByErrno {
		all[name] = n
	}
	for name, n := range all {
		ch <- prometheus.MustNewConstMetric(errorsTotal, prometheus.CounterValue, float64(n), name)
	}
}

// upstreams adds up those that have one label: two paths of one host.
func (c *collector) upstreams(ch chan<- prometheus.Metric, s *modfs.Status) {
	up, bytes := make(map[string]float64), make(map[string]float64)
	for _, u := range s.Upstreams {
		label := upstreamLabel(u.URL)
		if _, ok := up[label]; !ok {
			up[label] = 1
		}
		if !u.DownSince.IsZero() {
			up[label] = 0
		}
		bytes[label] += float64(u.Bytes)
	}
	for label := range up {
		ch <- prometheus.MustNewConstMetric(upstreamUp, prometheus.GaugeValue, up[label], label)
		ch <- prometheus.MustNewConstMetric(upstreamBytes, prometheus.CounterValue, bytes[label], label)
	}
}

func (c *collector) requests(ch chan<- prometheus.Metric) {
	times, _ := c.fs.RequestTimes()
	for kind, t := range times {
		buckets := make(map[float64]uint64, len(modfs.RequestBounds))
		n := uint64(0)
		for i, bound := range modfs.RequestBounds {
			n += t.Counts[i]
			buckets[bound.Seconds()] = n
		}
		ch <- prometheus.MustNewConstHistogram(fuseDuration, t.Count(), t.Sum.Seconds(), buckets, kind.String())
	}
}
