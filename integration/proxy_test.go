package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"modfs/fetch/proxytest"
)

// proxyCommands are the commands of a script that steer its module proxy:
//
//	fault NAME [SUBSTR] from now on requests for paths that contain SUBSTR have this fault (see proxytest), but not
//	                    those for the checksum database; no name: none
//	waitstalled N       wait until N requests or more are stalled; stalled N fails if fewer are
//	requests N SUBSTR   fail unless N requests for paths that contain SUBSTR were made
//	resetrequests       forget the requests made so far
func proxyCommands(proxy func(*testscript.TestScript) *proxytest.Server) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"fault": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) > 2 {
				ts.Fatalf("usage: fault [NAME [SUBSTR]]")
			}
			s := proxy(ts)
			if len(args) == 0 {
				s.SetFault(nil)
				s.Release()
				return
			}
			s.SetFault(func(path string) string {
				if strings.Contains(path, "sumdb/") || len(args) == 2 && !strings.Contains(path, args[1]) {
					return ""
				}
				return args[0]
			})
		},
		"waitstalled": func(ts *testscript.TestScript, neg bool, args []string) {
			want := number(ts, neg, args)
			waitUntil(ts, "requests are stalled", func() bool { return proxy(ts).Stalled() >= want })
		},
		"stalled": func(ts *testscript.TestScript, neg bool, args []string) {
			if got := proxy(ts).Stalled(); got < number(ts, neg, args) {
				ts.Fatalf("only %d requests are stalled: somebody gave up waiting", got)
			}
		},
		"requests": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: requests N SUBSTR")
			}
			want, err := strconv.Atoi(args[0])
			ts.Check(err)
			if got := proxy(ts).Count(args[1]); got != want {
				ts.Fatalf("%d requests for %s, want %d:\n%s", got, args[1], want, strings.Join(proxy(ts).Requests(), "\n"))
			}
		},
		"resetrequests": func(ts *testscript.TestScript, _ bool, _ []string) { proxy(ts).ResetRequests() },
	}
}

func number(ts *testscript.TestScript, neg bool, args []string) int {
	if neg || len(args) != 1 {
		ts.Fatalf("want one number, and no !")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	return n
}

// watcher measures a directory all the time, as du does.
type watcher struct {
	stop chan struct{}
	done sync.WaitGroup
	max  atomic.Int64
}

func watch(dir string) *watcher {
	w := &watcher{stop: make(chan struct{})}
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
				w.max.Store(max(w.max.Load(), diskUsage(dir)))
			}
		}
	})
	return w
}

// watchers is a script's watcher, if it has one.
type watchers struct{ w *watcher }

func (w *watchers) start(dir string) { w.w = watch(dir) }

func (w *watchers) end() int64 {
	if w.w == nil {
		return 0
	}
	defer func() { w.w = nil }()
	return w.w.end()
}

// end returns the largest size that was seen, in bytes.
func (w *watcher) end() int64 {
	close(w.stop)
	w.done.Wait()
	return w.max.Load()
}

// diskUsage is what `du -s` says, in bytes.
func diskUsage(dir string) int64 {
	var n int64
	filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
		if err == nil { // what went away meanwhile takes no room
			n += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return n
}
