package fetch_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

func TestOutcomeOf(t *testing.T) {
	s := proxytest.New(t)
	for _, test := range []struct {
		name, proxy string
		want        fetch.Outcome
	}{
		{"ok", s.URL(), fetch.OutcomeOK},
		{"404", s.FaultURL("404"), fetch.OutcomeNotFound},
		{"403", s.FaultURL("403"), fetch.OutcomeForbidden},
		{"429", s.FaultURL("429"), fetch.OutcomeRejected},
		{"500", s.FaultURL("500"), fetch.OutcomeServerError},
		{"reset", s.FaultURL("reset"), fetch.OutcomeBroken},
		{"stall", s.FaultURL("stall"), fetch.OutcomeTimeout},
		{"flood", s.FaultURL("flood"), fetch.OutcomeBadAnswer},
		{"unreachable", "http://127.0.0.1:1", fetch.OutcomeUnreachable}, // nobody listens there
	} {
		t.Run(test.name, func(t *testing.T) {
			told := new(requests)
			cfg := fetch.Config{Proxy: test.proxy, SumDB: "off", Tries: 1, OnRequest: told.add}
			if test.want == fetch.OutcomeTimeout {
				cfg.IdleTimeout = 50 * time.Millisecond
			}
			cl := newClient(t, cfg)
			cl.Info(t.Context(), modA)
			all := told.of(".info")
			if len(all) != 1 {
				t.Fatalf("told of %d requests, want 1", len(all))
			}
			if got := fetch.OutcomeOf(all[0].Err); got != test.want {
				t.Errorf("the outcome is %s, want %s (%v)", got, test.want, all[0].Err)
			}
		})
	}
}

func TestOnLookup(t *testing.T) {
	s := proxytest.New(t)
	for name, test := range map[string]struct {
		proxy string
		want  fetch.Outcome
	}{
		"ok":       {s.URL(), fetch.OutcomeOK},
		"sumdbsig": {s.FaultURL("sumdbsig"), fetch.OutcomeMismatch},
		"500":      {s.FaultURL("500"), fetch.OutcomeServerError},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			lookups := make(map[fetch.Outcome]int)
			cfg := fetch.Config{Proxy: test.proxy, SumDB: s.SumDBKey(), Tries: 1}
			cfg.OnLookup = func(took time.Duration, err error) {
				mu.Lock()
				defer mu.Unlock()
				lookups[fetch.OutcomeOf(err)]++
				if took <= 0 {
					t.Errorf("a lookup took %v", took)
				}
			}
			cl := newClient(t, cfg)
			cl.ZipHash(t.Context(), modA)
			cl.Close() // so that lookups have ended
			if len(lookups) != 1 || lookups[test.want] != 1 {
				t.Errorf("told of lookups %v, want one that was %s", lookups, test.want)
			}
		})
	}
}

// TestUpstreamBytes makes sure that what is received is counted.
func TestUpstreamBytes(t *testing.T) {
	s := proxytest.New(t)
	zip := s.ZipBytes(modA.Path, modA.Version)
	dir := t.TempDir()
	at := filepath.Join(dir, "example.com", "a", "@v")
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "v1.0.0.zip"), zip, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, proxy := range map[string]string{"http": s.URL(), "file": "file://" + dir} {
		t.Run(name, func(t *testing.T) {
			cl := newClient(t, fetch.Config{Proxy: proxy, SumDB: "off"})
			if _, err := cl.Zip(t.Context(), modA, "", newFile(t), fetch.Watch{}); err != nil {
				t.Fatal(err)
			}
			if got := cl.Upstreams()[0].Bytes; got != int64(len(zip)) {
				t.Errorf("%d bytes were counted, of %d", got, len(zip))
			}
		})
	}
}
