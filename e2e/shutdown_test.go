package e2e

import (
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

// slowCall calls a slow function and returns, once that runs, what lets it end and
// tells the answer.
func (p *dispatcher) slowCall() (finish func() string) {
	p.t.Helper()
	path := filepath.Join(shortDir(p.t), "go")
	p.do("PUT", "/api/functions/slow", slowCode).wantsStatus(p.t, 201)
	answer := make(chan string, 1)
	go func() {
		a, err := p.try("GET", "/api/call/slow?path="+path, "")
		answer <- fmt.Sprint(a.Status, a.Body, err)
	}()
	eventually(p.t, time.Minute, "the call runs", func() bool {
		return p.inFlight("slow") == 1
	})
	return func() string {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			p.t.Error(err)
		}
		return <-answer
	}
}

// draining waits until no new call is taken.
func (p *dispatcher) draining() {
	p.t.Helper()
	eventually(p.t, time.Minute, "it refuses new calls", func() bool {
		_, err := p.try("GET", "/readyz", "")
		return err != nil
	})
}

func bootMortal(t *testing.T, settings ...string) *dispatcher {
	t.Helper()
	// What this process ignores, as under nohup, the one that it starts would too;
	// what it catches, that one does not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	return boot(t, append([]string{"FOB_POOL=python=1,node=0"}, settings...)...)
}

// Every signal that ends the dispatcher lets the calls in flight finish, also when
// it is the terminal's end, which comes twice and brings others.
func TestEverySignalDrains(t *testing.T) {
	t.Parallel()
	for name, signals := range map[string][]syscall.Signal{
		"SIGTERM":        {syscall.SIGTERM},
		"Ctrl-C":         {syscall.SIGINT},
		"SIGQUIT":        {syscall.SIGQUIT},
		"SIGHUP":         {syscall.SIGHUP, syscall.SIGHUP},
		"systemd's pair": {syscall.SIGTERM, syscall.SIGHUP},
		"logind's pair":  {syscall.SIGHUP, syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			p := bootMortal(t)
			finish := p.slowCall()
			for _, signal := range signals {
				p.Signal(signal)
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
	t.Parallel()
	data := shortDir(t)
	p := bootMortal(t, "FOB_DATA="+data)
	p.slowCall()
	p.Signal(syscall.SIGTERM)
	p.draining()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.Ended():
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if status := p.State().Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", p.State())
	}
	bootMortal(t, "FOB_DATA="+data).terminate() // which removes the sandboxes
}

// nohup's SIGHUP stays ignored.
func TestNohup(t *testing.T) {
	t.Parallel()
	shell := exec.Command("/bin/sh", "-c", `trap "" HUP; exec "$0" serve`, program)
	p := bootAs(t, shell, "FOB_POOL=python=0,node=0")
	p.awaitReady(time.Minute)
	p.Signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond) // a signal has no answer
	p.do("GET", "/readyz", "").wantsStatus(t, 200)
	p.terminate()
}

// printer prints so much that no pipe holds it, nor what is kept of a log.
const printer = "def callme(n):\n    for _ in range(int(n)): print('x' * 8000)\n    return 'printed'\n"

// A log whose reader has gone, or does not read, neither ends the dispatcher nor
// delays a call, and neither does standard output.
func TestLostLog(t *testing.T) {
	t.Parallel()
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
			serve := exec.Command(program, "serve")
			serve.Stdout, serve.Stderr = write, write
			p := bootAs(t, serve, "FOB_POOL=python=1,node=0", "FOB_LOG_LEVEL=debug")
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
			finish := p.slowCall()
			p.Signal(syscall.SIGTERM)
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
	t.Parallel()
	data := shortDir(t)
	p := bootMortal(t, "FOB_DATA="+data)
	p.do("PUT", "/api/functions/py?min_scale=1", printer).wantsStatus(t, 201)
	p.do("PUT", "/api/functions/js?min_scale=1&lang=node", "exports.callme = (n) => { for (let i = 0; i < n; i++) console.log('x'.repeat(8000)); return 'printed' }").wantsStatus(t, 201)
	p.kill()
	p = bootMortal(t, "FOB_DATA="+data)
	for _, name := range []string{"py", "js"} {
		before := p.sandboxIDs(name)
		if before == "" {
			t.Errorf("%s was not adopted", name)
		}
		for range 3 {
			p.do("GET", "/api/call/"+name+"?n=20", "").wants(t, 200, `{"result": "printed"}`)
		}
		if after := p.sandboxIDs(name); after != before {
			t.Errorf("%s: the sandboxes were %s and are %s", name, before, after)
		}
	}
	p.terminate()
}
