package fs

import (
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/sys/unix"
)

// Answer is what a reader of a path gets now.
type Answer struct {
	State   AnswerState `json:"state"`
	Errno   string      `json:"errno,omitempty"`   // e.g. "EIO"
	Message string      `json:"message,omitempty"` // what programs print for it
	Class   string      `json:"class,omitempty"`   // of the cause; docs/troubleshooting.md has each
	Cause   string      `json:"cause"`
	Advice  []string    `json:"advice,omitempty"`
}

// AnswerState says how much of an answer is known.
type AnswerState string

// The states of answers.
const (
	AnswerThere AnswerState = "there" // it can be read, and nobody has to be asked for it
	AnswerFetch AnswerState = "fetch" // it would be fetched, and what comes of that is not known
	AnswerError AnswerState = "error" // it cannot be read
)

func there(format string, args ...any) Answer {
	return Answer{State: AnswerThere, Cause: fmt.Sprintf(format, args...)}
}

func refused(no syscall.Errno, class, format string, args ...any) Answer {
	return Answer{State: AnswerError, Errno: unix.ErrnoName(no), Message: no.Error(), Class: class, Cause: fmt.Sprintf(format, args...)}
}

// answerOf is the answer that an error makes.
func (f *FS) answerOf(err error) Answer {
	return refused(errno(err), class(err), "%s", f.cause(err))
}

// foresee returns what a reader of a path gets now, as far as that can be told without asking anybody.
func (f *FS) foresee(w *Why, pp Path) Answer {
	client := w.Resolve == "client"
	switch {
	case w.Overlay != nil:
		return there("the writable layer has it: a client made it")
	case pp.Kind == KindNone:
		return refused(syscall.ENOENT, "name", "%s", nameTrouble(storeKey(f.whyPath(w.Path))))
	case pp.Kind == KindOwn:
		return refused(syscall.ENOENT, "own", "only what clients make themselves has such a name, and there is none: nobody is asked for it")
	case w.Hidden != nil:
		return refused(syscall.ENOENT, "hidden", "private: it matches %s=%s, and this mount has no private modules (--private-modules off, the default with --allow-other)", w.Hidden.Setting, w.Hidden.Pattern)
	case w.Removed && client:
		return refused(syscall.ENOENT, "removed", "a client removed it from this mount; it is back when a go command has fetched it again")
	case pp.Kind == KindControl:
		return f.foreseeControl(pp)
	case w.Route == nil || pp.Kind == KindVersions:
		if pp.Kind == KindSumDB && client {
			return refused(syscall.ENOENT, "not_offered", "clients resolve versions on this mount (--resolve client), and ask the checksum database themselves")
		}
		if pp.Kind == KindSumDB && !sumdbIsDir(pp.Rest) {
			return f.foreseeStored("sumdb/"+pp.Rest, w)
		}
		if !f.leads(f.whyPath(w.Path), pp) {
			return refused(syscall.ENOENT, "not_offered", "it leads to no module that this mount offers so far; clients resolve versions here (--resolve client)")
		}
		return there("a directory that is always there")
	case pp.Mod.Version == "":
		if client {
			return refused(syscall.ENOENT, "not_offered", "clients resolve versions on this mount (--resolve client), and ask the proxy themselves")
		}
		return f.foreseeFetch(w, pp)
	case client && !f.offersNow(pp):
		return refused(syscall.ENOENT, "not_offered", "%s", f.notOffered(w, pp))
	}
	return f.foreseeVersion(w, pp)
}

func (f *FS) foreseeControl(pp Path) Answer {
	switch pp.Rest {
	case "", "status.json", "errors", ctlName:
		return there("modfs makes it when it is read")
	}
	return refused(syscall.ENOENT, "not_found", "there is no such file in %s", controlDir)
}

func (f *FS) foreseeStored(key string, w *Why) Answer {
	if _, err := f.store.Stat(key); err == nil {
		return there("the store has it")
	}
	return Answer{State: AnswerFetch, Cause: "the store does not have it; the checksum database would be asked"}
}

