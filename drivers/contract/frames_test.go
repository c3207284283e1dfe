package contract

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Functions that write in all ways.
var writers = map[string]string{
	"python": `
import logging, os, sys
print("at import")
print("and its error", file=sys.stderr)
logging.basicConfig(level=logging.DEBUG, format="%(message)s")
class Own(logging.StreamHandler):
    pass
own = logging.getLogger("own")
own.addHandler(Own(sys.stdout))
own.propagate = False

def lines():
    print("one")
    print("two\nthree", "é🐦")
    print()
    sys.stderr.write("four\n")
    sys.stdout.writelines(["fi", "ve", "\n"])

def levels():
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(logging, name)("at %s", name)
    logging.log(35, "between")
    own.info("own\nand more")
    print("begun", end="", file=sys.stderr)
    logging.info("within")
    print("print")

def bytes_():
    sys.stdout.buffer.write(b"bad \xff\xfe utf\n")
    sys.stdout.buffer.write(b"nul \0 and \x1b[31m escape\r\n")

def flushes():
    print("a", end="", flush=True)
    print("b", end="")
    sys.stdout.flush()
    print("c")
    print("d", end="", flush=True)
    print()
    print("never ended", end="")

def long(n):
    print("é" * (n // 2))
    print("after")

def raises():
    print("before")
    yield "item"
    raise KeyError("later")

def callme(how, n=0):
    return globals()[how](n) if how == "long" else globals()[how]()
`,
	"node": `
console.log('at import');
process.stderr.write('and its error\n');
const ways = {
  lines() {
    console.log('one');
    console.log('two\nthree', 'é🐦');
    console.log();
    process.stderr.write('four\n');
    for (const part of ['fi', 've', '\n']) process.stdout.write(part);
  },
  levels() {
    console.debug('at debug');
    console.info('at info');
    console.warn('at warning');
    console.error('at error');
    console.error('at critical');
    console.warn('between');
    console.info('own\nand more');
    process.stderr.write('begun');
    console.info('within');
    console.log('print');
  },
  bytes_() {
    process.stdout.write(Buffer.from('bad \xff\xfe utf\n', 'latin1'));
    process.stdout.write('nul \0 and \x1b[31m escape\r\n');
  },
  flushes() {
    for (const part of ['a', 'b', 'c\n', 'd', '\n', 'never ended']) process.stdout.write(part);
  },
  long(n) {
    console.log('é'.repeat(n / 2));
    console.log('after');
  },
  *raises() {
    console.log('before');
    yield 'item';
    throw new Error('later');
  },
};
const callme = (how, n = 0) => ways[how](n);
`,
}

func TestFrames(t *testing.T) {
	want := map[string][]string{
		"lines":   {"stdout one", "stdout two", "stdout three é🐦", "stdout ", "stderr four", "stdout five"},
		"levels":  {"debug at debug", "info at info", "warn at warning", "error at error", "error at critical", "warn between", "info own", "info and more", "stderr begun", "info within", "stdout print"},
		"bytes_":  {"stdout bad \xff\xfe utf", "stdout nul \x00 and \x1b[31m escape\r"},
		"flushes": {"stdout abc", "stdout d", "stdout never ended"},
	}
	eachIn(t, writers, func(t *testing.T, lang string) {
		began := time.Now()
		p, s := framed(t, lang, writers[lang])
		s.expect(t, "-", "stdout at import", "stderr and its error")
		c := newCaller(t, p)
		for how, lines := range want {
			c.result(t, "call-"+how, `{"how": "`+how+`"}`, "null")
			s.expect(t, "call-"+how, lines...)
		}
		c.result(t, "call-long", `{"how": "long", "n": 1000000}`, "null")
		s.expect(t, "call-long", "stdout "+strings.Repeat("é", 500000), "stdout after")
		if _, answer, err := c.call("call-stream", `{"how": "raises"}`); answer != "item" || err != nil {
			t.Errorf("a stream answered %q, %v", answer, err)
		}
		Eventually(t, "a failure of a stream is in the log of its call", func() bool {
			lines := s.lines("call-stream")
			return slices.Contains(lines, "stdout before") && strings.Contains(strings.Join(lines, "\n"), "later")
		})
		c.result(t, "", `{"how": "lines"}`, "null") // a call without an ID
		Eventually(t, "a call without an ID has its lines", func() bool { return slices.Contains(s.lines("-"), "stdout five") })
		pieces := 0
		for _, f := range s.frames() {
			if f.time.Before(began.Add(-time.Second)) || f.time.After(time.Now().Add(time.Second)) {
				t.Errorf("a frame is of %v", f.time)
			}
			if f.call == "call-long" && f.goesOn {
				pieces++
			}
			if strings.HasPrefix(f.text, "\xa9") || strings.HasSuffix(f.text, "\xc3") {
				t.Error("a long line is cut within a character")
			}
		}
		if pieces < 10 {
			t.Errorf("a line of 1 MB came with %d pieces that go on", pieces)
		}
		if log := p.Log(); !strings.Contains(log, "at import\n") || !strings.Contains(log, "abc\nd\nnever ended") {
			t.Error("the driver's own output lacks lines")
		}
	})
}

