// Package contract checks that a driver, in whatever sandbox it runs, keeps the driver
// contract in README.md. The cases are JSON files, so that a driver for a third
// language needs no Go.
package contract

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

//go:embed cases/*.json
var caseFiles embed.FS

// Patience is how long the runner waits for an answer, or for a line to appear in the
// log. It is generous, because the cases do not measure time.
const Patience = 60 * time.Second

// Driver is one freshly started, blank driver.
type Driver struct {
	// Dial opens a connection that needs no token.
	Dial func(ctx context.Context) (net.Conn, error)

	// Log returns what the driver has written to standard output and error so far.
	Log func() string
}

// Case is one file in cases/. README.md describes it.
type Case struct {
	Name    string `json:"-"` // of the file, without .json
	Why     string
	Since   map[string]string // least version of each language's runtime, "20.12" for example
	Code    map[string]Parts
	Env     map[string]string // loaded with the code
	Secrets map[string]Parts  // likewise; the runner encodes them in base64
	Load    *Expect           // 200 if absent
	Calls   []struct {
		Send   Send
		Expect Expect
	}
	Log []string
}

// Send is one call.
type Send struct {
	Args    json.RawMessage // sent as the header Fob-Args
	JSON    json.RawMessage // sent as the body, like the next
	Body    Parts
	Method  string // sent as Fob-Method
	Target  string // sent as Fob-Target
	Root    string // sent as Fob-Root
	Headers map[string]string
}

// Expect describes an answer. What is absent is not checked.
type Expect struct {
	Status  int // 200 if absent
	JSON    json.RawMessage
	Body    *Parts            // byte for byte
	Headers map[string]string // "" for a header that must be absent
	Trailer string            // Fob-Error after a stream's last chunk; if absent, there must be none
	Error   *Error
}

// Error describes an error object.
type Error struct {
	Code      string
	Type      string
	Line      int
	Message   []string // substrings
	Hint      []string // substrings; if absent, there must be no hint
	Traceback []string // substrings
	Without   []string // what must not be in the whole answer
}

// Run runs each case against a driver of its own, several at a time. boot must return a
// new, blank driver each time.
func Run(t *testing.T, lang string, cases []Case, boot func(t *testing.T) Driver) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			c.Run(t, lang, boot(t))
		})
	}
}

// Cases reads the cases that have code in a language, ordered by name.
func Cases(t *testing.T, lang string) []Case {
	t.Helper()
	names, err := fs.Glob(caseFiles, "cases/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []Case
	for _, name := range names {
		data, err := caseFiles.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseCase(data, lang)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Name = strings.TrimSuffix(strings.TrimPrefix(name, "cases/"), ".json")
		if _, ok := c.Code[lang]; ok {
			cases = append(cases, c)
		} else if c.Why == "" {
			t.Errorf("%s has no code for %s and does not say why", name, lang)
		}
	}
	if len(cases) == 0 {
		t.Fatalf("there is no case for the language %q", lang)
	}
	return cases
}

func parseCase(data []byte, lang string) (c Case, err error) {
	var document any
	// Keep numbers as they are written.
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		return c, err
	}
	data, err = json.Marshal(forLanguage(document, lang))
	if err != nil {
		return c, err
	}
	decoder = json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return c, decoder.Decode(&c)
}

// forLanguage replaces every object that has a member for each language by the member
// for lang.
func forLanguage(value any, lang string) any {
	switch value := value.(type) {
	case []any:
		for i := range value {
			value[i] = forLanguage(value[i], lang)
		}
	case map[string]any:
		for name := range value {
			if strings.HasPrefix(name, "@") {
				return forLanguage(value["@"+lang], lang)
			}
		}
		for name := range value {
			value[name] = forLanguage(value[name], lang)
		}
	}
	return value
}

