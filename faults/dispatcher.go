package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dispatcher is a dispatcher process. It can be started again after it ended.
type dispatcher struct {
	t       *trial
	program string
	aviary  string
	data    string
	url     string
	env     []string
	client  *http.Client
	token   string // that its requests show, if any

	cmd   *exec.Cmd
	ended chan struct{}
	dying atomic.Bool // it was told to end
	log   *logFile
}

// killAll sets the machine's clock right, ends the processes that run, and
// clears their aviaries away.
func (f *faults) killAll() {
	if wall := f.wall.Load(); wall != nil {
		if err := wall.end(); err != nil {
			progress("%v", err)
		}
	}
	f.living.Range(func(_, process any) bool {
		process.(*os.Process).Kill()
		return true
	})
	f.aviaries.Range(func(aviary, _ any) bool {
		if err := f.engine.clear(aviary.(string)); err != nil {
			progress("%v", err)
		}
		f.aviaries.Delete(aviary)
		return true
	})
}

// prepare makes a dispatcher that is yet to be started, on the machine's engine
// unless env says otherwise. env has settings as FOB_NAME=value.
func (t *trial) prepare(program, name string, env ...string) (*dispatcher, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(t.folder, name)
	d := &dispatcher{
		t: t, program: program, data: data, url: "http://" + addr,
		aviary: fmt.Sprintf("faults-%s-%06x", name, t.random.Uint32()>>8),
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
		log:    &logFile{},
	}
	t.aviaries.Store(d.aviary, true)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "FOB_") || strings.HasPrefix(entry, "FOB_BASE_IMAGE=") {
			d.env = append(d.env, entry)
		}
	}
	d.env = append(d.env, "FOB_ADDR="+addr, "FOB_DATA="+data, "FOB_SOCKETS="+filepath.Join(data, "s"), "FOB_AVIARY="+d.aviary,
		"FOB_POOL=python=1,node=0", "FOB_POOL_MAX=0", "FOB_LOG_FORMAT=json")
	d.env = append(d.env, env...)
	return d, nil
}

// twin is a second dispatcher for the data folder of the first, at an address
// of its own.
func (d *dispatcher) twin(env ...string) (*dispatcher, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	other := &dispatcher{t: d.t, program: d.program, aviary: d.aviary, data: d.data, url: "http://" + addr, client: d.client, log: &logFile{}}
	other.env = append(append(append([]string{}, d.env...), "FOB_ADDR="+addr), env...)
	return other, nil
}

// start runs it; extra is its environment this time.
func (d *dispatcher) start(extra ...string) error {
	d.log.reset()
	d.dying.Store(false)
	d.cmd, d.ended = exec.Command(d.program, "serve"), make(chan struct{})
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = append(append([]string{}, d.env...), extra...), d.log, d.log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.t.living.Store(d.cmd.Process.Pid, d.cmd.Process)
	cmd, ended := d.cmd, d.ended
	go func() {
		cmd.Wait()
		d.t.living.Delete(cmd.Process.Pid)
		close(ended)
	}()
	return nil
}

// boot runs it and waits until it is ready.
func (d *dispatcher) boot(extra ...string) error {
	if err := d.start(extra...); err != nil {
		return err
	}
	return d.await(5*time.Minute, "it is ready", func() bool { // the driver images may have to be built
		_, err := d.ask("GET", "/readyz", "")
		return err == nil
	})
}

// await polls until condition holds.
func (d *dispatcher) await(patience time.Duration, what string, condition func() bool) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if condition() {
			return nil
		}
		if d.over() {
			return fmt.Errorf("the dispatcher ended before %s: %s", what, d.log.tail())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v not yet: %s; the end of the dispatcher's log: %s", patience, what, d.log.tail())
		}
	}
}

// over reports whether the process has ended.
func (d *dispatcher) over() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (d *dispatcher) kill() {
	d.dying.Store(true)
	d.cmd.Process.Kill()
	<-d.ended
	d.t.checkLog(d)
}

// stop is SIGTERM, which leaves the sandboxes unless FOB_REMOVE_SANDBOXES says
// otherwise.
func (d *dispatcher) stop() error {
	if d.ended == nil || d.over() {
		return nil
	}
	d.dying.Store(true)
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(2 * time.Minute):
		return errors.New("the dispatcher did not end on SIGTERM within 2 minutes")
	}
	d.t.checkLog(d)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the dispatcher ended with %d: %s", code, d.log.tail())
	}
	return nil
}

// checkLog sees whether anything panicked.
func (t *trial) checkLog(d *dispatcher) {
	text := d.log.text()
	for _, word := range []string{"panic", "fatal error:", "DATA RACE"} {
		if i := strings.Index(text, word); i >= 0 {
			t.violate("the dispatcher's log has %q: %.600s", word, text[max(0, i-100):])
		}
	}
}

// answer is what a request came to.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// do makes a request and reads the answer, whatever it is.
func (d *dispatcher) do(method, path, body string) (answer, error) {
	request, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if d.token != "" {
		request.Header.Set("Authorization", "Bearer "+d.token)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// ask makes a request, which must succeed.
func (d *dispatcher) ask(method, path, body string) (string, error) {
	a, err := d.do(method, path, body)
	if err == nil && a.Status/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	return a.Body, err
}

// metrics reads /metrics, by name with labels as they are written there.
func (d *dispatcher) metrics() (map[string]float64, error) {
	text, err := d.ask("GET", "/metrics", "")
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for line := range strings.Lines(text) {
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

// sum adds up the metrics whose names begin so.
func sum(metrics map[string]float64, prefix string) (total float64) {
	for name, value := range metrics {
		if strings.HasPrefix(name, prefix) {
			total += value
		}
	}
	return total
}

// running lists the IDs of the sandboxes of a version.
func (d *dispatcher) running(ref string) ([]string, error) {
	text, err := d.ask("GET", "/api/meta/"+ref, "")
	if err != nil {
		return nil, err
	}
	var meta struct{ Sandboxes []struct{ ID string } }
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range meta.Sandboxes {
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// remove ends it, and everything of its aviary.
func (d *dispatcher) remove(e *engine) error {
	if d.ended != nil && !d.over() {
		d.cmd.Process.Signal(syscall.SIGCONT)
		d.kill()
	}
	d.client.CloseIdleConnections()
	d.t.aviaries.Delete(d.aviary)
	return e.clear(d.aviary)
}

// freeAddr is an address that nobody listened on just now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// logFile holds what a process said since it was started.
type logFile struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logFile) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func (l *logFile) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logFile) tail() string {
	text := l.text()
	return text[max(0, len(text)-1500):]
}
