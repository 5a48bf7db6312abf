// Package fs serves a lazy Go module cache as a FUSE file system.
//
// A mounted tree has the layout of $GOPATH/pkg/mod (https://go.dev/ref/mod#module-cache):
//
//	M@V/…                                the files of a module version, as the go command would unpack them
//	cache/download/M/@v/V.info, .mod     its metadata, the latter checked against the checksum database
//	cache/download/M/@v/V.zip, .ziphash  its archive and the h1 hash of that
//	cache/download/M/@v/list, @latest    what the proxy says, so that the tree is itself a GOPROXY=file:// tree
//	cache/download/sumdb/NAME/…          the checksum database's tiles and lookups, as far as we verified them
//	.modfs/status.json, .modfs/errors    the state of the daemon and its last errors; never listed
//	.modfs/ctl                           its user's link to the socket of package control; never listed
//
// Nothing is there until somebody asks for it: metadata is fetched when it is looked up, a zip when something
// below M@V is. Listing never fetches: directories above M@V show what the store has seen. No caller sees
// unverified bytes: package fetch checks what it downloads before package lru gives it a name, and what is read
// back later is checked again (the SHA-256 of each file, the hash of each go.mod).
//
// The kernel is told to cache all that cannot change, and not to send what we would not act on: there are no
// OPEN, OPENDIR, FLUSH or ACCESS requests, hence no handles. A node ID is arithmetic (module slot, entry index)
// for all that is inside a module; see node.go.
//
// Lock order: FS.steering is taken before all others, and pins.disk and origins.disk before the mu beside them; these three are
// held during I/O, and no request waits for one. nodes.mu and every other mutex of this package is a leaf: none is held while
// another is taken, nor during I/O or a callback.
package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/mod/module"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"modfs/fetch"
	"modfs/lru"
)

// Options say what Mount serves and how. The zero value of each field has a meaning.
type Options struct {
	// Store is where artifacts are kept, and how much of them. Dir must be set. Evictable, OnEvict, OnPanic, Exclude's
	// necessary entries and Log are set by Mount.
	Store lru.Config

	// Fetch is where artifacts come from. OnSeed, Tiles, OnPanic and what begins with Direct are set by Mount, and Log where it is nil.
	Fetch fetch.Config

	// ReadOnly refuses every write with EROFS. Otherwise what clients write goes to a writable layer, below the store's
	// directory, and is served from there first.
	ReadOnly bool

	// Pkg lays the mount out as $GOPATH/pkg: the module cache is in its directory mod, and whatever else clients make is
	// the writable layer's.
	Pkg bool

	// ResolveClient leaves it to the clients of a read-write mount to find out which versions exist: the lazy tree offers
	// a module once its V.mod was stored through the mount. Otherwise, and always with ReadOnly, the daemon answers by
	// itself. See resolve.go.
	ResolveClient bool

	// OverlayMax bounds the files of the writable layer, in bytes. 0 means no limit.
	OverlayMax int64

	// AllowOther lets users other than the daemon's read the mount; the kernel then checks permissions.
	AllowOther bool

	// NoExec lets no program be run from the mount. The go command cannot switch to a toolchain there then.
	NoExec bool

	// HidePrivate hides modules that match Fetch.Private or Fetch.NoProxy: the daemon fetches them with its own
	// credentials, and all who can read the mount could read them.
	HidePrivate bool

	// KeepAwake says when idle processors are kept awake while many requests come.
	KeepAwake KeepAwake

	// MemoryLimit bounds the inflated file content kept in memory, in bytes. 0 means 64 MiB.
	MemoryLimit int64

	// NoPrefetch leaves zips unfetched until something in them is opened. Otherwise, when a go command opens a module that
	// the store does not have, the modules that its go.sum lists are fetched in the background; see prefetch.go.
	NoPrefetch bool

	// Measure has RequestTimes know how long requests take. Each costs some 90 ns more then.
	Measure bool

	// OnError is told each error that a client saw, missing files excepted. It must not block. Nil ignores them;
	// .modfs/errors has them anyway.
	OnError func(Event)

	// Log gets what the daemon does. Nil discards it.
	Log *slog.Logger

	hook func(what string) // in tests: called in the middle of things; see FS.at
}

