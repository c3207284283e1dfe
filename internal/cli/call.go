package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// Call is the command that calls a function.
type Call struct {
	Remote
	Name    string        `arg:"" complete:"function" help:"The function, or one version of it, as in hello@2. A path for it may follow, as in site/index.html."`
	Items   []string      `arg:"" optional:"" name:"item" help:"Arguments as HTTPie has them: name=text, name:=JSON, name=@FILE, name==QUERY, Header:value; @FILE is the whole body (@- standard input), name@FILE a file of a form."`
	Method  string        `short:"X" placeholder:"METHOD" help:"Method of the request (POST with a body, else GET)."`
	Timeout time.Duration `placeholder:"DURATION" help:"How long to wait for the answer (as long as the function may take)."`
	Verbose bool          `short:"v" help:"Print the call's ID, version and times on standard error."`
}

// Run implements the command. It shows the answer as it comes.
func (c *Call) Run(running Running) error {
	it, err := readItems(c.Items)
	if err != nil {
		return err
	}
	name, below, _ := strings.Cut(c.Name, "/")
	path := "/api/call/" + url.PathEscape(name)
	if below != "" || strings.HasSuffix(c.Name, "/") {
		path += "/" + (&url.URL{Path: below}).EscapedPath()
	}
	if len(it.query) > 0 {
		path += "?" + it.query.Encode()
	}
	return c.with(running, func(l *link) error { return c.call(l, name, path, it) })
}

func (c *Call) call(l *link, name, path string, it *items) error {
	request, err := l.request(context.Background(), strings.ToUpper(c.Method), path, nil)
	if err == nil {
		err = it.attach(request)
	}
	if err != nil {
		return err
	}
	if c.Method == "" && request.Body != nil {
		request.Method = http.MethodPost
	}
	if c.Timeout > 0 {
		request.Header.Set("Fob-Timeout", c.Timeout.String())
	}
	response, err := l.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	id, version := response.Header.Get("X-Call-Id"), response.Header.Get("Fob-Version")
	if c.Verbose {
		fmt.Fprintf(os.Stderr, "%s\n", harmless(fmt.Sprintf("%s, call %s, version %s, %s", response.Status, id, version, response.Header.Get("Server-Timing")), ""))
	}
	if response.Header.Get("Fob-Error") != "" {
		return inCode(problem(response), l, name, version)
	}
	if id == "" { // each of a dispatcher's answers to calls has one
		return foreign(response)
	}
	if err := passOn(response.Body); err != nil {
		return &hinted{fmt.Errorf("the answer broke off: %w", err), "calls --call " + id}
	}
	if response.StatusCode >= 400 {
		fmt.Fprintf(os.Stderr, "the function answered %s\n", harmless(response.Status, ""))
		return exit(exitFunction)
	}
	return nil
}

// inCode adds the code to an error that the function raised, if the caller may read it.
func inCode(err error, l *link, name, version string) error {
	p, ok := errors.AsType[*Problem](err)
	if !ok || p.Fault != faas.FaultFunction || p.Problem.Error == nil || p.Problem.Error.Line == 0 || version == "" {
		return err
	}
	bare, _, _ := strings.Cut(strings.ReplaceAll(name, ":", "@"), "@")
	p.file = bare + "@" + version
	p.code = l.code(p.file)
	return p
}
