package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// Zip writes the verified zip of m to dst and returns its h1 hash (dirhash.Hash1).
//
// Before Zip returns nil, the bytes in dst have passed the checks of modzip.CheckZip (at most 500 MiB, packed and unpacked),
// every entry was inflated and matched its CRC-32, and the hash is want or, where that is empty, what the checksum database
// says about m, as far as it covers m. keep, if not nil, is called with the content of files of at most 1 MiB by their
// name below M@V, concurrently and before it is known whether the zip is good. It may keep the slice.
//
// Whatever dst holds after an error is to be thrown away.
func (c *Client) Zip(ctx context.Context, m module.Version, want string, dst Dst, keep func(name string, data []byte)) (h1 string, err error) {
	escPath, escVersion, err := escaped(m)
	if err != nil {
		return "", err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()

	// The database is asked while the zip comes.
	type sum struct {
		h1  string
		err error
	}
	expected, source := make(chan sum, 1), "pin"
	if want != "" {
		expected <- sum{want, nil}
	} else {
		source = c.sumSource()
		go func() {
			h1, err := c.ZipHash(ctx, m)
			expected <- sum{h1, err}
		}()
	}
	var size int64
	err = c.try(ctx, m.Path, func(p *proxy) error {
		var err error
		size, err = c.download(ctx, p.join(escPath+"/@v/"+escVersion+".zip"), dst)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%s: zip: %w", m, err)
	}
	h1, err = verifyZip(m, dst, size, keep)
	if err != nil {
		return "", fmt.Errorf("%s: zip: %w", m, err)
	}
	s := <-expected
	if s.err != nil && !isNoSum(s.err) {
		return "", s.err
	}
	if s.h1 != "" && h1 != s.h1 {
		return "", &MismatchError{Module: m, File: "zip", Want: s.h1, Got: h1, Source: source}
	}
	return h1, nil
}

// download writes what is at u to dst, going on where it was cut off as far as the server can do that, and returns its
// size.
func (c *Client) download(ctx context.Context, u *url.URL, dst Dst) (int64, error) {
	if err := dst.Truncate(0); err != nil { // what another proxy may have left
		return 0, err
	}
	if u.Scheme == "file" {
		return copyFile(u, dst)
	}
	d := download{c: c, url: u, dst: dst}
	err := c.retry(ctx, u.Redacted(), func() error { return d.attempt(ctx) })
	if err != nil {
		return 0, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return d.have, nil
}

func copyFile(u *url.URL, dst Dst) (int64, error) {
	f, err := openFile(u)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if fi.Size() > modzip.MaxZipFile {
		return 0, fmt.Errorf("%s: %w: %d bytes", u.Redacted(), ErrTooLarge, fi.Size())
	}
	if err := dst.Reserve(fi.Size()); err != nil {
		return 0, err
	}
	return io.Copy(writerOnly{dst}, io.LimitReader(f, modzip.MaxZipFile))
}

// writerOnly hides all but Write from io.Copy.
type writerOnly struct{ io.Writer }

// download is one download over several attempts.
type download struct {
	c    *Client
	url  *url.URL
	dst  Dst
	have int64  // bytes in dst
	etag string // of the version that they are of; "" if the server told none
}

// attempt is one request: for all, or for the rest of what a former attempt got a part of.
func (d *download) attempt(ctx context.Context) error {
	header := http.Header{}
	if d.have > 0 && d.etag != "" {
		header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		header.Set("If-Range", d.etag)
	}
	resp, done, err := d.c.do(ctx, http.MethodGet, d.url, header)
	if err != nil {
		return err
	}
	defer done()
	resumed := resp.StatusCode == http.StatusPartialContent &&
		strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.have))
	if !resumed {
		if resp.StatusCode == http.StatusPartialContent {
			d.etag = "" // and once more, from the start
			return fmt.Errorf("%w: Content-Range is not what was asked for", errCut)
		}
		if err := d.dst.Truncate(0); err != nil {
			return err
		}
		d.have = 0
	}
	d.etag = resp.Header.Get("ETag")
	if strings.HasPrefix(d.etag, "W/") {
		d.etag = "" // a weak one is good for no range (RFC 9110, 13.1.5)
	}
	if d.etag == "" {
		d.etag = resp.Header.Get("Last-Modified")
	}
	total := int64(-1)
	if resp.ContentLength >= 0 {
		total = d.have + resp.ContentLength
	}
	if total > modzip.MaxZipFile {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, total)
	}
	if total >= 0 {
		if err := d.dst.Reserve(total); err != nil {
			return err
		}
	}
	n, err := io.Copy(writerOnly{d.dst}, io.LimitReader(resp.Body, modzip.MaxZipFile+1-d.have))
	d.have += n
	switch {
	case err != nil:
		return err
	case d.have > modzip.MaxZipFile:
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, int64(modzip.MaxZipFile))
	case total >= 0 && d.have != total:
		return errCut
	}
	return nil
}

func isNoSum(err error) bool { return errors.Is(err, ErrNoSum) }
