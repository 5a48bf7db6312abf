package fs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"modfs/fetch"
	"modfs/lru"
)

// Status is what .modfs/status.json says.
type Status struct {
	Mountpoint string           `json:"mountpoint"`
	ModCache   string           `json:"modcache"` // what GOMODCACHE is to be: the mountpoint, or its directory mod
	PID        int              `json:"pid"`
	Since      time.Time        `json:"since"`
	ReadOnly   bool             `json:"read_only"`
	Offline    bool             `json:"offline"`
	Store      StoreStatus      `json:"store"`
	Upstreams  []fetch.Upstream `json:"upstreams"`
	Modules    int              `json:"modules"` // versions that clients asked for
	Nodes      int              `json:"nodes"`   // path nodes that the kernel knows
	Memory     MemoryStatus     `json:"memory"`
	Process    ProcessStatus    `json:"process"`
	Requests   RequestStatus    `json:"requests"`
	Overlay    *OverlayStatus   `json:"overlay,omitempty"`
	Errors     uint64           `json:"errors"`      // since the mount; .modfs/errors has the last ones
	LastErrors []Event          `json:"last_errors"` // the latest few, oldest first
	Resident   ResidentStatus   `json:"resident"`
	Transfers  []Transfer       `json:"transfers"` // what is being fetched
	Queued     int              `json:"queued"`    // archives that wait to be fetched ahead
	LastHour   ChurnStatus      `json:"last_hour"`
	Counters   map[string]int64 `json:"counters"`

	ErrorsByErrno map[string]uint64 `json:"errors_by_errno,omitempty"` // by the name of what clients got
	Queues        QueueStatus       `json:"queues"`
}

// StoreStatus is the state of the store.
type StoreStatus struct {
	Dir string `json:"dir"`
	lru.Usage
}

// ResidentStatus counts the module versions whose archives are in the store. Sizes are in bytes on disk, of the archives alone.
type ResidentStatus struct {
	Modules     int   `json:"modules"`
	Bytes       int64 `json:"bytes"`
	Pinned      int   `json:"pinned"` // of Modules: those that are never evicted
	PinnedBytes int64 `json:"pinned_bytes"`
}

// lastErrors is how many errors are in a Status.
const lastErrors = 10

// resident counts what is in the store.
func (f *FS) resident() (r ResidentStatus) {
	for _, i := range f.store.All(zipSuffix) {
		r.Modules++
		r.Bytes += i.Disk
		if i.Pinned {
			r.Pinned++
			r.PinnedBytes += i.Disk
		}
	}
	return r
}

// OverlayStatus is the state of the writable layer, in bytes of files.
type OverlayStatus struct {
	Bytes int64 `json:"bytes"`
	Limit int64 `json:"limit"` // 0: none
}

// MemoryStatus says what the daemon's memory is used for, in bytes.
type MemoryStatus struct {
	Heap    uint64 `json:"heap_bytes"`
	Content int64  `json:"content_bytes"` // inflated files
	Trees   int64  `json:"trees_bytes"`
	System  uint64 `json:"system_bytes"` // all that the Go runtime has from the system
}

// ProcessStatus says what the daemon has open and running. Neither grows with time.
type ProcessStatus struct {
	Goroutines      int `json:"goroutines"`
	FileDescriptors int `json:"file_descriptors"` // -1: not known
}

// QueueStatus says how many things wait their turn, or have it.
type QueueStatus struct {
	PrefetchZips int `json:"prefetch_zips"` // archives to be fetched ahead
	PrefetchMods int `json:"prefetch_mods"` // go.mod files to be fetched ahead
	Wanted       int `json:"wanted"`        // archives that somebody waits for
	Verifying    int `json:"verifying"`     // archives that are being verified
}

// fileDescriptors counts the descriptors that this process has open, -1 if that cannot be told.
func fileDescriptors() int {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return -1
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names) - 1 // that of dir
}

