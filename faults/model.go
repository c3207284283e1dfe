package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/flockofbirds/fob/api"
)

// keptVersions is how many of the newest versions a dispatcher must still have.
const keptVersions = 50

// version is a version of a function, as it must be found. A dropped version is a zero
// version.
type version struct {
	code    string
	timeout string // distinguishes versions that have the same code
}

// state is a function as it must be found; nil means that there is none.
type state struct {
	id       string // empty while it is unknown
	versions []version
}

// function is what a name stands for: what was acknowledged, and what may be the case
// because an answer did not come.
type function struct {
	name string
	off  bool // never called, so its changes need no sandbox

	mu      sync.Mutex
	acked   *state
	next    *state // if open: the state if the last change was done
	open    bool   // the last change was sent, and no answer came
	changes int    // that were sent
	deletes int    // how many of these were deletions
	since   int    // the change that made the live code
}

// source returns the code that a change puts. The code says which change that was.
func source(name string, change int) string {
	return fmt.Sprintf("def callme(): return %q", fmt.Sprintf("%s/%d", name, change))
}

// change is a request that changes a function, and the state that it leads to.
type change struct {
	method, path, body string
	next               *state
	number             int
	puts               bool // it has new code
}

// plan plans a change, and records that it will be sent.
func (f *function) plan(kind string) change {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	c := change{number: f.changes, method: kind, path: "/api/functions/" + f.name}
	timeout := (20*time.Second + time.Duration(f.changes)*time.Millisecond).String() // as the API shows it
	settings := url.Values{"timeout": {timeout}, "idle_timeout": {"300ms"}}
	before := f.acked
	if before == nil || kind == "PUT" {
		c.body, c.puts = source(f.name, c.number), true
	}
	switch {
	case kind == "DELETE" && before != nil:
		f.deletes++
		f.open, f.next = true, nil
		return c
	case before == nil && kind == "PATCH":
		// The other way to create it.
		c.method, c.path = "POST", "/api/gen"
		settings.Set("name", f.name)
	case before == nil:
		c.method = "PUT"
	}
	if before == nil && f.off {
		settings.Set("max_concurrency", "0")
	}
	c.path += "?" + settings.Encode()
	c.next = &state{}
	code := c.body
	if before != nil {
		c.next.id = before.id
		c.next.versions = append(c.next.versions, before.versions...)
		if code == "" {
			code = before.versions[len(before.versions)-1].code
		}
	}
	c.next.versions = append(c.next.versions, version{code, timeout})
	f.open, f.next = true, c.next
	return c
}

// settle records the answer to a change: whether it was done.
func (f *function) settle(c change, done bool, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = false
	if !done {
		return
	}
	if c.next != nil && id != "" {
		c.next.id = id
	}
	f.acked = c.next
	if c.puts {
		f.since = c.number
	}
}

// found takes the state that was found after a restart as acknowledged. If that state
// cannot be right, it returns what is wrong.
func (f *function) found(now *state) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.open = false }()
	if same(f.acked, now) {
		return nil
	}
	if f.open && same(f.next, now) {
		f.acked = now
		if now != nil {
			live := now.versions[len(now.versions)-1].code
			fmt.Sscanf(live[strings.LastIndex(live, "/")+1:], "%d", &f.since)
		}
		return nil
	}
	wanted := f.acked.String()
	if f.open {
		wanted += ", or " + f.next.String()
	}
	f.acked = now // so that it is reported once
	return fmt.Errorf("%s is %s, and must be %s", f.name, now, wanted)
}

// same reports whether a state was found as it should be. An unknown ID matches any.
func same(a, b *state) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.id != "" && b.id != "" && a.id != b.id || len(a.versions) != len(b.versions) {
		return false
	}
	for i, v := range b.versions {
		if a.versions[i] != v && (v != version{} || len(b.versions)-i <= keptVersions) {
			return false
		}
	}
	return true
}

func (s *state) String() string {
	if s == nil {
		return "not there"
	}
	return fmt.Sprintf("%s with the versions %q", s.id, s.versions)
}

// read reads a function, with the code of all its versions.
func (d *dispatcher) read(name string) (*state, error) {
	var doc api.Function
	there, err := d.get("/api/functions/"+name, &doc)
	if err != nil || !there {
		return nil, err
	}
	var page api.Versions
	path := "/api/functions/" + doc.ID + "/versions?limit=1000"
	if there, err = d.get(path, &page); err != nil || !there || page.Next != nil || len(page.Versions) == 0 {
		return nil, fmt.Errorf("GET %s: %t, %+v, %w", path, there, page, err)
	}
	s := &state{id: doc.ID, versions: make([]version, page.Versions[0].Number)}
	for i, v := range page.Versions {
		if i > 0 && v.Number >= page.Versions[i-1].Number || v.Number < 1 {
			return nil, fmt.Errorf("%s has version %d after %d", name, v.Number, page.Versions[i-1].Number)
		}
		code, err := d.Ask("GET", fmt.Sprintf("/api/cs/%s@%d", doc.ID, v.Number), "")
		if err != nil {
			return nil, err
		}
		if digest := sha256.Sum256([]byte(code)); v.Digest != "sha256:"+hex.EncodeToString(digest[:]) {
			return nil, fmt.Errorf("the code of %s@%d is not that of its digest: %q", name, v.Number, code)
		}
		s.versions[v.Number-1] = version{code, time.Duration(v.Settings.Timeout).String()}
	}
	if doc.Name != name || doc.Aliases["live"] != len(s.versions) || doc.Version.Number != len(s.versions) {
		return nil, fmt.Errorf("%s is half done: %+v", name, doc)
	}
	return s, nil
}

// get reads the document at a path, if there is one.
func (d *dispatcher) get(path string, into any) (there bool, err error) {
	a, err := d.Do("GET", path, "")
	if err != nil || a.Status == 404 {
		return false, err
	}
	if err := json.Unmarshal([]byte(a.Body), into); err != nil || a.Status != 200 {
		return false, fmt.Errorf("GET %s: %d %.1000s", path, a.Status, a.Body)
	}
	return true, nil
}
