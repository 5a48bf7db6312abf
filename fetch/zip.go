package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// zip is Zip. What can be told without the zip's content is told first: a proxy that has no such module, then a database
// that does not vouch for it, then the content itself, the hash before the rules. A tampered zip is a mismatch, whatever
// else is wrong with it.
func (c *Client) zip(ctx context.Context, m module.Version, want string, dst Dst, w Watch) (h1 string, err error) {
	elem, err := file(m, ".zip")
	if err != nil {
		return "", err
	}
	sum := c.expect(ctx, m, "", want)
	defer sum.stop()
	d := &download{c: c, dst: dst, failed: sum.failed}
	from := "" // who is to blame for what is in it
	err = c.try(ctx, m.Path, elem, func(u *upstream) error {
		from = u.shown(elem)
		return d.from(ctx, query{u, elem})
	})
	if c.direct != nil {
		c.direct.taken(m)
	}
	if err != nil {
		return "", err
	}
	w.panicked = c.panicked
	v, err := verify(ctx, m, dst, d.size, c.cfg.Cores, w)
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	want, source, err := sum.wait(ctx)
	switch {
	case err != nil:
		return "", err
	case want != "" && v.h1 != want:
		return "", &MismatchError{Module: m, File: "zip", Want: want, Got: v.h1, From: from, Source: source}
	case v.invalid != nil:
		return "", fmt.Errorf("%s: %w", from, v.invalid)
	}
	return v.h1, nil
}

// download is a zip on its way to dst, over any number of requests to any number of proxies.
type download struct {
	c      *Client
	dst    Dst
	failed func() error // an error that makes the zip useless, even if it arrives

	size      int64  // bytes in dst
	total     int64  // bytes that there will be, -1 if unknown
	validator string // what the proxy says identifies the bytes in dst; "" if it said nothing, or nothing to be trusted
	got       int64  // bytes received in all, for retry
}

// from downloads the zip from one proxy. An error may leave anything in dst.
func (d *download) from(ctx context.Context, q query) error {
	if err := d.restart(); err != nil {
		return err
	}
	if q.u.base.Scheme == "file" {
		start := time.Now()
		err := d.copyFile(ctx, q)
		d.c.tellFile(ctx, q, start, d.size, err)
		return err
	}
	return d.c.retry(ctx, q, func() int64 { return d.got }, func() error { return d.request(ctx, q) })
}

// restart empties dst.
func (d *download) restart() error {
	if d.size > 0 {
		if err := d.dst.Truncate(0); err != nil {
			return &finalError{err}
		}
	}
	d.size, d.total, d.validator = 0, -1, ""
	return nil
}

// request asks for the zip, or for what dst lacks of it.
func (d *download) request(ctx context.Context, q query) error {
	// Without this net/http would ask for gzip, which makes a zip no smaller and ranges meaningless.
	header := http.Header{"Accept-Encoding": {"identity"}}
	if d.size > 0 && d.validator != "" {
		header.Set("Range", fmt.Sprintf("bytes=%d-", d.size))
		header.Set("If-Range", d.validator)
	} else if err := d.restart(); err != nil {
		return err
	}
	err := d.c.exchange(ctx, http.MethodGet, q, header, func(resp *http.Response) error { return d.receive(ctx, resp) })
	if e, ok := errors.AsType[*statusError](err); ok && e.code == http.StatusRequestedRangeNotSatisfiable && d.size > 0 {
		// It is shorter now. From the start, then.
		d.validator = ""
		return fmt.Errorf("%w: %v", errBroken, err)
	}
	return err
}

// receive writes an answer to dst: all of the zip, or what is lacking. An answer to a range request may well be the whole
// zip, if it is another one by now (RFC 9110, 13.1.5).
func (d *download) receive(ctx context.Context, resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusOK:
		if err := d.restart(); err != nil {
			return err
		}
		d.total = resp.ContentLength
	case !d.continues(resp.Header.Get("Content-Range")):
		d.validator = ""
		return fmt.Errorf("%w: it cannot be continued: Content-Range is %q", errBroken, excerpt(resp.Header.Get("Content-Range")))
	}
	if d.total > modzip.MaxZipFile {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, d.total)
	}
	d.validator = validator(resp.Header)
	// Now that the size is known, the store can say at once that it has no room.
	if d.total >= 0 {
		if err := d.dst.Reserve(d.total); err != nil {
			return &finalError{err}
		}
	}
	if err := d.write(ctx, resp.Body); err != nil {
		return err
	}
	// net/http has compared the answer with its own length; this is the length of the first one.
	if d.total >= 0 && d.size != d.total {
		return fmt.Errorf("%w: %d bytes of %d", errBroken, d.size, d.total)
	}
	return d.checkZip(answer{html: strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")})
}

// continues reports whether a Content-Range is that of the bytes that dst lacks, and sets the total.
func (d *download) continues(contentRange string) bool {
	rest, ok := strings.CutPrefix(contentRange, fmt.Sprintf("bytes %d-", d.size))
	_, total, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return false
	}
	if total == "*" { // unknown, which is allowed
		return true
	}
	// Another length than before is another zip, whatever the validator says.
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil || d.total >= 0 && n != d.total {
		return false
	}
	d.total = n
	return true
}

