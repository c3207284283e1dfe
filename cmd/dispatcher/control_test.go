package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/cli"
)

// A command reaches a running dispatcher through its data folder, which nobody
// else may do, however long the folder's path is.
func TestControlSocket(t *testing.T) {
	for name, folder := range map[string]string{"a short path": "", "a long path": strings.Repeat("deep/", 30)} {
		t.Run(name, func(t *testing.T) {
			var data string
			r := boot(t, func(c *Config) {
				c.Sockets = filepath.Join(c.Data, "s")
				c.Data = filepath.Join(c.Data, folder)
				data = c.Data
			})
			info, err := os.Stat(filepath.Join(data, controlName))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the control socket is %v (%v)", info.Mode(), err)
			}
			id := r.gen("", "def callme(): return 1\n")
			if got := askLocal(t, data, "GET", "/api/stats"); got != `{"functions": ["`+id+`"]}` {
				t.Errorf("the answer was %s", got)
			}
			r.stop()
			remote := cli.Remote{Data: data}
			err = remote.Ask(local, "GET", "/api/stats", nil, func(*http.Response) error { return nil })
			if err == nil || !strings.Contains(err.Error(), "no dispatcher runs on this data folder") {
				t.Errorf("with none running: %v", err)
			}
			if got := askLocal(t, data, "GET", "/healthz"); got != `{"status": "ok"}` {
				t.Errorf("with none running the answer was %s", got)
			}
		})
	}
}

// askLocal asks as a command does that is given nothing but the data folder.
func askLocal(t *testing.T, data, method, path string) string {
	t.Helper()
	body, err := tryLocal(data, method, path, "")
	if err != nil {
		t.Error(err)
	}
	return body
}

// tryLocal is askLocal with a body, for requests that may fail.
func tryLocal(data, method, path, body string) (text string, err error) {
	remote := cli.Remote{Data: data}
	err = remote.Ask(local, method, path, strings.NewReader(body), func(answer *http.Response) error {
		content, err := io.ReadAll(answer.Body)
		text = string(content)
		return err
	})
	return text, err
}
