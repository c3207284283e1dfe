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
	"strconv"
	"strings"
	"syscall"
	"time"

	"fortio.org/fortio/fhttp"
)

// dispatcher is a dispatcher process with a data folder of its own. It can be
// started again after it was stopped.
type dispatcher struct {
	program string
	env     []string
	url     string
	data    string
	token   string // that every request shows, made at the first start
	client  *http.Client

	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{}
	boot  time.Duration // of the last start, from exec to ready
}

// prepare makes a dispatcher that is yet to be started. env has settings of
// its own, as FOB_NAME=value. Its pools do not grow, so that it is known how
// many blank sandboxes are to be waited for.
func (b *bench) prepare(env ...string) (*dispatcher, error) {
	data, err := os.MkdirTemp("/tmp", "fobbench") // short, for the sockets
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return &dispatcher{
		program: b.program,
		env: append(append(os.Environ(), "FOB_ADDR="+addr, "FOB_DATA="+data, "FOB_SOCKETS="+filepath.Join(data, "s"),
			"FOB_ENGINE=docker", "FOB_POOL_MAX=1", "FOB_REMOVE_SANDBOXES=true", "FOB_AVIARY=", "FOB_STANDBY=false", "FOB_LOG_LEVEL=info"), env...),
		url:    "http://" + addr,
		data:   data,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}, nil
}

// start prepares one and starts it.
func (b *bench) start(env ...string) (*dispatcher, error) {
	d, err := b.prepare(env...)
	if err != nil {
		return nil, err
	}
	return d, d.start()
}

// start runs it and waits until it is ready.
func (d *dispatcher) start() error {
	d.log.Reset()
	d.cmd, d.ended = exec.Command(d.program, "serve"), make(chan struct{})
	d.cmd.Env, d.cmd.Stderr = d.env, &d.log
	begun := time.Now()
	if err := d.cmd.Start(); err != nil {
		d.remove()
		return err
	}
	go func() {
		d.cmd.Wait()
		close(d.ended)
	}()
	for deadline := begun.Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		select {
		case <-d.ended:
			d.remove()
			return fmt.Errorf("the dispatcher ended: %s", d.log.String())
		default:
		}
		if _, err := d.ask("GET", "/readyz", ""); err == nil {
			d.boot = time.Since(begun)
			return d.makeToken()
		}
	}
	d.remove()
	return errors.New("the dispatcher did not become ready in 5 minutes")
}

// makeToken has a new dispatcher ask for a token from now on, as one that is
// used in earnest does.
func (d *dispatcher) makeToken() error {
	if d.token != "" {
		return nil
	}
	answer, err := d.ask("POST", "/api/tokens", `{"name": "bench", "grants": ["admin"]}`)
	if err != nil {
		return err
	}
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(answer), &made); err != nil || made.Token == "" {
		return fmt.Errorf("POST /api/tokens: %s (%v)", answer, err)
	}
	d.token = made.Token
	return nil
}

// calling is how a load calls a function.
func (d *dispatcher) calling(name string) fhttp.HTTPOptions {
	options := fhttp.HTTPOptions{URL: d.url + "/api/call/" + name}
	options.AddAndValidateExtraHeader("Authorization: Bearer " + d.token) // fails for what is no header
	return options
}

// stop ends it with its sandboxes. It may be called again.
func (d *dispatcher) stop() error {
	if d.ended == nil {
		return nil
	}
	select {
	case <-d.ended:
		return nil
	default:
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.ended
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the dispatcher ended with %d: %s", code, d.log.String())
	}
	return nil
}

// remove stops it and takes its data folder away. It is for defer: whoever
// wants to know how it ended has stopped it before.
func (d *dispatcher) remove() {
	d.stop()
	d.client.CloseIdleConnections()
	os.RemoveAll(d.data)
}

// do makes a request and reads the answer, whatever it is.
func (d *dispatcher) do(method, path, body string) (*http.Response, string, error) {
	request, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if d.token != "" {
		request.Header.Set("Authorization", "Bearer "+d.token)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response, string(answer), err
}

// ask makes a request, which must succeed.
func (d *dispatcher) ask(method, path, body string) (string, error) {
	response, answer, err := d.do(method, path, body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, err
}

// metrics reads /metrics, by name with labels as they are written there.
func (d *dispatcher) metrics() (map[string]float64, error) {
	answer, err := d.ask("GET", "/metrics", "")
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for line := range strings.Lines(answer) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		if values[line[:space]], err = strconv.ParseFloat(line[space+1:], 64); err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", line, err)
		}
	}
	return values, nil
}

// settle waits until so many blank sandboxes are there, and no other at all.
func (d *dispatcher) settle(blank int) error {
	waiting := ""
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		values, err := d.metrics()
		if err != nil {
			return err
		}
		found, others := sandboxes(values)
		if found == blank && others == 0 {
			return nil
		}
		waiting = fmt.Sprintf("%d blank and %d other sandboxes", found, others)
	}
	return fmt.Errorf("after 2 minutes there are %s, not %d blank ones and no other", waiting, blank)
}

// sandboxes counts blank and all other sandboxes, those on their way included.
func sandboxes(metrics map[string]float64) (blank, others int) {
	for name, n := range metrics {
		switch {
		case name == `fob_sandboxes{state="blank"}`:
			blank = int(n)
		case strings.HasPrefix(name, "fob_sandboxes{"):
			others += int(n)
		}
	}
	return blank, others
}

// running lists the IDs of a function's sandboxes.
func (d *dispatcher) running(ref string) ([]string, error) {
	answer, err := d.ask("GET", "/api/meta/"+ref, "")
	if err != nil {
		return nil, err
	}
	var meta struct{ Sandboxes []struct{ ID string } }
	if err := json.Unmarshal([]byte(answer), &meta); err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range meta.Sandboxes {
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// socket is where the driver listens that runs a function, in one sandbox.
func (d *dispatcher) socket(ref string) (string, error) {
	ids, err := d.running(ref)
	if err != nil {
		return "", err
	}
	if len(ids) != 1 {
		return "", fmt.Errorf("%s runs in %d sandboxes, not in one", ref, len(ids))
	}
	paths, err := filepath.Glob(filepath.Join(d.data, "s", "*"+ids[0], "fob.sock"))
	if err != nil || len(paths) != 1 {
		return "", fmt.Errorf("sandbox %s has no socket in %s", ids[0], d.data)
	}
	return paths[0], nil
}
