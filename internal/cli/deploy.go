package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// deploysAtOnce is how many functions are deployed at a time. The dispatcher makes
// sandboxes for them side by side.
const deploysAtOnce = 8

// deployPatience is how long a function that finds no room is tried again.
const deployPatience = time.Minute

// Deploy is the command that creates functions, or adds versions to them.
type Deploy struct {
	Remote
	Files []string `arg:"" name:"file" help:"Files with a function each, which is named as the file is, or folders of them; - is standard input."`
	Name  string   `placeholder:"NAME" complete:"function" help:"Name of the function, if there is one file (the file's name)."`
	Lang  string   `placeholder:"LANG" help:"Language: python or node (by the file's name)."`
	JSON  bool     `name:"json" help:"Print what became of each function as a line of JSON."`

	Settings kong.Plugins `embed:""`
}

// NewDeploy returns the command, with a flag for each setting that functions have.
func NewDeploy() Deploy {
	fields := make([]reflect.StructField, len(faas.SettingTable))
	for i, s := range faas.SettingTable {
		kind := reflect.TypeFor[*string]()
		extra := `placeholder:"VALUE"`
		if s.Type == "boolean" {
			kind, extra = reflect.TypeFor[*bool](), `negatable:""`
		}
		flag := strings.ReplaceAll(s.Name, "_", "-")
		if flag != s.Name {
			extra += fmt.Sprintf(` aliases:%q`, s.Name)
		}
		fields[i] = reflect.StructField{
			Name: "F" + strconv.Itoa(i), Type: kind,
			Tag: reflect.StructTag(fmt.Sprintf(`name:%q group:"Settings of the functions (those that are left out stay as they are):" help:%q %s`,
				flag, strings.ReplaceAll(s.Doc, "`", "")+".", extra)),
		}
	}
	return Deploy{Settings: kong.Plugins{reflect.New(reflect.StructOf(fields)).Interface()}}
}

// given returns the settings that were given, by name, as a query has them.
func (c *Deploy) given() map[string]string {
	given := map[string]string{}
	values := reflect.ValueOf(c.Settings[0]).Elem()
	for i, s := range faas.SettingTable {
		switch value := values.Field(i).Interface().(type) {
		case *string:
			if value != nil {
				given[s.Name] = *value
			}
		case *bool:
			if value != nil {
				given[s.Name] = strconv.FormatBool(*value)
			}
		}
	}
	return given
}

// Run implements the command.
func (c *Deploy) Run(running Running) error {
	sources, err := findSources(c.Files, c.Name, c.Lang)
	if err != nil {
		return err
	}
	settings := c.given()
	var patch faas.SettingsPatch
	for name, text := range settings { // a typing error is told once, not for each file
		if err := patch.Set(name, text); err != nil {
			return err
		}
	}
	done := make([]deployed, len(sources))
	err = c.with(running, func(l *link) error {
		progress := newProgress(len(sources))
		var group errgroup.Group
		group.SetLimit(deploysAtOnce)
		for i := range sources {
			group.Go(func() error {
				done[i] = l.deploy(&sources[i], settings)
				progress.step(&done[i])
				return nil
			})
		}
		defer progress.end()
		return group.Wait()
	})
	if err != nil {
		return err
	}
	return c.report(done)
}

// deployed is what became of a file.
type deployed struct {
	File    string   `json:"file"`
	Name    string   `json:"name"`
	ID      string   `json:"id,omitempty"`
	Version int      `json:"version,omitempty"`
	Result  string   `json:"result"` // "created", "changed", "unchanged" or "failed"
	Error   *faultOf `json:"error,omitempty"`

	err error
}

// faultOf is an error as --json prints it.
type faultOf struct {
	Detail string    `json:"detail"`
	Code   faas.Code `json:"code,omitempty"`
	Line   int       `json:"line,omitempty"`
}