func TestMalformedLog(t *testing.T) {
	eachIn(t, writers, func(t *testing.T, lang string) {
		client := boot(t, lang).Client(t)
		for _, name := range []string{`""`, `"/tmp/log.sock"`, `"../log.sock"`, "1", "true"} {
			request := newRequest(t, http.MethodPut, "/_fob/function", `{"code": "", "log": `+name+`}`)
			if status, header, body := client.Do(t, request); status != 400 || header.Get("Fob-Error") != "bad_request" {
				t.Errorf("log %s answered %d %s", name, status, body)
			}
		}
	})
}

// Functions that print a text from everything that a call can start.
var crowds = map[string]string{
	"python": `
import asyncio, concurrent.futures, contextvars, logging, multiprocessing.pool, sys, threading, time
pool = concurrent.futures.ThreadPoolExecutor(4)
threads = multiprocessing.pool.ThreadPool(4)
logging.basicConfig(level=logging.INFO, format="%(message)s")

def say(text, how):
    for i in range(5):
        print(f"{text} {how} {i} begins", end="")
        time.sleep(0.0005)
        print(" and ends")
    logging.warning("%s %s logs", text, how)

def raw(text, lock):
    say(text, "raw")
    lock.release()

async def task(text, how):
    for i in range(5):
        print(f"{text} {how} {i} begins", end="")
        await asyncio.sleep(0.0005)
        print(" and ends")
    logging.warning("%s %s logs", text, how)

async def callme(text):
    timer = threading.Timer(0.001, say, (text, "timer"))
    timer.start()
    thread = threading.Thread(target=say, args=(text, "thread"))
    thread.start()
    lock = threading.Lock()
    lock.acquire()
    import _thread
    _thread.start_new_thread(raw, (text, lock))
    await asyncio.gather(
        task(text, "gather"), asyncio.create_task(task(text, "task")),
        asyncio.to_thread(say, text, "to_thread"),
        asyncio.get_running_loop().run_in_executor(pool, say, text, "executor"),
        asyncio.wrap_future(pool.submit(say, text, "pool")),
        asyncio.to_thread(threads.map, lambda how: say(text, how), ["map"]),
        asyncio.to_thread(threads.apply, say, (text, "apply")),
    )
    await asyncio.to_thread(lambda: (timer.join(), thread.join(), lock.acquire()))
    say(text, "itself")
    return [timer is not None]
`,
}

// What the crowd of a call starts, each with 5 lines and a record.
var crowdOf = map[string][]string{
	"python": {"timer", "thread", "raw", "gather", "task", "to_thread", "executor", "pool", "map", "apply", "itself"},
}

func TestFramesOfManyCalls(t *testing.T) {
	eachIn(t, crowds, func(t *testing.T, lang string) {
		p, s := framed(t, lang, crowds[lang])
		const calls = 50
		done := make(chan string, calls)
		for i := range calls {
			id := fmt.Sprintf("0193-%012d", i)
			c := newCaller(t, p)
			go func() {
				for round := range 2 {
					_, answer, err := c.call(fmt.Sprint(id, "-", round), `{"text": "`+fmt.Sprint(id, "-", round)+`"}`)
					if err != nil || !strings.Contains(answer, "true") {
						done <- fmt.Sprint(answer, err)
						return
					}
				}
				done <- ""
			}()
		}
		for range calls {
			if wrong := <-done; wrong != "" {
				t.Error(wrong)
			}
		}
		for i := range calls * 2 {
			id := fmt.Sprintf("0193-%012d-%d", i/2, i%2)
			var want []string
			for _, how := range crowdOf[lang] {
				want = append(want, fmt.Sprintf("warn %s %s logs", id, how))
			}
			Eventually(t, "all lines come", func() bool { return len(s.lines(id)) >= 6*len(want) })
			got := s.lines(id)
			for _, line := range want {
				if !slices.Contains(got, line) {
					t.Errorf("call %s lacks the line %q", id, line)
				}
			}
		}
		for _, f := range s.frames() {
			if strings.Contains(f.text, "0193-") && !strings.Contains(f.text, f.call) {
				t.Fatalf("a line of another call, as one of %s: %q", f.call, f.text)
			}
			if f.call == "-" {
				t.Fatalf("a line of no call: %q", f.text)
			}
		}
	})
}

