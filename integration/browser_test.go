package integration

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modfs/fetch"
	"modfs/fetch/proxytest"
	modfs "modfs/fs"
	"modfs/fs/control"
	"modfs/fs/fusetest"
	"modfs/lru"
)

// shownMount is a mount with a page, some modules, an error whose text is HTML, and a download that has come to its half and goes on
// when release is called.
func shownMount(t *testing.T) (page string, release func()) {
	t.Helper()
	s := proxytest.New(t)
	to, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	good := httputil.NewSingleHostReverseProxy(to)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "example.com/b/") {
			http.Error(w, `<img src=x onerror="document.title='taken over'"><script>document.title='taken over'</script>`, http.StatusForbidden)
			return
		}
		good.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	web, err := control.ListenWeb("0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(web.Close)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	o := modfs.Options{Store: lru.Config{Dir: t.TempDir(), MaxSize: 1 << 30}, Fetch: fetch.Config{Proxy: proxy.URL, SumDB: s.SumDB()},
		ReadOnly: true, NoPrefetch: true}
	web.Watch(&o)
	f, err := modfs.Mount(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	web.Start(control.Options{FS: f, Version: "test"})
	read := func(p string) error {
		_, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
		return err
	}
	for _, p := range []string{"example.com/a@v1.0.0/a.go", "example.com/many@v1.0.0/d01/f00.go"} {
		if err := read(p); err != nil {
			t.Fatal(err)
		}
	}
	if read("example.com/b@v1.0.0/b.go") == nil {
		t.Fatal("a module was read that is forbidden")
	}
	s.SetFault(func(path string) string {
		if strings.HasSuffix(path, ".zip") {
			return "stallbody"
		}
		return ""
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := read("example.com/large@v1.0.0/large.go"); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		s.Release()
		<-done
	})
	return web.URL(), s.Release
}

// The functions that the page is asked with.
const pageFunctions = `
	const rows = () => [...document.querySelectorAll('#table tbody tr')].map((r) => r.cells[0].textContent.trim());
	const visible = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 0;
	const sortedBy = () => [...document.querySelectorAll('#table th')].filter((h) => h.ariaSort).map((h) => h.textContent.trim() + ' ' + h.ariaSort).join();`

