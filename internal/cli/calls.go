package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// Calls is the command that looks up what became of calls.
type Calls struct {
	Remote
	Name   string `arg:"" optional:"" complete:"function" help:"The function, by name or ID (all)."`
	Failed bool   `help:"Only calls that failed, with their errors and tracebacks."`
	Since  string `placeholder:"TIME" help:"Only calls that began then or later: a time, or how long ago, such as 1h."`
	Text   string `placeholder:"TEXT" help:"Only calls whose record has this anywhere."`
	Limit  int    `default:"20" placeholder:"N" help:"How many to print at most, of the newest (${default})."`
	Follow bool   `short:"f" help:"Print calls as they end, until Ctrl-C."`
	Call   string `placeholder:"ID" help:"Print all that is known of this call."`
	JSON   bool   `name:"json" help:"Print each call as a line of JSON."`
}

// Run implements the command.
func (c *Calls) Run(running Running) error {
	if c.Limit < 1 {
		return errors.New("--limit is a number from 1")
	}
	out := newScreen(os.Stdout)
	err := c.with(running, func(l *link) error {
		switch {
		case c.Call != "":
			return c.one(l, out)
		case c.Follow:
			return c.follow(l, out)
		}
		return c.list(l, out)
	})
	return errors.Join(err, out.Flush())
}

func (c *Calls) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"function": c.Name, "since": c.Since, "text": c.Text} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if c.Failed {
		query.Set("outcome", faas.OutcomeFailed)
	}
	return query
}

// list prints the newest calls.
func (c *Calls) list(l *link, out *screen) error {
	query, t := c.query(), callTable()
	for left := c.Limit; left > 0; {
		query.Set("limit", strconv.Itoa(min(left, 1000)))
		var page api.Calls
		if err := l.read(context.Background(), "/api/calls?"+query.Encode(), &page); err != nil {
			return err
		}
		for i := range page.Calls {
			if err := c.print(out, t, &page.Calls[i]); err != nil {
				return err
			}
		}
		if page.Omitted > 0 {
			fmt.Fprintf(os.Stderr, "%d more were only counted, because there were too many at the time\n", page.Omitted)
		}
		if left -= len(page.Calls); page.Next == nil {
			break
		}
		query.Set("after", *page.Next)
	}
	if !c.JSON && !c.Failed {
		out.print(t)
	}
	return nil
}

func callTable() *table {
	return &table{
		header: []string{"STARTED", "FUNCTION", "OUTCOME", "TOOK", "CALL", "ERROR"},
		colour: func(column int, text string) colour {
			switch {
			case column != 2:
				return plain
			case text == faas.AuditOK:
				return green
			}
			return red
		},
	}
}

// print writes a call: as JSON, in full if failed calls are asked for, or else as a row
// of the table.
func (c *Calls) print(out *screen, t *table, call *faas.CallRecord) error {
	if c.JSON {
		return out.line(call)
	}
	said := ""
	if call.Error != nil {
		said = call.Error.Message
	}
	took := fmt.Sprintf("%.1fms", call.Timing.Total)
	if !c.Failed {
		t.add(moment(call.Started), calledVersion(call), call.Outcome, took, call.ID, said)
		return nil
	}
	fmt.Fprintf(out, "%s  %s  %s  %s  %s\n", moment(call.Started), harmless(calledVersion(call), ""), out.paint(red, harmless(call.Outcome, "")), took, harmless(call.ID, ""))
	if call.Error != nil {
		out.block("  ", said)
		out.block("  ", call.Error.Traceback)
	}
	return nil
}

// block prints lines that begin with an indent.
func (s *screen) block(indent, text string) {
	if text == "" {
		return
	}
	for line := range strings.Lines(harmless(strings.TrimRight(text, "\r\n"), "\n\t")) {
		s.WriteString(indent + strings.TrimSuffix(line, "\n") + "\n")
	}
}

// calledVersion returns the name and version of the function that was called.
func calledVersion(call *faas.CallRecord) string {
	name := call.Name
	if name == "" {
		name = call.Function
	}
	if call.Version > 0 {
		name += "@" + strconv.Itoa(call.Version)
	}
	return name
}

