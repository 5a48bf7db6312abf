package fetch_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// pace is a piece of a body that comes after a pause.
type pace struct {
	after time.Duration
	n     int
}

// pacedBody is a body that comes as its pieces say; what is then left, all at once.
type pacedBody struct {
	ctx    context.Context
	data   []byte
	pieces []pace
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	piece := pace{0, len(b.data)}
	if len(b.pieces) > 0 {
		piece, b.pieces = b.pieces[0], b.pieces[1:]
	}
	select {
	case <-time.After(piece.after):
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
	n := copy(p, b.data[:min(piece.n, len(b.data))])
	if n < piece.n {
		b.pieces = append([]pace{{0, piece.n - n}}, b.pieces...)
	}
	b.data = b.data[n:]
	return n, nil
}

func (b *pacedBody) Close() error { return nil }

// paced are settings for a proxy that answers everything with data, at a pace.
func paced(data []byte, pieces []pace) fetch.Config {
	cfg := quick("https://proxy.example")
	cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		body := &pacedBody{r.Context(), data, pieces}
		return &http.Response{StatusCode: 200, Body: body, ContentLength: int64(len(data)), Request: r}, nil
	})
	return cfg
}

func repeat(p pace, n int) (list []pace) {
	for range n {
		list = append(list, p)
	}
	return list
}

// A body must get on, by 4 KiB in each time of waiting as long as Config.IdleTimeout. In a bubble of testing/synctest time passes
// only where somebody sleeps, so this does not depend on how fast the machine is.
func TestMinimumRate(t *testing.T) {
	s := proxytest.New(t)
	zip, h1 := s.ZipBytes(modLarge.Path, modLarge.Version), s.ZipHash(modLarge.Path, modLarge.Version)
	last := len(zip) - 100 // the last piece is smaller than what must come
	for _, test := range []struct {
		name   string
		pieces []pace
		write  time.Duration // how long the store takes for each piece
		want   error
		took   time.Duration // if it fails
	}{
		{name: "nothing", pieces: []pace{{time.Hour, 1}}, want: fetch.ErrTimeout, took: 30 * time.Second},
		{name: "a byte a second", pieces: repeat(pace{time.Second, 1}, 1<<20), want: fetch.ErrTimeout, took: 30 * time.Second},
		{name: "a byte a second after half", pieces: append([]pace{{0, 1 << 20}}, repeat(pace{time.Second, 1}, 1<<20)...), want: fetch.ErrTimeout, took: 30 * time.Second},
		{name: "just too slow", pieces: repeat(pace{time.Second, 136}, 1<<20), want: fetch.ErrTimeout, took: 30 * time.Second},
		{name: "just fast enough", pieces: repeat(pace{time.Second, 142}, 1000)},
		{name: "slow start", pieces: []pace{{29 * time.Second, 4 << 10}, {29 * time.Second, 8 << 10}, {time.Second, 1 << 20}}},
		{name: "with pauses", pieces: repeat(pace{29 * time.Second, 64 << 10}, 40)},
		{name: "the last piece", pieces: []pace{{0, last}, {10 * time.Second, 50}, {19 * time.Second, 49}}},
		{name: "no last piece", pieces: []pace{{0, last}, {10 * time.Second, 50}, {21 * time.Second, 49}}, want: fetch.ErrTimeout, took: 30 * time.Second},
		{name: "a slow store", pieces: repeat(pace{0, 1000}, 10), write: 45 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			dst := newFile(t)
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, paced(zip, test.pieces))
				start := time.Now()
				_, err := c.Zip(t.Context(), modLarge, h1, &slowDst{dst, test.write}, fetch.Watch{})
				if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("Zip: %v; want %v", err, test.want)
				}
				if took := time.Since(start); test.want != nil && took != test.took {
					t.Errorf("given up after %v, want %v: %v", took, test.took, err)
				}
			})
		})
	}
}

// slowDst is a store that takes its time.
type slowDst struct {
	*file
	write time.Duration
}

func (d *slowDst) Write(p []byte) (int, error) {
	time.Sleep(d.write)
	return d.file.Write(p)
}

// What is small has two minutes, however many proxies there are and whatever they ask for; zips have all the time they need.
func TestMetaTimeout(t *testing.T) {
	s := proxytest.New(t)
	busy := func(after string) fetch.Config {
		cfg := quick("https://a.example|https://b.example|https://c.example")
		cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			header := http.Header{"Retry-After": {after}}
			return &http.Response{StatusCode: 503, Status: "503 Service Unavailable", Header: header, Body: http.NoBody, Request: r}, nil
		})
		return cfg
	}
	for _, test := range []struct {
		name     string
		cfg      fetch.Config
		want     error
		text     string
		min, max time.Duration
	}{
		{"patience asked for", busy("60"), fetch.ErrTimeout, "not done in 2m0s (after: 503", 2 * time.Minute, 2 * time.Minute},
		{"some patience asked for", busy("5"), errAny, "503 Service Unavailable", 45 * time.Second, 45 * time.Second},
		{"absurd patience asked for", busy("99999999999999999999"), errAny, "to be asked again in ", 0, 0},
		{"patience until another day", busy("Thu, 01 Jan 2099 00:00:00 GMT"), errAny, "to be asked again in ", 0, 0},
		{"slow, but not too slow", paced([]byte(strings.Repeat(" ", 1<<20)), repeat(pace{20 * time.Second, 4 << 10}, 100)), fetch.ErrTimeout, "not done in 2m0s", 2 * time.Minute, 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, test.cfg)
				start := time.Now()
				_, err := c.Info(t.Context(), modA)
				took := time.Since(start)
				if !is(err, test.want) || err == nil || !strings.Contains(err.Error(), test.text) || took < test.min || took > test.max+time.Second {
					t.Errorf("Info: %v after %v; want %v, %q, after %v", err, took, test.want, test.text, test.min)
				}
			})
		})
	}
	t.Run("zip", func(t *testing.T) {
		zip, h1 := s.ZipBytes(modLarge.Path, modLarge.Version), s.ZipHash(modLarge.Path, modLarge.Version)
		dst := newFile(t)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			c := newClient(t, paced(zip, repeat(pace{20 * time.Second, 32 << 10}, 60)))
			if _, err := c.Zip(t.Context(), modLarge, h1, dst, fetch.Watch{}); err != nil || time.Since(start) < 10*time.Minute {
				t.Errorf("Zip: %v after %v", err, time.Since(start))
			}
			start = time.Now()
			c = newClient(t, paced(zip, repeat(pace{25 * time.Second, 4 << 10}, 1<<10)))
			if _, err := c.Zip(t.Context(), modLarge, h1, dst, fetch.Watch{}); !is(err, fetch.ErrTimeout) || time.Since(start) != 30*time.Minute {
				t.Errorf("Zip: %v after %v", err, time.Since(start))
			}
		})
	})
}