// deploy puts a function. As long as there is no room for it, it tries again.
func (l *link) deploy(s *source, settings map[string]string) deployed {
	d := deployed{File: s.path, Name: s.name, Result: "failed"}
	code, err := s.read()
	if err == nil {
		document := map[string]string{"code": code}
		if s.lang != "" {
			document["lang"] = s.lang
		}
		for name, text := range settings {
			document[name] = text
		}
		var body []byte
		if body, err = json.Marshal(document); err == nil {
			err = l.put(&d, body)
		}
	}
	if err == nil {
		return d
	}
	d.err, d.Error = err, &faultOf{Detail: err.Error()}
	if p, ok := errors.AsType[*Problem](err); ok {
		p.file, p.code = s.path, code
		d.Error.Detail, d.Error.Code = p.Detail, p.Code
		if p.Problem.Error != nil {
			d.Error.Line = p.Problem.Error.Line
		}
	}
	return d
}

func (l *link) put(d *deployed, body []byte) error {
	for deadline := time.Now().Add(deployPatience); ; {
		err := l.ask(context.Background(), http.MethodPut, functionPath(d.Name), bytes.NewReader(body), func(r *http.Response) error {
			var fn api.ChangedFunction
			if err := json.NewDecoder(r.Body).Decode(&fn); err != nil {
				return err
			}
			d.ID, d.Version, d.Result = fn.ID, fn.Version.Number, "unchanged"
			switch {
			case r.StatusCode == http.StatusCreated:
				d.Result = "created"
			case fn.Changed:
				d.Result = "changed"
			}
			return nil
		})
		p, ok := errors.AsType[*Problem](err)
		if !ok || !p.Retryable || p.Code == faas.CodeTimeout {
			return err
		}
		wait := max(p.wait, 200*time.Millisecond)
		if wait > time.Until(deadline) { // a proxy may say hours
			return err
		}
		time.Sleep(wait)
	}
}

// progress shows on a terminal how far the deployment is.
type progress struct {
	mu           sync.Mutex
	out          *screen
	all          int
	done, failed int
}

func newProgress(all int) *progress {
	p := &progress{out: newScreen(os.Stderr), all: all}
	p.show()
	return p
}

func (p *progress) show() {
	if p.out.columns == 0 || p.all < 2 {
		return
	}
	fmt.Fprintf(p.out, "\r\x1b[K%d of %d", p.done, p.all)
	if p.failed > 0 {
		fmt.Fprintf(p.out, ", %d failed", p.failed)
	}
	p.out.Flush()
}

func (p *progress) step(d *deployed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if d.err != nil {
		p.failed++
	}
	p.show()
}

func (p *progress) end() {
	if p.out.columns > 0 && p.all > 1 {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.out.Flush()
	}
}

// report prints what became of the files, and returns the first failure.
func (c *Deploy) report(done []deployed) error {
	out := newScreen(os.Stdout)
	counts := map[string]int{}
	t := &table{header: []string{"NAME", "RESULT", "VERSION", "FILE"}, colour: func(column int, text string) colour {
		switch {
		case column != 1 || text == "unchanged":
			return plain
		case text == "failed":
			return red
		}
		return green
	}}
	for i := range done {
		d := &done[i]
		counts[d.Result]++
		if c.JSON {
			out.line(d)
			continue
		}
		version := ""
		if d.Version > 0 {
			version = strconv.Itoa(d.Version)
		}
		t.add(d.Name, d.Result, version, d.File)
	}
	if !c.JSON {
		out.print(t)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if len(done) > 1 && !c.JSON {
		var said []string
		for _, result := range []string{"created", "changed", "unchanged", "failed"} {
			if counts[result] > 0 {
				said = append(said, fmt.Sprintf("%d %s", counts[result], result))
			}
		}
		fmt.Fprintln(os.Stderr, strings.Join(said, ", "))
	}
	return failures(done)
}

// failures returns the errors, or nil if there are none.
func failures(done []deployed) error {
	var all manyErrors
	for i := range done {
		if err := done[i].err; err != nil {
			if _, ok := errors.AsType[*Problem](err); ok {
				err = fmt.Errorf("%s: %w", done[i].File, err)
			}
			all = append(all, err)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// manyErrors are errors that are told one after the other.
type manyErrors []error

func (m manyErrors) Error() string {
	if len(m) == 1 {
		return m[0].Error()
	}
	return fmt.Sprintf("%v, and %d more", m[0], len(m)-1)
}
