package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// view is an open tab of a real browser, driven over the DevTools protocol as a user
// drives it: by what the tab shows, and by keys.
type view struct {
	t    *testing.T
	conn *websocket.Conn

	mu       sync.Mutex
	next     int
	waiting  map[int]chan devtoolsAnswer
	troubles []string // what the console and the network complain of
	hosts    map[string]bool
}

type devtoolsAnswer struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
	Method string
	Params json.RawMessage
}

// openView opens an address in a new tab of the browser.
func (b *tabs) openView(address string) *view {
	b.t.Helper()
	tab := b.openTab("about:blank")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(b.devtools, "http")+"/devtools/page/"+tab, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	conn.SetReadLimit(64 << 20)
	v := &view{t: b.t, conn: conn, waiting: make(map[int]chan devtoolsAnswer), hosts: make(map[string]bool)}
	go v.listen()
	b.t.Cleanup(func() {
		conn.CloseNow()
		b.closeTab(tab)
	})
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		v.do(domain+".enable", nil)
	}
	v.do("Page.navigate", map[string]any{"url": address})
	return v
}

// listen passes answers on, and keeps what went wrong.
func (v *view) listen() {
	for {
		_, text, err := v.conn.Read(context.Background())
		if err != nil {
			return
		}
		var m devtoolsAnswer
		if json.Unmarshal(text, &m) != nil {
			continue
		}
		v.mu.Lock()
		if to := v.waiting[m.ID]; m.ID != 0 && to != nil {
			to <- m
			delete(v.waiting, m.ID)
		}
		v.note(m)
		v.mu.Unlock()
	}
}

// note keeps what the browser complains of, and whom the page asks.
func (v *view) note(m devtoolsAnswer) {
	var p struct {
		Type    string
		Args    []struct{ Description, Value any }
		Entry   struct{ Level, Source, Text, URL string }
		Request struct{ URL string }
	}
	json.Unmarshal(m.Params, &p)
	switch m.Method {
	case "Runtime.exceptionThrown":
		v.troubles = append(v.troubles, "exception: "+string(m.Params))
	case "Runtime.consoleAPICalled":
		if p.Type == "error" || p.Type == "warning" || p.Type == "assert" {
			v.troubles = append(v.troubles, fmt.Sprintf("console.%s: %v", p.Type, p.Args))
		}
	case "Log.entryAdded":
		// What the API answers is the page's to show, whatever the status.
		if p.Entry.Level == "error" && p.Entry.Source != "network" {
			v.troubles = append(v.troubles, fmt.Sprintf("%s: %s %s", p.Entry.Source, p.Entry.Text, p.Entry.URL))
		}
	case "Network.requestWillBeSent":
		if _, rest, ok := strings.Cut(p.Request.URL, "://"); ok {
			host, _, _ := strings.Cut(rest, "/")
			v.hosts[host] = true
		}
	}
}

// do has the browser do something, and returns what that gives.
func (v *view) do(method string, params any) json.RawMessage {
	v.t.Helper()
	if params == nil {
		params = struct{}{}
	}
	answer := make(chan devtoolsAnswer, 1)
	v.mu.Lock()
	v.next++
	id := v.next
	v.waiting[id] = answer
	v.mu.Unlock()
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		v.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := v.conn.Write(ctx, websocket.MessageText, text); err != nil {
		v.t.Fatalf("%s: %v", method, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			v.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		return m.Result
	case <-ctx.Done():
		v.t.Fatalf("%s: the browser does not answer", method)
		return nil
	}
}

// run runs a script in the tab, and returns what it results in, as JSON. A promise is
// waited for.
func (v *view) run(script string) string {
	v.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	result := v.do("Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true, "allowUnsafeEvalBlockedByCSP": false})
	if err := json.Unmarshal(result, &r); err != nil {
		v.t.Fatal(err)
	}
	if r.ExceptionDetails != nil {
		v.t.Fatalf("%s: %s", script, r.ExceptionDetails.Exception.Description)
	}
	return string(r.Result.Value)
}

// text returns what the tab shows.
func (v *view) text() string {
	var text string
	json.Unmarshal([]byte(v.run("document.body.innerText")), &text)
	return text
}

// until waits until a script, which may find nothing yet, results in true.
func (v *view) until(what, script string) {
	v.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if v.run("Boolean((() => { try { return "+script+" } catch { return false } })())") == "true" {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("%s: not within a minute; the page shows\n%s", what, v.text())
		}
	}
}

// shows waits until the tab shows a text.
func (v *view) shows(text string) {
	v.t.Helper()
	v.until("it shows "+text, "document.body.innerText.includes("+quoted(text)+")")
}

// go to an address of the page, the part behind #.
func (v *view) visit(hash string) {
	v.t.Helper()
	v.run("void (location.hash = " + quoted(hash) + ")")
}

// click clicks what a selector finds and whose text contains the given one.
func (v *view) click(selector, text string) {
	v.t.Helper()
	find := "[...document.querySelectorAll(" + quoted(selector) + ")].find((e) => e.textContent.includes(" + quoted(text) + ") && !e.disabled)"
	v.until("there is a "+selector+" "+text, find)
	v.run(find + ".click()")
}

// write puts a text into a field, in place of what is there.
func (v *view) write(selector, text string) {
	v.t.Helper()
	v.until("there is a "+selector, "document.querySelector("+quoted(selector)+")")
	// At once, so that nothing moves the selection meanwhile.
	v.run("(() => { const f = document.querySelector(" + quoted(selector) + "); f.focus(); f.select(); document.execCommand('insertText', false, " + quoted(text) + "); })()")
}

// keys are the keys that press knows, with their codes.
var keys = map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40}

// press presses a key, as in "Tab" or "Control+Enter".
func (v *view) press(combination string) {
	v.t.Helper()
	modifiers, key := 0, combination
	if before, after, ok := strings.Cut(combination, "+"); ok {
		modifiers, key = map[string]int{"Alt": 1, "Control": 2, "Shift": 8}[before], after
	}
	event := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": keys[key], "modifiers": modifiers}
	if key == "Enter" && modifiers == 0 {
		event["text"] = "\r"
	}
	v.do("Input.dispatchKeyEvent", event)
	event["type"] = "keyUp"
	delete(event, "text")
	v.do("Input.dispatchKeyEvent", event)
}

// size makes the tab so many CSS pixels large.
func (v *view) size(width, height int) {
	v.t.Helper()
	v.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
}

// scheme has the tab be "light" or "dark".
func (v *view) scheme(name string) {
	v.t.Helper()
	v.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": name}}})
}

// picture writes a picture of the tab into the folder that FOBTEST_PICTURES names, if it
// names one.
func (v *view) picture(name string) {
	v.t.Helper()
	folder := os.Getenv("FOBTEST_PICTURES")
	if folder == "" {
		return
	}
	var r struct{ Data string }
	json.Unmarshal(v.do("Page.captureScreenshot", map[string]any{"format": "png"}), &r)
	image, err := base64.StdEncoding.DecodeString(r.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), image, 0o644)
	}
	if err != nil {
		v.t.Error(err)
	}
}

// well fails the test if the tab complained of anything, such as an exception or a
// violation of the content security policy, or asked anybody but host.
func (v *view) well(host string) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, trouble := range v.troubles {
		v.t.Errorf("the browser says: %s", trouble)
	}
	for asked := range v.hosts {
		if asked != host {
			v.t.Errorf("the page made a request to %s", asked)
		}
	}
}

func quoted(text string) string {
	q, _ := json.Marshal(text)
	return string(q)
}
