package lru

import "math"

// Files that Config.Evictable spares may still be many: what is small, and there for each of the files that are evicted. Those that
// Config.Minor names stay as long as they take no more than a quarter of the limit. Beyond that they are the first to go, those
// unused for longest first; and all of them may go when there is nothing else to make room with. So whoever has small files
// stored, as many as he likes, takes no more than that quarter from the others.

// minorShare is what part of the limit minor files may take before they go first: one in so many.
const minorShare = 4

// maxMinor is how many bytes of minor files are spared.
func (s *Store) maxMinor() int64 {
	if s.max == 0 {
		return math.MaxInt64
	}
	return s.max / minorShare
}

// isMinor asks the owner whether the file of key, which Evictable spares, is minor.
func (s *Store) isMinor(key string, evictable bool) (minor bool) {
	if s.cfg.Minor != nil && !evictable {
		s.guard("Minor", func() { minor = s.cfg.Minor(key) })
	}
	return minor
}

// takeMinor chooses victims of want bytes among the minor files, until they take no more than floor bytes; with the directories,
// which are there for them more than for others, and often larger. s.mu is held.
func (s *Store) takeMinor(want, floor int64) (v victims) {
	for want > 0 && s.minorBytes+s.dirBytes > floor {
		_, e, ok := s.minor.GetOldest()
		if !ok {
			break
		}
		s.takeEntry(e)
		v.files = append(v.files, e)
		want -= e.disk
	}
	return v
}
