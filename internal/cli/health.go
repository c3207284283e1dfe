// Package cli holds the client commands, one file each.
package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Health asks a dispatcher whether it is ready.
type Health struct {
	Addr    string        `env:"FOB_ADDR" default:"127.0.0.1:9999" placeholder:"HOST:PORT" help:"Address the dispatcher listens on (${default})."`
	Timeout time.Duration `default:"3s" placeholder:"DURATION" help:"How long to wait for the answer (${default})."`
}

// Run implements the command. It fails unless /readyz answers 200.
func (h *Health) Run() error {
	host, port, err := net.SplitHostPort(h.Addr)
	if err != nil {
		return fmt.Errorf("FOB_ADDR=%s is no HOST:PORT such as 127.0.0.1:9999", h.Addr)
	}
	// Where it listens on all addresses it answers on this one.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	request.Host = "localhost" // a name that it goes by in any case
	response, err := (&http.Client{Timeout: h.Timeout}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(string(body))
	}
	fmt.Println(string(body))
	return nil
}
