package fetch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	modzip "golang.org/x/mod/zip"

	"modfs/fetch"
	"modfs/fetch/proxytest"
)

// The pieces of a zip come from one state of the file, and are asked for once.
func TestResumeRanges(t *testing.T) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "line %d, %x\n", i, i*i*i)
	}
	s := proxytest.New(t, proxytest.Module{Path: modA.Path, Version: modA.Version, Files: map[string]string{"text": text.String()}})
	data, h1 := s.ZipBytes(modA.Path, modA.Version), s.ZipHash(modA.Path, modA.Version)
	half := len(data) / 2
	cut := func(w http.ResponseWriter, part []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(part)*2))
		w.Write(part)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	for _, test := range []struct {
		name   string
		first  func(w http.ResponseWriter) // headers of the first answer
		second http.HandlerFunc
		ranged bool // whether the second request is for a range
	}{
		{"etag", func(w http.ResponseWriter) { w.Header().Set("ETag", `"1"`) }, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
		}, true},
		{"date", func(w http.ResponseWriter) { w.Header().Set("Last-Modified", "Thu, 02 Jan 2020 03:04:05 GMT") }, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), strings.NewReader(string(data)))
		}, true},
		{"changed", func(w http.ResponseWriter) { w.Header().Set("ETag", `"0"`) }, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
		}, true},
		{"date of this second", func(w http.ResponseWriter) {
			w.Header().Set("Last-Modified", time.Now().Add(time.Second).UTC().Format(http.TimeFormat)) // it must not be the one before
		}, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }, false},
		{"no date to compare with", func(w http.ResponseWriter) {
			w.Header()["Date"] = nil
			w.Header().Set("Last-Modified", "Thu, 02 Jan 2020 03:04:05 GMT")
		}, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }, false},
		{"weak, and a date", func(w http.ResponseWriter) {
			w.Header().Set("ETag", `W/"1"`)
			w.Header().Set("Last-Modified", "Thu, 02 Jan 2020 03:04:05 GMT")
		}, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }, false},
		{"weak", func(w http.ResponseWriter) { w.Header().Set("ETag", `W/"1"`) }, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }, false},
		{"nothing", func(w http.ResponseWriter) {}, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }, false},
		{"not satisfiable", func(w http.ResponseWriter) { w.Header().Set("ETag", `"1"`) }, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			w.Write(data)
		}, true},
		{"another range", func(w http.ResponseWriter) { w.Header().Set("ETag", `"1"`) }, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", half, len(data)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(data[:half])
				return
			}
			w.Write(data)
		}, true},
		{"another total", func(w http.ResponseWriter) { w.Header().Set("ETag", `"1"`) }, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, len(data), len(data)+1))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(data[half:])
				return
			}
			w.Write(data)
		}, true},
	} {
		var mu sync.Mutex
		var ranges []string
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			ranges = append(ranges, r.Header.Get("Range"))
			n := len(ranges)
			mu.Unlock()
			if n == 1 {
				test.first(w)
				cut(w, data[:half])
			}
			test.second(w, r)
		})
		got, err := newClient(t, quick(url)).Zip(t.Context(), modA, h1, newFile(t), fetch.Watch{})
		if err != nil || got != h1 {
			t.Errorf("%s: %s, %v", test.name, got, err)
		}
		// What the client had got of the first half is up to the kernel.
		if len(ranges) < 2 || ranges[0] != "" || strings.HasPrefix(ranges[1], "bytes=") != test.ranged {
			t.Errorf("%s: ranges %q", test.name, ranges)
		}
	}
}

