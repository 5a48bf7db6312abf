package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"
)

// Limits of answers, in bytes.
const (
	maxInfo = 1 << 20
	maxList = 32 << 20
)

// revInfo is an .info file. Fields and their order are those of the go command's modfetch.RevInfo as it marshals it, so
// that it finds what it would have written itself.
type revInfo struct {
	Version string
	Time    time.Time
	Origin  json.RawMessage `json:",omitempty"`
}

// Info returns the .info file of m in the go command's own form.
func (c *Client) Info(ctx context.Context, m module.Version) ([]byte, error) {
	data, err := c.artifact(ctx, m, "info", maxInfo)
	if err != nil {
		return nil, err
	}
	info, err := parseInfo(data)
	if err != nil {
		return nil, fmt.Errorf("%s: .info: %w", m, err)
	}
	if info.Version != m.Version {
		return nil, fmt.Errorf("%s: .info: %w: it is that of version %q", m, ErrInvalid, printable(info.Version))
	}
	return json.Marshal(info)
}

func parseInfo(data []byte) (*revInfo, error) {
	info := new(revInfo)
	if err := json.Unmarshal(data, info); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if info.Origin != nil {
		var b bytes.Buffer
		if err := json.Compact(&b, info.Origin); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrInvalid, err)
		}
		info.Origin = b.Bytes()
	}
	return info, nil
}

// Latest returns what @latest says about a module path, in the form of Info.
func (c *Client) Latest(ctx context.Context, modPath string) ([]byte, error) {
	data, err := c.query(ctx, modPath, "@latest", maxInfo)
	if err != nil {
		return nil, err
	}
	info, err := parseInfo(data)
	if err == nil && !validVersion(modPath, info.Version) {
		err = fmt.Errorf("%w: version %q", ErrInvalid, printable(info.Version))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: @latest: %w", modPath, err)
	}
	return json.Marshal(info)
}

// List returns the versions of a module path, one a line, as @v/list has them. Lines that are not versions of it are left
// out.
func (c *Client) List(ctx context.Context, modPath string) ([]byte, error) {
	data, err := c.query(ctx, modPath, "@v/list", maxList)
	if err != nil {
		return nil, err
	}
	var versions []string
	for line := range strings.Lines(string(data)) {
		// A proxy may put more after the version.
		if f := strings.Fields(line); len(f) > 0 && validVersion(modPath, f[0]) {
			versions = append(versions, f[0])
		}
	}
	sort.SliceStable(versions, func(i, j int) bool { return semver.Compare(versions[i], versions[j]) < 0 })
	var b bytes.Buffer
	for _, v := range versions {
		b.WriteString(v + "\n")
	}
	return b.Bytes(), nil
}

func validVersion(modPath, v string) bool {
	return module.CanonicalVersion(v) == v && module.Check(modPath, v) == nil
}

// Mod returns the go.mod of m and its h1 hash, which is want, or where that is empty what the checksum database says, as
// far as it covers m.
func (c *Client) Mod(ctx context.Context, m module.Version, want string) (data []byte, h1 string, err error) {
	source := "pin"
	sum := make(chan error, 1)
	if want == "" {
		go func() {
			source = c.sumSource()
			var err error
			want, err = c.ModHash(ctx, m)
			sum <- err
		}()
	} else {
		sum <- nil
	}
	data, err = c.artifact(ctx, m, "mod", modzip.MaxGoMod)
	sumErr := <-sum
	if err != nil {
		return nil, "", err
	}
	if sumErr != nil && !isNoSum(sumErr) {
		return nil, "", sumErr
	}
	h1, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
	if err != nil {
		return nil, "", err
	}
	if want != "" && h1 != want {
		return nil, "", &MismatchError{Module: m, File: "go.mod", Want: want, Got: h1, Source: source}
	}
	// Without a hash that somebody vouches for, it must at least be a go.mod: a proxy may answer 200 with an error page.
	if want == "" && (!utf8.Valid(data) || modfile.ModulePath(data) == "") {
		return nil, "", fmt.Errorf("%s: .mod: %w: it names no module", m, ErrInvalid)
	}
	return data, h1, nil
}

// ZipSize returns the size of m's zip in bytes, as the proxy announces it.
func (c *Client) ZipSize(ctx context.Context, m module.Version) (int64, error) {
	escPath, escVersion, err := escaped(m)
	if err != nil {
		return 0, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	size := int64(-1)
	err = c.try(ctx, m.Path, func(p *proxy) error {
		u := p.join(escPath + "/@v/" + escVersion + ".zip")
		if u.Scheme == "file" {
			f, err := openFile(u)
			if err != nil {
				return err
			}
			defer f.Close()
			fi, err := f.Stat()
			if err == nil {
				size = fi.Size()
			}
			return err
		}
		return c.retry(ctx, u.Redacted(), func() error {
			resp, done, err := c.do(ctx, http.MethodHead, u, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", u.Redacted(), err)
			}
			defer done()
			size = resp.ContentLength
			return nil
		})
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s: zip: %w", m, err)
	case size < 0:
		return 0, fmt.Errorf("%s: zip: the proxy does not tell its size", m)
	case size > modzip.MaxZipFile:
		return 0, fmt.Errorf("%s: zip: %w: %d bytes", m, ErrTooLarge, size)
	}
	return size, nil
}

// artifact returns a file of a version, of at most max bytes.
func (c *Client) artifact(ctx context.Context, m module.Version, ext string, max int64) ([]byte, error) {
	escPath, escVersion, err := escaped(m)
	if err != nil {
		return nil, err
	}
	data, err := c.file(ctx, m.Path, escPath+"/@v/"+escVersion+"."+ext, max)
	if err != nil {
		return nil, fmt.Errorf("%s: .%s: %w", m, ext, err)
	}
	return data, nil
}

// query returns what proxies say about a module path.
func (c *Client) query(ctx context.Context, modPath, what string, max int64) ([]byte, error) {
	err := module.CheckPath(modPath)
	var escPath string
	if err == nil {
		escPath, err = module.EscapePath(modPath)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	data, err := c.file(ctx, modPath, escPath+"/"+what, max)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", modPath, what, err)
	}
	return data, nil
}

func (c *Client) file(ctx context.Context, modPath, elem string, max int64) (data []byte, err error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	err = c.try(ctx, modPath, func(p *proxy) error {
		data, err = c.get(ctx, p.join(elem), max)
		return err
	})
	return data, err
}
