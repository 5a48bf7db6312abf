package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"modfs/fetch"
	modfs "modfs/fs"
	"modfs/lru"
)

// storeExclude are the top-level names of a store that are ours. They are not its artifacts, and do not count towards its limit.
var storeExclude = []string{logName, logName + ".old"}

// serveFlags are the flags that mount and run share: what is served, and how.
type serveFlags struct {
	store      string
	maxSize    sizeValue
	minFree    freeValue
	maxAge     ageValue
	memory     sizeValue
	readOnly   bool
	overlayMax sizeValue
	resolve    choiceValue
	layout     choiceValue
	allowOther bool
	noExec     bool
	offline    bool
	seeds      []string
	private    choiceValue
	prefetch   choiceValue
	keepAwake  choiceValue
	listen     string
	timeout    time.Duration
	idle       time.Duration
	logLevel   choiceValue
	logFormat  choiceValue
	fetch      map[string]*string // by the name of the go command's variable
	clientCert string
	clientKey  string
}

// fetchFlags are the flags that override a setting of the go command.
var fetchFlags = []struct{ flag, variable, usage string }{
	{"proxy", "GOPROXY", "`list` of module proxies (default: GOPROXY of go env)"},
	{"noproxy", "GONOPROXY", "`patterns` of modules that no proxy is asked for (default: GONOPROXY)"},
	{"sumdb", "GOSUMDB", "checksum `database`, as in GOSUMDB; off: none (default: GOSUMDB)"},
	{"nosumdb", "GONOSUMDB", "`patterns` of modules not checked against it (default: GONOSUMDB)"},
	{"private", "GOPRIVATE", "`patterns` of modules that are neither (default: GOPRIVATE)"},
}

// Defaults of --max-size, in bytes, and --min-free, in percent.
const (
	defaultMaxSize = 10 << 30
	defaultMinFree = 5
)

func (f *serveFlags) register(fs *pflag.FlagSet, logLevel, layout string) {
	f.maxSize = defaultMaxSize
	f.minFree = freeValue{percent: defaultMinFree}
	f.memory = 64 << 20
	f.prefetch = choiceValue{"auto", "mode", []string{"auto", "off"}}
	f.keepAwake = choiceValue{"auto", "when", []string{"auto", "always", "off"}}
	f.private = choiceValue{"", "mode", []string{"serve", "off"}}
	f.resolve = choiceValue{"", "who", []string{"client", "daemon"}}
	f.layout = choiceValue{layout, "layout", []string{"modcache", "gopath"}}
	f.logLevel = choiceValue{logLevel, "level", []string{"debug", "info", "warn", "error", "off"}}
	f.logFormat = choiceValue{"text", "format", []string{"text", "json"}}
	fs.SortFlags = false
	fs.StringVar(&f.store, "store", "", "keep what was fetched in `dir` (default: modfs in your cache directory)")
	fs.Var(&f.maxSize, "max-size", "limit of the store on disk; 0: none")
	fs.Var(&f.minFree, "min-free", "keep this much of the store's partition free, or this percentage")
	fs.Var(&f.maxAge, "max-age", "drop what nobody used for this long, e.g. 30d; 0: keep (default 0)")
	fs.BoolVar(&f.readOnly, "read-only", false, "refuse every write")
	fs.Var(&f.overlayMax, "overlay-max", "limit of what clients write; 0: none")
	fs.Var(&f.resolve, "resolve", f.resolve.usage("who finds out which versions exist")+" (default: client, daemon with --read-only)")
	fs.Var(&f.layout, "layout", f.layout.usage("what the mount is: GOMODCACHE, or the pkg directory of a GOPATH"))
	fs.BoolVar(&f.allowOther, "allow-other", false, "let other users read the mount")
	fs.BoolVar(&f.noExec, "noexec", false, "let no program be run from the mount, toolchains included")
	fs.BoolVar(&f.offline, "offline", false, "serve what the store has, fetch nothing")
	fs.StringArrayVar(&f.seeds, "seed", nil, "take modules from the module cache or proxy's tree in `dir` before a proxy is asked; repeatable")
	fs.Var(&f.private, "private-modules", f.private.usage("what private modules are on the mount")+" (default: serve, off with --allow-other)")
	fs.Var(&f.prefetch, "prefetch", f.prefetch.usage("fetch ahead what a go.sum lists"))
	fs.Var(&f.keepAwake, "keep-awake", f.keepAwake.usage("keep idle processors from sleeping while many requests come (Linux, root)"))
	fs.Var(&f.memory, "memory", "limit of the memory that holds inflated files")
	fs.DurationVar(&f.timeout, "timeout", 30*time.Minute, "give up fetching a module after this `time`, and what is small after 2m")
	fs.DurationVar(&f.idle, "idle-timeout", 30*time.Second, "give up what brings nothing, or less than 4 KiB, in this `time`")
	f.registerFetch(fs)
	fs.StringVar(&f.listen, "listen", "", listenUsage)
	fs.Var(&f.logLevel, "log-level", f.logLevel.usage("what to log"))
	fs.Var(&f.logFormat, "log-format", f.logFormat.usage("how to log"))
}

