package fs

import "time"

// What a request looks at to tell who sent it are files whose paths that process chose: its environment names some, and links lead
// anywhere. One may be on a file system that does not answer, or in this very mount, where its answer waits for the one to the request.
// So the request waits no longer than lookPatience, which a busy machine may need, and whoever looks ends when there is an answer.
const (
	lookPatience = 2 * time.Second
	maxLooks     = 256 // at a time; each may have a thread of its own, and who comes then does not wait
)

// look returns what do returns, ok false if that takes too long.
func look[T any](f *FS, do func() T) (t T, ok bool) {
	select {
	case f.looks <- struct{}{}:
	default:
		return t, false
	}
	done := make(chan T, 1)
	// Close does not wait for it: it changes nothing, and may end only when the mount has.
	go func() {
		defer func() { <-f.looks }()
		var err error // it has been told
		defer f.recovered("look at a process", &err)
		done <- do()
	}()
	late := time.NewTimer(lookPatience)
	defer late.Stop()
	select {
	case t = <-done:
		return t, true
	case <-late.C:
		return t, false
	}
}
