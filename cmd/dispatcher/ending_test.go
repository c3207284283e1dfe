package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowCode runs until a file is there.
const slowCode = "import os, time\ndef callme(path):\n    while not os.path.exists(path): time.sleep(.01)\n    return 'done'\n"

// inFlight calls a slow function and returns, once that runs, what lets it end and
// tells the answer.
func (p *dispatcherProcess) inFlight() (finish func() string) {
	p.t.Helper()
	path := filepath.Join(shortDir(p.t), "go")
	p.do("PUT", "/api/functions/slow", slowCode).wantsStatus(p.t, 201)
	answer := make(chan string, 1)
	go func() {
		a, err := p.try("GET", "/api/call/slow?path="+path, "")
		answer <- fmt.Sprint(a.Status, a.Body, err)
	}()
	eventually(p.t, time.Minute, "the call runs", func() bool {
		return strings.Contains(p.do("GET", "/api/meta/slow", "").Body, `"in_flight": 1`)
	})
	return func() string {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			p.t.Error(err)
		}
		return <-answer
	}
}

// draining waits until no new call is taken.
func (p *dispatcherProcess) draining() {
	p.t.Helper()
	eventually(p.t, time.Minute, "it refuses new calls", func() bool {
		_, err := p.try("GET", "/readyz", "")
		return err != nil
	})
}

func spawnProcess(t *testing.T, settings ...string) *dispatcherProcess {
	t.Helper()
	all := map[string]string{"FOB_DATA": shortDir(t), "FOB_ENGINE": "process", "FOB_POOL": "python=1,node=0", "FOB_REMOVE_SANDBOXES": "true"}
	for n := 0; n < len(settings); n += 2 {
		all[settings[n]] = settings[n+1]
	}
	// What this process ignores, as under nohup, the one that it starts would too;
	// what it catches, that one does not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	p := spawn(t, all)
	p.awaitReady(time.Minute)
	return p
}

// Every signal that ends the dispatcher lets the calls in flight finish, also when
// it is the terminal's end, which comes twice and brings others.
func TestEverySignalDrains(t *testing.T) {
	for name, signals := range map[string][]syscall.Signal{
		"SIGTERM":        {syscall.SIGTERM},
		"Ctrl-C":         {syscall.SIGINT},
		"SIGQUIT":        {syscall.SIGQUIT},
		"SIGHUP":         {syscall.SIGHUP, syscall.SIGHUP},
		"systemd's pair": {syscall.SIGTERM, syscall.SIGHUP},
		"logind's pair":  {syscall.SIGHUP, syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			p := spawnProcess(t)
			finish := p.inFlight()
			for _, signal := range signals {
				p.cmd.Process.Signal(signal)
				p.draining()
			}
			if answer := finish(); answer != `200{"result": "done"}<nil>` {
				t.Errorf("the call was answered %s", answer)
			}
			p.endsWell()
		})
	}
}

// A second signal ends it at once.
func TestSecondSignal(t *testing.T) {
	data := shortDir(t)
	p := spawnProcess(t, "FOB_DATA", data)
	p.inFlight()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.draining()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", p.cmd.ProcessState)
	}
	spawnProcess(t, "FOB_DATA", data).terminate() // which removes the sandboxes
}

// nohup's SIGHUP stays ignored.
func TestNohup(t *testing.T) {
	shell := exec.Command("/bin/sh", "-c", `trap "" HUP; exec "$0" serve`, os.Args[0])
	p := spawnAs(t, shell, map[string]string{"FOB_DATA": shortDir(t), "FOB_ENGINE": "process", "FOB_POOL": "python=0,node=0"})
	p.awaitReady(time.Minute)
	p.cmd.Process.Signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond) // a signal has no answer
	p.do("GET", "/readyz", "").wantsStatus(t, 200)
	p.terminate()
}

// printer prints so much that no pipe holds it, nor what is kept of a log.
const printer = "def callme(n):\n    for _ in range(int(n)): print('x' * 8000)\n    return 'printed'\n"

