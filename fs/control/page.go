package control

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/mod/semver"
)

// The page is made on the server, whole and readable. Where there is JavaScript, web/app.js keeps it up to date. Texts from outside are
// escaped by html/template here, and are no more than text there.

//go:embed web
var webFiles embed.FS

// assets are what the page loads, by name.
var assets = map[string]string{"app.js": "text/javascript; charset=utf-8", "style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}

func (w *Web) asset(rw http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	kind, ok := assets[name]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	data, err := webFiles.ReadFile("web/" + name)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", kind)
	rw.Write(data) // the client's loss
}

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"bytes":   size,
	"count":   func(n any) string { return humanize.Comma(toInt64(n)) },
	"percent": hitRate,
}).ParseFS(webFiles, "web/page.html"))

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func toInt64(n any) int64 {
	i, _ := strconv.ParseInt(fmt.Sprint(n), 10, 64) // all of them are integers
	return i
}

// hitRate is what share of so many opened modules were in the store.
func hitRate(hits, misses int64) string {
	if hits+misses == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(hits)/float64(hits+misses))
}

// webPage is what the template is made with.
type webPage struct {
	*webState
	Time     string // of day
	Profiles bool
	Periods  []webPeriod
	Query    string // what the modules are searched for
	Sort     string // what they are sorted by
	Found    string
	Columns  []webColumn
	Rows     []webModule
}

// webModule is a module version in the store.
type webModule struct {
	Module  string    `json:"module"`
	Version string    `json:"version"`
	Size    int64     `json:"size"` // bytes on disk
	Used    time.Time `json:"used"`
	Source  string    `json:"source"` // where it came from
	Pinned  bool      `json:"pinned,omitempty"`
}

// What the server shows. A browser with JavaScript has all modules.
const (
	maxRows  = 1000
	maxQuery = 200 // bytes
)

func (w *Web) page(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	query, sort := q.Get("q"), q.Get("sort")
	query = strings.ToValidUTF8(query[:min(len(query), maxQuery)], "")
	all := w.moduleList()
	found, columns := sorted(search(all, query), sort, query)
	now := time.Now()
	p := &webPage{webState: w.look(), Time: now.UTC().Format("15:04:05 UTC"), Profiles: w.loopback, Periods: periods(w.history.since(0), now),
		Query: query, Sort: sort, Columns: columns, Rows: found[:min(len(found), maxRows)]}
	p.Found = foundText(found, all, query)
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		w.log.Error("page not made", "err", err)
		http.Error(rw, "the page cannot be made: the log has more", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Write(b.Bytes()) // the client's loss
}

// sorted sorts modules by a column, in its other order with a "-" in front, and returns what the columns are then.
func sorted(ms []webModule, sort, query string) ([]webModule, []webColumn) {
	name, down := strings.CutPrefix(sort, "-")
	order, ok := moduleOrders[name]
	if !ok {
		name, down, order = "used", false, moduleOrders["used"]
	}
	slices.SortStableFunc(ms, func(a, b webModule) int {
		c := order.cmp(a, b)
		if down != order.downFirst {
			c = -c
		}
		return cmp.Or(c, strings.Compare(a.Module, b.Module), semver.Compare(a.Version, b.Version))
	})
	return ms, columns(query, name, down)
}

// foundText says how many modules there are.
func foundText(found, all []webModule, query string) string {
	var sum int64
	for _, m := range found {
		sum += m.Size
	}
	n := humanize.Comma(int64(len(found)))
	if strings.TrimSpace(query) != "" {
		n += " of " + humanize.Comma(int64(len(all)))
	}
	text := n + " · " + size(sum)
	if len(found) > maxRows {
		text += fmt.Sprintf(" (%d are shown)", maxRows)
	}
	return text
}

// search returns those modules whose name has all words of a query in it.
func search(all []webModule, query string) []webModule {
	words := strings.Fields(strings.ToLower(query))
	return slices.DeleteFunc(slices.Clone(all), func(m webModule) bool {
		name := strings.ToLower(m.Module + "@" + m.Version)
		return slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(name, word) })
	})
}

// moduleOrders are what modules can be sorted by; downFirst, if a person wants to see the largest first.
var moduleOrders = map[string]struct {
	downFirst bool
	cmp       func(a, b webModule) int
}{
	"module":  {false, func(a, b webModule) int { return strings.Compare(a.Module, b.Module) }},
	"version": {false, func(a, b webModule) int { return semver.Compare(a.Version, b.Version) }},
	"size":    {true, func(a, b webModule) int { return cmp.Compare(a.Size, b.Size) }},
	"used":    {true, func(a, b webModule) int { return a.Used.Compare(b.Used) }},
	"source":  {false, func(a, b webModule) int { return strings.Compare(a.Source, b.Source) }},
}

// webColumn is a column of the table of modules.
type webColumn struct {
	Name, Title, Link string
	Num               bool
	Order             string // the value of aria-sort; "" if it is not sorted by this one
}

// columns returns the columns of the table, which is sorted by one of them; down, in the other order than at first.
func columns(query, by string, down bool) []webColumn {
	cs := []webColumn{{Name: "module", Title: "Module"}, {Name: "version", Title: "Version"}, {Name: "size", Title: "Size", Num: true},
		{Name: "used", Title: "Last used", Num: true}, {Name: "source", Title: "Source"}}
	for i := range cs {
		c := &cs[i]
		values := url.Values{"sort": {c.Name}}
		if c.Name == by {
			c.Order = "ascending"
			if down != moduleOrders[by].downFirst {
				c.Order = "descending"
			}
			if !down {
				values.Set("sort", "-"+c.Name)
			}
		}
		if query != "" {
			values.Set("q", query)
		}
		c.Link = "/?" + values.Encode() + "#modules"
	}
	return cs
}

// modules sends all modules in the store.
func (w *Web) modules(rw http.ResponseWriter, r *http.Request) {
	all := w.moduleList()
	if all == nil {
		all = []webModule{}
	}
	rw.Header().Set("Content-Type", "application/json")
	json.NewEncoder(rw).Encode(all) // the client's loss
}

// webPeriod is what happened in some minutes.
type webPeriod struct {
	Until string
	sample
}

// periodLength is how long a period is.
const periodLength = 10 * time.Minute

// periods returns what happened in the last hour, the last minutes first. Of the first sample it is not known what went before.
func periods(all []sample, now time.Time) []webPeriod {
	var ps []webPeriod
	for until := now; len(ps) < int(time.Hour/periodLength); until = until.Add(-periodLength) {
		from := until.Add(-periodLength).UnixMilli()
		first := slices.IndexFunc(all, func(s sample) bool { return s.Time > from })
		last := -1
		for i, s := range all {
			if s.Time <= until.UnixMilli() {
				last = i
			}
		}
		if first < 0 || last < first {
			break
		}
		a, b := all[max(first-1, 0)], all[last]
		ps = append(ps, webPeriod{until.UTC().Format("15:04"), sample{Store: b.Store, Hits: b.Hits - a.Hits, Misses: b.Misses - a.Misses,
			Received: b.Received - a.Received, Served: b.Served - a.Served, Errors: b.Errors - a.Errors}})
	}
	return ps
}
