package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	modfs "modfs/fs"
	"modfs/fs/control"
)

func newWhy() *cobra.Command {
	var (
		mountpoint  string
		ask, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "why [flags] PATH|MODULE@VERSION",
		Short: "Say how a path of a mount was resolved, and why it fails",
		Long: `Why says what PATH, below a mount, is and what a reader of it gets now; which
settings apply to it; who was asked for it and what they answered; what vouches
for it; and what the store has of it. Of an error it names the cause, and what to
do about it. Instead of a path, a module can be named: as MODULE@VERSION, where
the version may be latest, a branch, a tag or a commit, too.
It goes by what is known, and asks nobody. With --ask it tries it now, and fetches
what is not there. The exit status is 1 if the path cannot be read.`,
		Annotations: map[string]string{exitKey: "0; 1 if the path cannot be read, or something else went wrong; 2 if the command line is wrong; 128+N if signal N interrupted it."},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef("want one PATH below a mount, or one MODULE@VERSION")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			w, err := askWhy(ctx, args[0], mountpoint, ask)
			if status := interrupted(ctx); status != nil {
				return status
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "\t")
				enc.SetEscapeHTML(false)
				err = enc.Encode(w)
			} else {
				err = printWhy(out, w)
			}
			if err == nil && w.Answer.State == modfs.AnswerError {
				err = exitStatus(exitError)
			}
			return err
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&mountpoint, "mount", "", "look for MODULE@VERSION in the mount at `dir` (default: where GOMODCACHE is, or the only one)")
	cmd.Flags().BoolVar(&ask, "ask", false, "try it now: fetch what is not there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// askWhy asks the daemon about a path below its mount, or about a module version.
func askWhy(ctx context.Context, arg, mountpoint string, ask bool) (*modfs.Why, error) {
	mounts, err := modfs.Mounts()
	if err != nil {
		return nil, err
	}
	found, rest := (*modfs.Found)(nil), ""
	if mountpoint == "" {
		found, rest, err = mountOf(arg, mounts)
	}
	if err != nil {
		return nil, err
	}
	what, isModule := rest, false
	if found == nil {
		if strings.HasPrefix(arg, ".") || filepath.IsAbs(arg) || !strings.Contains(arg, "@") {
			return nil, fmt.Errorf("%s is not below a mount of modfs%s: name a path that is, or a MODULE@VERSION", arg, mountedWhere(mounts))
		}
		if found, err = mountFor(ctx, mountpoint, mounts); err != nil {
			return nil, err
		}
		what, isModule = arg, true
	}
	c, err := control.Dial(ctx, found.Mountpoint)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	w, err := c.Why(ctx, what, isModule, ask)
	if err != nil {
		return nil, err
	}
	w.Mountpoint = found.Mountpoint // of a bind mount, the daemon does not know where that is
	return w, nil
}

// mountFor returns the mount at mountpoint; if that is empty, the one that GOMODCACHE is in, or the only one there is.
func mountFor(ctx context.Context, mountpoint string, mounts []modfs.Found) (*modfs.Found, error) {
	if mountpoint != "" {
		dir, err := mountpointPath(mountpoint)
		if err != nil {
			return nil, err
		}
		for i := range mounts {
			if mounts[i].Mountpoint == dir {
				return &mounts[i], nil
			}
		}
		return nil, notMounted(dir)
	}
	switch len(mounts) {
	case 0:
		return nil, errors.New("nothing is mounted: 'modfs mount' mounts")
	case 1:
		return &mounts[0], nil
	}
	if dir, err := mountpointArg(ctx, nil); err == nil {
		if found, _, err := mountOf(dir, mounts); err == nil && found != nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("several are mounted%s: say which with --mount", mountedWhere(mounts))
}

// mountedWhere lists mountpoints, in parentheses.
func mountedWhere(mounts []modfs.Found) string {
	if len(mounts) == 0 {
		return " (nothing is mounted)"
	}
	var dirs []string
	for _, m := range mounts {
		dirs = append(dirs, m.Mountpoint)
	}
	return " (mounted: " + strings.Join(dirs, ", ") + ")"
}

// maxLinks is how many symbolic links on the way to a mount are followed, as many as Linux follows.
const maxLinks = 40

// mountOf returns the mount that a path is below, nil if none, and the slash path below that. It follows symbolic links on the way to
// the mount and touches nothing in it: to look something up there may fetch it.
func mountOf(p string, mounts []modfs.Found) (*modfs.Found, string, error) {
	p, err := filepath.Abs(p)
	if err != nil {
		return nil, "", err
	}
	done, rest := "/", strings.Trim(p, "/")
	for links := 0; ; {
		// The last one that is mounted there is the one that is seen.
		for i := len(mounts) - 1; i >= 0; i-- {
			if mounts[i].Mountpoint == done {
				return &mounts[i], filepath.ToSlash(rest), nil
			}
		}
		if rest == "" {
			return nil, "", nil
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next := filepath.Join(done, name)
		target, err := os.Readlink(next)
		if err != nil {
			done = next // no link; whether it is there at all does not matter
			continue
		}
		if links++; links > maxLinks {
			return nil, "", fmt.Errorf("%s: %w", p, syscall.ELOOP)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(done, target)
		}
		done, rest = "/", strings.Trim(filepath.Join(target, rest), "/")
	}
}
