package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/flockofbirds/fob/api"
)

// Remote is the dispatcher that a command asks, by its flags.
type Remote struct {
	URL   string `env:"FOB_URL" placeholder:"URL" help:"Dispatcher to ask, such as http://127.0.0.1:9999 (the one of the data folder)."`
	Token string `env:"FOB_TOKEN" placeholder:"TOKEN" help:"Token for that dispatcher; the data folder's own needs none."`
	Data  string `env:"FOB_DATA" default:"${data}" placeholder:"FOLDER" help:"Data folder of the dispatcher to ask, without FOB_URL (${default})."`
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
	base, transport := "http://localhost", http.DefaultTransport
	if r.URL != "" {
		if base, err = baseURL(r.URL); err != nil {
			return err
		}
	} else {
		var done func() error
		// A question must not create a data folder.
		if _, err := os.Stat(r.Data); method == http.MethodGet && err != nil {
			return fmt.Errorf("the data folder: %w; name another with FOB_DATA, or a dispatcher with FOB_URL", err)
		}
		if transport, done, err = local(r.Data); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return err
	}
	if r.URL != "" && r.Token != "" {
		request.Header.Set("Authorization", "Bearer "+r.Token)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 400 {
		return problem(response)
	}
	return use(response)
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

// problem returns the error that an answer describes.
func problem(response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	var document api.Problem
	if json.Unmarshal(text, &document) == nil && document.Detail != "" {
		return fmt.Errorf("%s (%d)", document.Detail, response.StatusCode)
	}
	return fmt.Errorf("the answer was %s: %.500q", response.Status, text)
}
