// Package client runs dispatchers as processes and sends them HTTP requests. The tests
// in e2e, the bench and the faults share it.
package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// Client sends requests to one dispatcher.
type Client struct {
	URL   string       // http://127.0.0.1:9999, for example
	Token string       // shown with each request; may be empty
	HTTP  *http.Client // nil for http.DefaultClient
}

// Answer is an answer that was read whole.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do makes a request and reads the answer, whatever its status. header has names and
// values alternately.
func (c *Client) Do(method, path, body string, header ...string) (Answer, error) {
	request, err := http.NewRequest(method, c.URL+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	return c.Send(request)
}

// Send is Do for a given request. It adds no token.
func (c *Client) Send(request *http.Request) (Answer, error) {
	asks := c.HTTP
	if asks == nil {
		asks = http.DefaultClient
	}
	response, err := asks.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return Answer{response.StatusCode, response.Header, string(text)}, err
}

// Ask makes a request, which must succeed, and returns the answer's body.
func (c *Client) Ask(method, path, body string) (string, error) {
	a, err := c.Do(method, path, body)
	if err == nil && a.Status/100 != 2 {
		err = fmt.Errorf("%s %s: %d %.1000s", method, path, a.Status, a.Body)
	}
	return a.Body, err
}

// Read reads a JSON document.
func (c *Client) Read(path string, into any) error {
	text, err := c.Ask(http.MethodGet, path, "")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("GET %s: %w: %.1000s", path, err, text)
	}
	return nil
}

// Register registers a function and returns its ID. query is empty or begins with ?.
func (c *Client) Register(query, code string) (id string, err error) {
	text, err := c.Ask(http.MethodPost, "/api/gen"+query, code)
	if err != nil {
		return "", err
	}
	var made api.Registered
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.ID == "" {
		return "", fmt.Errorf("POST /api/gen%s: %s (%v)", query, text, err)
	}
	return made.ID, nil
}

// Put creates a function, or adds a version to one. ref may have a query.
func (c *Client) Put(ref, code string) error {
	_, err := c.Ask(http.MethodPut, "/api/functions/"+ref, code)
	return err
}

// Call calls a function, which must succeed, and returns the answer's body. ref may
// have a query.
func (c *Client) Call(ref string) (string, error) {
	return c.Ask(http.MethodGet, "/api/call/"+ref, "")
}

// Delete deletes a function.
func (c *Client) Delete(ref string) error {
	_, err := c.Ask(http.MethodDelete, "/api/functions/"+ref, "")
	return err
}

// IDs returns the IDs of all functions, in order of creation.
func (c *Client) IDs() ([]string, error) {
	var list api.IDs
	err := c.Read("/api/stats", &list)
	return list.Functions, err
}

// Whereabouts returns where a version runs.
func (c *Client) Whereabouts(ref string) (where api.Whereabouts, err error) {
	err = c.Read("/api/meta/"+ref, &where)
	return where, err
}

// Running returns the IDs of a version's sandboxes.
func (c *Client) Running(ref string) (ids []string, err error) {
	where, err := c.Whereabouts(ref)
	for _, s := range where.Sandboxes {
		ids = append(ids, s.ID)
	}
	return ids, err
}

// MakeToken makes a token. expires is as in api.NewToken.
func (c *Client) MakeToken(name, expires string, grants ...string) (*api.MadeToken, error) {
	wanted := api.NewToken{Name: name, Grants: make([]faas.Grant, len(grants)), Expires: expires}
	for i, text := range grants {
		if err := wanted.Grants[i].UnmarshalText([]byte(text)); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(wanted)
	if err != nil {
		return nil, err
	}
	text, err := c.Ask(http.MethodPost, "/api/tokens", string(body))
	if err != nil {
		return nil, err
	}
	var made api.MadeToken
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.Secret == "" {
		return nil, fmt.Errorf("POST /api/tokens: %s (%v)", text, err)
	}
	return &made, nil
}

// Metrics are the values of metrics by name, with labels as /metrics writes them.
type Metrics map[string]float64

// Metrics reads /metrics.
func (c *Client) Metrics() (Metrics, error) {
	text, err := c.Ask(http.MethodGet, "/metrics", "")
	if err != nil {
		return nil, err
	}
	values := Metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		if values[line[:space]], err = strconv.ParseFloat(line[space+1:], 64); err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", line, err)
		}
	}
	return values, nil
}

// Sum adds up the metrics whose names begin with prefix.
func (m Metrics) Sum(prefix string) (total float64) {
	for name, value := range m {
		if strings.HasPrefix(name, prefix) {
			total += value
		}
	}
	return total
}

// Sandboxes returns how many blank sandboxes there are, and how many others, including
// those being started.
func (m Metrics) Sandboxes() (blank, others int) {
	blank = int(m[`fob_sandboxes{state="blank"}`])
	return blank, int(m.Sum("fob_sandboxes{")) - blank
}

// Problem decodes an answer that reports an error. It fails if the answer is not such a
// document, or has unknown members.
func (a Answer) Problem() (p api.Problem, err error) {
	d := json.NewDecoder(bytes.NewReader([]byte(a.Body)))
	d.DisallowUnknownFields()
	err = d.Decode(&p)
	return p, err
}