// Functions that print n numbered lines.
var counters = map[string]string{
	"python": `
def callme(n, text=""):
    for i in range(n):
        print("line", i, text)
    return n
`,
	"node": `
function callme(n, text = '') {
  for (let i = 0; i < n; i++) console.log('line', i, text);
  return n;
}
`,
}

// A dispatcher that does not read keeps no call waiting, and learns how much it missed.
func TestNobodyReadsFrames(t *testing.T) {
	eachIn(t, counters, func(t *testing.T, lang string) {
		p := boot(t, lang)
		read := make(chan struct{})
		s := listenAndWait(t, p, read)
		loadWithLog(t, p, counters[lang], nil)
		c := newCaller(t, p)
		const n = 100_000 // with 100 bytes each, more than are held
		c.result(t, "many", fmt.Sprintf(`{"n": %d, "text": "%s"}`, n, strings.Repeat("x", 80)), strconv.Itoa(n))
		close(read)
		came, missed := 0, 0
		Eventually(t, "every line has come or is counted", func() bool {
			came, missed = 0, 0
			for _, f := range s.frames() {
				if f.level == "dropped" {
					number, err := strconv.Atoi(f.text)
					if err != nil || f.call != "-" {
						t.Fatalf("dropped: %q of %s", f.text, f.call)
					}
					missed += number
				} else {
					came++
				}
			}
			return came+missed >= n
		})
		if came+missed != n || came < 20_000 || missed == 0 {
			t.Errorf("%d lines came and %d are counted as dropped, of %d", came, missed, n)
		}
		c.result(t, "after", `{"n": 1}`, "1")
		s.expect(t, "after", "stdout line 0 ")
	})
}

// A driver connects again when it has something to send, and sends what it holds.
func TestFramesGoOnAfterABreak(t *testing.T) {
	eachIn(t, counters, func(t *testing.T, lang string) {
		p, s := framed(t, lang, counters[lang])
		c := newCaller(t, p)
		for round := range 3 {
			id := fmt.Sprint("before", round)
			c.result(t, id, `{"n": 1}`, "1")
			s.expect(t, id, "stdout line 0 ")
			s.close()
			for i := range 3 {
				c.result(t, fmt.Sprintf("during%d-%d", round, i), `{"n": 2}`, "2")
			}
			s.open()
			for i := range 3 {
				s.expect(t, fmt.Sprintf("during%d-%d", round, i), "stdout line 0 ", "stdout line 1 ")
			}
		}
	})
}

// A line that was half sent when the connection ended is sent again whole, also where another dispatcher listens already.
func TestHalfAFrameIsSentAgain(t *testing.T) {
	eachIn(t, counters, func(t *testing.T, lang string) {
		p := boot(t, lang)
		read := make(chan struct{})
		s := listenAndWait(t, p, read)
		loadWithLog(t, p, counters[lang], nil)
		time.Sleep(1100 * time.Millisecond) // so long after it has connected, a driver connects again at once
		c := newCaller(t, p)
		text := strings.Repeat("x", 60_000) // the socket takes some and a part of one
		c.result(t, "long", fmt.Sprintf(`{"n": 40, "text": "%s"}`, text), "40")
		_ = s.listen.Close()
		s.mu.Lock()
		old := s.conns
		s.conns = nil
		s.mu.Unlock()
		s.open()
		for _, conn := range old {
			_ = conn.Close()
		}
		close(read)
		Eventually(t, "the last line has come", func() bool {
			frames := s.frames()
			return len(frames) > 0 && frames[len(frames)-1].text == "line 39 "+text
		})
	})
}

