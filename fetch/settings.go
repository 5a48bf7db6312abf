package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// none is a list of patterns that matches no module: the documented way to say so to the go command, which takes an empty
// variable for one that is not set.
const none = "none"

// variables are those of the go command that a Config has.
var variables = []string{"GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE", "GOVCS", "GOAUTH"}

// Settings returns a Config with the user's settings: flags by the names of the go command's variables, where they are
// given (an empty one is given, too), then the environment, then what the go command knows besides: the files of `go env
// -w` and its defaults. GONOPROXY and GONOSUMDB default to GOPRIVATE.
//
// Without a go command in PATH, GOPROXY and GOSUMDB must be given. No address is compiled in.
func Settings(ctx context.Context, flags map[string]string) (Config, error) {
	given := make(map[string]string)
	for _, name := range variables {
		v, ok := flags[name]
		if !ok {
			if v = os.Getenv(name); v == "" {
				continue
			}
		}
		// The go command gets them as its environment, and so computes the defaults that depend on them.
		given[name] = replaceEmpty(name, v)
	}
	env, err := goEnv(ctx, given)
	if errors.Is(err, exec.ErrNotFound) {
		env, err = withoutGo(given)
	}
	if err != nil {
		return Config{}, err
	}
	return Config{
		Proxy: env["GOPROXY"], NoProxy: env["GONOPROXY"], Private: env["GOPRIVATE"],
		SumDB: env["GOSUMDB"], NoSumDB: env["GONOSUMDB"], Insecure: env["GOINSECURE"], VCS: env["GOVCS"], Auth: orDefault(env["GOAUTH"], "netrc"), // go commands before 1.24 have no GOAUTH
	}, nil
}

// replaceEmpty returns a value that means the same as an empty one, and that the go command does not ignore.
func replaceEmpty(name, v string) string {
	if strings.TrimSpace(v) != "" {
		return v
	}
	switch name {
	case "GOPROXY", "GOSUMDB":
		return "off"
	case "GOAUTH":
		return v // an error, there and here
	}
	return none
}

// goEnv asks the go command for its settings, given some of them. It runs where no go.mod, go.work or toolchain of the
// current directory has a say.
func goEnv(ctx context.Context, given map[string]string) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"env", "-json"}, variables...)...)
	cmd.Dir = string(filepath.Separator)
	// Settings of modules, workspaces and flags could make it fail, or fetch another go command first.
	cmd.Env = append(cmd.Environ(), "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=")
	for name, v := range given {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok && len(e.Stderr) > 0 {
			return nil, fmt.Errorf("go env: %v: %s", err, redactText(printable(string(e.Stderr))))
		}
		return nil, fmt.Errorf("go env: %w", err)
	}
	env := make(map[string]string)
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return env, nil
}

// withoutGo completes settings as the go command would.
func withoutGo(given map[string]string) (map[string]string, error) {
	var missing []string
	for _, name := range []string{"GOPROXY", "GOSUMDB"} {
		if given[name] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no go command in PATH to ask for settings: set %s", strings.Join(missing, " and "))
	}
	for _, name := range []string{"GONOPROXY", "GONOSUMDB"} {
		if given[name] == "" {
			given[name] = given["GOPRIVATE"]
		}
	}
	return given, nil
}