// follow prints calls as they end.
func (c *Calls) follow(l *link, out *screen) error {
	if c.Since != "" {
		return errors.New("--follow prints the calls to come: leave out --since")
	}
	query := c.query()
	query.Set("follow", "true")
	return l.ask(context.Background(), http.MethodGet, "/api/calls?"+query.Encode(), nil, func(r *http.Response) error {
		return eachLine(r.Body, func(line []byte) error {
			var call struct {
				faas.CallRecord
				api.OmittedCalls
			}
			if err := json.Unmarshal(line, &call); err != nil {
				return err
			}
			if call.Omitted > 0 {
				fmt.Fprintf(os.Stderr, "%d calls were missed\n", call.Omitted)
				return nil
			}
			t := callTable()
			if err := c.print(out, t, &call.CallRecord); err != nil {
				return err
			}
			for _, row := range t.rows {
				fmt.Fprintf(out, "%s  %-20s  %s  %8s  %s  %s\n", row[0], row[1], out.paint(t.colour(2, row[2]), fmt.Sprintf("%-16s", row[2])), row[3], row[4], row[5])
			}
			return out.Flush()
		})
	})
}

// eachLine hands each line of a stream to use, without its line break, until the stream
// ends.
func eachLine(stream io.Reader, use func(line []byte) error) error {
	in := bufio.NewReader(stream)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = use(line[:len(line)-1])
		}
		if err != nil {
			return err
		}
	}
}

// cost spells what a call cost, or "" if that is not known.
func cost(usage faas.CallUsage) string {
	if usage == (faas.CallUsage{}) {
		return ""
	}
	text := fmt.Sprintf("%.1f ms of a processor", usage.CPU)
	if usage.Memory > 0 {
		text += fmt.Sprintf(", %.1f MB of memory", float64(usage.Memory)/1e6)
	}
	if usage.Shared {
		text += ", with other calls"
	}
	return text
}

// one prints all that is known of a call.
func (c *Calls) one(l *link, out *screen) error {
	var raw json.RawMessage
	if err := l.read(context.Background(), "/api/calls/"+url.PathEscape(c.Call), &raw); err != nil {
		return err
	}
	if c.JSON {
		return out.line(raw)
	}
	var call api.Call
	if err := json.Unmarshal(raw, &call); err != nil {
		return err
	}
	shade := red
	if call.Outcome == faas.AuditOK {
		shade = green
	}
	fmt.Fprintf(out, "%s  %s\n", out.paint(bold, harmless(calledVersion(&call.CallRecord), "")), out.paint(shade, harmless(call.Outcome, "")))
	cold := ""
	if call.Cold {
		cold = "it waited for a sandbox to start"
	}
	status := ""
	if call.Status > 0 {
		status = strconv.Itoa(call.Status)
	}
	out.fields(
		"call", call.ID,
		"started", call.Started.UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		"took", fmt.Sprintf("%.1f ms: queue %.1f, start %.1f, run %.1f", call.Timing.Total, call.Timing.Queue, call.Timing.Start, call.Timing.Run),
		"cold", cold,
		"cost", cost(call.Usage),
		"request", strings.TrimSpace(call.Method+" "+call.Path),
		"status", status,
		"bytes", fmt.Sprintf("%d in, %d out", call.BytesIn, call.BytesOut),
		"caller", strings.TrimSpace(call.Caller+" "+call.Address),
		"trace", call.Trace,
		"sandbox", call.Sandbox,
	)
	if e := call.Error; e != nil {
		out.WriteByte('\n')
		out.block("", strings.TrimPrefix(e.Type+": ", ": ")+e.Message)
		ref, code := call.Function+"@"+strconv.Itoa(call.Version), ""
		if e.Line > 0 && call.Version > 0 {
			code = l.code(ref)
		}
		explain(&tame{out: out}, &faas.Raised{Message: e.Message, Line: e.Line, Traceback: e.Traceback}, calledVersion(&call.CallRecord), code)
	}
	if len(call.Log) > 0 {
		out.WriteByte('\n')
	}
	for i := range call.Log {
		out.log(&call.Log[i], false, false)
	}
	if call.LogNext != nil {
		fmt.Fprintf(os.Stderr, "It printed more before: fob logs --call %s --limit 1000\n", harmless(call.ID, ""))
	}
	return nil
}
