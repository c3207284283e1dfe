package cli

import (
	"bytes"
	"encoding/json"
	"errors"
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

// Secret has the commands about secrets.
type Secret struct {
	Set       SetSecret    `cmd:"" help:"Set a secret to the contents of standard input, or of a file."`
	List      ListSecrets  `cmd:"" help:"List the secrets, without their values, which nobody can read back."`
	Delete    DeleteSecret `cmd:"" help:"Delete a secret that no function's live version names."`
	RotateKey RotateKey    `cmd:"" help:"Make a new key and seal all secrets with it."`
}

// SetSecret sets a secret. The value is not an argument, because all users of the
// machine can see arguments, and the shell's history keeps them.
type SetSecret struct {
	Remote
	Name      string   `arg:"" help:"Name of the secret, and of the variable and file that functions see."`
	File      string   `placeholder:"FILE" help:"Read the value from here (standard input)."`
	Trim      bool     `help:"Drop a line break at the end, such as echo writes."`
	Functions []string `placeholder:"NAME,…" help:"Functions that may name it, by name or ID (unchanged; for a new secret, any)."`
	Any       bool     `help:"Let any function name it again."`
}

// Run implements the command.
func (c *SetSecret) Run(local Local) error {
	value, err := c.read()
	if err != nil {
		return err
	}
	query := ""
	switch {
	case c.Any && len(c.Functions) > 0:
		return errors.New("--any and --functions contradict one another: leave one out")
	case c.Any:
		query = "?functions="
	case len(c.Functions) > 0:
		query = "?functions=" + url.QueryEscape(strings.Join(c.Functions, ","))
	}
	return c.Ask(local, http.MethodPut, "/api/secrets/"+url.PathEscape(c.Name)+query, bytes.NewReader(value), func(r *http.Response) error {
		var secret faas.Secret
		if err := json.NewDecoder(r.Body).Decode(&secret); err != nil {
			return err
		}
		fmt.Printf("%s is set, version %d\n", c.Name, secret.Version)
		return nil
	})
}

func (c *SetSecret) read() (value []byte, err error) {
	in := os.Stdin
	if c.File != "" {
		if in, err = os.Open(c.File); err != nil {
			return nil, err
		}
		defer in.Close()
	}
	if value, err = io.ReadAll(in); err != nil {
		return nil, err
	}
	if c.Trim {
		value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	}
	return value, nil
}

// ListSecrets lists the secrets.
type ListSecrets struct{ Remote }

// Run implements the command.
func (c *ListSecrets) Run(local Local) error {
	return c.Ask(local, http.MethodGet, "/api/secrets", nil, func(r *http.Response) error {
		var list api.Secrets
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			return err
		}
		out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(out, "NAME\tVERSION\tUPDATED\tFOR\tUSED BY")
		for _, s := range list.Secrets {
			functions := strings.Join(s.Functions, ",")
			if functions == "" {
				functions = "any"
			}
			fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\n", s.Name, s.Version, s.Updated.Format(time.RFC3339Nano), functions, strings.Join(s.UsedBy, ","))
		}
		return out.Flush()
	})
}

// DeleteSecret deletes a secret.
type DeleteSecret struct {
	Remote
	Name string `arg:"" help:"Name of the secret."`
}

// Run implements the command.
func (c *DeleteSecret) Run(local Local) error {
	return c.Ask(local, http.MethodDelete, "/api/secrets/"+url.PathEscape(c.Name), nil, func(*http.Response) error {
		fmt.Printf("%s is deleted\n", c.Name)
		return nil
	})
}

// RotateKey rotates the key.
type RotateKey struct{ Remote }

// Run implements the command.
func (c *RotateKey) Run(local Local) error {
	return c.Ask(local, http.MethodPost, "/api/secrets/rotate-key", nil, func(r *http.Response) error {
		var made faas.KeyRotation
		if err := json.NewDecoder(r.Body).Decode(&made); err != nil {
			return err
		}
		fmt.Printf("%d secrets are sealed with the new key %s; keep a copy of the key file with your next backup\n", made.Resealed, made.Key)
		return nil
	})
}