// offersNow reports whether a mount whose clients resolve shows a path, whoever asks.
func (f *FS) offersNow(pp Path) bool {
	switch pp.Kind {
	case KindInfo, KindMod:
		key := infoKey(pp.Mod)
		if pp.Kind == KindMod {
			key = modKey(pp.Mod)
		}
		_, err := f.store.Stat(key)
		return err == nil
	case KindZip:
		return f.showsModule(pp.Mod) && f.opened(pp.Mod)
	}
	return f.showsModule(pp.Mod) && !f.overlay.has(partialPath(pp.Mod))
}

// notOffered says why it does not.
func (f *FS) notOffered(w *Why, pp Path) string {
	switch {
	case f.overlay.has(partialPath(pp.Mod)):
		return "a go command is unpacking it, or was interrupted when it did (the .partial file in cache/download is there)"
	case w.Refused != nil:
		return fmt.Sprintf("its archive could not be had, so it is not offered until %s; the go command gets it by itself", w.Refused.Format(time.TimeOnly))
	}
	if last, ok := w.lastError(); ok {
		return last.Error
	}
	return "clients resolve versions on this mount (--resolve client): it is offered once a go command has stored its .mod file here, or asks for it with a go.sum that lists it and the daemon's settings"
}

// foreseeVersion is foresee for what belongs to a module version and is offered.
func (f *FS) foreseeVersion(w *Why, pp Path) Answer {
	zip, file := w.stored("zip"), pp.Kind.String()
	switch pp.Kind {
	case KindModule:
		if f.known(pp.Mod) {
			if zip.Missing {
				return there("the version is known to the store; its zip is %s, and is fetched when something in it is opened", missingZip(w, zip))
			}
			return there("the store has it")
		}
	case KindZipHash:
		if w.Pins["zip"] != "" || w.Record != nil {
			return there("its hash is known")
		}
	case KindFile:
		ix, err := f.storedIndex(pp.Mod)
		if err == nil && ix != nil {
			if _, ok := ix.find(pp.Rest); !ok {
				return refused(syscall.ENOENT, "no_such_file", "the zip of %s has no such file", pp.Mod)
			}
		}
		file = "zip"
	}
	s := w.stored(file)
	if !s.Missing && s.Damaged == "" && (file == "zip" || pp.Kind == KindInfo || pp.Kind == KindMod) {
		if w.Route.Offline || w.Pins[file+" (unchecked)"] == "" {
			return there("the store has it")
		}
		return Answer{State: AnswerFetch, Cause: "the store has it, but it was taken on trust (--offline): the checksum database is asked before it is served"}
	}
	return f.foreseeFetch(w, pp)
}

// missingZip says why a module's zip is not in the store.
func missingZip(w *Why, zip StoredFile) string {
	switch {
	case !zip.Evicted.IsZero():
		return "evicted at " + zip.Evicted.Format(time.TimeOnly)
	case w.Pins["zip"] != "":
		return "not in the store any more (evicted or removed)"
	}
	return "not fetched yet"
}

// foreseeFetch is foresee for what has to be fetched.
func (f *FS) foreseeFetch(w *Why, pp Path) Answer {
	r := w.Route
	seeded := pp.Mod.Version != "" && len(r.Seeds) > 0 && f.client.Seeded(pp.Mod)
	what := "it is not in the store"
	if pp.Kind == KindFile || pp.Kind == KindZip || pp.Kind == KindModule {
		what = "its zip is " + missingZip(w, w.stored("zip"))
	}
	for _, s := range w.Store {
		if s.Damaged != "" {
			what = "the store's " + s.File + " is damaged (" + s.Damaged + ")"
		}
	}
	switch {
	case seeded:
		return Answer{State: AnswerFetch, Cause: what + "; it would be taken from a seed"}
	case r.Offline:
		return refused(syscall.EHOSTUNREACH, "offline", "%s, and with --offline nobody is asked", what)
	case r.Private != nil && !r.VersionControl:
		return refused(syscall.ENOENT, "private", "%s, and no proxy is asked, as it matches %s=%s; nor may version control be asked on this mount", what, r.Private.Setting, r.Private.Pattern)
	case r.Private != nil:
		return w.orLastError(fmt.Sprintf("%s; version control would be asked, as it matches %s=%s", what, r.Private.Setting, r.Private.Pattern))
	}
	var ask []string
	for _, hop := range r.Proxies {
		if hop.URL == "off" || hop.URL == "direct" && !r.VersionControl {
			break
		}
		for _, u := range w.Upstreams {
			if u.URL == hop.URL && !u.DownSince.IsZero() && !hop.FallBack {
				return refused(syscall.EHOSTUNREACH, "unreachable", "%s, and %s cannot be reached since %s; it is tried again at %s (%s)", what,
					u.URL, u.DownSince.Format(time.TimeOnly), u.NextTry.Format(time.TimeOnly), u.LastError)
			}
		}
		ask = append(ask, hop.URL)
	}
	if len(ask) == 0 {
		return refused(syscall.ENOENT, "off", "%s, and GOPROXY=%s has nobody to ask", what, r.Proxies[0].URL)
	}
	return w.orLastError(fmt.Sprintf("%s; these would be asked, in this order: %s", what, strings.Join(ask, ", ")))
}

