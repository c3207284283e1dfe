package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/flockofbirds/fob/internal/client"
)

const brokenDisk = "it takes a broken disk; TestStoreFailureIsTold of cmd/dispatcher has it"

// notProvoked are the documented responses that the program cannot be brought
// to give here, and why.
var notProvoked = map[string]string{
	"PUT /api/functions/{ref} 409":    "changes to a function queue up in one dispatcher; only several on one store can conflict",
	"PATCH /api/functions/{ref} 409":  "as with PUT",
	"DELETE /api/functions/{ref} 507": "a deletion finds room in the database, unless that is as good as new",
	"DELETE /api/secrets/{name} 507":  "as with functions",
	"DELETE /api/tokens/{id} 507":     "as with functions",
	"POST /api/tokens 507":            "a token is small enough to find room in what is free inside the database",
	"GET /metrics 503":                "it takes the moment in which the dispatcher starts; TestNotYetOpen of internal/httpapi has it",
	"DELETE /api/tokens/{id} 409":     "it takes an address beyond this machine, which the engine process refuses; TestDockerExposed has it",
	"GET /api/backup 507":             "it takes a full disk; TestDiskFull has what that does to others",

	"POST /api/gen 500":                brokenDisk,
	"PUT /api/functions/{ref} 500":     brokenDisk,
	"PATCH /api/functions/{ref} 500":   brokenDisk,
	"DELETE /api/functions/{ref} 500":  brokenDisk,
	"GET /api/cs/{ref} 500":            brokenDisk,
	"POST /api/tokens 500":             brokenDisk,
	"DELETE /api/tokens/{id} 500":      brokenDisk,
	"GET /api/secrets 500":             brokenDisk,
	"GET /api/backup 500":              brokenDisk,
	"PUT /api/secrets/{name} 500":      brokenDisk,
	"DELETE /api/secrets/{name} 500":   brokenDisk,
	"POST /api/secrets/rotate-key 500": brokenDisk,
}

// transportHeaders come from HTTP itself, or are for browsers on every answer, and need no word at each in the document.
var transportHeaders = []string{"Content-Length", "Content-Type", "Date", "Connection", "Transfer-Encoding", "Vary", "X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy"}

// checker is a transport that holds every request and answer against the
// document.
type checker struct {
	t   *testing.T
	doc *openapi3.T

	mu   sync.Mutex
	seen map[string]bool // "GET /api/stats 200"
}

func newChecker(t *testing.T, document []byte) *checker {
	t.Helper()
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.PlainBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.PlainBodyDecoder)
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(document)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(loader.Context, openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	return &checker{t: t, doc: doc, seen: make(map[string]bool)}
}

// waiver is what a request's context says about how it is checked.
type waiver struct {
	malformed bool     // it breaks the document, on purpose
	own       []string // headers that the function itself makes up
}

type waiverKey struct{}