// TestPage looks at the page of a mount in a real browser.
func TestPage(t *testing.T) {
	fusetest.Require(t)
	b := startBrowser(t)
	page, release := shownMount(t)

	p := b.open(page, func(n *tab) {
		n.size(1280, 1400, false)
		n.scheme("dark")
	})
	p.eval(pageFunctions + "0")
	p.wait("document.querySelector('#live').hasAttribute('data-on') && rows().length === 2 && document.querySelectorAll('#downloads li').length === 1")

	t.Run("escaped", func(t *testing.T) {
		if got := p.text("document.querySelector('#errors').textContent"); !strings.Contains(got, "<img src=x") || !strings.Contains(got, "EACCES") {
			t.Errorf("the error is not shown as it is: %q", got)
		}
		if n := p.eval("document.images.length + [...document.scripts].filter((s) => !s.src).length"); n != 0.0 {
			t.Errorf("%v elements were made of it", n)
		}
		if got := p.text("document.title"); strings.Contains(got, "taken") {
			t.Errorf("the title is %q", got)
		}
	})
	t.Run("repeated", func(t *testing.T) {
		// The same error may be there twice, with others in between: each has its row, however often and in whatever order they come.
		if got := p.text(`(() => {
			const error = (module) => ({ module, version: 'v1.0.0', op: 'zip', errno: 'EIO', cause: 'broken', time: state.since });
			const wrong = [];
			for (const want of ['aba', 'aba', 'baba', 'baba', 'ab', 'aab', 'aba', '']) {
				showErrors([...want].map(error));
				const got = [...document.querySelectorAll('#errors .mod')].map((e) => e.textContent).join('');
				if (got !== want) wrong.push(want + ': ' + got);
			}
			showErrors(state.errors);
			return wrong.join();
		})()`); got != "" {
			t.Errorf("wanted errors, and those shown: %s", got)
		}
	})
	t.Run("download", func(t *testing.T) {
		p.wait("document.querySelector('#downloads progress').value > 0") // the first half of it is on its way
		got := p.text("(() => { const li = document.querySelector('#downloads li'), p = li.querySelector('progress'); return li.textContent + ' ' + (p.value > 0 && p.value < p.max) + ' ' + p.ariaLabel; })()")
		if !strings.Contains(got, "example.com/large v1.0.0") || !strings.Contains(got, "for ") || !strings.HasSuffix(got, "true example.com/large@v1.0.0") {
			t.Errorf("the download is %q", got)
		}
	})
	t.Run("charts", func(t *testing.T) {
		p.wait("[...document.querySelectorAll('.plot')].length === 3 && [...document.querySelectorAll('.plot')].every(visible)")
		p.wait("document.querySelector('#chart-store .plot').ariaLabel.includes('of the limit')")
		p.eval("document.querySelector('#chart-store .plot').focus()")
		p.press("ArrowLeft", "ArrowLeft", 37, "")
		p.wait("document.querySelector('#chart-store .cross')")
	})
	t.Run("keyboard", func(t *testing.T) {
		if got := p.text("sortedBy()"); got != "Last used descending" {
			t.Errorf("at first the modules are sorted by %q", got)
		}
		p.eval("document.querySelector('[data-sort=module]').focus()")
		p.press("Enter", "Enter", 13, "\r")
		p.wait("sortedBy() === 'Module ascending' && rows().join() === 'example.com/a,example.com/many'")
		p.press("Enter", "Enter", 13, "\r")
		p.wait("sortedBy() === 'Module descending' && rows().join() === 'example.com/many,example.com/a'")
		if got := p.text("getComputedStyle(document.activeElement).outlineStyle"); got != "solid" {
			t.Errorf("what has the focus has an outline that is %q", got)
		}
		p.press("/", "Slash", 191, "/")
		p.wait("document.activeElement.name === 'q'")
		for _, c := range "many" {
			p.press(string(c), "", 0, string(c))
		}
		p.wait("rows().join() === 'example.com/many' && document.querySelector('#found').textContent.startsWith('1 of 2')")
		if got := p.text("location.search"); !strings.Contains(got, "q=many") || !strings.Contains(got, "sort=-module") {
			t.Errorf("the address has %q", got)
		}
		p.eval("document.querySelector('[name=q]').value = ''; document.querySelector('[name=q]').dispatchEvent(new Event('input'))")
	})
	t.Run("colours", func(t *testing.T) {
		const background = "getComputedStyle(document.body).backgroundColor"
		dark := p.text(background)
		p.scheme("light")
		p.wait(background + " !== '" + dark + "'")
		p.eval("document.querySelector('#theme').focus()")
		p.press("Enter", "Enter", 13, "\r")
		p.wait(background + " === '" + dark + "' && document.querySelector('#theme').ariaLabel.includes('dark')")
		p.press("Enter", "Enter", 13, "\r")
		p.press("Enter", "Enter", 13, "\r") // round and back
		p.wait(background + " !== '" + dark + "'")
	})
	phone := b.open(page, func(n *tab) {
		n.size(360, 740, true)
		n.scheme("light")
	})
	t.Run("phone", func(t *testing.T) {
		phone.eval(pageFunctions + "0")
		phone.wait("document.querySelector('#live').hasAttribute('data-on') && rows().length === 2")
		if got := phone.eval("document.documentElement.scrollWidth"); got.(float64) > 360 {
			t.Errorf("the page is %v pixels wide", got)
		}
		if got := phone.text("[...document.querySelectorAll('#table td, #table th a, .tile, .plot')].every(visible)"); got != "true" {
			t.Error("something is not to be seen")
		}
	})
	plain := b.open(page+"?sort=module", func(n *tab) {
		n.size(1280, 1400, false)
		n.noScript()
	})
	t.Run("noscript", func(t *testing.T) {
		got := plain.text("document.body.innerText")
		for _, want := range []string{"The last hour", "example.com/large", "downloading", "EACCES", "<img src=x", "example.com/many", "Search"} {
			if !strings.Contains(got, want) {
				t.Errorf("the page has no %q: %s", want, got)
			}
		}
		if got := plain.text("[...document.querySelectorAll('#table tbody tr')].map((r) => r.cells[0].textContent).join()"); got != "example.com/a,example.com/many" {
			t.Errorf("the modules are %q", got)
		}
	})
	t.Run("live", func(t *testing.T) {
		release()
		p.wait("document.querySelectorAll('#downloads li').length === 0 && visible(document.querySelector('#nodownloads'))")
		p.wait("rows().includes('example.com/large')")
	})
	for _, complaint := range b.problems() {
		t.Errorf("the browser complains: %s", complaint)
	}
}
