package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/client"
	"github.com/flockofbirds/fob/internal/faas"
)

// answered is an answer, read whole.
type answered struct{ client.Answer }

// do makes a request to a path. Header has names and values in turn.
func (d *dispatcher) do(method, path, body string, header ...string) answered {
	d.t.Helper()
	a, err := d.try(method, path, body, header...)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is do for requests that may fail, and for goroutines.
func (d *dispatcher) try(method, path, body string, header ...string) (answered, error) {
	a, err := d.Do(method, path, body, header...)
	return answered{a}, err
}

// as makes a request with a token, or with whatever is to go for one.
func (d *dispatcher) as(bearer, method, path, body string) answered {
	d.t.Helper()
	if bearer == "" {
		return d.do(method, path, body)
	}
	return d.do(method, path, body, "Authorization", "Bearer "+bearer)
}

// exchange makes a request and reads the whole answer.
func exchange(request *http.Request) (answered, error) {
	a, err := new(client.Client).Send(request)
	return answered{a}, err
}

// gen registers code and returns the function's ID.
func (d *dispatcher) gen(query, code string) string {
	d.t.Helper()
	id, err := d.Register(query, code)
	if err != nil {
		d.t.Fatal(err)
	}
	return id
}

// read reads a JSON document.
func (d *dispatcher) read(path string, into any) {
	d.t.Helper()
	if err := d.Read(path, into); err != nil {
		d.t.Fatal(err)
	}
}

// meta says where a version runs.
func (d *dispatcher) meta(ref string) (where api.Whereabouts) {
	d.t.Helper()
	d.read("/api/meta/"+ref, &where)
	return where
}

// sandboxIDs are those of a version's sandboxes.
func (d *dispatcher) sandboxIDs(ref string) string {
	d.t.Helper()
	ids, err := d.owner.Running(ref)
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.Join(ids, " ")
}

// inFlight is how many calls a version's sandboxes have.
func (d *dispatcher) inFlight(ref string) (n int) {
	d.t.Helper()
	for _, s := range d.meta(ref).Sandboxes {
		n += s.InFlight
	}
	return n
}

// statesOf counts the sandboxes of a version by state.
func (d *dispatcher) statesOf(ref string) map[string]int {
	d.t.Helper()
	states := map[string]int{}
	for _, s := range d.meta(ref).Sandboxes {
		states[s.State]++
	}
	return states
}

// functions lists the IDs of all functions.
func (d *dispatcher) functions() []string {
	d.t.Helper()
	ids, err := d.IDs()
	if err != nil {
		d.t.Fatal(err)
	}
	return ids
}

// metrics reads /metrics.
func (d *dispatcher) metrics() client.Metrics {
	d.t.Helper()
	m, err := d.Metrics()
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

// metric is the value of one line of /metrics, 0 when there is none.
func (d *dispatcher) metric(name string) float64 {
	d.t.Helper()
	return d.metrics()[name]
}

// blank is how many sandboxes the pools have.
func (d *dispatcher) blank() int {
	d.t.Helper()
	n, _ := d.metrics().Sandboxes()
	return n
}

// token makes a token with grants, in a way that is always allowed.
func (d *dispatcher) token(grants ...string) *api.MadeToken {
	d.t.Helper()
	made, err := d.owner.MakeToken("test", "", grants...)
	if err != nil {
		d.t.Fatal(err)
	}
	return made
}

// sandboxToken is the token of the sandbox that a function has on the process engine.
func (d *dispatcher) sandboxToken(ref string) string {
	d.t.Helper()
	where, err := d.owner.Running(ref)
	if err != nil || len(where) == 0 {
		d.t.Fatalf("%s has the sandboxes %v, %v", ref, where, err)
	}
	records, _ := filepath.Glob(filepath.Join(d.sockets(), "*"+where[0], "sandbox.json"))
	text, err := os.ReadFile(strings.Join(records, ""))
	var record struct{ Token string }
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil || record.Token == "" {
		d.t.Fatalf("the record of the sandbox %s is %s, %v", where[0], text, err)
	}
	return record.Token
}

// sockets is the folder for the sandboxes' sockets.
func (d *dispatcher) sockets() string {
	if folder := d.Setting("FOB_SOCKETS"); folder != "" {
		return folder
	}
	return filepath.Join(d.Data, "sockets")
}

// wants fails the test unless the answer has that status and body.
func (a answered) wants(t *testing.T, status int, body string) {
	t.Helper()
	if a.Status != status || a.Body != body {
		t.Fatalf("answered %d %s, want %d %s", a.Status, a.Body, status, body)
	}
}

// wantsStatus fails the test unless the answer has that status.
func (a answered) wantsStatus(t *testing.T, status int) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("answered %d %s, want %d", a.Status, a.Body, status)
	}
}

// wantsProblem fails the test unless the answer is an error of that status and
// code, and returns it.
func (a answered) wantsProblem(t *testing.T, status int, code string) api.Problem {
	t.Helper()
	p, err := a.Problem()
	if err != nil {
		t.Fatalf("answered %d %s, which is no problem document (%v)", a.Status, a.Body, err)
	}
	if a.Status != status || p.Status != status || p.Code != faas.Code(code) {
		t.Fatalf("answered %d %s, want %d %s", a.Status, a.Body, status, code)
	}
	if a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Fob-Error") == "" || p.Detail == "" || p.Title == "" {
		t.Fatalf("answered %d %v %s, which lacks something", a.Status, a.Header, a.Body)
	}
	return p
}

// refusal is an answer that is wanted: status, code and what the detail says.
type refusal struct {
	status int
	code   string
	words  []string
}

func (w refusal) check(t *testing.T, a answered) api.Problem {
	t.Helper()
	p := a.wantsProblem(t, w.status, w.code)
	for _, word := range w.words {
		if !strings.Contains(p.Detail, word) {
			t.Errorf("the detail %q lacks %q", p.Detail, word)
		}
	}
	return p
}

func wants(status int, code string, words ...string) refusal { return refusal{status, code, words} }

// show reads a function from an answer that must have that status.
func show(t *testing.T, a answered, status int) (fn api.ShownFunction) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &fn); err != nil || a.Status != status {
		t.Fatalf("answered %d %s, want %d and a function", a.Status, a.Body, status)
	}
	return fn
}

// envInt reads a number from the environment.
func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}