// RoundTrip implements http.RoundTripper. What breaks the document fails the
// test, but not the request.
func (c *checker) RoundTrip(r *http.Request) (*http.Response, error) {
	waived, _ := r.Context().Value(waiverKey{}).(waiver)
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	what := fmt.Sprintf("%s %.100s", r.Method, r.URL.RequestURI())
	input := c.find(r)
	if input.Route != nil && !waived.malformed {
		if err := c.checkRequest(input, sent); err != nil {
			c.t.Errorf("request %s is not as documented: %v", what, err)
		}
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	if input.Route == nil {
		err = c.checkStray(answer, body)
	} else {
		err = c.checkAnswer(input, answer, body, waived.own)
	}
	if err != nil {
		c.t.Errorf("the answer %d to %s is not as documented: %v\n%.500s", answer.StatusCode, what, err, body)
	}
	return answer, nil
}

// find returns what a request is in terms of the document; Route is nil for a
// path or method that it does not have. The library's own routers refuse
// refs with %2F, which the API is to refuse by itself.
func (c *checker) find(r *http.Request) *openapi3filter.RequestValidationInput {
	input := &openapi3filter.RequestValidationInput{
		Request: r.Clone(context.Background()),
		Options: &openapi3filter.Options{
			IncludeResponseStatus:             true,
			RejectWhenRequestBodyNotSpecified: true,
			SkipSettingDefaults:               true,
			AuthenticationFunc:                openapi3filter.NoopAuthenticationFunc,
		},
		PathParams: make(map[string]string),
	}
	for path, item := range c.doc.Paths.Map() {
		prefix, parameter, templated := strings.Cut(path, "{")
		ref, isBelow := strings.CutPrefix(r.URL.EscapedPath(), prefix)
		if parameter == "ref}/{path}" {
			var below string
			if ref, below, isBelow = strings.Cut(ref, "/"); isBelow {
				input.PathParams["path"] = below
			}
			parameter = "ref}"
		}
		parameter, rest, _ := strings.Cut(parameter, "}")
		if rest != "" && isBelow { // what follows the parameter, as in /versions
			ref, isBelow = strings.CutSuffix(ref, rest)
		}
		matches := isBelow && ref == ""
		if templated {
			matches = isBelow && ref != "" && !strings.Contains(ref, "/")
		}
		operation := item.Operations()[r.Method]
		if !matches || operation == nil {
			continue
		}
		if templated {
			if input.Route != nil { // a path without parameters goes first
				continue
			}
			input.PathParams[parameter], _ = url.PathUnescape(ref)
		}
		input.Route = &routers.Route{Spec: c.doc, Path: path, PathItem: item, Method: r.Method, Operation: operation}
	}
	return input
}

func (c *checker) checkRequest(input *openapi3filter.RequestValidationInput, sent []byte) error {
	input.Request.Body = io.NopCloser(bytes.NewReader(sent))
	// The API does not look at the Content-Type, clients being what they are,
	// but the library does: it gets the one that the body deserves.
	if input.Route.Operation.RequestBody != nil {
		kind := "text/plain"
		if trimmed := bytes.TrimSpace(sent); bytes.HasPrefix(trimmed, []byte(`{"`)) || bytes.Equal(trimmed, []byte("{}")) {
			kind = "application/json"
		}
		input.Request.Header.Set("Content-Type", kind)
	}
	parameters := append(slices.Clone(input.Route.Operation.Parameters), input.Route.PathItem.Parameters...)
	if parameters.GetByInAndName("query", "args") == nil {
		for name := range input.GetQueryParams() {
			if parameters.GetByInAndName("query", name) == nil {
				return fmt.Errorf("query parameter %q is not documented", name)
			}
		}
	}
	return openapi3filter.ValidateRequest(context.Background(), input)
}

func (c *checker) checkAnswer(input *openapi3filter.RequestValidationInput, answer *http.Response, body []byte, own []string) error {
	responses := input.Route.Operation.Responses
	key, response := strconv.Itoa(answer.StatusCode), responses.Status(answer.StatusCode)
	if response == nil {
		key, response = "default", responses.Default()
	}
	if response == nil {
		return fmt.Errorf("the status is not documented")
	}
	c.mu.Lock()
	c.seen[input.Route.Method+" "+input.Route.Path+" "+key] = true
	c.mu.Unlock()
	documented := slices.Concat(transportHeaders, own)
	for name := range response.Value.Headers {
		documented = append(documented, http.CanonicalHeaderKey(name))
	}
	for name := range answer.Header {
		if !slices.Contains(documented, name) {
			return fmt.Errorf("the header %s is not documented", name)
		}
	}
	if len(response.Value.Content) == 0 && len(body) > 0 {
		return fmt.Errorf("no body is documented")
	}
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 answer.StatusCode,
		Header:                 answer.Header,
		Body:                   io.NopCloser(bytes.NewReader(body)),
		Options:                input.Options,
	})
}

// checkStray checks the answer to a path or method that is not documented.
func (c *checker) checkStray(answer *http.Response, body []byte) error {
	if answer.StatusCode != http.StatusNotFound && answer.StatusCode != http.StatusMethodNotAllowed {
		return fmt.Errorf("there is no such operation")
	}
	var document any
	if err := json.Unmarshal(body, &document); err != nil {
		return err
	}
	return c.doc.Components.Schemas["Problem"].Value.VisitJSON(document)
}

// checkAllSeen fails the test for documented responses that never came.
func (c *checker) checkAllSeen() {
	for path, item := range c.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				key := method + " " + path + " " + status
				switch reason := notProvoked[key]; {
				case !c.seen[key] && reason == "":
					c.t.Errorf("%s is documented, but never came", key)
				case c.seen[key] && reason != "":
					c.t.Errorf("%s did come, so it is not one that cannot be provoked (%s)", key, reason)
				}
			}
		}
	}
}

// ask is one request, and what is to come of it.
type ask struct {
	request string // method, path and query
	body    string
	header  map[string]string
	waiver

	status int
	code   string // of an error
	answer string // the body, when it is to be exactly this
}

// asker makes requests through a checker.
type asker struct {
	*dispatcher
	client *http.Client
}

func (a *asker) ask(t *testing.T, q ask) answered {
	t.Helper()
	method, path, _ := strings.Cut(q.request, " ")
	ctx := context.WithValue(context.Background(), waiverKey{}, q.waiver)
	r, err := http.NewRequestWithContext(ctx, method, a.URL+path, strings.NewReader(q.body))
	if err != nil {
		t.Error(err)
		return answered{}
	}
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	response, err := a.client.Do(r)
	if err != nil { // not Fatal: this runs in goroutines too
		t.Errorf("%.100s: %v", q.request, err)
		return answered{}
	}
	body, err := io.ReadAll(response.Body)
	got := answered{client.Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}}
	if err != nil || got.Status != q.status {
		t.Errorf("%.100s: answered %d %s (%v), want %d", q.request, got.Status, got.Body, err, q.status)
	} else if q.code != "" && !strings.Contains(got.Body, `"code": "`+q.code+`"`) {
		t.Errorf("%.100s: answered %s, want the code %s", q.request, got.Body, q.code)
	}
	if q.answer != "" && q.answer != got.Body {
		t.Errorf("%.100s: answered %s, want %s", q.request, got.Body, q.answer)
	}
	return got
}
