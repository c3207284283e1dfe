package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// auditPoll is how often Audit looks for new entries.
const auditPoll = time.Second

// auditPage is how many entries are asked for at a time.
const auditPage = 1000

// Audit is the command that prints the audit log.
type Audit struct {
	Remote

	Since  time.Duration `placeholder:"DURATION" help:"Print only entries of the last DURATION, such as 24h (the last 1000 entries)."`
	Follow bool          `short:"f" help:"Go on printing new entries, until Ctrl-C."`
	JSON   bool          `name:"json" help:"Print each entry as a line of JSON, as it is stored."`
}

// AuditFile reads the audit log of a data folder: up to limit entries after the one
// with the number after, from since on. If neither is given, it reads the last ones.
type AuditFile func(data string, after uint64, since time.Time, limit int, emit func(line []byte) error) error

// Run implements the command.
func (a *Audit) Run(file AuditFile) error {
	var since time.Time
	if a.Since > 0 {
		since = time.Now().Add(-a.Since)
	}
	out := bufio.NewWriter(os.Stdout)
	after := uint64(0)
	for {
		n := 0
		err := a.page(file, after, since, func(line []byte) error {
			var entry faas.AuditEntry
			if err := json.Unmarshal(line, &entry); err != nil {
				return fmt.Errorf("an entry of the audit log cannot be read: %w", err)
			}
			n++
			after = entry.Seq
			return a.print(out, line, entry)
		})
		if err = errors.Join(err, out.Flush()); err != nil {
			return err
		}
		switch {
		case n == auditPage && (a.Since > 0 || a.Follow): // there may be more
		case !a.Follow:
			return nil
		default:
			time.Sleep(auditPoll)
		}
	}
}

// page hands the next entries to use.
func (a *Audit) page(file AuditFile, after uint64, since time.Time, use func(line []byte) error) error {
	if a.URL == "" {
		return file(a.Data, after, since, auditPage, use)
	}
	query := url.Values{"limit": {strconv.Itoa(auditPage)}}
	if after > 0 {
		query.Set("after", strconv.FormatUint(after, 10))
	}
	if !since.IsZero() {
		query.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return a.Ask(nil, http.MethodGet, "/api/audit?"+query.Encode(), nil, func(answer *http.Response) error {
		in := bufio.NewReader(answer.Body)
		for {
			line, err := in.ReadBytes('\n')
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = use(line)
			}
			if err != nil {
				return err
			}
		}
	})
}

// print writes an entry for people, or as JSON.
func (a *Audit) print(out io.Writer, line []byte, e faas.AuditEntry) error {
	if a.JSON {
		_, err := out.Write(line)
		return err
	}
	what := e.Name
	switch {
	case e.Omitted > 0:
		what = fmt.Sprintf("%d more", e.Omitted)
	case what == "":
		what = e.ID
	case e.ID != "":
		what += " (" + e.ID + ")"
	}
	if e.Version > 0 {
		what += fmt.Sprintf(" version %d", e.Version)
	}
	if e.Request != "" {
		what += " [" + e.Request + "]"
	}
	from := ""
	if e.From != "" {
		from = " from " + e.From
	}
	_, err := fmt.Fprintf(out, "%-24s  %-16s  %-15s  %s%s  %s\n", e.Time.Format(time.RFC3339Nano), e.Outcome, e.Action, e.Who, from, what)
	return err
}