// Without a socket, all else works.
func TestNoSocketForFrames(t *testing.T) {
	eachIn(t, counters, func(t *testing.T, lang string) {
		p := boot(t, lang)
		loadWithLog(t, p, counters[lang], nil)
		c := newCaller(t, p)
		c.result(t, "a", `{"n": 2}`, "2")
		Eventually(t, "the log has the lines", func() bool { return strings.Contains(p.Log(), "line 0 \nline 1 \n") })
		s := listenForFrames(t, p) // it comes late
		s.expect(t, "a", "stdout line 0 ", "stdout line 1 ")
	})
}

// Functions that close the driver's connection for frames, or everything.
var closers = map[string]string{
	"python": `
import os, socket
def callme(how):
    if how == "frames":
        closed = 0
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                peer = socket.socket(fileno=os.dup(fd)).getpeername()
            except OSError:
                continue
            if isinstance(peer, str) and peer.endswith("log.sock"):
                os.close(fd)
                closed += 1
        return closed
    if how == "all":
        os.closerange(0, 65536)
    print("says", how)
    return how
`,
}

func TestFramesAreClosed(t *testing.T) {
	eachIn(t, closers, func(t *testing.T, lang string) {
		p, s := framed(t, lang, closers[lang])
		c := newCaller(t, p)
		for round := range 2 {
			c.result(t, "close", `{"how": "frames"}`, "1")
			id := fmt.Sprint("after", round)
			c.result(t, id, `{"how": "x"}`, `"x"`)
			s.expect(t, id, "stdout says x")
		}
		if _, answer, err := c.call("all", `{"how": "all"}`); err == nil {
			t.Errorf("without any descriptor it answered %q", answer)
		}
	})
}

// Secrets are hidden in frames, too, also when they come in pieces.
func TestSecretsInFrames(t *testing.T) {
	codes := map[string]string{
		"python": `
import logging, os, subprocess, sys
def callme():
    secret = os.environ["KEY"]
    print("whole", secret)
    print("half " + secret[:9], end="", flush=True)
    print(secret[9:])
    print("long " + "x" * 65525 + secret)
    logging.basicConfig(format="%(message)s")
    logging.error("logged %s", secret)
    subprocess.run(["sh", "-c", "echo child $KEY; printf 'end %s' $KEY"])
    sys.stderr.write(secret)
`,
		"node": `
const { spawnSync } = require('child_process');
function callme() {
  const secret = process.env.KEY;
  console.log('whole', secret);
  process.stdout.write('half ' + secret.slice(0, 9));
  console.log(secret.slice(9));
  console.log('long ' + 'x'.repeat(65525) + secret);
  console.error('logged', secret);
  spawnSync('sh', ['-c', "echo child $KEY; printf 'end %s' $KEY"], { stdio: 'inherit' });
  process.stderr.write(secret);
}
`,
	}
	eachIn(t, codes, func(t *testing.T, lang string) {
		const secret = "correct-horse-battery"
		p := boot(t, lang)
		s := listenForFrames(t, p)
		loadWithLog(t, p, codes[lang], map[string]any{"secrets": map[string]string{"KEY": base64.StdEncoding.EncodeToString([]byte(secret))}})
		newCaller(t, p).result(t, "a", "", "null")
		s.expect(t, "a", "stdout whole ***", "stdout half ***", "stdout long "+strings.Repeat("x", 65525)+"***", "error logged ***", "stdout child ***", "stdout end ***", "stderr ***")
		for _, f := range s.frames() {
			if strings.Contains(f.text, secret) {
				t.Errorf("a frame has the secret: %q", show([]byte(f.text)))
			}
		}
	})
}

// TestFramesOfADriverThatHasJustStarted loads drivers at any time after they listen,
// when they import ahead, or set up, what functions need.
func TestFramesOfADriverThatHasJustStarted(t *testing.T) {
	codes := map[string]string{
		"python": "import logging\ndef callme():\n    logging.warning('late')\n",
		"node":   "function callme() { console.warn('late') }\n",
	}
	eachIn(t, codes, func(t *testing.T, lang string) {
		for i := range 40 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				p := boot(t, lang)
				s := listenForFrames(t, p)
				time.Sleep(time.Duration(i) * 8 * time.Millisecond)
				loadWithLog(t, p, codes[lang], nil)
				newCaller(t, p).result(t, "first", "", "null")
				Eventually(t, "the line has come, with its call and level", func() bool {
					return slices.ContainsFunc(s.frames(), func(f frame) bool {
						return f.call == "first" && f.level == "warn" && strings.Contains(f.text, "late")
					})
				})
			})
		}
	})
}
