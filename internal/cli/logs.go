package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/flockofbirds/fob/api"
)

// Logs is the command that prints what functions wrote.
type Logs struct {
	Remote
	Name   string `arg:"" optional:"" complete:"function" help:"The function, by name or ID (all)."`
	Follow bool   `short:"f" help:"Go on printing new lines, until Ctrl-C."`
	Call   string `placeholder:"ID" help:"Only lines of this call."`
	Level  string `placeholder:"LEVEL,…" complete:"stdout stderr debug info warn error" help:"Only lines of these levels: stdout, stderr, debug, info, warn, error."`
	Since  string `placeholder:"TIME" help:"Only lines from then on: a time, or how long ago, such as 1h."`
	Text   string `placeholder:"TEXT" help:"Only lines with this text, or with this member of a JSON line, as in user:17."`
	Limit  int    `default:"100" placeholder:"N" help:"How many to print at most, of the newest (${default})."`
	JSON   bool   `name:"json" help:"Print each line as a line of JSON."`
}

// Run implements the command.
func (c *Logs) Run(running Running) error {
	if c.Limit < 1 {
		return errors.New("--limit is a number from 1")
	}
	out := newScreen(os.Stdout)
	return c.with(running, func(l *link) error {
		if c.Follow {
			return c.follow(l, out)
		}
		_, err := c.newest(l, out)
		return err
	})
}

// ask asks for the lines that are meant, and hands each to use.
func (c *Logs) ask(l *link, more url.Values, use func(line []byte) error) error {
	for name, value := range map[string]string{"function": c.Name, "call": c.Call, "level": c.Level, "text": c.Text} {
		if value != "" {
			more.Set(name, value)
		}
	}
	request, err := l.request(context.Background(), http.MethodGet, "/api/logs?"+more.Encode(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/x-ndjson")
	return l.send(request, func(r *http.Response) error {
		if err := use(nil); err != nil {
			return err
		}
		return eachLine(r.Body, use)
	})
}

// newest prints the newest lines, and returns the highest of their numbers.
func (c *Logs) newest(l *link, out *screen) (last uint64, err error) {
	query := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	if c.Since != "" {
		query.Set("since", c.Since)
	}
	err = c.ask(l, query, func(line []byte) error {
		if line == nil {
			return nil
		}
		number, err := c.print(out, line, 0)
		last = max(last, number)
		return err
	})
	return last, errors.Join(err, out.Flush())
}

// follow prints the newest lines, and then those to come. It asks for these first, so
// that none is missing between them.
func (c *Logs) follow(l *link, out *screen) error {
	last := uint64(0)
	return c.ask(l, url.Values{"follow": {"true"}}, func(line []byte) (err error) {
		if line == nil { // they are on their way
			last, err = c.newest(l, out)
			return err
		}
		if _, err := c.print(out, line, last); err != nil {
			return err
		}
		return out.Flush()
	})
}

// print writes a line of a log, unless its number is not above after. It returns the
// number.
func (c *Logs) print(out *screen, text []byte, after uint64) (number uint64, err error) {
	var line struct {
		api.LogLine
		api.OmittedCalls // lines that this client was too slow for
	}
	if err := json.Unmarshal(text, &line); err != nil {
		return 0, fmt.Errorf("a line of the log cannot be read: %w", err)
	}
	switch {
	case line.Omitted > 0:
		fmt.Fprintf(os.Stderr, "%d lines were missed\n", line.Omitted)
	case line.Number <= after:
	case c.JSON:
		return line.Number, out.raw(append(text, '\n'))
	default:
		out.log(&line.LogLine, c.Name == "", c.Call == "")
	}
	return line.Number, nil
}

// log prints a line of a log: when, how important, of which function and call if these
// differ, and what.
func (s *screen) log(line *api.LogLine, function, call bool) {
	shade := plain
	switch line.Level {
	case "error", "stderr":
		shade = red
	case "warn":
		shade = yellow
	case "debug":
		shade = dim
	}
	s.WriteString(s.paint(dim, line.Time.UTC().Format("2006-01-02T15:04:05.000Z")) + " " + s.paint(shade, fmt.Sprintf("%-6s", harmless(line.Level, ""))))
	if function {
		name := line.Name
		if name == "" {
			name = line.Function
		}
		s.WriteString(" " + harmless(name, ""))
	}
	if call {
		of := line.Call
		if of == "" {
			of = "-"
		}
		s.WriteString(" " + s.paint(dim, harmless(of, "")))
	}
	text := ""
	switch {
	case line.JSON != nil:
		text = string(line.JSON)
	case line.Text != nil:
		text = *line.Text
	}
	text = harmless(text, "\t")
	if line.More {
		text += "…"
	}
	s.WriteString(" " + text + "\n")
}
