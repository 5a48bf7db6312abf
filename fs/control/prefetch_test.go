package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

func TestPrefetch(t *testing.T) {
	s := proxytest.New(t)
	c := client(t, mount(t, s, nil))
	var events []string
	var sum modfs.PrefetchEvent
	err := c.Prefetch(t.Context(), PrefetchRequest{Modules: []modfs.Wanted{
		{Path: "example.com/a", Version: "v1"}, {Path: "example.com/none", Version: "v1.0.0"},
	}}, func(e modfs.PrefetchEvent) {
		if e.Event != modfs.PrefetchProgress {
			events = append(events, e.Event+" "+e.Module+"@"+e.Version)
		}
		sum = e
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"resolved example.com/a@v1.0.0", "done example.com/a@v1.0.0", "failed example.com/none@v1.0.0"} {
		if !slices.Contains(events, want) {
			t.Errorf("no %q in %q", want, events)
		}
	}
	if sum.Event != modfs.PrefetchSummary || sum.Fetched != 1 || sum.FailedCount != 1 {
		t.Errorf("%+v", sum)
	}
}

func TestPrefetchRefused(t *testing.T) {
	c := client(t, mount(t, proxytest.New(t), nil))
	none := func(e modfs.PrefetchEvent) { t.Errorf("%+v", e) }
	a := []modfs.Wanted{{Path: "example.com/a", Version: "v1.0.0"}}
	for _, req := range []PrefetchRequest{
		{},
		{Modules: a, PrefetchOptions: modfs.PrefetchOptions{Jobs: -1}},
		{Modules: a, PrefetchOptions: modfs.PrefetchOptions{Jobs: modfs.MaxPrefetchJobs + 1}},
	} {
		refused, ok := errors.AsType[*Error](c.Prefetch(t.Context(), req, none))
		if !ok || refused.Status != http.StatusBadRequest {
			t.Errorf("%+v: %v", req, refused)
		}
	}
	many := slices.Repeat(a, modfs.MaxWanted+1)
	if e, ok := errors.AsType[*Error](c.Prefetch(t.Context(), PrefetchRequest{Modules: many}, none)); !ok || e.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d modules: %v", len(many), e)
	}
}

// Who goes away interrupts it.
func TestPrefetchGone(t *testing.T) {
	s := proxytest.New(t)
	f := mount(t, s, nil)
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".mod") {
			return "stall"
		}
		return ""
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := client(t, f)
	go func() {
		done <- c.Prefetch(ctx, PrefetchRequest{Modules: []modfs.Wanted{{Path: "example.com/a", Version: "v1.0.0"}}}, func(modfs.PrefetchEvent) {})
	}()
	for s.Stalled() == 0 {
		time.Sleep(time.Millisecond) // the test's own deadline ends it
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