// Status returns the state of the file system.
func (f *FS) Status() *Status {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	var over *OverlayStatus
	if f.overlay != nil {
		over = &OverlayStatus{Bytes: f.overlay.usage(), Limit: f.overlay.max}
	}
	under, queued := f.Transfers()
	use := f.usage()
	return &Status{
		LastErrors: f.errors.latest(lastErrors),
		Resident:   f.resident(),
		Transfers:  under,
		Queued:     queued,
		LastHour:   f.churn.status(time.Now(), use.Bytes),
		Overlay:    over,
		Mountpoint: f.mountpoint,
		ModCache:   f.ModCache(),
		PID:        os.Getpid(),
		Since:      f.started,
		ReadOnly:   f.overlay == nil,
		Offline:    f.opts.Fetch.Offline,
		Store:      StoreStatus{Dir: f.store.Dir(), Usage: use},
		Upstreams:  f.client.Upstreams(),
		Modules:    f.modules.len(),
		Nodes:      f.nodes.len(),
		Memory: MemoryStatus{Heap: mem.HeapAlloc, Content: f.content.bytes(), Trees: f.trees.bytes(),
			System: mem.Sys - mem.HeapReleased},
		Process:  ProcessStatus{Goroutines: runtime.NumGoroutine(), FileDescriptors: fileDescriptors()},
		Requests: f.waiting.status(time.Now()),
		Errors:   f.errors.count(),
		Counters: f.stats.snapshot(),

		ErrorsByErrno: f.errors.byErrno(),
		Queues:        f.queues(),
	}
}

func (f *FS) queues() QueueStatus {
	wanted, verifying := f.turns.lengths()
	return QueueStatus{PrefetchZips: f.prefetch.zips.len(), PrefetchMods: f.prefetch.mods.len(), Wanted: wanted, Verifying: verifying}
}

// usage returns the state of the store against the limit that its user set, of which the store itself knows less; see
// reservedSize.
func (f *FS) usage() lru.Usage {
	u := f.store.Usage()
	u.Limit = f.opts.Store.MaxSize
	return u
}

// ReadStatus returns the state of the modfs mount at mountpoint.
func ReadStatus(mountpoint string) (*Status, error) {
	data, err := os.ReadFile(filepath.Join(mountpoint, controlDir, "status.json"))
	if err != nil {
		return nil, err
	}
	s := new(Status)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	return s, nil
}

// controlMode is the mode of a file in .modfs. Whoever has a build that failed must be able to read why. The state of the daemon, in
// which are its upstreams and where its store is, is for the user whose daemon it is.
func controlMode(name string) uint32 {
	if name == "status.json" {
		return 0o400
	}
	return fileMode
}

// lookupControl looks up what is in .modfs. Each lookup of a file makes its content, which stays with the node that this
// lookup returns: who opened it reads one state, whole, while others look the name up again.
func (f *FS) lookupControl(p string, pp Path, uid uint32, out *fuse.EntryOut) fuse.Status {
	now := time.Now()
	n := node{path: p, Path: pp, born: now}
	switch pp.Rest {
	case "":
		f.entryOut(out, f.nodes.lookup(n), forever)
		return fuse.OK
	case "status.json":
		if !f.commands(uid) {
			n.data = []byte{} // that user can look at the name only, which is to cost nothing
			break
		}
		data, err := json.MarshalIndent(f.Status(), "", "\t")
		if err != nil {
			return f.fail("status", pp.Mod, err)
		}
		n.data = append(data, '\n')
	case "errors":
		n.data = notNil(f.errors.lines())
	case ctlName:
		target, status := f.ctl(uid)
		if status == fuse.ENOENT {
			return missing(out, 0)
		} else if status != fuse.OK {
			return status
		}
		n.data = []byte(target)
	default:
		return missing(out, forever)
	}
	n.size = int64(len(n.data))
	f.entryOut(out, f.nodes.lookup(n), 0)
	return fuse.OK
}