const defaultMemoryLimit = 64 << 20

// FS is a mounted file system. Its methods may be called concurrently.
type FS struct {
	fuse.RawFileSystem // ENOSYS for what we don't implement

	opts       Options
	mountpoint string
	dev        uint64 // the device number of the mount
	log        *slog.Logger
	server     *fuse.Server
	started    time.Time
	owner      fuse.Owner

	store  *lru.Store
	client *fetch.Client
	pins   *pins

	private  private  // what the lazy tree does not have
	overlay  *overlay // nil on a read-only mount
	removals removals

	// ctx is the life of the mount: upstream requests belong to it, not to the request that was first to need them.
	ctx  context.Context
	stop context.CancelFunc
	work work // in the background, which Close waits for

	nodes     nodes
	modules   modules
	flights   singleflight.Group
	trees     *budget[uint64, *indexed]    // by slot
	content   *budget[contentKey, content] // inflated files
	keeping   allowance                    // for what is inflated while it is verified
	zips      *handles
	answers   *answers // upstream's answers that change with time
	prefetch  prefetcher
	turns     turns // of verification
	callers   callers
	inflating *semaphore.Weighted // bytes; see maxInflating
	looks     chan struct{}       // has a place for each look; see look
	waiting   waiting
	journal   journal
	stream    stream

	transfers transfers
	churn     churn
	kept      *kept
	origins   *origins
	steering  sync.Mutex // one user at a time pins, evicts or collects garbage; taken before all others

	trimming    atomic.Bool  // the kernel is being asked to forget nodes
	pushUnknown atomic.Bool  // the kernel takes no content that it did not ask for
	pushers     atomic.Int32 // directories whose files are pushed after their listings ended
	goSums      *budget[fileID, sums]

	onRequest func(fetch.Request) // what else is to be told; nil: nobody
	onSeed    func(fetch.Check)   // what else is to be told; nil: nobody
	damage    damage
	awake     awake
	changed   atomic.Int64 // Unix nanoseconds of the last change of what listings show
	stats     stats
	errors    errorLog
	control   atomic.Pointer[string] // see SetControl

	measured *measured // nil without Options.Measure

	closing sync.Mutex
	closers []func() // see OnClose

	served    chan struct{} // closed when the kernel let go of the mount
	closeOnce sync.Once
	closeErr  error
}

