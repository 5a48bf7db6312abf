package control

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
	modfs "modfs/fs"
)

func TestWhy(t *testing.T) {
	s := proxytest.New(t)
	f := mount(t, s, nil)
	c := client(t, f)
	for _, test := range []struct {
		what        string
		module, ask bool
		path        string
		state       modfs.AnswerState
	}{
		{"example.com/a@v1.0.0/a.go", false, false, "example.com/a@v1.0.0/a.go", modfs.AnswerFetch},
		{"example.com/a@v1.0.0", true, false, "example.com/a@v1.0.0", modfs.AnswerFetch},
		{"example.com/a@v1.0.0", true, true, "example.com/a@v1.0.0", modfs.AnswerThere},
		{"/example.com/a@v1.0.0/a.go", false, false, "example.com/a@v1.0.0/a.go", modfs.AnswerThere},
		{"example.com/Upper/Case@v1.0.0-RC.1", true, true, "example.com/!upper/!case@v1.0.0-!r!c.1", modfs.AnswerThere},
		{"", false, false, "", modfs.AnswerThere},
	} {
		w, err := c.Why(t.Context(), test.what, test.module, test.ask)
		if err != nil || w.Path != test.path || w.Answer.State != test.state || w.Asked != test.ask {
			t.Errorf("%+v: %+v, %v", test, w, err)
		}
	}
	for _, bad := range []struct{ query, want string }{
		{"", "give either"},
		{"?path=a&module=b", "give either"},
		{"?module=example.com/a", "has no version"},
		{"?module=nodot@v1.0.0", "no module path"},
		{"?path=" + strings.Repeat("x", 5000), "more than 4096 bytes"},
	} {
		err := c.Get(t.Context(), "/v1/why"+bad.query, new(modfs.Why))
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusBadRequest || !strings.Contains(e.Message, bad.want) {
			t.Errorf("%.40s: %v, want %q", bad.query, err, bad.want)
		}
	}
}

func TestEvents(t *testing.T) {
	s := proxytest.New(t)
	f := mount(t, s, nil)
	c := client(t, f)
	done := errors.New("done")
	var kinds []modfs.ActivityKind
	err := c.Events(t.Context(), false, func() { open(t, f, "example.com/a@v1.0.0/a.go") }, func(a modfs.Activity) error {
		kinds = append(kinds, a.Kind)
		if a.Kind == modfs.ActivityFetched && a.Module == "example.com/a" {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) || kinds[0] == activityOpen {
		t.Errorf("%v, %v", kinds, err)
	}
}