// registerFetch registers the flags that say where modules and their hashes come from.
func (f *serveFlags) registerFetch(fs *pflag.FlagSet) {
	f.fetch = make(map[string]*string)
	for _, v := range fetchFlags {
		f.fetch[v.variable] = fs.String(v.flag, "", v.usage)
	}
	fs.StringVar(&f.clientCert, "client-cert", "", "PEM `file` with the certificate to show to proxies that ask for one (https only)")
	fs.StringVar(&f.clientKey, "client-key", "", "PEM `file` with its key (default: the file of the certificate)")
}

// fetchConfig returns what they mean. Settings that no flag gives are read from the environment and from go env.
func (f *serveFlags) fetchConfig(ctx context.Context, fs *pflag.FlagSet) (fetch.Config, error) {
	given := make(map[string]string)
	for _, v := range fetchFlags {
		if fs.Changed(v.flag) { // --private= is a setting too: no private modules
			given[v.variable] = *f.fetch[v.variable]
		}
	}
	if f.clientKey != "" && f.clientCert == "" {
		return fetch.Config{}, usagef("--client-key needs --client-cert")
	}
	c, err := fetch.Settings(ctx, given)
	if err != nil {
		return c, err
	}
	c.Offline = f.offline
	// A daemon changes its directory. Links are not resolved: they may soon lead to the next certificate.
	if f.clientCert != "" {
		if c.ClientCert, err = filepath.Abs(f.clientCert); err != nil {
			return c, err
		}
		c.ClientKey = c.ClientCert
	}
	if f.clientKey != "" {
		c.ClientKey, err = filepath.Abs(f.clientKey)
	}
	return c, err
}

// options returns what the flags mean to package fs. Settings that no flag gives are read from the environment and from
// go env, so it must be called before GOMODCACHE is changed. log is where the log goes.
func (f *serveFlags) options(ctx context.Context, fs *pflag.FlagSet, log io.Writer) (modfs.Options, error) {
	var o modfs.Options
	store, err := f.storeDir()
	if err != nil {
		return o, err
	}
	o.Fetch, err = f.fetchConfig(ctx, fs)
	if err != nil {
		return o, err
	}
	if f.timeout <= 0 || f.idle <= 0 {
		return o, usagef("--timeout and --idle-timeout must be longer than 0")
	}
	o.Fetch.Timeout, o.Fetch.IdleTimeout = f.timeout, f.idle
	o.Log = newLogger(log, f.logLevel.word, f.logFormat.word)
	o.Fetch.Log = o.Log
	o.Store = lru.Config{
		Dir:            store,
		MaxSize:        int64(f.maxSize),
		MinFree:        f.minFree.bytes,
		MinFreePercent: f.minFree.percent,
		MaxAge:         time.Duration(f.maxAge),
		Exclude:        storeExclude,
		Log:            o.Log,
	}
	if f.readOnly && f.resolve.word == "client" {
		return o, usagef("--resolve client needs a mount that clients can write to: leave out --read-only")
	}
	o.ReadOnly, o.AllowOther, o.NoExec = f.readOnly, f.allowOther, f.noExec
	o.HidePrivate = f.private.word == "off" || f.private.word == "" && f.allowOther
	if o.Fetch.Seeds, err = openSeeds(f.seeds); err != nil {
		return o, err
	}
	o.ResolveClient = !f.readOnly && f.resolve.word != "daemon"
	o.OverlayMax = int64(f.overlayMax)
	o.Pkg = f.layout.word == "gopath"
	o.MemoryLimit = max(int64(f.memory), 1) // 0 would mean the default
	o.NoPrefetch = f.prefetch.word == "off"
	o.KeepAwake = modfs.KeepAwake(f.keepAwake.word)
	return o, nil
}

// storeDir returns the absolute path of the store, without symbolic links, so that two names of one store are one.
func (f *serveFlags) storeDir() (string, error) {
	dir, err := f.storePath()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("store %s cannot be created: %v: name another with --store", dir, errno(err))
	}
	return dir, nil
}

// storePath is storeDir for one that must be there already, which whoever opens it finds out.
func (f *serveFlags) storePath() (string, error) {
	dir := f.store
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache directory for the store: %v: set HOME or give --store", err)
		}
		dir = filepath.Join(cache, "modfs")
	}
	dir, err := realPath(dir)
	if err != nil {
		return "", err
	}
	if fi, err := os.Stat(dir); err == nil && !fi.IsDir() {
		return "", fmt.Errorf("store %s is not a directory: name another with --store", dir)
	}
	return dir, nil
}

// logs reports whether messages of that level are logged.
func (f *serveFlags) logs(level slog.Level) bool {
	return newLogger(io.Discard, f.logLevel.word, "").Enabled(context.Background(), level)
}

// realPath returns the absolute path of p, which need not exist, with the symbolic links of its existing part resolved.
func realPath(p string) (string, error) {
	p, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	rest := ""
	for dir := p; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest), nil
		} else if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return p, nil // whoever uses the path gets the error
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// within reports whether path p is dir or below it.
func within(p, dir string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
