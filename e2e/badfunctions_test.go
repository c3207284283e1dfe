package e2e

import (
	"strings"
	"testing"
	"time"
)

// The misfits: functions that misbehave in the way that they are asked to.
const (
	pythonMisfit = `import os, signal, sys, threading

def callme(how):
    return globals()[how]()

def nan(): return float("nan")
def infinite(): return [1e999]
def set_(): return {1, 2}
def raw(): return b"bytes"
def cycle():
    x = []
    x.append(x)
    return x
def deep():
    x = 1
    for _ in range(200000): x = [x]
    return x
def huge(): return "x" * 10_000_000
def prints():
    for _ in range(100): print("x" * 1_000_000)
    return "printed"
def one_line():
    for _ in range(100): sys.stdout.write("x" * 1_000_000)
    return "printed"
def closes():
    sys.stdout.close()
    sys.stderr.close()
    return "closed"
def closes_1():
    os.close(1)
    os.close(2)
    try: print("into the void")
    except (OSError, ValueError): pass
    return "closed"
def closes_all():
    os.closerange(0, 1024)
    return "closed"
def exits(): os._exit(1)
def sys_exits(): sys.exit(1)
def kills(): os.kill(os.getpid(), signal.SIGKILL)
def eats():
    x = []
    while True: x.append(b"x" * 1_000_000)
def recurses(): return recurses()
def fills():
    with open("/tmp/full", "wb") as f:
        try:
            while True: f.write(b"x" * 1_000_000)
        finally:
            os.remove("/tmp/full")
def stops():
    os.kill(os.getpid(), signal.SIGSTOP)
    signal.pause() # the thread that stops the process may run on for a while
def loops():
    while True: pass
def bomb():
    while True:
        try: os.fork()
        except OSError: pass
def threads():
    while True:
        threading.Thread(target=threading.Event().wait).start()
`
	nodeMisfit = `const fs = require("fs")
const ways = {
    nan: () => NaN,
    infinite: () => [Infinity],
    bigint: () => 10n,
    cycle() { const x = []; x.push(x); return x },
    deep() { let x = 1; for (let i = 0; i < 200000; i++) x = [x]; return x },
    huge: () => "x".repeat(10000000),
    prints() { for (let i = 0; i < 100; i++) console.log("x".repeat(1000000)); return "printed" },
    one_line() { for (let i = 0; i < 100; i++) process.stdout.write("x".repeat(1000000)); return "printed" },
    closes() { process.stdout.destroy(); process.stderr.destroy(); return "closed" },
    closes_1() { fs.closeSync(1); fs.closeSync(2); try { console.log("into the void") } catch {} return "closed" },
    exits() { process.reallyExit(1) },
    kills() { process.kill(process.pid, "SIGKILL"); while (true); },
    eats() { const x = []; while (true) x.push(Buffer.alloc(1000000, 1)) },
    recurses() { return ways.recurses() },
    fills() {
        const f = fs.openSync("/tmp/full", "w")
        try { while (true) fs.writeSync(f, Buffer.alloc(1000000)) } finally { fs.closeSync(f); fs.unlinkSync("/tmp/full") }
    },
    rejects: () => Promise.reject(new RangeError("no luck")),
    throws_nothing() { throw undefined },
    loops() { while (true); },
    never: () => new Promise(() => {}),
}
function callme(how) { return ways[how]() }
`
)