// A log whose reader has gone, or does not read, neither ends the dispatcher nor
// delays a call, and neither does standard output.
func TestLostLog(t *testing.T) {
	for name, reader := range map[string]func(*os.File){
		"gone":     func(f *os.File) { f.Close() },
		"silent":   func(*os.File) {},
		"speaking": func(f *os.File) { go io.Copy(io.Discard, f) },
	} {
		t.Run(name, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			program := exec.Command(os.Args[0], "serve")
			program.Stdout, program.Stderr = write, write
			p := spawnAs(t, program, map[string]string{"FOB_DATA": shortDir(t), "FOB_ENGINE": "process", "FOB_POOL": "python=1,node=0", "FOB_LOG_LEVEL": "debug", "FOB_REMOVE_SANDBOXES": "true"})
			write.Close()
			reader(read)
			p.awaitReady(time.Minute)
			p.do("PUT", "/api/functions/printer", printer).wantsStatus(t, 201)
			for range 2 {
				p.do("GET", "/api/call/printer?n=300", "").wants(t, 200, `{"result": "printed"}`)
			}
			if name != "speaking" {
				eventually(t, time.Minute, "lost lines are counted", func() bool {
					return !strings.Contains(p.do("GET", "/metrics", "").Body, "\nfob_log_dropped_lines_total 0\n")
				})
			}
			finish := p.inFlight()
			p.cmd.Process.Signal(syscall.SIGTERM)
			p.draining()
			if answer := finish(); answer != `200{"result": "done"}<nil>` {
				t.Errorf("the call was answered %s", answer)
			}
			p.endsWell()
		})
	}
}

// What a function prints harms it no more once the dispatcher that read it was
// killed, and another one has adopted its sandbox.
func TestPrintAfterAdoption(t *testing.T) {
	data := shortDir(t)
	p := spawnProcess(t, "FOB_DATA", data)
	p.do("PUT", "/api/functions/py?min_scale=1", printer).wantsStatus(t, 201)
	p.do("PUT", "/api/functions/js?min_scale=1&lang=node", "exports.callme = (n) => { for (let i = 0; i < n; i++) console.log('x'.repeat(8000)); return 'printed' }").wantsStatus(t, 201)
	p.kill()
	p = spawnProcess(t, "FOB_DATA", data)
	for _, name := range []string{"py", "js"} {
		before := p.do("GET", "/api/meta/"+name, "").Body
		if sandboxIDs(before) == "" {
			t.Errorf("%s was not adopted: %s", name, before)
		}
		for range 3 {
			p.do("GET", "/api/call/"+name+"?n=20", "").wants(t, 200, `{"result": "printed"}`)
		}
		// The time of creation tells that it is the same sandbox.
		if after := p.do("GET", "/api/meta/"+name, "").Body; sandboxIDs(before) != sandboxIDs(after) {
			t.Errorf("%s: the sandboxes were %s and are %s", name, before, after)
		}
	}
	p.terminate()
}

// A command whose output nobody wants any more ends without a word.
func TestCommandIntoHead(t *testing.T) {
	data := shortDir(t)
	for range 3 {
		mustCommand(t, data, "token", "create", "x", "--grant", "admin")
	}
	for _, args := range []string{"audit", "token list", "backup -", "--help"} {
		cmd := exec.Command("/bin/sh", "-c", `{ sleep 0.05; exec "$0" `+args+`; } | true`, os.Args[0])
		cmd.Env = append(os.Environ(), "FOBTEST_MAIN=1", "FOB_DATA="+data)
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.String() != "" {
			t.Errorf("%s: %v, %s", args, err, complaints.String())
		}
	}
}

// sandboxIDs are those of an answer of /api/meta.
func sandboxIDs(meta string) string {
	var ids []string
	for words := bufio.NewScanner(strings.NewReader(meta)); words.Scan(); {
		for _, part := range strings.Split(words.Text(), `"id": "`)[1:] {
			id, _, _ := strings.Cut(part, `"`)
			ids = append(ids, id)
		}
	}
	return strings.Join(ids, " ")
}
