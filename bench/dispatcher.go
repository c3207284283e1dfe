package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// dispatcher is a dispatcher process with a data folder of its own.
type dispatcher struct {
	url   string
	data  string
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{}
}

// start starts one and waits until it is ready.
func start(program, pool string) (*dispatcher, error) {
	data, err := os.MkdirTemp("/tmp", "fobbench") // short, for the sockets
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	d := &dispatcher{url: "http://" + addr, data: data, cmd: exec.Command(program, "serve"), ended: make(chan struct{})}
	d.cmd.Env = append(os.Environ(), "FOB_ADDR="+addr, "FOB_DATA="+data, "FOB_SOCKETS="+filepath.Join(data, "s"),
		"FOB_POOL="+pool, "FOB_ENGINE=docker", "FOB_REMOVE_SANDBOXES=true", "FOB_AVIARY=", "FOB_STANDBY=false", "FOB_LOG_LEVEL=info")
	d.cmd.Stderr = &d.log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		d.cmd.Wait()
		close(d.ended)
	}()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-d.ended:
			return nil, fmt.Errorf("the dispatcher ended: %s", d.log.String())
		default:
		}
		if _, err := d.ask("GET", "/readyz", ""); err == nil {
			return d, nil
		}
	}
	d.stop()
	return nil, errors.New("the dispatcher did not become ready in 5 minutes")
}

// stop ends it with its sandboxes. It may be called again.
func (d *dispatcher) stop() error {
	select {
	case <-d.ended:
		return nil
	default:
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.ended
	os.RemoveAll(d.data)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the dispatcher ended with %d: %s", code, d.log.String())
	}
	return nil
}

// ask makes a request, which must succeed.
func (d *dispatcher) ask(method, path, body string) (string, error) {
	request, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return string(answer), err
}

func (d *dispatcher) commit() (string, error) {
	answer, err := d.ask("GET", "/api/version", "")
	if err != nil {
		return "", err
	}
	var version struct{ Commit string }
	err = json.Unmarshal([]byte(answer), &version)
	return version.Commit, err
}

// blank waits until both pools are full.
func (d *dispatcher) blank() error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		answer, err := d.ask("GET", "/metrics", "")
		if err != nil {
			return err
		}
		if strings.Contains(answer, "fob_sandboxes{state=\"blank\"} 2\n") {
			return nil
		}
	}
	return errors.New("the pool did not fill up in a minute")
}

// socket is where the driver listens that runs a function.
func (d *dispatcher) socket(ref string) (string, error) {
	answer, err := d.ask("GET", "/api/meta/"+ref, "")
	if err != nil {
		return "", err
	}
	var meta struct{ Sandboxes []struct{ ID string } }
	if err := json.Unmarshal([]byte(answer), &meta); err != nil || len(meta.Sandboxes) != 1 {
		return "", fmt.Errorf("%s runs in %d sandboxes, not in one", ref, len(meta.Sandboxes))
	}
	paths, err := filepath.Glob(filepath.Join(d.data, "s", "*"+meta.Sandboxes[0].ID, "fob.sock"))
	if err != nil || len(paths) != 1 {
		return "", fmt.Errorf("sandbox %s has no socket in %s", meta.Sandboxes[0].ID, d.data)
	}
	return paths[0], nil
}
