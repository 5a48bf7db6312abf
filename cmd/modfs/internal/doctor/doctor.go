// Package doctor looks whether a machine has what modfs needs, and says what to do about what it has not.
//
// A check is small and has a name. It reads what the kernel, the settings and the daemons say, below System.Root where that is
// files; what else it needs of the world are functions of System, so that each check can be tried on a machine that is not there.
// A check changes nothing. What it finds may carry a repair, which is for Finding.Repair, and touches only mounts of modfs.
//
// A mount may hang, and who touches it hangs with it, for ever. So no check touches one: what it needs to know of a mount it
// gets from System.Probe, which asks through another process.
package doctor

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// Level says how bad a finding is.
type Level string

const (
	OK    Level = "ok"
	Note  Level = "note"  // nothing is wrong; good to know
	Warn  Level = "warn"  // works, but not for everybody, or not for long
	Fail  Level = "fail"  // does not work
	Fixed Level = "fixed" // did not, until Repair
)

// Finding is what a check found out about one thing.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"finding"`
	Fix   string `json:"fix,omitempty"` // what to do about it: a sentence, or a command

	repair func() error
}

// Repair does what there is to do about a finding without asking anybody, if there is such a thing. The finding says
// afterwards what came of it.
func (f *Finding) Repair() {
	if f.repair == nil {
		return
	}
	if err := f.repair(); err != nil {
		f.Text += fmt.Sprintf("; to repair it failed: %v", err)
		return
	}
	f.Level, f.Text, f.Fix, f.repair = Fixed, f.Text+"; repaired", "", nil
}

// Check is one thing that is looked at.
type Check struct {
	Name string
	What string // what it looks at, for the documentation
	Run  func(context.Context, *System) []Finding

	linux bool // it is about what other systems do not have
}

// Checks are all checks, in the order in which they are made: what later ones need comes first.
var Checks = []Check{
	{"device", "/dev/fuse is there and can be opened", checkDevice, true},
	{"kernel", "the kernel is new enough for what modfs uses of FUSE", checkKernel, true},
	{"fusermount3", "fusermount3 can mount, for users who may not themselves", checkFusermount, true},
	{"allow-other", "user_allow_other in /etc/fuse.conf, for --allow-other of users other than root", checkAllowOther, true},
	{"namespaces", "'modfs run' can make a user namespace to mount in", checkNamespaces, true},
	{"mounts", "each mount has a daemon that answers, and serves without errors", checkMounts, false},
	{"gomodcache", "the go command's module cache is on a mount", checkModCache, false},
	{"go", "go is there, and its settings fit a mount", checkGo, false},
	{"store", "the store belongs to its user alone, and is on a disk that locks work on", checkStore, false},
	{"space", "the partition has room for the store up to its limit", checkSpace, false},
	{"proxy", "each module proxy answers and lets the user in", checkProxies, false},
	{"sumdb", "the checksum database answers, and has signed its answer", checkSumDB, false},
	{"clock", "the clock agrees with that of the proxies within five minutes", checkClock, false},
	{"vcs", "git is there, if modules are to come from version control", checkVCS, false},
	{"containers", "a mount that is made anew is seen in containers", checkContainers, true},
	{"fstab", "the lines of /etc/fstab can be mounted", checkFstab, true},
	{"updatedb", "locate's index does not walk through what other users may read", checkUpdatedb, true},
}

// checkPatience bounds a check, the probes of a hung mount included. What is not done by then is left behind.
const checkPatience = 45 * time.Second

// Examine makes one check. It returns at least one finding, and in bounded time.
func (c Check) Examine(ctx context.Context, s *System) []Finding {
	if c.linux && runtime.GOOS != "linux" {
		return []Finding{{Check: c.Name, Level: Note, Text: "not looked at on this system"}}
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	done := make(chan []Finding, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fail("", "the check itself failed: %v", v)
			}
		}()
		done <- c.Run(ctx, s)
	}()
	var found []Finding
	select {
	case found = <-done:
	case <-ctx.Done():
		found = fail("a disk or a mount that does not answer: see the log of the kernel (dmesg)", "not done in %v", checkPatience)
	}
	for i := range found {
		found[i].Check = c.Name
	}
	return found
}

func finding(l Level, fix, format string, args ...any) []Finding {
	return []Finding{{Level: l, Text: fmt.Sprintf(format, args...), Fix: fix}}
}

func ok(format string, args ...any) []Finding        { return finding(OK, "", format, args...) }
func note(fix, format string, args ...any) []Finding { return finding(Note, fix, format, args...) }
func warn(fix, format string, args ...any) []Finding { return finding(Warn, fix, format, args...) }
func fail(fix, format string, args ...any) []Finding { return finding(Fail, fix, format, args...) }
