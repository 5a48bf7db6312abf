package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium, told what to do by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) on a
// pair of pipes: messages are JSON, each followed by a zero byte. That takes no library, and no port.
type browser struct {
	t  *testing.T
	in io.Writer

	mu      sync.Mutex
	next    int
	answers map[int]chan answer
	logged  []string // errors that a page met
	gone    chan struct{}
}

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct{ Message string }

	Method string          `json:"method"` // of an event
	Params json.RawMessage `json:"params"`
}

// startBrowser starts Chromium, which ends with the test. Where there is none, the test is skipped.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			program = p
			break
		}
	}
	if program == "" {
		t.Skip("no Chromium (Debian: chromium)")
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirs} // descriptors 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirs.Close()
	b := &browser{t: t, in: in, answers: make(map[int]chan answer), gone: make(chan struct{})}
	go b.read(ours)
	t.Cleanup(func() {
		b.send("", "Browser.close", nil) // best effort: it may be gone
		timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait() // so that nobody writes to its directory any more
		timer.Stop()
		in.Close()
		<-b.gone
		ours.Close()
	})
	return b
}

// read hands answers to those who wait for them.
func (b *browser) read(from io.Reader) {
	defer close(b.gone)
	r := bufio.NewReader(from)
	for {
		data, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(data[:len(data)-1], &a) != nil {
			continue
		}
		b.mu.Lock()
		switch a.Method {
		case "Runtime.exceptionThrown", "Log.entryAdded":
			b.logged = append(b.logged, string(a.Params))
		}
		ch := b.answers[a.ID]
		delete(b.answers, a.ID)
		b.mu.Unlock()
		if ch != nil {
			ch <- a
		}
	}
}

// send sends a command to a session, "" for the browser itself.
func (b *browser) send(session, method string, params any) chan answer {
	ch := make(chan answer, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	b.answers[b.next] = ch
	data, err := json.Marshal(map[string]any{"id": b.next, "method": method, "params": params, "sessionId": session})
	if session == "" {
		data, err = json.Marshal(map[string]any{"id": b.next, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.in.Write(append(data, 0))
	}
	if err != nil {
		ch <- answer{Error: &struct{ Message string }{err.Error()}}
	}
	return ch
}

// call is send, and waits for the result.
func (b *browser) call(session, method string, params, result any) {
	b.t.Helper()
	if params == nil {
		params = struct{}{}
	}
	select {
	case a := <-b.send(session, method, params):
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(a.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
	case <-b.gone:
		b.t.Fatalf("%s: the browser has ended", method)
	case <-time.After(time.Minute):
		b.t.Fatalf("%s: no answer", method)
	}
}

// tab is a page in the browser.
type tab struct {
	*browser
	session string
}

// open opens a page, and waits until it is loaded. setup, if not nil, sets up the tab before.
func (b *browser) open(url string, setup func(*tab)) *tab {
	b.t.Helper()
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	tab := &tab{b, session.SessionID}
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		tab.call(tab.session, domain+".enable", nil, nil)
	}
	if setup != nil {
		setup(tab)
	}
	var nav struct{ ErrorText string }
	tab.call(tab.session, "Page.navigate", map[string]any{"url": url}, &nav)
	if nav.ErrorText != "" {
		b.t.Fatalf("%s: %s", url, nav.ErrorText)
	}
	tab.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
	return tab
}

// eval returns the value of an expression in the page.
func (t *tab) eval(expr string) any {
	t.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	t.call(t.session, "Runtime.evaluate", map[string]any{"expression": expr, "returnByValue": true, "awaitPromise": true}, &r)
	if e := r.ExceptionDetails; e != nil {
		t.t.Fatalf("%s: %s %s", expr, e.Text, e.Exception.Description)
	}
	return r.Result.Value
}

// text is eval for a string.
func (t *tab) text(expr string) string {
	t.t.Helper()
	return fmt.Sprint(t.eval(expr))
}

// wait waits until an expression is true.
func (t *tab) wait(expr string) {
	t.t.Helper()
	for deadline := time.Now().Add(time.Minute); t.eval("Boolean("+expr+")") != true; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.t.Fatalf("the page does not come to have %s; it has %q", expr, t.text("document.body.innerText.slice(0, 2000)"))
		}
	}
}

// size sets the size of the window, in CSS pixels; mobile also has it be a telephone's.
func (t *tab) size(width, height int, mobile bool) {
	t.t.Helper()
	t.call(t.session, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}, nil)
}

// scheme has the system wish for dark or light colours.
func (t *tab) scheme(scheme string) {
	t.t.Helper()
	t.call(t.session, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// noScript turns JavaScript off, for what is loaded from now on.
func (t *tab) noScript() {
	t.t.Helper()
	t.call(t.session, "Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
}

// press presses a key, by its name and its code.
func (t *tab) press(key, code string, virtual int, text string) {
	t.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		params := map[string]any{"type": kind, "key": key, "code": code, "windowsVirtualKeyCode": virtual}
		if kind == "keyDown" && text != "" {
			params["text"] = text
		}
		t.call(t.session, "Input.dispatchKeyEvent", params, nil)
	}
}

// problems returns what the pages complained about: exceptions, and violations of their policies.
func (b *browser) problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.logged
}