// Mount mounts a file system at mountpoint, an existing directory, and serves it in the background until it is
// unmounted. A mount that a dead daemon left there is replaced.
//
// The error is a *lru.LockedError if another daemon uses the store. Of several daemons that want one mountpoint, one gets it.
func Mount(mountpoint string, o Options) (*FS, error) {
	mountpoint, err := filepath.Abs(mountpoint)
	if err != nil {
		return nil, err
	}
	unlock, err := claim(mountpoint)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f, err := newFS(mountpoint, o)
	if err != nil {
		return nil, err
	}
	fuseOptions := f.mountOptions()
	if !o.ReadOnly {
		// The kernel checks permissions when a file is opened, of which we hear nothing.
		fuseOptions.Options = []string{"default_permissions"}
	}
	f.server, err = mountFUSE(f.raw(), mountConfig{
		Dir:        mountpoint,
		Source:     "modfs:" + f.store.Dir(),
		ReadOnly:   o.ReadOnly,
		AllowOther: o.AllowOther,
		NoExec:     o.NoExec,
		fuse:       fuseOptions,
		Log:        f.log,
	})
	if err != nil {
		f.close()
		return nil, err
	}
	if info, err := findMount(mountpoint); err == nil && info != nil {
		f.dev = device(info)
	}
	f.served = make(chan struct{})
	go func() {
		defer close(f.served)
		f.server.Serve()
		f.stop() // nobody is left who could want an answer
	}()
	if err := waitMount(f.server, mountpoint); err != nil {
		Unmount(mountpoint, true) // best effort: the error is about the mount
		<-f.served
		f.close()
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	f.log.Info("mounted", "mountpoint", mountpoint, "store", f.store.Dir())
	return f, nil
}

// mountOptions are the FUSE options that do not depend on Options.
func (f *FS) mountOptions() fuse.MountOptions {
	return fuse.MountOptions{
		Name:              "modfs",
		MaxWrite:          1 << 20, // also the largest READ
		MaxBackground:     64,
		DisableXAttrs:     true,
		ExtraCapabilities: capNoOpendir,
		Logger:            slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
		PanicHandler:      f.panicked,
	}
}

// newFS opens the store and makes a file system that is not mounted yet.
func newFS(mountpoint string, o Options) (*FS, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Fetch.Log == nil {
		o.Fetch.Log = o.Log
	}
	if o.MemoryLimit == 0 {
		o.MemoryLimit = defaultMemoryLimit
	}
	f := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		opts:          o,
		mountpoint:    mountpoint,
		log:           o.Log,
		started:       time.Now(),
		owner:         fuse.Owner{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())},
		trees:         newBudget[uint64, *indexed](treeMemory),
		content:       newBudget[contentKey, content](o.MemoryLimit - o.MemoryLimit/3),
		keeping:       allowance{max: o.MemoryLimit / 3},
		zips:          newHandles(maxHandles),
		answers:       newAnswers(),
		inflating:     semaphore.NewWeighted(maxInflating),
		looks:         make(chan struct{}, maxLooks),
		goSums:        newBudget[fileID, sums](sumsMemory),
		turns:         turns{cores: max(1, runtime.GOMAXPROCS(0)/2)},
	}
	f.work.idle.L = &f.work.mu
	f.changed.Store(f.started.UnixNano())
	f.ctx, f.stop = context.WithCancel(context.Background())
	if o.HidePrivate {
		f.private = patterns(o.Fetch.Private, o.Fetch.NoProxy)
		f.nodes.private = f.private
	}
	f.nodes.init(modRoot)
	if o.Pkg {
		f.nodes.init("")
	}
	f.modules.init()
	f.errors.max = maxErrors

	var err error
	f.origins = new(origins) // the store may evict something before they can be read
	if f.store, err = openStore(f, o.Store); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		f.overlay, err = openOverlay(f.store.Dir(), o.OverlayMax)
	}
	if err == nil {
		f.pins, err = openPins(f.store)
	}
	if err == nil && f.pins.bad > 0 {
		f.stats.damaged.Add(int64(f.pins.bad))
		f.log.Error("lines of the store's pins are damaged and not believed; 'modfs verify --repair' removes them", "lines", f.pins.bad)
	}
	if err == nil {
		f.onRequest = o.Fetch.OnRequest
		o.Fetch.Tiles, o.Fetch.OnPanic, o.Fetch.OnSeed, o.Fetch.OnRequest = tiles{f}, f.caught, f.seeded, f.requested
		f.allowDirect(&o)
		f.client, err = fetch.New(o.Fetch)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	f.origins.open(f.store.Dir(), func(m module.Version) bool {
		_, err := f.store.Stat(zipKey(m))
		return err == nil
	})
	f.settleKept()
	f.initPrefetch()
	f.initAwake()
	zip, other := f.client.Limits()
	f.background(func() { f.endLate(requestLimit(zip, other)) })
	return f, nil
}

// directDir is where modules come from version control, in the store's directory. What is in it counts as what is being
// written.
const directDir = "direct"

// SocketName is the name in a store of the socket of the daemon that has the store, or of a symbolic link to it; see package control.
const SocketName = "control.sock"

// directMax is how many bytes it may take; but at most half of the store's limit.
const directMax = 2 << 30

// allowDirect lets the daemon get modules from version control, unless clients resolve: they get those by themselves, and have
// them by the time that they look for M@V. To clone what they have just cloned would help nobody and keep them waiting.
func (f *FS) allowDirect(o *Options) {
	o.Fetch.Direct = ""
	if f.overlay != nil && o.ResolveClient {
		return
	}
	o.Fetch.Direct = filepath.Join(f.store.Dir(), directDir)
	o.Fetch.DirectRoom = f.store.NewHold()
	o.Fetch.DirectMax = directMax
	if max := o.Store.MaxSize; max > 0 {
		o.Fetch.DirectMax = min(directMax, max/2)
	}
}