// orLastError is the answer for what would be fetched: if that failed the last time, with what it failed with.
func (w *Why) orLastError(text string) Answer {
	last, ok := w.lastError()
	if !ok {
		return Answer{State: AnswerFetch, Cause: text}
	}
	then := "who asks next makes it try again"
	if until := last.Time.Add(missingTimeout); last.Errno == unix.ErrnoName(syscall.ENOENT) && time.Now().Before(until) {
		then = fmt.Sprintf("that is remembered for %v; who asks then makes it try again", missingTimeout)
	}
	return Answer{State: AnswerError, Errno: last.Errno, Message: errnoNamed(last.Errno).Error(), Class: last.Class,
		Cause: fmt.Sprintf("at %s, the last time: %s (%s)", last.Time.Format(time.TimeOnly), last.Error, then)}
}

// lastError returns the last step if it is that a client, or who asked why, got an error.
func (w *Why) lastError() (Activity, bool) {
	for i := len(w.Steps) - 1; i >= 0; i-- {
		switch s := w.Steps[i]; s.Kind {
		case ActivityError:
			return s, s.Errno != ""
		case ActivityFetched, ActivityVerified:
			return Activity{}, false
		}
	}
	return Activity{}, false
}

// errnoNamed returns the errno of a name, EIO for a name of none.
func errnoNamed(name string) syscall.Errno {
	for no := syscall.Errno(1); no < 256; no++ {
		if unix.ErrnoName(no) == name {
			return no
		}
	}
	return syscall.EIO
}

// nameTrouble says why p, below the module cache, is no name that it can have.
func nameTrouble(p string) string {
	if !clean(p) {
		return "it is not a clean path, or longer than Linux allows"
	}
	escPath, v, isVersion := strings.Cut(p, "@")
	escVersion, _, _ := strings.Cut(v, "/")
	if strings.ToLower(escPath) != escPath || strings.ToLower(escVersion) != escVersion {
		return "capitals in module paths and versions are written as an exclamation mark and the small letter, e.g. github.com/!burnt!sushi"
	}
	modPath, ok := unescape(escPath)
	switch {
	case !ok:
		return "an exclamation mark stands for a capital, and a small letter has to follow it"
	case reserved(modPath), strings.HasPrefix(path.Base(modPath), "."):
		return "tools look for that name in all directories above a module, and must not find it there"
	case !isVersion:
		return reason(module.CheckPath(modPath + "/x.v1"))
	}
	if err := module.CheckPath(modPath); err != nil {
		return reason(err)
	}
	version, err := module.UnescapeVersion(escVersion)
	if err != nil {
		return reason(err)
	}
	if module.CanonicalVersion(version) != version {
		return fmt.Sprintf("%q is no canonical version, such as v1.2.3: a branch, tag or commit is resolved first, by cache/download/%s/@v/%s.info", version, escPath, escVersion)
	}
	return reason(module.Check(modPath, version))
}

func reason(err error) string {
	if err == nil {
		return "no module has such a name"
	}
	return err.Error()
}
