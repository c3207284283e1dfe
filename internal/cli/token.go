package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// Token has the commands about tokens.
type Token struct {
	Create TokenCreate `cmd:"" help:"Make a token and print its secret, which cannot be shown again."`
	List   TokenList   `cmd:"" help:"List the tokens."`
	Revoke TokenRevoke `cmd:"" help:"Revoke a token."`
}

// TokenCreate makes a token.
type TokenCreate struct {
	Remote
	Name    string   `arg:"" help:"Name of the token: letters, digits, - and _."`
	Grant   []string `required:"" placeholder:"SCOPE[:FUNCTION]" help:"What it allows: admin, deploy, read or invoke, for all functions or for one, as in invoke:hello. May be given several times."`
	Expires string   `placeholder:"DURATION" help:"When it expires: a duration such as 720h, or a time such as 2030-01-02T15:04:05Z (never)."`
}

// Run implements the command. It writes only the secret to standard output.
func (c *TokenCreate) Run(local Local) error {
	draft := api.NewToken{Name: c.Name, Expires: c.Expires}
	for _, text := range c.Grant {
		grant, err := faas.ParseGrant(text)
		if err != nil {
			return err
		}
		draft.Grants = append(draft.Grants, grant)
	}
	body, err := json.Marshal(draft)
	if err != nil {
		return err
	}
	return c.Ask(local, http.MethodPost, "/api/tokens", bytes.NewReader(body), func(answer *http.Response) error {
		var made api.MadeToken
		if err := json.NewDecoder(answer.Body).Decode(&made); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "This is the secret of the token %s. It is shown only this once.\n", made.ID)
		_, err := fmt.Println(made.Secret)
		return err
	})
}

// TokenList lists the tokens.
type TokenList struct{ Remote }

// Run implements the command.
func (c *TokenList) Run(local Local) error {
	return c.Ask(local, http.MethodGet, "/api/tokens", nil, func(answer *http.Response) error {
		var list api.Tokens
		if err := json.NewDecoder(answer.Body).Decode(&list); err != nil {
			return err
		}
		return printTokens(os.Stdout, list.Tokens, time.Now())
	})
}

// printTokens writes a table. Nothing in it needs escaping, because names have only
// letters, digits, - and _.
func printTokens(out io.Writer, tokens []*faas.Token, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tGRANTS\tCREATED\tEXPIRES")
	for _, t := range tokens {
		expires := "never"
		if !t.Expires.IsZero() {
			expires = t.Expires.Format(time.DateTime)
			if !now.Before(t.Expires) {
				expires += " (expired)"
			}
		}
		var grants []string
		for _, g := range t.Grants {
			grants = append(grants, g.String())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, strings.Join(grants, " "), t.Created.Format(time.DateTime), expires)
	}
	return w.Flush()
}

// TokenRevoke ends a token.
type TokenRevoke struct {
	Remote
	ID string `arg:"" help:"The token's ID: the digits after fob_ in its secret."`
}

// Run implements the command.
func (c *TokenRevoke) Run(local Local) error {
	return c.Ask(local, http.MethodDelete, "/api/tokens/"+url.PathEscape(c.ID), nil, func(*http.Response) error { return nil })
}
