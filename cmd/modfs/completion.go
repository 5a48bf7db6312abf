package main

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/mod/module"

	modfs "modfs/fs"
)

func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what completes modfs in a shell",
		Long: `Completion prints a script for a shell that completes commands, flags,
mountpoints and the modules that a store has. For the session that it is in:

  bash   source <(modfs completion bash)
  zsh    source <(modfs completion zsh)
  fish   modfs completion fish | source

In bash, the package bash-completion must be there. To have it always, write it
where the shell looks for such scripts:

  bash   ~/.local/share/bash-completion/completions/modfs
  zsh    _modfs in a directory of $fpath
  fish   ~/.config/fish/completions/modfs.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return usagef("want %s", orList(shells))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			out, root := cmd.OutOrStdout(), cmd.Root()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return root.GenBashCompletionV2(out, true)
		},
	}
}

// addCompletions has the arguments and flags of all commands below cmd completed by what their usage says they are: one that
// takes a MOUNTPOINT gets those there are, one of a few words these. A command that knows better sets ValidArgsFunction.
func addCompletions(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		kind, _ := pflag.UnquoteUsage(f)
		switch v, isChoice := f.Value.(*choiceValue); {
		case isChoice:
			cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(v.choices, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that has one
		case kind == "dir":
			cmd.MarkFlagDirname(f.Name) // the flag exists
		case kind != "file" && f.NoOptDefVal == "":
			cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
		}
	})
	if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil {
		cmd.ValidArgsFunction = argumentCompletion(cmd.Use)
	}
	for _, sub := range cmd.Commands() {
		addCompletions(sub)
	}
}

// argumentCompletion returns what completes the arguments of a command with this usage; nil: the shell's own way, file names.
func argumentCompletion(use string) cobra.CompletionFunc {
	mountpoint, versions := strings.Contains(use, "MOUNTPOINT"), strings.Contains(use, "MODULE@VERSION")
	files := false
	for _, word := range []string{"FILE", "DIR", "GO.SUM", "go.sum", "PATH", "COMMAND"} {
		files = files || strings.Contains(use, word)
	}
	if !mountpoint && !versions {
		if files {
			return nil
		}
		return cobra.NoFileCompletions
	}
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		directive := cobra.ShellCompDirectiveNoFileComp
		// A new mountpoint is a directory that there is, or is about to be.
		if files || cmd.Name() == "mount" {
			directive = cobra.ShellCompDirectiveDefault
		}
		var found []string
		if mountpoint && cmd.Name() != "mount" && (len(args) == 0 || versions && len(args) == 1) {
			found = mountpoints(args)
		}
		if versions {
			found = append(found, residentVersions(completionStores(cmd), toComplete)...)
		}
		return slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, toComplete) }), directive
	}
}

// mountpoints returns where modfs is mounted, without those in known. Nothing is asked of the mounts, which may hang.
func mountpoints(known []string) []string {
	mounts, err := modfs.Mounts()
	if err != nil {
		return nil // best effort, as all of completion is
	}
	var dirs []string
	for _, m := range mounts {
		if !slices.Contains(known, m.Mountpoint) {
			dirs = append(dirs, m.Mountpoint)
		}
	}
	return dirs
}

// completionStores returns the stores that a command may mean: that of --store, else those that are mounted, else the default.
func completionStores(cmd *cobra.Command) []string {
	if f := cmd.Flags().Lookup("store"); f != nil && f.Value.String() != "" {
		return []string{f.Value.String()}
	}
	var stores []string
	mounts, _ := modfs.Mounts()
	for _, m := range mounts {
		stores = append(stores, m.Store)
	}
	if len(stores) == 0 {
		if dir, err := new(serveFlags).storePath(); err == nil {
			stores = append(stores, dir)
		}
	}
	return stores
}

// What completion offers at most, and how long it looks: somebody waits for it at a prompt.
const (
	maxCompletions     = 1000
	completionPatience = 2 * time.Second
)

// residentVersions returns the modules, as MODULE@VERSION, whose zips are in the stores and begin with prefix.
func residentVersions(stores []string, prefix string) []string {
	var found []string
	deadline := time.Now().Add(completionPatience)
	for _, store := range stores {
		top := filepath.Join(store, "cache", "download")
		filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error { // best effort
			if len(found) >= maxCompletions || time.Now().After(deadline) {
				return fs.SkipAll
			}
			rel, relErr := filepath.Rel(top, p)
			if err != nil || relErr != nil || rel == "." {
				return nil
			}
			rel = filepath.ToSlash(rel)
			escPath, file, isFile := strings.Cut(rel, "/@v/")
			modPath, err := module.UnescapePath(strings.TrimSuffix(escPath, "/@v"))
			typed, _, _ := strings.Cut(prefix, "@")
			if d.IsDir() {
				// A part of a path need not be one.
				if err == nil && !strings.HasPrefix(modPath, typed) && !strings.HasPrefix(typed, modPath) {
					return fs.SkipDir
				}
				return nil
			}
			escVersion, isZip := strings.CutSuffix(file, ".zip")
			version, verr := module.UnescapeVersion(escVersion)
			if s := modPath + "@" + version; isFile && isZip && err == nil && verr == nil && strings.HasPrefix(s, prefix) && !slices.Contains(found, s) {
				found = append(found, s)
			}
			return nil
		})
	}
	slices.Sort(found)
	return found
}
