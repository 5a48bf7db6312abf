package fetch

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Route is what the settings say of a module path: where its versions come from, and what they are checked against.
type Route struct {
	Proxies []Hop  `json:"proxies"`           // the entries of GOPROXY, in their order
	Private *Match `json:"private,omitempty"` // why no proxy is asked; nil: proxies are
	NoSum   *Match `json:"nosum,omitempty"`   // why the checksum database is not asked; nil: it is, if there is one

	SumDB          string   `json:"sumdb,omitempty"` // the database that covers the module; "" if none does
	VersionControl bool     `json:"version_control"` // whether it may be asked at all
	Offline        bool     `json:"offline"`         // nobody is asked
	Seeds          []string `json:"seeds,omitempty"` // are looked into first
}

// Hop is an entry of GOPROXY.
type Hop struct {
	URL      string `json:"url"`       // without credentials; or "direct" or "off"
	FallBack bool   `json:"fall_back"` // the next one is asked after any error, and not only after 404 and 410
}

// Match is a pattern of a setting that matches a module path.
type Match struct {
	Setting string `json:"setting"` // e.g. "GOPRIVATE"
	Pattern string `json:"pattern"`
}

// Route returns what the settings say of a module path. It asks nobody.
func (c *Client) Route(modPath string) Route {
	r := Route{VersionControl: c.direct != nil, Offline: c.cfg.Offline}
	for _, u := range c.proxies {
		h := Hop{URL: u.word, FallBack: u.fallBack}
		if u.base != nil {
			h.URL = u.stats.URL
		}
		r.Proxies = append(r.Proxies, h)
	}
	r.Private = c.match("GONOPROXY", c.cfg.NoProxy, modPath)
	if modPath != toolchain || c.onlyFiles() { // which is checked whatever the settings say
		r.NoSum = c.match("GONOSUMDB", c.cfg.NoSumDB, modPath)
	}
	if c.db != nil && r.NoSum == nil {
		r.SumDB = c.db.name
	}
	for _, s := range c.cfg.Seeds {
		r.Seeds = append(r.Seeds, s.Name)
	}
	return r
}

// match returns the pattern of a setting that matches a module path. Where the setting has the value of GOPRIVATE, which is its
// default, it is GOPRIVATE's.
func (c *Client) match(setting, patterns, modPath string) *Match {
	if patterns == "" || patterns == c.cfg.Private {
		setting, patterns = "GOPRIVATE", c.cfg.Private
	}
	for p := range strings.SplitSeq(patterns, ",") {
		if module.MatchPrefixPatterns(p, modPath) {
			return &Match{setting, p}
		}
	}
	return nil
}

// Record is what the checksum database said of a module version, as it was verified and stored.
type Record struct {
	Database string `json:"database"`
	ID       int64  `json:"id"` // its number: it is leaf ID of the tree
	ZipHash  string `json:"zip_hash,omitempty"`
	ModHash  string `json:"mod_hash,omitempty"`

	// TreeSize and TreeHash are those of the signed tree head that proves it: the newest one known for which all is stored
	// that it takes. Proven says that the proof was made again just now, from the record to the head.
	TreeSize int64  `json:"tree_size"`
	TreeHash string `json:"tree_hash"`
	Proven   bool   `json:"proven"`
}

// Record returns what is stored of the checksum database's record of m. It asks nobody. The error wraps ErrNoSum if the database
// does not cover m, ErrNotFound if it was not asked yet, and ErrSumDB if what is stored does not add up.
func (c *Client) Record(m module.Version) (*Record, error) {
	if err := c.covered(m.Path); err != nil {
		return nil, err
	}
	esc, err := file(m, "")
	if err != nil {
		return nil, err
	}
	d := c.db
	name := d.name + "/lookup/" + strings.Replace(esc, "/@v/", "@", 1)
	data, err := c.cfg.Tiles.ReadFile(name)
	if err != nil || len(data) == 0 {
		return nil, fmt.Errorf("%w: no record of %s is stored", ErrNotFound, m)
	}
	id, text, msg, err := tlog.ParseRecord(data)
	if err != nil {
		return nil, fmt.Errorf("%w: stored record of %s: %v", ErrSumDB, m, err)
	}
	r := &Record{Database: d.name, ID: id}
	for line := range strings.Lines(string(text)) {
		switch f := strings.Fields(line); {
		case len(f) != 3 || f[0] != m.Path:
		case f[1] == m.Version:
			r.ZipHash = f[2]
		case f[1] == m.Version+"/go.mod":
			r.ModHash = f[2]
		}
	}
	own, err := d.head(msg)
	if err != nil {
		return nil, fmt.Errorf("%w: tree head of the stored record of %s: %v", ErrSumDB, m, err)
	}
	heads := []tlog.Tree{own}
	if latest, err := c.cfg.Tiles.ReadFile(d.name + "/latest"); err == nil {
		if t, err := d.head(latest); err == nil {
			heads = []tlog.Tree{t, own}
		}
	}
	for _, t := range heads {
		r.TreeSize, r.TreeHash = t.N, t.Hash.String()
		if r.Proven, err = d.proves(t, id, text); err != nil {
			return nil, fmt.Errorf("%w: record %d of %s is not in the tree of %d records that is signed: %v", ErrSumDB, id, m, t.N, err)
		}
		if r.Proven {
			break
		}
	}
	return r, nil
}

// head returns a tree head that the database has signed.
func (d *database) head(msg []byte) (tlog.Tree, error) {
	n, err := note.Open(msg, d.verifiers)
	if err != nil {
		return tlog.Tree{}, err
	}
	return tlog.ParseTree([]byte(n.Text))
}

// errNoTile says that a proof takes a tile that is not stored.
var errNoTile = errors.New("tile is not stored")

// proves reports whether what is stored proves that a record is in a tree. The error says that it proves the contrary.
func (d *database) proves(t tlog.Tree, id int64, text []byte) (bool, error) {
	if id >= t.N {
		return false, nil
	}
	hashes, err := tlog.TileHashReader(t, storedTiles{d}).ReadHashes([]int64{tlog.StoredHashIndex(0, id)})
	switch {
	case errors.Is(err, errNoTile):
		return false, nil
	case err != nil:
		return false, err
	case len(hashes) != 1 || hashes[0] != tlog.RecordHash(text):
		return false, errors.New("the tree has another one there")
	}
	return true, nil
}

// storedTiles are the tiles of a database that are stored, for tlog.
type storedTiles struct{ d *database }

func (storedTiles) Height() int                     { return 8 }
func (storedTiles) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles implements tlog.TileReader.
func (s storedTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		if data[i] = s.d.storedTile(t); data[i] == nil {
			return nil, fmt.Errorf("%s: %w", path.Join(s.d.name, t.Path()), errNoTile)
		}
	}
	return data, nil
}

// storedTile returns a tile of hashes, nil if none is stored that has it. One that is wider begins with those that are narrower.
func (d *database) storedTile(t tlog.Tile) []byte {
	for wide := t; wide.W <= 1<<wide.H; wide.W++ {
		if data, err := d.c.cfg.Tiles.ReadFile(d.name + "/" + wide.Path()); err == nil && len(data) == wide.W*tlog.HashSize {
			return data[:t.W*tlog.HashSize]
		}
	}
	return nil
}
