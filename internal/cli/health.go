// Package cli has the client commands, one file each.
package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Health is the command that asks a dispatcher whether it is ready.
type Health struct {
	Remote
	Timeout time.Duration `default:"3s" placeholder:"DURATION" help:"How long to wait for the answer (${default})."`
}

// Running connects to the dispatcher that runs on a data folder, as the folder's owner.
// It fails if none runs. The caller calls done at the end.
type Running func(data string) (transport http.RoundTripper, done func() error, err error)

// Run implements the command. It fails unless /readyz answers 200.
func (h *Health) Run(running Running) error {
	ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
	defer cancel()
	return h.ask(ctx, Local(running), http.MethodGet, "/readyz", nil, func(r *http.Response) error {
		body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		if err == nil {
			_, err = fmt.Println(string(body))
		}
		return err
	})
}