// Run loads the case's code into a driver and makes its calls.
func (c Case) Run(t *testing.T, lang string, d Driver) {
	client := d.Client(t)
	status, header, body := client.load(t, map[string]any{"code": string(c.Code[lang]), "env": c.Env, "secrets": c.secrets()})
	if since := c.Since[lang]; since != "" && older(client.runtime(t), since) {
		t.Logf("this case is for %s %s and later", lang, since)
		return
	}
	load := c.Load
	if load == nil {
		load = &Expect{}
	}
	load.check(t, "load", status, header, body)
	for i, call := range c.Calls {
		what := fmt.Sprintf("call %d", i+1)
		status, header, body := client.Do(t, call.Send.request(t))
		call.Expect.check(t, what, status, header, body)
	}
	for _, line := range c.Log {
		Eventually(t, fmt.Sprintf("the log has the line %q", line), func() bool {
			return slices.Contains(strings.Split(d.Log(), "\n"), line)
		})
	}
}

func (c Case) secrets() map[string][]byte {
	values := make(map[string][]byte, len(c.Secrets))
	for name, value := range c.Secrets {
		values[name] = []byte(value)
	}
	return values
}

// runtime returns the version of the language that the driver runs.
func (c *Client) runtime(t *testing.T) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://driver/_fob/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, body := c.Do(t, request)
	var health struct{ Runtime string }
	if err := json.Unmarshal(body, &health); err != nil || health.Runtime == "" {
		t.Fatalf("health names no runtime: %s", show(body))
	}
	return health.Runtime
}