// reservedSize is how much of the store's limit is set aside for what its ledger does not know of, the pins, origins and logs; but
// at most a hundredth of it.
const reservedSize = 1 << 20

// setAside returns how much of a limit of size bytes that is. Of the pins there may be many by now, and they will be more.
func setAside(dir string, size int64) int64 {
	n := min(reservedSize, size/100)
	var known int64
	for _, name := range []string{pinsFile, originsFile, keptFile} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err == nil {
			known += fi.Size()
		}
	}
	return max(n, min(2*known, size/10))
}

// openStore opens the store with the parts of its configuration that are ours to decide.
func openStore(f *FS, c lru.Config) (*lru.Store, error) {
	if c.Dir == "" {
		return nil, errors.New("no store directory given")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	if f.kept, err = loadKept(dir); err != nil {
		return nil, err
	}
	c.Pinned = f.kept.keys()
	c.Evictable, c.Minor = evictable, minor
	c.OnEvict = f.evicted
	c.OnDamage, c.OnPanic = f.changedFile, f.caught
	c.MaxSize -= setAside(dir, c.MaxSize)
	c.Exclude = append(slices.Clone(c.Exclude), pinsFile, overlayDir, directDir, SocketName, keptFile, keptFile+".new", originsFile)
	if c.Holder == "" {
		c.Holder = f.mountpoint
	}
	if c.Log == nil {
		c.Log = f.log
	}
	return lru.Open(c)
}

// Wait returns when the file system is no longer mounted and its last user has left it.
func (f *FS) Wait() { <-f.served }

// Unmount unmounts the file system. The error wraps syscall.EBUSY while a process uses it, and ErrNotMounted if it is not
// what is mounted there (any more).
func (f *FS) Unmount() error { return f.unmount(false) }

// UnmountLazy takes the mount out of the tree of directories at once; it is served until its last user leaves,
// when Wait returns.
func (f *FS) UnmountLazy() error { return f.unmount(true) }

// unmount does not unmount what another daemon has mounted at the same place since this mount was taken from there.
func (f *FS) unmount(lazy bool) error {
	if f.dev != 0 && !f.Mounted() {
		return fmt.Errorf("unmount %s: %w", f.mountpoint, ErrNotMounted)
	}
	return Unmount(f.mountpoint, lazy)
}

// Mountpoint is the absolute path of the directory that the file system is mounted at.
func (f *FS) Mountpoint() string { return f.mountpoint }

// StoreDir is the absolute path of the store's directory.
func (f *FS) StoreDir() string { return f.store.Dir() }

// ModCache is the absolute path of the module cache in it.
func (f *FS) ModCache() string {
	if f.opts.Pkg {
		return filepath.Join(f.mountpoint, modRoot)
	}
	return f.mountpoint
}

// Close ends upstream requests, unmounts the file system if it is mounted (lazily if it is busy; a process that still
// uses it gets errors from then on) and closes the store. It may be called more than once.
func (f *FS) Close() error {
	f.closeOnce.Do(func() {
		f.stop()
		f.runClosers()
		select {
		case <-f.served:
		default:
			if f.Unmount() != nil {
				f.UnmountLazy() // best effort: the kernel answers ENOTCONN once we are gone
			}
		}
		f.closeErr = f.close()
	})
	return f.closeErr
}

// close releases what newFS acquired.
func (f *FS) close() error {
	f.stop()
	f.work.wait()
	f.zips.closeAll()
	f.awake.close()
	if f.client != nil {
		f.client.Close()
	}
	if f.pins != nil {
		f.pins.close()
	}
	if f.overlay != nil {
		f.overlay.close()
	}
	if f.origins != nil {
		f.origins.close()
	}
	if f.store == nil {
		return nil
	}
	return f.store.Close()
}
