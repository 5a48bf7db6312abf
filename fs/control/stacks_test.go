package control

import (
	"strings"
	"testing"

	"modfs/fetch/proxytest"
)

// TestStacks checks that the owner of a daemon gets its stacks, which are nobody else's (TestForeignUser, TestWebReadsOnly).
func TestStacks(t *testing.T) {
	f := mount(t, proxytest.New(t), nil)
	var s Stacks
	if err := client(t, f).Get(t.Context(), "/v1/stacks", &s); err != nil || !strings.Contains(s.Stacks, "registerStacks") {
		t.Errorf("%v: %.300s", err, s.Stacks)
	}
}
