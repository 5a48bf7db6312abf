package control

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"modfs/fetch/proxytest"
)

// TestStacks checks that the owner of a daemon gets its stacks, and that nobody else does.
func TestStacks(t *testing.T) {
	f := mount(t, proxytest.New(t), nil)
	var s Stacks
	if err := client(t, f).Get(t.Context(), "/v1/stacks", &s); err != nil || !strings.Contains(s.Stacks, "registerStacks") {
		t.Errorf("%v: %.300s", err, s.Stacks)
	}
	w := httptest.NewRecorder()
	New(Options{FS: f}).ReadingHandler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/stacks", nil))
	if w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("who may only read gets %d: %.100s", w.Code, w.Body)
	}
}