// Another implementation takes the place of a proxy in the middle of a download: it has another zip of the same hash. Whatever the
// two say of their files, the pieces of one are not taken for the other's.
func TestResumeOtherZip(t *testing.T) {
	text := strings.Repeat("a line that is packed well\n", 20000) + "and its end\n"
	entry := func(pack func(name, content string) proxytest.RawEntry) []byte {
		return proxytest.RawZip{Entries: []proxytest.RawEntry{pack(modA.String()+"/go.mod", "module "+modA.Path+"\n"), pack(modA.String()+"/text", text)}}.Bytes()
	}
	stored, packed := entry(proxytest.RawStored), entry(proxytest.RawDeflated)
	s := proxytest.New(t, proxytest.Module{Path: modA.Path, Version: modA.Version, Zip: stored})
	h1 := s.ZipHash(modA.Path, modA.Version)
	const day, next = "Thu, 02 Jan 2020 03:04:05 GMT", "Fri, 03 Jan 2020 03:04:05 GMT"
	for name, test := range map[string]struct {
		first, second []byte
		tags, dates   [2]string
	}{
		"tags, shorter":         {stored, packed, [2]string{`"1"`, `"2"`}, [2]string{}},
		"tags, longer":          {packed, stored, [2]string{`"1"`, `"2"`}, [2]string{}},
		"dates, shorter":        {stored, packed, [2]string{}, [2]string{day, next}},
		"dates, longer":         {packed, stored, [2]string{}, [2]string{day, next}},
		"tag, then date":        {stored, packed, [2]string{`"1"`, ""}, [2]string{"", day}},
		"date, then nothing":    {packed, stored, [2]string{}, [2]string{day, ""}},
		"the same tag, shorter": {stored, packed, [2]string{`"1"`, `"1"`}, [2]string{}},
		"the same tag, longer":  {packed, stored, [2]string{`"1"`, `"1"`}, [2]string{}},
		"the same date, longer": {packed, stored, [2]string{}, [2]string{day, day}},
	} {
		var n atomic.Int32
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			again := min(n.Add(1)-1, 1)
			for key, v := range map[string]string{"ETag": test.tags[again], "Last-Modified": test.dates[again]} {
				if v != "" {
					w.Header().Set(key, v)
				}
			}
			if again == 1 {
				date, _ := http.ParseTime(test.dates[1]) // none is none for ServeContent, too
				http.ServeContent(w, r, "", date, bytes.NewReader(test.second))
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(test.first)))
			w.Write(test.first[:len(test.first)/2])
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		dst := newFile(t)
		got, err := newClient(t, quick(url)).Zip(t.Context(), modA, h1, dst, fetch.Watch{})
		if err != nil || got != h1 {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if data, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(data, test.second) {
			t.Errorf("%s: %d bytes, %v; want the %d of the second zip", name, len(data), err, len(test.second))
		}
	}
}

// A download that gets on, however often it is cut off, arrives.
func TestResumeOften(t *testing.T) {
	const size = 12 << 20
	data := make([]byte, size)
	var n atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		start := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", strconv.Itoa(size-start))
		if start > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, size-1, size))
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(data[start:min(size, start+3<<19)])
		http.NewResponseController(w).Flush()
	})
	dst := newFile(t)
	_, err := newClient(t, quick(url)).Zip(t.Context(), modA, "", dst, fetch.Watch{})
	// It is not a zip, but it has arrived.
	if fi, _ := dst.Stat(); !is(err, fetch.ErrBadAnswer) || fi.Size() != size || n.Load() < 8 {
		t.Errorf("Zip: %v; %d bytes of %d after %d requests", err, fi.Size(), size, n.Load())
	}
}

// Nothing larger than it may be is read to its end.
func TestLimits(t *testing.T) {
	endless := func(contentLength int64) fetch.Config {
		cfg := quick("https://proxy.example")
		cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(zeros{}), ContentLength: contentLength, Request: r}, nil
		})
		return cfg
	}
	for _, length := range []int64{-1, 1 << 40} {
		c := newClient(t, endless(length))
		if _, err := c.Info(t.Context(), modA); !is(err, fetch.ErrTooLarge) {
			t.Errorf("Info: %v", err)
		}
		if _, _, err := c.Mod(t.Context(), modA, ""); !is(err, fetch.ErrTooLarge) {
			t.Errorf("Mod: %v", err)
		}
		if testing.Short() && length < 0 {
			continue // 500 MiB take a moment
		}
		dst := new(discard)
		if _, err := c.Zip(t.Context(), modA, "", dst, fetch.Watch{}); !is(err, fetch.ErrTooLarge) || dst.size > modzip.MaxZipFile {
			t.Errorf("Zip: %v after %d bytes", err, dst.size)
		}
	}
	if _, err := newClient(t, endless(1<<40)).ZipSize(t.Context(), modA); !is(err, fetch.ErrTooLarge) {
		t.Errorf("ZipSize: %v", err)
	}
}

