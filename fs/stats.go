package fs

import "sync/atomic"

// stats count what happened since the mount. All fields are counters.
type stats struct {
	lookups, reads, listings atomic.Int64 // FUSE requests
	getattrs, forgets        atomic.Int64
	hits, misses             atomic.Int64 // modules opened: the zip was in the store, or had to be fetched
	fetched                  atomic.Int64 // bytes of zips
	saved                    atomic.Int64 // bytes of zips that were in the store when a module was first opened
	served                   atomic.Int64 // bytes answered to reads, or pushed
	pushed                   atomic.Int64 // files given to the kernel before they were read
	inflated                 atomic.Int64 // bytes inflated to answer reads
	notFound                 atomic.Int64 // lookups that upstream answered with "no such version"
	damaged, repaired        atomic.Int64 // stored files found damaged, and replaced
	seeded                   atomic.Int64 // archives and go.mod files taken from a seed
	refuted                  atomic.Int64 // files taken on trust that the checksum database does not know
	prefetched               atomic.Int64 // zips fetched before they were opened
	insecure                 atomic.Int64 // failures that are a wrong hash, or a checksum database not to be trusted
	late                     atomic.Int64 // requests given up without an answer; see request.go
	panics                   atomic.Int64 // mistakes of ours that were caught; see panic.go
}

// snapshot returns the counters by the names that status.json has for them.
func (s *stats) snapshot() map[string]int64 {
	return map[string]int64{
		"lookups":        s.lookups.Load(),
		"reads":          s.reads.Load(),
		"listings":       s.listings.Load(),
		"getattrs":       s.getattrs.Load(),
		"forgets":        s.forgets.Load(),
		"hits":           s.hits.Load(),
		"misses":         s.misses.Load(),
		"fetched_bytes":  s.fetched.Load(),
		"saved_bytes":    s.saved.Load(),
		"served_bytes":   s.served.Load(),
		"inflated_bytes": s.inflated.Load(),
		"pushed":         s.pushed.Load(),
		"not_found":      s.notFound.Load(),
		"damaged":        s.damaged.Load(),
		"repaired":       s.repaired.Load(),
		"seeded":         s.seeded.Load(),
		"refuted":        s.refuted.Load(),
		"prefetched":     s.prefetched.Load(),
		"late":           s.late.Load(),
		"panics":         s.panics.Load(),

		"security_errors": s.insecure.Load(),
	}
}