// validator returns what If-Range takes: an ETag or, where there is none, a date, either only if it is strong (RFC 9110, 13.1.5).
// A date is not if the file may have changed again in that second (8.8.2.2): a proxy that has just fetched it says now.
func validator(h http.Header) string {
	if etag := h.Get("ETag"); etag != "" {
		if strings.HasPrefix(etag, `"`) {
			return etag
		}
		return ""
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return ""
	}
	if date, err := http.ParseTime(h.Get("Date")); err != nil || date.Sub(modified) < time.Second {
		return ""
	}
	return h.Get("Last-Modified")
}

// checkZip finds out whether what is in dst can be a zip, so that another proxy may be asked if it is a login page, say, or
// the first half of one whose length nobody announced. A zip ends in a record that has a signature, 22 bytes and a comment
// (APPNOTE.TXT, 4.3.16); archive/zip looks for no other either.
func (d *download) checkZip(a answer) error {
	const record, comment = 22, 1<<16 - 1
	for _, n := range [...]int64{record, record + comment} { // hardly any zip has a comment
		tail := make([]byte, min(n, d.size))
		if _, err := d.dst.ReadAt(tail, d.size-int64(len(tail))); err != nil && err != io.EOF {
			return &finalError{err}
		}
		if bytes.Contains(tail, []byte("PK\x05\x06")) {
			return nil
		}
	}
	return fmt.Errorf("%w: %d bytes that are not a zip file%s", ErrBadAnswer, d.size, a.page())
}

// copyBuffers are for write.
var copyBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// write appends what r has to dst, up to the limit of a zip. It is a loop of our own because io.Copy would use methods of dst
// that are not in Dst, and could not be ended between two pieces.
func (d *download) write(ctx context.Context, r io.Reader) error {
	buf := copyBuffers.Get().(*[128 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if d.size+int64(n) > modzip.MaxZipFile {
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, int64(modzip.MaxZipFile))
		}
		// A proxy that has no such module has said so by now. So which error is reported does not depend on what was faster.
		if err := d.failed(); err != nil {
			return &finalError{err}
		}
		if n > 0 {
			if _, err := d.dst.Write(buf[:n]); err != nil {
				return &finalError{err}
			}
			d.size += int64(n)
			d.got += int64(n)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// copyFile takes the zip from a file URL. There is nothing to be retried or continued.
func (d *download) copyFile(ctx context.Context, q query) error {
	f, size, err := openFile(q)
	if err != nil {
		return err
	}
	defer f.Close()
	if size > modzip.MaxZipFile {
		return fmt.Errorf("%s: %w: %d bytes", f.Name(), ErrTooLarge, size)
	}
	if err := d.dst.Reserve(size); err != nil {
		return &finalError{err}
	}
	return d.write(ctx, f)
}

// zipSize is ZipSize: each proxy is asked in its turn, as for the zip itself, so that both tell of the same one.
func (c *Client) zipSize(ctx context.Context, m module.Version) (size int64, err error) {
	elem, err := file(m, ".zip")
	if err != nil {
		return 0, err
	}
	err = c.try(ctx, m.Path, elem, func(u *upstream) error {
		size, err = c.sizeAt(ctx, query{u, elem})
		if err == nil && size > modzip.MaxZipFile {
			err = fmt.Errorf("%s: %w: %d bytes", redacted(u.url(elem)), ErrTooLarge, size)
		}
		return err
	})
	return size, err
}

// sizeAt asks one proxy for a size: by HEAD or, since some answer that with an error or without a length, by asking for
// the first byte. It returns -1 if the proxy has the zip, and announces no size to either.
func (c *Client) sizeAt(ctx context.Context, q query) (int64, error) {
	if q.u.base.Scheme == "file" {
		start := time.Now()
		f, size, err := openFile(q)
		c.tellFile(ctx, q, start, 0, err)
		if err == nil {
			f.Close()
		}
		return size, err
	}
	size := int64(-1)
	header := http.Header{"Accept-Encoding": {"identity"}}
	err := c.retry(ctx, q, nil, func() error {
		return c.exchange(ctx, http.MethodHead, q, header, func(resp *http.Response) error {
			size = resp.ContentLength
			return nil
		})
	})
	// Other statuses would be the same for GET.
	status, refused := errors.AsType[*statusError](err)
	if err == nil && size >= 0 || err != nil && (!refused || status.code != http.StatusMethodNotAllowed && status.code != http.StatusNotImplemented) {
		return size, err
	}
	header.Set("Range", "bytes=0-0")
	err = c.retry(ctx, q, nil, func() error {
		return c.exchange(ctx, http.MethodGet, q, header, func(resp *http.Response) error {
			if size = resp.ContentLength; resp.StatusCode == http.StatusPartialContent {
				_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
				n, err := strconv.ParseInt(total, 10, 64)
				if err != nil {
					n = -1
				}
				size = n
			}
			return nil
		})
	})
	return size, err
}
