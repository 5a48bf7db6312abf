package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// settingNames are the variables that Settings reads.
var settingNames = []string{"GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE"}

// Settings returns a Config with the user's settings: from flags (by the names of the go command's variables), else the
// environment, else what `go env` says, which knows of `go env -w` and of the defaults. No address is built in: where there
// is no go command, GOPROXY must be set, or the error says so.
func Settings(ctx context.Context, flags map[string]string) (Config, error) {
	values := make(map[string]string)
	missing := false
	for _, name := range settingNames {
		if v, ok := flags[name]; ok {
			values[name] = v
		} else if v := os.Getenv(name); v != "" {
			values[name] = v
		} else {
			missing = true
		}
	}
	if missing {
		env, err := goEnv(ctx)
		if err != nil && (values["GOPROXY"] == "" || values["GOSUMDB"] == "") {
			return Config{}, fmt.Errorf("settings: %w: set GOPROXY and GOSUMDB, or put the go command into PATH", err)
		}
		for name, v := range env {
			if _, ok := values[name]; !ok {
				values[name] = v
			}
		}
	}
	return Config{
		Proxy:    values["GOPROXY"],
		NoProxy:  values["GONOPROXY"],
		SumDB:    values["GOSUMDB"],
		NoSumDB:  values["GONOSUMDB"],
		Private:  values["GOPRIVATE"],
		Insecure: values["GOINSECURE"],
	}, nil
}

// goEnv asks the go command. It is run where no go.mod or go.work can change its mind or make it fetch another toolchain.
func goEnv(ctx context.Context) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"env", "-json"}, settingNames...)...)
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOWORK=off", "GO111MODULE=on", "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("go env: %w", err)
	}
	env := make(map[string]string)
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return env, nil
}
