package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	modfs "modfs/fs"
)

func checkMounts(_ context.Context, s *System) []Finding {
	mounts, err := s.mounts()
	if err != nil {
		return fail("", "%v", err)
	}
	if len(mounts) == 0 && s.Mountpoint != "" {
		return fail("modfs mount "+s.Mountpoint, "%s is not a modfs mount", s.Mountpoint)
	}
	if len(mounts) == 0 {
		return note("'modfs mount' mounts, 'modfs run' for one command", "nothing is mounted")
	}
	var found []Finding
	for _, m := range mounts {
		found = append(found, s.mount(m)...)
	}
	return found
}

// slowRequest is for how long a request may wait before it is worth a warning: a large module over a slow line takes minutes.
const slowRequest = 5 * time.Minute

// mount looks at one mount.
func (s *System) mount(m modfs.Found) []Finding {
	stale := func() []Finding {
		f := fail("'modfs mount' replaces it, 'modfs unmount "+m.Mountpoint+"' and --fix remove it", "%s: its daemon is dead", m.Mountpoint)
		f[0].repair = func() error { return s.Unmount(m.Mountpoint) }
		return f
	}
	if m.Stale {
		return stale()
	}
	st, err := s.probe(m.Mountpoint)
	switch {
	case errors.Is(err, syscall.ETIMEDOUT):
		f := fail("'modfs unmount --force "+m.Mountpoint+"' and --fix end it; its log is in "+m.Store, "%s: its daemon does not answer", m.Mountpoint)
		f[0].repair = func() error { return s.Force(m.Mountpoint) }
		return f
	case errors.Is(err, syscall.ENOTCONN):
		return stale()
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return note("", "%s: another user's", m.Mountpoint)
	case err != nil:
		return fail("", "%s: no status: %v", m.Mountpoint, err)
	}
	reasons := fmt.Sprintf("see %s/.modfs/errors", m.Mountpoint)
	oldest := time.Duration(st.Requests.Oldest * float64(time.Second)).Round(time.Second)
	switch {
	case st.Counters["security_errors"] > 0:
		return fail(reasons, "%s: what was fetched had a wrong hash, or the checksum database contradicted itself, %d times", m.Mountpoint, st.Counters["security_errors"])
	case st.Counters["panics"] > 0:
		return warn("report it, with a file of 'modfs doctor --bundle FILE'", "%s: modfs made a mistake %d times (panics)", m.Mountpoint, st.Counters["panics"])
	case oldest > slowRequest:
		return warn("'modfs status' says which proxies fail", "%s: %d requests wait for an answer, the oldest for %v", m.Mountpoint, st.Requests.Slow, oldest)
	case st.Errors > 0:
		return note(reasons, "%s: served by process %d, with %d errors since %s", m.Mountpoint, st.PID, st.Errors, st.Since.Local().Format(time.DateTime))
	}
	return s.control(m.Mountpoint, st)
}

// control looks whether a daemon with which all is well can be steered by this program.
func (s *System) control(mountpoint string, st *modfs.Status) []Finding {
	text := fmt.Sprintf("%s: served by process %d since %s", mountpoint, st.PID, st.Since.Local().Format(time.DateTime))
	if s.Control == nil {
		return ok("%s", text)
	}
	switch version, err := s.Control(mountpoint); {
	case err != nil:
		return note("its log says why: modfs.log in "+st.Store.Dir, "%s; it cannot be steered: %v", text, err)
	case version != s.Version:
		return note("mount it again to have it run this version", "%s, by modfs %s, and this is %s", text, version, s.Version)
	}
	return ok("%s", text)
}

func checkModCache(_ context.Context, s *System) []Finding {
	dir := s.GoEnv["GOMODCACHE"]
	if dir == "" {
		return note("", "not known: %v", s.GoEnvErr)
	}
	all, err := s.Mounts()
	if err != nil {
		return fail("", "%v", err)
	}
	real := s.resolve(dir)
	for _, m := range all {
		if !within(real, m.Mountpoint) {
			continue
		}
		if m.Stale {
			return fail("'modfs mount' replaces it", "GOMODCACHE=%s is on the mount of a dead daemon", dir)
		}
		if s.Mountpoint == "" || s.Mountpoint == m.Mountpoint {
			return s.onMount(dir, real, m)
		}
	}
	live := s.live()
	if len(live) == 0 {
		return note("", "GOMODCACHE=%s is a plain directory", dir)
	}
	text := fmt.Sprintf("GOMODCACHE=%s is not on the mount at %s: the go command does not use it", dir, live[0].Mountpoint)
	if s.Mountpoint != "" {
		return fail(setModCache(live[0].ModCache), "%s", text)
	}
	// 'modfs run' has a mount of its own, of which only its command knows.
	return warn(setModCache(live[0].ModCache)+" (or it is one of 'modfs run': then nothing)", "%s", text)
}

func setModCache(dir string) string {
	return "go env -w GOMODCACHE=" + dir + ", unless GOMODCACHE is in the environment: then there"
}

// onMount looks whether a module cache on a mount is where the mount has its own.
func (s *System) onMount(dir, real string, m modfs.Found) []Finding {
	st, err := s.probe(m.Mountpoint)
	if err != nil {
		return note("", "GOMODCACHE=%s is on the mount at %s, which does not say more", dir, m.Mountpoint)
	}
	if want := m.Local(st).ModCache; real != want {
		return fail(setModCache(want), "GOMODCACHE=%s is on the mount at %s, whose module cache is %s", dir, m.Mountpoint, want)
	}
	return ok("GOMODCACHE=%s is on the mount", dir)
}

// oldestGo is the go command that the tests run; older ones lack GOTOOLCHAIN or GOAUTH, which modfs asks them for.
const oldestGo = "1.21"

func checkGo(_ context.Context, s *System) []Finding {
	if s.GoEnvErr != nil {
		return note("install Go, or name the settings with flags (--proxy, --sumdb)", "the go command does not say its settings: %v", s.GoEnvErr)
	}
	version := s.GoEnv["GOVERSION"]
	if v := strings.TrimPrefix(version, "go"); v != version && older(v, oldestGo) {
		return warn("update it", "%s is older than %s: toolchains are not switched, and not all of its settings are known", version, oldestGo)
	}
	var found []Finding
	add := func(l Level, fix, format string, args ...any) {
		found = append(found, finding(l, fix, format, args...)...)
	}
	for flag := range strings.FieldsSeq(s.GoEnv["GOFLAGS"]) {
		switch flag = strings.TrimPrefix(flag, "-"); {
		case flag == "-modcacherw" || flag == "modcacherw":
			add(Note, "", "GOFLAGS has -modcacherw, which a mount does not need, and which changes nothing there")
		case flag == "mod=vendor" || flag == "-mod=vendor":
			add(Note, "", "GOFLAGS has -mod=vendor: builds do not use the module cache at all")
		case flag == "mod=mod" || flag == "-mod=mod":
			add(Note, "", "GOFLAGS has -mod=mod: the go command changes go.mod and go.sum, and asks proxies for versions, whatever it is that it does")
		}
	}
	if s.GoEnv["GO111MODULE"] == "off" {
		add(Warn, "go env -u GO111MODULE", "GO111MODULE=off: the go command uses no modules")
	}
	if s.GoEnv["GOSUMDB"] == "off" {
		add(Warn, "go env -u GOSUMDB, and GOPRIVATE for what the database must not know of", "GOSUMDB=off: what is fetched is checked against nothing but what was fetched before")
	}
	if len(found) == 0 {
		return ok("%s", version)
	}
	return found
}