// zeros is an endless file.
type zeros struct{}

// An error of dst is returned as such, whatever other proxies there are.
func TestDst(t *testing.T) {
	s := proxytest.New(t)
	full := errors.New("disk full")
	for _, dst := range []*discard{{write: full}, {reserve: full}} {
		s.ResetRequests()
		cfg := config(s)
		cfg.Proxy = s.URL() + "|" + s.URL()
		cl := newClient(t, cfg)
		if _, err := cl.Zip(t.Context(), modA, "", dst, fetch.Watch{}); !errors.Is(err, full) {
			t.Errorf("Zip: %v", err)
		}
		if n := s.Count(".zip"); n != 1 {
			t.Errorf("%d requests for the zip", n)
		}
		if up := cl.Upstreams()[0]; up.Failures != 0 {
			t.Errorf("counted as a failure of the proxy: %+v", up)
		}
	}
	// Another proxy starts over.
	s.SetFault(nil)
	cfg := quick(s.FaultURL("truncate") + "|" + s.URL())
	cfg.Tries = 1
	if _, err := newClient(t, cfg).Zip(t.Context(), modA, "", &discard{truncate: full}, fetch.Watch{}); !errors.Is(err, full) {
		t.Errorf("Zip: %v", err)
	}
	h1, err := newClient(t, cfg).Zip(t.Context(), modA, "", newFile(t), fetch.Watch{})
	if err != nil || h1 != s.ZipHash(modA.Path, modA.Version) {
		t.Errorf("Zip = %s, %v", h1, err)
	}
}

// One connection serves many requests at once where the server speaks HTTP/2, also one that was cut off before.
func TestHTTP2(t *testing.T) {
	s := proxytest.New(t)
	var protos, broken sync.Map
	back := s.ZipBytes(modLarge.Path, modLarge.Version)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protos.Store(r.Proto, true)
		w.Header().Set("ETag", `"1"`)
		if _, again := broken.LoadOrStore(r.URL.Path, true); !again {
			w.Header().Set("Content-Length", strconv.Itoa(len(back)))
			w.Write(back[:len(back)/2])
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler) // RST_STREAM
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(back)))
	}))
	h.EnableHTTP2 = true
	h.StartTLS()
	t.Cleanup(h.Close)
	cfg := quick(h.URL)
	cfg.Transport = h.Client().Transport
	if h1, err := newClient(t, cfg).Zip(t.Context(), modLarge, "", newFile(t), fetch.Watch{}); err != nil || h1 != s.ZipHash(modLarge.Path, modLarge.Version) {
		t.Errorf("Zip = %s, %v", h1, err)
	}
	protos.Range(func(proto, _ any) bool {
		if proto != "HTTP/2.0" {
			t.Errorf("%s was spoken", proto)
		}
		return true
	})
}

func TestZipSizeWays(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"HEAD": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "12345") },
		"range": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			w.Header().Set("Content-Range", "bytes 0-0/12345")
			w.WriteHeader(http.StatusPartialContent)
			w.Write([]byte("P"))
		},
		"length": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				http.NewResponseController(w).Flush() // no length
				return
			}
			w.Header().Set("Content-Length", "12345")
			w.Write([]byte("PK"))
		},
	} {
		if n, err := newClient(t, quick(serve(t, h))).ZipSize(t.Context(), modA); err != nil || n != 12345 {
			t.Errorf("%s: ZipSize = %d, %v", name, n, err)
		}
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Flush() })
	if n, err := newClient(t, quick(url)).ZipSize(t.Context(), modA); err != nil || n != -1 {
		t.Errorf("no size: ZipSize = %d, %v", n, err)
	}
}
