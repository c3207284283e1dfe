package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Remote is the dispatcher that a command asks, by its flags.
type Remote struct {
	URL     string `env:"FOB_URL" placeholder:"URL" help:"Dispatcher to ask, such as http://127.0.0.1:9999 (that of the context, or of the data folder)."`
	Token   string `env:"FOB_TOKEN" placeholder:"TOKEN" help:"Token for that dispatcher; the data folder's own needs none."`
	Context string `placeholder:"NAME" complete:"context" help:"Ask the dispatcher that this context names (the one in use, unless FOB_DATA is set)."`
	Data    string `env:"FOB_DATA" placeholder:"FOLDER" help:"Data folder of the dispatcher to ask, without FOB_URL (${data})."`
}

// Settle decides which dispatcher the command asks, by its flags and the contexts.
// Before it, no command may use them.
func (r *Remote) Settle(defaultData string) error {
	switch {
	case r.URL != "" && r.Context != "":
		return fmt.Errorf("the context %s and FOB_URL=%s contradict one another: leave one out", r.Context, r.URL)
	case r.URL == "" && (r.Context != "" || r.Data == ""):
		c, err := currentContext(r.Context)
		if err != nil {
			return err
		}
		if c != nil {
			r.URL = c.URL
			if r.Token == "" {
				r.Token = c.Token
			}
		}
	}
	if r.Data == "" {
		r.Data = defaultData
	}
	return nil
}

// Local connects to the dispatcher of a data folder, as the folder's owner, whether or
// not it runs. The caller calls done at the end.
type Local func(data string) (transport http.RoundTripper, done func() error, err error)

// Ask makes a request and hands its answer to use, which need not close it. If the
// answer's status is 400 or above, Ask returns the problem as an error and does not
// call use.
func (r *Remote) Ask(local Local, method, path string, body io.Reader, use func(*http.Response) error) error {
	return r.ask(context.Background(), local, method, path, body, use)
}

func (r *Remote) ask(ctx context.Context, local Local, method, path string, body io.Reader, use func(*http.Response) error) (err error) {
	// A question must not create a data folder.
	if _, err := os.Stat(r.Data); r.URL == "" && method == http.MethodGet && err != nil {
		return fmt.Errorf("the data folder: %w; name another with FOB_DATA, or a dispatcher with FOB_URL", err)
	}
	l, err := r.open(local)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return l.ask(ctx, method, path, body, use)
}

// link makes requests to one dispatcher.
type link struct {
	base   string // http://127.0.0.1:9999, for example
	token  string
	client *http.Client
	close  func() error
}

// open prepares requests to the dispatcher. The caller calls close at the end.
func (r *Remote) open(local Local) (*link, error) {
	if r.URL == "" {
		transport, done, err := local(r.Data)
		if err != nil {
			return nil, err
		}
		return &link{base: "http://localhost", client: newClient(transport), close: done}, nil
	}
	base, err := baseURL(r.URL)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = deploysAtOnce
	return &link{base: base, token: r.Token, client: newClient(transport), close: func() error {
		transport.CloseIdleConnections()
		return nil
	}}, nil
}

// newClient returns a client that does not follow redirections: what a DELETE became on
// its way would be a GET, and the token is for one dispatcher.
func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask does what Remote.Ask does.
func (l *link) ask(ctx context.Context, method, path string, body io.Reader, use func(*http.Response) error) error {
	request, err := l.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	return l.send(request, use)
}

// send makes a request that was prepared.
func (l *link) send(request *http.Request, use func(*http.Response) error) error {
	response, err := l.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 400 {
		return problem(response)
	}
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); response.StatusCode >= 300 || kind == "text/html" {
		return foreign(response)
	}
	return use(response)
}

// read reads a JSON document into a value.
func (l *link) read(ctx context.Context, path string, into any) error {
	return l.ask(ctx, http.MethodGet, path, nil, func(r *http.Response) error { return json.NewDecoder(r.Body).Decode(into) })
}

func (l *link) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, l.base+path, body)
	if err == nil && l.token != "" {
		request.Header.Set("Authorization", "Bearer "+l.token)
	}
	return request, err
}

// with opens a link, hands it to use and closes it. Running fails if no dispatcher runs.
func (r *Remote) with(running Running, use func(*link) error) (err error) {
	l, err := r.open(Local(running))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return use(l)
}

// baseURL reads a dispatcher's URL as people write it. localhost:9999 means
// http://localhost:9999; url.Parse would take localhost for a scheme.
func baseURL(text string) (string, error) {
	full := text
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("FOB_URL=%s is not a URL like http://127.0.0.1:9999", text)
	}
	if u.Hostname() == "" { // :9999, for example
		u.Host = "localhost" + u.Host
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}
