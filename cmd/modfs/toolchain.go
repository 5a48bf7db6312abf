package main

import (
	"context"
	"encoding/json"
	"fmt"
	goversion "go/version"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// localGo is what decides whether the go command here would switch to another toolchain (https://go.dev/doc/toolchain).
type localGo struct {
	version  string // of the go command, e.g. go1.26.8; "" if there is none
	os, arch string // that it runs on
	setting  string // GOTOOLCHAIN
}

// findLocalGo asks the go command in PATH.
func findLocalGo(ctx context.Context) (g localGo, err error) {
	cmd := exec.CommandContext(ctx, "go", "env", "-json", "GOVERSION", "GOHOSTOS", "GOHOSTARCH", "GOENV", "GOROOT")
	// Where no go.mod has a say, and without being another toolchain itself.
	cmd.Dir = string(filepath.Separator)
	cmd.Env = append(cmd.Environ(), "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return g, fmt.Errorf("go env: %w", err)
	}
	env := make(map[string]string)
	if err := json.Unmarshal(out, &env); err != nil {
		return g, fmt.Errorf("go env: %w", err)
	}
	// With GOTOOLCHAIN=local it does not say what the setting would be.
	g = localGo{version: env["GOVERSION"], os: env["GOHOSTOS"], arch: env["GOHOSTARCH"], setting: os.Getenv("GOTOOLCHAIN")}
	for _, name := range []string{env["GOENV"], filepath.Join(env["GOROOT"], "go.env")} {
		if g.setting == "" && name != "" && name != "off" {
			g.setting = envFileValue(name, "GOTOOLCHAIN")
		}
	}
	if g.setting == "" {
		g.setting = "local" // as the go command has it without a go.env
	}
	return g, nil
}

// envFileValue returns the value of a variable in a file as go env -w writes it, "" if there is none.
func envFileValue(name, variable string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), variable+"="); ok {
			return v
		}
	}
	return ""
}

// toolchain returns the toolchain that the go command would download for a go.mod or go.work file with these go and toolchain lines,
// e.g. go1.99.1; "" if it would run as it is (https://go.dev/doc/toolchain#select).
func (g localGo) toolchain(goLine, toolchainLine string) string {
	base, mode, plus := strings.Cut(g.setting, "+")
	if !plus {
		if mode = ""; base == "auto" || base == "path" {
			base, mode = "local", base
		}
	}
	local := toolchainName(g.version)
	if base == "local" {
		base = local
	}
	if mode == "auto" {
		if name := "go" + goLine; goLine != "" && goversion.Compare(name, base) > 0 {
			// A language version is no release since 1.21: the first one is.
			if goversion.Lang(name) == name && goversion.Compare(name, "go1.21") >= 0 {
				name += ".0"
			}
			base = name
		}
		if toolchainLine != "default" && goversion.Compare(toolchainLine, base) > 0 {
			base = toolchainLine
		}
	}
	if base == local || !goversion.IsValid(base) {
		return ""
	}
	return base
}

// toolchainName is the release that a go command's version says: what stands behind it is how it was built.
func toolchainName(v string) string {
	v, _, _ = strings.Cut(v, " ")
	return v
}

// toolchainPath is the module whose versions are toolchains.
const toolchainPath = "golang.org/toolchain"

// toolchainVersion is the version that a toolchain has there.
func (g localGo) toolchainVersion(name string) string {
	return "v0.0.1-" + name + "." + g.os + "-" + g.arch
}