// badFunctions has functions misbehave. A timeout that is not at issue is long,
// for the machine may be slow.
func (r *rounds) badFunctions(t *testing.T) {
	died := func(words ...string) refusal { return wants(502, "sandbox_died", words...) }
	for _, lang := range []struct {
		name, code string
		ways       []way
	}{
		{"python", pythonMisfit, []way{
			{"nan", wants(500, "bad_result", "NaN"), ""},
			{"infinite", wants(500, "bad_result", "Infinity"), ""},
			{"set_", wants(500, "bad_result", "set"), ""},
			{"raw", wants(500, "bad_result", "bytes"), ""},
			{"cycle", wants(500, "bad_result"), ""},
			{"deep", wants(500, "bad_result"), ""},
			{"huge", wants(502, "bad_answer", "larger than 6291456 bytes"), ""},
			{"prints", refusal{}, `{"result": "printed"}`},
			{"one_line", refusal{}, `{"result": "printed"}`},
			{"closes", refusal{}, `{"result": "closed"}`},
			{"closes_1", refusal{}, `{"result": "closed"}`},
			{"closes_all", died(), ""},
			{"exits", died("exited with code 1", "while the function ran"), ""},
			{"sys_exits", wants(500, "function_raised", "SystemExit"), ""},
			{"kills", died("exited with code 137"), ""},
			{"eats", died("ran out of memory", "memory is 128MB"), ""},
			{"recurses", wants(500, "function_raised", "RecursionError"), ""},
			{"fills", wants(500, "function_raised", "No space left"), ""},
			{"threads", wants(500, "function_raised", "RuntimeError"), ""},
		}},
		{"node", nodeMisfit, []way{
			{"nan", wants(500, "bad_result", "NaN"), ""},
			{"infinite", wants(500, "bad_result", "Infinity"), ""},
			{"bigint", wants(500, "bad_result", "BigInt"), ""},
			{"cycle", wants(500, "bad_result"), ""},
			{"deep", wants(500, "bad_result"), ""},
			{"huge", wants(502, "bad_answer", "larger than 6291456 bytes"), ""},
			{"prints", refusal{}, `{"result": "printed"}`},
			{"one_line", refusal{}, `{"result": "printed"}`},
			{"closes", refusal{}, `{"result": "closed"}`},
			{"closes_1", refusal{}, `{"result": "closed"}`},
			{"exits", died("exited with code 1", "while the function ran"), ""},
			{"kills", died("exited with code 137"), ""},
			{"eats", died("ran out of memory", "memory is 128MB"), ""},
			{"recurses", wants(500, "function_raised", "RangeError"), ""},
			{"fills", wants(500, "function_raised", "ENOSPC"), ""},
			{"rejects", wants(500, "function_raised", "RangeError", "no luck"), ""},
			{"throws_nothing", wants(500, "function_raised"), ""},
		}},
	} {
		id := r.gen("?timeout=1m&lang="+lang.name, lang.code)
		for _, w := range lang.ways {
			t.Run(lang.name+"/"+w.how, func(t *testing.T) {
				a := r.do("GET", "/api/call/"+id+"?how:"+w.how, "")
				if w.answer != "" {
					a.wants(t, 200, w.answer)
				} else {
					w.want.check(t, a)
				}
				r.others(t)
			})
		}
	}
}

// way is a way to misbehave, and the answer wanted.
type way struct {
	how    string
	want   refusal
	answer string // instead of a refusal
}

// TestDockerTimeout: the answer that time ran out comes once the container is
// really gone.
func TestDockerTimeout(t *testing.T) {
	t.Parallel()
	r := bootRounds(t)
	for _, c := range []struct{ lang, code, how string }{
		{"python", pythonMisfit, "loops"},
		{"python", pythonMisfit, "stops"},
		{"python", pythonMisfit, "bomb"},
		{"node", nodeMisfit, "loops"},
		{"node", nodeMisfit, "never"},
	} {
		t.Run(c.lang+"/"+c.how, func(t *testing.T) {
			id := r.gen("?timeout=2s&lang="+c.lang, c.code)
			container := r.containerOf(id)
			done := make(chan answered, 1)
			go func() {
				a, err := r.try("GET", "/api/call/"+id+"?how:"+c.how, "")
				if err != nil {
					t.Error(err)
				}
				done <- a
			}()
			eventually(t, time.Minute, "the function runs", func() bool {
				return r.statesOf(id)["busy"] == 1
			})
			r.others(t) // meanwhile
			a := <-done
			left := lines(dockerCLI(t, "ps", "--all", "--quiet", "--filter", "id="+container))
			p := a.wantsProblem(t, 504, "timeout")
			if !strings.Contains(p.Detail, "2s") || !strings.Contains(p.Detail, "stopped") {
				t.Errorf("the detail is %q", p.Detail)
			}
			if len(left) > 0 {
				t.Errorf("the answer came, and container %s is there still", container)
			}
			r.others(t)
		})
	}
}
