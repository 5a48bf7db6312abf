package fs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"modfs/fetch"
)

// resolveQuery returns the version that a query stands for now (https://go.dev/ref/mod#version-queries): a version, the beginning of
// one (v1, v1.2), a comparison (<v1.5.0), "latest", or the name of a branch or commit. Like the go command it prefers releases, and
// takes no retracted version. Queries that depend on what a project has (upgrade, patch, none) are errors.
func (f *FS) resolveQuery(ctx context.Context, modPath, query string) (string, error) {
	if err := module.CheckPath(modPath); err != nil {
		return "", err
	}
	if module.CanonicalVersion(query) == query && module.Check(modPath, query) == nil {
		return query, nil
	}
	switch query {
	case "upgrade", "patch", "none":
		return "", fmt.Errorf("%s@%s depends on what a project requires: name a version, or @latest", modPath, query)
	case "latest":
		return f.latestVersion(ctx, modPath)
	}
	match, isVersions := versionMatcher(query)
	if isVersions {
		versions, err := f.versions(ctx, modPath)
		if err != nil {
			return "", err
		}
		if v := bestVersion(versions, match, query[0] == '>'); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("%s@%s: no version of %d that are listed matches: %w", modPath, query, len(versions), fetch.ErrNotFound)
	}
	pp := f.private.parse(inMod(revisionKey(modPath, query)))
	if pp.Kind != KindQuery {
		return "", fmt.Errorf("%s@%s is no version, and nothing that a repository could have: %w", modPath, query, fetch.ErrNotFound)
	}
	return versionIn(modPath)(f.answer(ctx, pp))
}

// versionMatcher returns what a query for listed versions matches; false for what is none.
func versionMatcher(query string) (match func(v string) bool, ok bool) {
	for _, c := range []struct {
		op string
		is func(int) bool
	}{
		{"<=", func(n int) bool { return n <= 0 }}, {"<", func(n int) bool { return n < 0 }},
		{">=", func(n int) bool { return n >= 0 }}, {">", func(n int) bool { return n > 0 }},
	} {
		if bound, found := strings.CutPrefix(query, c.op); found {
			return func(v string) bool { return c.is(semver.Compare(v, bound)) }, semver.IsValid(bound)
		}
	}
	prefix := query + "."
	return func(v string) bool { return strings.HasPrefix(v, prefix) }, semver.IsValid(query) && strings.Count(query, ".") < 2
}

// bestVersion returns the highest, or with lowest the lowest, of the versions that match: a release if there is one.
func bestVersion(versions []string, match func(string) bool, lowest bool) string {
	best := ""
	better := func(v string) bool {
		if best == "" {
			return true
		}
		if a, b := semver.Prerelease(v) == "", semver.Prerelease(best) == ""; a != b {
			return a
		}
		return (semver.Compare(v, best) < 0) == lowest
	}
	for _, v := range versions {
		if match(v) && better(v) {
			best = v
		}
	}
	return best
}

func anyVersion(string) bool { return true }

// latestVersion answers the query "latest".
func (f *FS) latestVersion(ctx context.Context, modPath string) (string, error) {
	versions, err := f.versions(ctx, modPath)
	if err != nil && !errors.Is(err, fetch.ErrNotFound) {
		return "", err
	}
	if v := bestVersion(versions, anyVersion, false); v != "" {
		return v, nil
	}
	return versionIn(modPath)(f.answer(ctx, f.private.parse(inMod(latestKey(modPath)))))
}

// versions returns the versions of a module that are listed, in order, and may be chosen.
func (f *FS) versions(ctx context.Context, modPath string) ([]string, error) {
	pp := f.private.parse(inMod(listKey(modPath)))
	if pp.Kind != KindList {
		return nil, fmt.Errorf("%s: %w", modPath, fetch.ErrNotFound)
	}
	list, err := f.answer(ctx, pp)
	if err != nil {
		return nil, err
	}
	var versions []string
	for word := range bytes.FieldsSeq(list.data) {
		if v := string(word); module.CanonicalVersion(v) == v && module.Check(modPath, v) == nil && !module.IsPseudoVersion(v) {
			versions = append(versions, v)
		}
	}
	slices.SortFunc(versions, func(a, b string) int { return cmp.Or(semver.Compare(a, b), cmp.Compare(a, b)) })
	if versions, err = f.withoutIncompatible(ctx, modPath, versions); err != nil || len(versions) == 0 {
		return nil, err
	}
	return f.withoutRetracted(ctx, modPath, versions)
}

// withoutIncompatible leaves out the versions v2 and higher of a path without a major version, if the last one below has a go.mod
// file: the module has been one since (https://go.dev/ref/mod#non-module-compat).
func (f *FS) withoutIncompatible(ctx context.Context, modPath string, versions []string) ([]string, error) {
	isIncompatible := func(v string) bool { return strings.HasSuffix(v, "+incompatible") }
	i := slices.IndexFunc(versions, isIncompatible)
	if i <= 0 {
		return versions, nil
	}
	mod, err := f.mod(ctx, module.Version{Path: modPath, Version: versions[i-1]})
	if err != nil {
		return nil, err
	}
	if string(mod) == "module "+modfile.AutoQuote(modPath)+"\n" { // what the go command makes up
		return versions, nil
	}
	return slices.DeleteFunc(versions, isIncompatible), nil
}

// withoutRetracted leaves out the versions that the go.mod file of the latest one retracts (https://go.dev/ref/mod#go-mod-file-retract).
func (f *FS) withoutRetracted(ctx context.Context, modPath string, versions []string) ([]string, error) {
	last := module.Version{Path: modPath, Version: bestVersion(versions, anyVersion, false)}
	data, err := f.mod(ctx, last)
	if err != nil {
		return nil, err
	}
	file, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: go.mod: %w: %v", last, fetch.ErrBadAnswer, err)
	}
	return slices.DeleteFunc(versions, func(v string) bool {
		return slices.ContainsFunc(file.Retract, func(r *modfile.Retract) bool {
			return semver.Compare(r.Low, v) <= 0 && semver.Compare(v, r.High) <= 0
		})
	}), nil
}

// versionIn returns what takes the version from an .info file of a module.
func versionIn(modPath string) func(a answer, err error) (string, error) {
	return func(a answer, err error) (string, error) {
		if err != nil {
			return "", err
		}
		var info struct{ Version string }
		if err := json.Unmarshal(a.data, &info); err != nil {
			return "", fmt.Errorf("%s: .info: %w: %v", modPath, fetch.ErrBadAnswer, err)
		}
		if v := info.Version; module.CanonicalVersion(v) != v || module.Check(modPath, v) != nil {
			return "", fmt.Errorf("%s: %w: %q is no version of it", modPath, fetch.ErrBadAnswer, v)
		}
		return info.Version, nil
	}
}
