package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/module"

	modfs "modfs/fs"
)

func newVerify() *cobra.Command {
	var (
		f              serveFlags
		repair, asJSON bool
		jobs           int
	)
	cmd := &cobra.Command{
		Use:   "verify [flags] [MOUNTPOINT] [MODULE@VERSION...]",
		Short: "Check all that a store has, and repair it",
		Long: `Verify reads the store of the mount at MOUNTPOINT, or that of --store, and checks
all of it, or the modules named: archives and go.mod files against their pinned
hashes and those against the checksum database, everything else against its
checksums and the archives. The store may be in use, but not with --repair, which
quarantines what is damaged and fetches it again. It prints a line for each file
that is damaged, and a summary. The exit status is 1 if a file is damaged and
stays so.`,
		Annotations: map[string]string{exitKey: interruptibleExit},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, modules, err := f.verifyArgs(cmd, args)
			if err != nil {
				return err
			}
			if jobs < 0 {
				return usagef("--jobs %d: want a number above 0, or 0 for one a core", jobs)
			}
			c, err := f.fetchConfig(cmd.Context(), cmd.Flags())
			if err != nil {
				return err
			}
			o := modfs.VerifyOptions{Dir: dir, Exclude: storeExclude, Fetch: c, Repair: repair, Modules: modules, Jobs: jobs}
			return verify(cmd, o, asJSON)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.BoolVar(&repair, "repair", false, "quarantine what is damaged, and fetch it again")
	fs.StringVar(&f.store, "store", "", "check the store in `dir` (default: modfs in your cache directory)")
	fs.IntVar(&jobs, "jobs", 0, "check `n` modules at a time (default: one a core)")
	fs.BoolVar(&f.offline, "offline", false, "neither ask the checksum database nor fetch")
	fs.BoolVar(&asJSON, "json", false, "print JSON, one object for each finding and one for the summary")
	f.registerFetch(fs)
	return cmd
}

// verifyArgs returns the store and the modules that a command line names.
func (f *serveFlags) verifyArgs(cmd *cobra.Command, args []string) (dir string, modules []module.Version, err error) {
	mountpoint := ""
	for i, arg := range args {
		path, version, isModule := strings.Cut(arg, "@")
		isModule = isModule && !strings.HasPrefix(arg, "/") && !strings.HasPrefix(arg, ".")
		switch {
		case isModule:
			if err := module.Check(path, version); err != nil {
				return "", nil, usagef("%s: %v", arg, err)
			}
			modules = append(modules, module.Version{Path: path, Version: version})
		case i > 0:
			return "", nil, usagef("%q is neither MODULE@VERSION nor the only MOUNTPOINT, which comes first", arg)
		case arg == "":
			return "", nil, usagef("the mountpoint is empty")
		default:
			mountpoint = arg
		}
	}
	if mountpoint == "" {
		dir, err := f.storePath()
		return dir, modules, err
	}
	if cmd.Flags().Changed("store") {
		return "", nil, usagef("both --store and a mountpoint: the mount has its store")
	}
	found, err := modfs.Find(mountpoint)
	if err == nil && found == nil {
		err = fmt.Errorf("%s is not a modfs mount: 'modfs status' lists those there are; for a store that is not mounted give --store", mountpoint)
	}
	if err != nil {
		return "", nil, err
	}
	return found.Store, modules, nil
}

// verify checks a store and prints what is wrong with it.
func verify(cmd *cobra.Command, o modfs.VerifyOptions, asJSON bool) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	out, say := cmd.OutOrStdout(), cmd.ErrOrStderr()
	var bar *byteProgress
	if !asJSON {
		bar = newByteProgress(out, say)
	}
	if bar != nil {
		o.Progress = bar.add
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	o.Found = func(f modfs.Finding) {
		if asJSON {
			enc.Encode(f) // best effort, as all that is printed
			return
		}
		bar.above(out, findingLine(f))
	}
	sum, err := modfs.Verify(ctx, o)
	bar.end()
	if status := interrupted(ctx); status != nil {
		fmt.Fprintln(say, "modfs: interrupted: the store is not checked to the end")
		return status
	}
	if err != nil { // of a lock only with --repair
		return lockedHint(err, "unmount it, or wait until that has ended; without --repair it is only checked")
	}
	if asJSON {
		err = enc.Encode(struct {
			Summary modfs.VerifySummary `json:"summary"`
		}{sum})
	} else {
		_, err = fmt.Fprintln(out, summaryLine(sum))
	}
	if err == nil && sum.Damaged > sum.Repaired {
		err = exitStatus(exitError)
	}
	return err
}

// findingLine returns one line about a file: what it is, what is wrong with it, and what was done.
func findingLine(f modfs.Finding) string {
	line := f.File + ": " + f.Problem
	if f.Version != "" {
		line = f.Module + "@" + f.Version + ": " + line
	}
	if f.Action != "" {
		line += " (" + strings.Join(strings.Fields(f.Action), " ") + ")"
	}
	return line
}

func summaryLine(s modfs.VerifySummary) string {
	line := fmt.Sprintf("verified %d modules, %s: ", s.Modules, size(s.Bytes))
	if s.Damaged == 0 {
		line += "nothing is damaged"
	} else {
		line += fmt.Sprintf("%d damaged, %d repaired", s.Damaged, s.Repaired)
	}
	if s.Uncovered > 0 {
		line += fmt.Sprintf("; %d hashes are only pinned: the checksum database does not cover them", s.Uncovered)
	}
	if s.Unasked > 0 {
		line += fmt.Sprintf("; %d hashes are only compared with their pins: %s", s.Unasked, strings.Join(strings.Fields(s.Why), " "))
	}
	return line
}