// older compares versions such as 20.9.1 and 20.12.
func older(version, than string) bool {
	var a, b [2]int
	fmt.Sscanf(version, "%d.%d", &a[0], &a[1])
	fmt.Sscanf(than, "%d.%d", &b[0], &b[1])
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

func (s Send) request(t *testing.T) *http.Request {
	t.Helper()
	body := []byte(s.Body)
	if s.JSON != nil {
		body = s.JSON
	}
	request, err := http.NewRequest(http.MethodPost, "http://driver/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if s.Args != nil {
		request.Header.Set("Fob-Args", ascii(s.Args))
	}
	if s.Method != "" {
		request.Header.Set("Fob-Method", s.Method)
	}
	if s.Target != "" {
		request.Header.Set("Fob-Target", s.Target)
	}
	if s.Root != "" {
		request.Header.Set("Fob-Root", s.Root)
	}
	for name, value := range s.Headers {
		request.Header.Set(name, value)
	}
	return request
}

func (e *Expect) check(t *testing.T, what string, status int, header http.Header, body []byte) {
	t.Helper()
	want := e.Status
	if want == 0 {
		want = http.StatusOK
	}
	if status != want {
		t.Errorf("%s answered %d, want %d: %s", what, status, want, show(body))
		return
	}
	if e.JSON != nil && !sameJSON(e.JSON, body) {
		t.Errorf("%s answered %s, want %s", what, show(body), show(e.JSON))
	}
	if e.Body != nil && !bytes.Equal(*e.Body, body) {
		t.Errorf("%s answered %s, want %s", what, show(body), show(*e.Body))
	}
	for name, value := range e.Headers {
		if got := strings.Join(header.Values(name), ", "); got != value {
			t.Errorf("%s: header %s is %q, want %q", what, name, got, value)
		}
	}
	if code := header.Get(trailer); code != e.Trailer {
		t.Errorf("%s: the trailer Fob-Error is %q, want %q", what, code, e.Trailer)
	}
	if e.Error == nil {
		if code := header.Get("Fob-Error"); code != "" {
			t.Errorf("%s: unexpected Fob-Error %s: %s", what, code, show(body))
		}
		return
	}
	e.Error.check(t, what, header, body)
}

func (e *Error) check(t *testing.T, what string, header http.Header, body []byte) {
	t.Helper()
	var document struct {
		Error struct {
			Code, Type, Message, Hint, Traceback string
			Line                                 int
		}
	}
	if err := json.Unmarshal(body, &document); err != nil {
		t.Errorf("%s: the error is not JSON: %v: %s", what, err, show(body))
		return
	}
	got := document.Error
	if got.Code != e.Code || header.Get("Fob-Error") != e.Code {
		t.Errorf("%s: code %q, Fob-Error %q, want %q: %s", what, got.Code, header.Get("Fob-Error"), e.Code, show(body))
	}
	if e.Type != "" && got.Type != e.Type {
		t.Errorf("%s: type %q, want %q", what, got.Type, e.Type)
	}
	if e.Line != 0 && got.Line != e.Line {
		t.Errorf("%s: line %d, want %d", what, got.Line, e.Line)
	}
	for _, part := range e.Message {
		if !strings.Contains(got.Message, part) {
			t.Errorf("%s: message %q lacks %q", what, show([]byte(got.Message)), part)
		}
	}
	for _, part := range e.Hint {
		if !strings.Contains(got.Hint, part) {
			t.Errorf("%s: hint %q lacks %q", what, show([]byte(got.Hint)), part)
		}
	}
	if e.Hint == nil && got.Hint != "" {
		t.Errorf("%s: unexpected hint %q", what, show([]byte(got.Hint)))
	}
	for _, part := range e.Traceback {
		if !strings.Contains(got.Traceback, part) {
			t.Errorf("%s: the traceback lacks %q:\n%s", what, part, show([]byte(got.Traceback)))
		}
	}
	for _, part := range e.Without {
		if bytes.Contains(body, []byte(part)) {
			t.Errorf("%s: the error has %q in it: %s", what, part, show(body))
		}
	}
	for _, frame := range []string{"driver.py", "fob/", "driver.js", "lib/function.js", "node:internal"} {
		if strings.Contains(got.Traceback, frame) {
			t.Errorf("%s: the traceback shows the driver's own %s:\n%s", what, frame, got.Traceback)
		}
	}
	if len(got.Message) > 8<<10 || len(got.Traceback) > 64<<10 {
		t.Errorf("%s: message of %d bytes, traceback of %d, want at most 8 KiB and 64 KiB", what, len(got.Message), len(got.Traceback))
	}
	if len(got.Type) > 256 || len(body) > 128<<10 {
		t.Errorf("%s: a type of %d bytes in a document of %d, want at most 256 and 128 KiB", what, len(got.Type), len(body))
	}
}

// Client speaks HTTP to a driver.
type Client struct{ http *http.Client }

// Client returns a client that is closed when the test ends.
func (d Driver) Client(t *testing.T) *Client {
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx) },
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &Client{&http.Client{
		Transport:     transport,
		Timeout:       Patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// trailer is the header under which Do returns the trailer Fob-Error. It is net/http's
// convention.
const trailer = http.TrailerPrefix + "Fob-Error"

// Do sends a request and returns the whole answer. A stream's trailer is among the
// headers.
func (c *Client) Do(t *testing.T, request *http.Request) (int, http.Header, []byte) {
	t.Helper()
	status, header, body, err := c.Try(request)
	if err != nil {
		t.Fatal(err)
	}
	return status, header, body
}

// Try is Do for goroutines other than the test's own.
func (c *Client) Try(request *http.Request) (int, http.Header, []byte, error) {
	request.Header.Set("User-Agent", "") // without a value net/http would set its own, which a driver passes on
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	for name, values := range response.Trailer {
		response.Header[http.TrailerPrefix+name] = values
	}
	return response.StatusCode, response.Header, body, err
}

// Load sends code and returns the answer.
func (c *Client) Load(t *testing.T, code string) (int, http.Header, []byte) {
	t.Helper()
	return c.load(t, map[string]any{"code": code})
}

// load sends members, and what a dispatcher always sends.
func (c *Client) load(t *testing.T, members map[string]any) (int, http.Header, []byte) {
	t.Helper()
	load := map[string]any{"function": "f", "version": 1, "concurrency": 2, "unknown": nil}
	maps.Copy(load, members)
	document, err := json.Marshal(load)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPut, "http://driver/_fob/function", bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(t, request)
}

// Eventually waits until a condition holds. It fails the test if it does not hold
// within Patience.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came about that %s", what)
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func show(data []byte) string {
	if len(data) > 2000 {
		return fmt.Sprintf("%s … (%d bytes)", data[:2000], len(data))
	}
	return string(data)
}
