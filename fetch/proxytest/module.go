package proxytest

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/tools/txtar"
)

// fixedTime is the commit time of every module made without an .info, and of every zip entry:
// the same module is the same bytes in every run, so tests may compare hashes.
var fixedTime = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

// A Module is one module version as the proxy serves it. Path and Version are unescaped.
type Module struct {
	Path, Version string
	// Info is the .info file; empty means the version with the time 2020-01-02T03:04:05Z.
	Info string
	// Mod is the .mod file; empty means Files["go.mod"] or, without one, a lone module directive.
	Mod string
	// Files are the zip's entries: slash-separated name below Path@Version/ to content.
	Files map[string]string
	// Zip is the zip as it is served, whatever Files says; nil means one of Files. See RawZip. The database has no record of a
	// module whose zip is no zip.
	Zip []byte
}

// String returns path@version.
func (m Module) String() string { return m.Path + "@" + m.Version }

// Parse reads a module from a txtar archive laid out like those in cmd/go/testdata/mod: the comment holds path@version
// (the first such word; other text may surround it), the files .info and .mod are what their names say, and every
// other file is the module's. What .info or .mod would hold is made up where they are missing, see Module.
//
// Parse does not check that the go command would accept path, version or file names: tests of refusals need bad ones.
func Parse(archive []byte) (Module, error) {
	a := txtar.Parse(archive)
	m := Module{Files: make(map[string]string)}
	for word := range strings.FieldsSeq(string(a.Comment)) {
		path, version, ok := strings.Cut(word, "@")
		if ok && path != "" && semver.IsValid(version) {
			m.Path, m.Version = path, version
			break
		}
	}
	if m.Path == "" {
		return Module{}, fmt.Errorf("txtar module: no path@version in the comment %q", a.Comment)
	}
	for _, f := range a.Files {
		switch f.Name {
		case ".info":
			m.Info = string(f.Data)
		case ".mod":
			m.Mod = string(f.Data)
		default:
			if _, dup := m.Files[f.Name]; dup {
				return Module{}, fmt.Errorf("%s: file %q twice", m, f.Name)
			}
			m.Files[f.Name] = string(f.Data)
		}
	}
	return m.complete(), nil
}

// mustParse is Parse for the archives of this package.
func mustParse(archive string) Module {
	m, err := Parse([]byte(archive))
	if err != nil {
		panic(err)
	}
	return m
}

// complete fills in the files a literal or an archive left out.
func (m Module) complete() Module {
	if m.Info == "" {
		info, err := json.Marshal(struct {
			Version string
			Time    time.Time
		}{m.Version, fixedTime})
		if err != nil {
			panic(err) // a string and a valid time always marshal
		}
		m.Info = string(info)
	}
	if m.Mod == "" {
		m.Mod = m.Files["go.mod"]
	}
	if m.Mod == "" {
		m.Mod = "module " + m.Path + "\n"
	}
	return m
}

// escaped returns the path and version as they stand in proxy URLs (https://go.dev/ref/mod#goproxy-protocol).
func (m Module) escaped() (path, version string, err error) {
	if path, err = module.EscapePath(m.Path); err != nil {
		return "", "", fmt.Errorf("%s: %w", m, err)
	}
	if version, err = module.EscapeVersion(m.Version); err != nil {
		return "", "", fmt.Errorf("%s: %w", m, err)
	}
	return path, version, nil
}

// zip packs the files, sorted, deflated and with a fixed time.
func (m Module) zip() ([]byte, error) {
	if m.Zip != nil {
		return m.Zip, nil
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: m.String() + "/" + name, Method: zip.Deflate, Modified: fixedTime})
		if err != nil {
			return nil, fmt.Errorf("%s: zip: %s: %w", m, name, err)
		}
		if _, err := io.WriteString(w, m.Files[name]); err != nil {
			return nil, fmt.Errorf("%s: zip: %s: %w", m, name, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("%s: zip: %w", m, err)
	}
	return buf.Bytes(), nil
}

// tampered returns m with one file's content changed: a well-formed module with another hash. go.mod is spared where
// possible, so that only the zip's hash can give the change away.
func (m Module) tampered() Module {
	m.Files = maps.Clone(m.Files)
	m.Mod += "\n// tampered\n"
	m.Zip = nil
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		if name != "go.mod" || len(m.Files) == 1 {
			m.Files[name] += "\n// tampered\n"
			break
		}
	}
	return m
}

// zipHash is the h1 hash of the zip. It is computed from the files, which spares compressing large ones.
func (m Module) zipHash() (string, error) {
	if m.Zip != nil {
		return rawHash(m.Zip)
	}
	prefix := m.String() + "/"
	var names []string
	for name := range m.Files {
		names = append(names, prefix+name)
	}
	return dirhash.Hash1(names, func(name string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(m.Files[strings.TrimPrefix(name, prefix)])), nil
	})
}

// rawHash is dirhash.HashZip for a zip in memory.
func rawHash(data []byte) (string, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", err
	}
	var names []string
	files := make(map[string]*zip.File)
	for _, f := range z.File {
		names = append(names, f.Name)
		files[f.Name] = f
	}
	return dirhash.Hash1(names, func(name string) (io.ReadCloser, error) { return files[name].Open() })
}

// modHash is the h1 hash go.sum has for path version/go.mod.
func (m Module) modHash() (string, error) {
	return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(m.Mod)), nil
	})
}

// sumLines returns the two go.sum lines of m, which are also its record in the checksum database.
func (m Module) sumLines() ([]byte, error) {
	zh, err := m.zipHash()
	if err != nil {
		return nil, &fs.PathError{Op: "hash", Path: m.String(), Err: fs.ErrNotExist} // see Server.sumLines
	}
	mh, err := m.modHash()
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", m.Path, m.Version, zh, m.Path, m.Version, mh), nil
}
