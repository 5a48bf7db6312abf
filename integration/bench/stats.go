package main

import (
	"cmp"
	"slices"
)

// A sample is one measurement of one arm in one round.
type sample struct {
	Measurement string `json:"measurement"`
	Arm         string `json:"arm"`
	Round       int    `json:"round"` // from 1
	Unit        unit   `json:"unit"`
	// Value is in seconds, bytes, or seconds for each file.
	Value float64 `json:"value"`
	Files int64   `json:"files,omitempty"` // read or walked
	// GoCPU is the processor time of the go command and what it started, in seconds; 0 if it did not run.
	GoCPU float64 `json:"go_cpu_s,omitempty"`
	// Requests are those to the proxy, by kind.
	Requests map[string]int64 `json:"requests,omitempty"`
	// Daemon is what modfs did meanwhile.
	Daemon *daemonSample `json:"daemon,omitempty"`
}

// daemonSample is what a daemon did during a measurement.
type daemonSample struct {
	CPU      float64          `json:"cpu_s"`
	PeakRSS  int64            `json:"peak_rss_bytes,omitempty"` // since it was mounted
	Counters map[string]int64 `json:"counters,omitempty"`
}

// A unit is what a value is measured in.
type unit string

const (
	seconds        unit = "s"
	bytesOnDisk    unit = "bytes"
	secondsPerFile unit = "s/file"
)

// A spread is the median of some samples, and the least and the greatest of them.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns the spread of values, of which there must be one or more.
func spreadOf(values []float64) spread {
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

// median returns the value in the middle, or the mean of the two there; 0 for no values.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// A comparison is one measurement of both arms.
type comparison struct {
	Measurement string `json:"measurement"`
	Unit        unit   `json:"unit"`
	Plain       spread `json:"plain"`
	Modfs       spread `json:"modfs"`
	// Ratio is that of the medians, modfs to plain; RoundRatios are those of the values of one round.
	Ratio       float64 `json:"ratio"`
	RoundRatios spread  `json:"round_ratios"`
	// Detail has the medians of what else was measured, by arm.
	Detail map[string]detail `json:"detail"`
}

// A detail has medians of one arm.
type detail struct {
	GoCPU     float64            `json:"go_cpu_s"`
	DaemonCPU float64            `json:"daemon_cpu_s"`
	PeakRSS   float64            `json:"daemon_peak_rss_bytes"`
	Requests  float64            `json:"requests"`
	Counters  map[string]float64 `json:"counters,omitempty"`
}

// summarize compares the arms, in the order in which samples have the measurements.
func summarize(samples []sample) []comparison {
	value := func(s sample) float64 { return s.Value }
	var all []comparison
	for _, first := range samples {
		name := first.Measurement
		if slices.ContainsFunc(all, func(c comparison) bool { return c.Measurement == name }) {
			continue
		}
		a, b := of(samples, name, "plain"), of(samples, name, "modfs")
		if len(a) == 0 || len(b) == 0 {
			continue
		}
		c := comparison{
			Measurement: name, Unit: first.Unit, Plain: spreadOf(values(a, value)), Modfs: spreadOf(values(b, value)),
			Detail: map[string]detail{"plain": detailOf(a), "modfs": detailOf(b)},
		}
		c.Ratio = ratio(c.Modfs.Median, c.Plain.Median)
		var ratios []float64
		for i := range min(len(a), len(b)) {
			ratios = append(ratios, ratio(b[i].Value, a[i].Value))
		}
		c.RoundRatios = spreadOf(ratios)
		all = append(all, c)
	}
	return all
}

// of returns the samples of one measurement and arm, in the order of rounds.
func of(samples []sample, measurement, arm string) []sample {
	chosen := slices.DeleteFunc(slices.Clone(samples), func(s sample) bool {
		return s.Measurement != measurement || s.Arm != arm
	})
	slices.SortStableFunc(chosen, func(a, b sample) int { return cmp.Compare(a.Round, b.Round) })
	return chosen
}

// values returns f of each sample.
func values(samples []sample, f func(sample) float64) []float64 {
	var vs []float64
	for _, s := range samples {
		vs = append(vs, f(s))
	}
	return vs
}

func detailOf(samples []sample) detail {
	d := detail{
		GoCPU:    median(values(samples, func(s sample) float64 { return s.GoCPU })),
		Requests: median(values(samples, func(s sample) float64 { return float64(s.Requests["requests"]) })),
	}
	names := make(map[string]bool)
	for _, s := range samples {
		if s.Daemon == nil {
			return d
		}
		for name := range s.Daemon.Counters {
			names[name] = true
		}
	}
	d.DaemonCPU = median(values(samples, func(s sample) float64 { return s.Daemon.CPU }))
	d.PeakRSS = median(values(samples, func(s sample) float64 { return float64(s.Daemon.PeakRSS) }))
	d.Counters = make(map[string]float64)
	for name := range names {
		d.Counters[name] = median(values(samples, func(s sample) float64 { return float64(s.Daemon.Counters[name]) }))
	}
	return d
}

// ratio is 0 if there is nothing to compare with.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// delta returns the counts by which after exceeds before, without those that did not change.
func delta(before, after map[string]int64) map[string]int64 {
	d := make(map[string]int64)
	for name, n := range after {
		if n != before[name] {
			d[name] = n - before[name]
		}
	}
	return d
}
