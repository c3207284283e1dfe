package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// functionPath returns the path of a function's resource. ref may name a version.
func functionPath(ref string) string { return "/api/functions/" + url.PathEscape(ref) }

// called returns what people call a function.
func called(fn *api.Function) string {
	if fn.Name == "" {
		return fn.ID
	}
	return fn.Name
}

// moment is a time as tables show it, and as --since takes it.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// List is the command that lists the functions.
type List struct {
	Remote
	Prefix string `arg:"" optional:"" complete:"function" help:"How their names begin (all)."`
	JSON   bool   `name:"json" help:"Print each function as a line of JSON."`
}

// Run implements the command.
func (c *List) Run(running Running) error {
	out := newScreen(os.Stdout)
	t := &table{header: []string{"NAME", "LANG", "VERSION", "UPDATED", "SIZE", "DESCRIPTION"}}
	err := c.with(running, func(l *link) error {
		return l.functions(context.Background(), c.Prefix, func(fn *api.Function) error {
			if c.JSON {
				return out.line(fn)
			}
			v := fn.Version
			t.add(called(fn), v.Lang, strconv.Itoa(v.Number), moment(v.Created), strconv.Itoa(v.Size), v.Settings.Description)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if !c.JSON {
		out.print(t)
	}
	return out.Flush()
}

// functions hands all functions to use whose names begin with prefix.
func (l *link) functions(ctx context.Context, prefix string, use func(*api.Function) error) error {
	query := url.Values{"limit": {"1000"}}
	if prefix != "" {
		query.Set("name", prefix)
	}
	for {
		var page api.Functions
		if err := l.read(ctx, "/api/functions?"+query.Encode(), &page); err != nil {
			return err
		}
		for i := range page.Functions {
			if err := use(&page.Functions[i]); err != nil {
				return err
			}
		}
		if page.Next == nil {
			return nil
		}
		query.Set("after", *page.Next)
	}
}

// Show is the command that shows a function.
type Show struct {
	Remote
	Name string `arg:"" complete:"function" help:"The function: a name or ID, or one version of it, as in hello@2."`
	JSON bool   `name:"json" help:"Print what the dispatcher answers, as JSON."`
}

// Run implements the command.
func (c *Show) Run(running Running) error {
	out := newScreen(os.Stdout)
	err := c.with(running, func(l *link) error {
		var raw json.RawMessage
		if err := l.read(context.Background(), functionPath(c.Name), &raw); err != nil {
			return err
		}
		if c.JSON {
			return out.line(raw)
		}
		var fn api.ShownFunction
		if err := json.Unmarshal(raw, &fn); err != nil {
			return err
		}
		var where api.Whereabouts
		if err := l.read(context.Background(), "/api/meta/"+url.PathEscape(c.Name), &where); err != nil {
			return err
		}
		return out.function(&fn, where.Sandboxes)
	})
	return errors.Join(err, out.Flush())
}

// function prints a function, the version that was asked for, and the newest ones.
func (s *screen) function(fn *api.ShownFunction, sandboxes []faas.SandboxInfo) error {
	v := fn.Version
	settings, err := unusual(v.Settings)
	if err != nil {
		return err
	}
	var aliases, states []string
	for alias, number := range fn.Aliases {
		aliases = append(aliases, fmt.Sprintf("%s=%d", alias, number))
	}
	slices.Sort(aliases)
	for _, one := range sandboxes {
		states = append(states, one.State)
	}
	s.WriteString(s.paint(bold, harmless(called(&fn.Function), "")) + "\n")
	s.fields(
		"id", fn.ID,
		"created", moment(fn.Created),
		"version", fmt.Sprintf("%d, of %s", v.Number, moment(v.Created)),
		"language", v.Lang,
		"code", fmt.Sprintf("%d bytes, %s", v.Size, v.Digest),
		"settings", strings.Join(settings, "\n"),
		"aliases", strings.Join(aliases, " "),
		"sandboxes", strings.TrimSpace(strconv.Itoa(len(sandboxes))+" "+strings.Join(states, " ")),
	)
	s.WriteByte('\n')
	t := &table{header: []string{"VERSION", "CREATED", "LANG", "SIZE"}}
	for _, v := range fn.Versions {
		t.add(strconv.Itoa(v.Number), moment(v.Created), v.Lang, strconv.Itoa(v.Size))
	}
	s.print(t)
	if fn.Next != nil {
		s.WriteString("and older ones\n")
	}
	return nil
}

// fields prints names and values, which come alternately. Lines of a value stand below
// one another, and an empty value is left out.
func (s *screen) fields(all ...string) {
	for i := 0; i+1 < len(all); i += 2 {
		name := all[i]
		if all[i+1] == "" {
			continue
		}
		for line := range strings.Lines(all[i+1]) {
			fmt.Fprintf(s, "  %s  %s\n", s.paint(dim, fmt.Sprintf("%-10s", name)), harmless(strings.TrimSuffix(line, "\n"), ""))
			name = ""
		}
	}
}

// unusual returns the settings that are not the defaults, as name=value.
func unusual(settings faas.Settings) (all []string, err error) {
	var has, usual map[string]json.RawMessage
	for into, from := range map[*map[string]json.RawMessage]faas.Settings{&has: settings, &usual: faas.DefaultSettings()} {
		text, err := json.Marshal(from)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return nil, err
		}
	}
	for _, name := range faas.SettingNames() {
		if value := has[name]; !bytes.Equal(value, usual[name]) {
			all = append(all, name+"="+strings.Trim(string(value), `"`))
		}
	}
	return all, nil
}

// Code is the command that prints a function's code.
type Code struct {
	Remote
	Name string `arg:"" complete:"function" help:"The function, or one version of it, as in hello@2."`
}

// Run implements the command.
func (c *Code) Run(running Running) error {
	return c.with(running, func(l *link) error {
		return l.ask(context.Background(), http.MethodGet, codePath(c.Name), nil, func(r *http.Response) error { return passOn(r.Body) })
	})
}

func codePath(ref string) string { return "/api/cs/" + url.PathEscape(ref) }

// code returns the code of a version, or "" if it cannot be read: it only illustrates
// an error.
func (l *link) code(ref string) (code string) {
	_ = l.ask(context.Background(), http.MethodGet, codePath(ref), nil, func(r *http.Response) error {
		text, err := io.ReadAll(r.Body)
		code = string(text)
		return err
	})
	return code
}

// Rename is the command that gives a function another name.
type Rename struct {
	Remote
	Name    string `arg:"" complete:"function" help:"The function, by name or ID."`
	NewName string `arg:"" help:"The name that it gets."`
}

// Run implements the command.
func (c *Rename) Run(running Running) error {
	return c.with(running, func(l *link) error {
		query := url.Values{"name": {c.NewName}}
		return l.ask(context.Background(), http.MethodPatch, functionPath(c.Name)+"?"+query.Encode(), nil, func(r *http.Response) error {
			var fn api.ChangedFunction
			if err := json.NewDecoder(r.Body).Decode(&fn); err != nil {
				return err
			}
			fmt.Printf("%s is %s now\n", harmless(c.Name, ""), harmless(fn.Name, ""))
			return nil
		})
	})
}

// Delete is the command that deletes functions.
type Delete struct {
	Remote
	Names []string `arg:"" name:"name" complete:"function" help:"Names or IDs of the functions."`
}

// Run implements the command. It goes on after a function that cannot be deleted.
func (c *Delete) Run(running Running) error {
	return c.with(running, func(l *link) error {
		var failed manyErrors
		for _, name := range c.Names {
			err := l.ask(context.Background(), http.MethodDelete, functionPath(name), nil, func(*http.Response) error {
				fmt.Printf("%s is deleted\n", harmless(name, ""))
				return nil
			})
			if err != nil {
				failed = append(failed, err)
			}
		}
		if len(failed) > 0 {
			return failed
		}
		return nil
	})
}
