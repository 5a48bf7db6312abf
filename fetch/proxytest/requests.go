package proxytest

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// RequestLog is what a server was asked, in the order of arrival. Its methods may be called concurrently. The zero value is empty.
type RequestLog struct {
	mu  sync.Mutex
	all []string
}

// Note adds a request.
func (l *RequestLog) Note(request string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, request)
}

// Requests returns the requests so far.
func (l *RequestLog) Requests() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// Count returns how many of Requests contain substr.
func (l *RequestLog) Count(substr string) int {
	n := 0
	for _, r := range l.Requests() {
		if strings.Contains(r, substr) {
			n++
		}
	}
	return n
}

// ResetRequests forgets the requests so far.
func (l *RequestLog) ResetRequests() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

// Get returns what a server has at a URL, which must be there.
func Get(tb testing.TB, url string) []byte {
	tb.Helper()
	resp, err := http.Get(url)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return data
}
