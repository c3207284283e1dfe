package contract

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// exchange is one request on a connection of its own, of which the test sees
// every part.
type exchange struct {
	net.Conn
	in *bufio.Reader
}

func (p *process) exchange(t *testing.T, head string, body string) *exchange {
	t.Helper()
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(Patience))
	x := &exchange{conn, bufio.NewReader(conn)}
	x.say(t, "POST / HTTP/1.1\r\n"+head+"\r\n"+body)
	return x
}

// call begins a call with typed arguments.
func (p *process) call(t *testing.T, args string) *exchange {
	t.Helper()
	return p.exchange(t, fmt.Sprintf("Content-Length: %d\r\n", len(args)), args)
}

func (x *exchange) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(x, text); err != nil {
		t.Fatal(err)
	}
}

// line reads one line of what comes.
func (x *exchange) line(t *testing.T) string {
	t.Helper()
	line, err := x.in.ReadString('\n')
	if err != nil {
		t.Fatalf("the connection ends within %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// head reads the answer's head, the names of its headers in lower case.
func (x *exchange) head(t *testing.T) (status string, headers map[string]string) {
	t.Helper()
	status, headers = x.line(t), map[string]string{}
	for line := x.line(t); line != ""; line = x.line(t) {
		name, value, _ := strings.Cut(line, ": ")
		headers[strings.ToLower(name)] = value
	}
	return status, headers
}

// chunk reads one chunk; the last one is empty.
func (x *exchange) chunk(t *testing.T) string {
	t.Helper()
	line := x.line(t)
	size, err := strconv.ParseInt(line, 16, 64)
	if err != nil {
		t.Fatalf("a chunk begins with %q", line)
	}
	if size == 0 {
		return ""
	}
	data := make([]byte, size+2)
	if _, err := io.ReadFull(x.in, data); err != nil {
		t.Fatal(err)
	}
	return string(data[:size])
}

// trailers reads what follows the last chunk.
func (x *exchange) trailers(t *testing.T) (trailers []string) {
	t.Helper()
	for line := x.line(t); line != ""; line = x.line(t) {
		trailers = append(trailers, strings.ToLower(line))
	}
	return trailers
}

// ends checks that the driver has closed the connection.
func (x *exchange) ends(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(x.in); len(rest) > 0 || os.IsTimeout(err) {
		t.Errorf("after its end the connection has %q, %v", rest, err)
	}
}

// Generators that wait for a file before each item but the first, and make one
// when they are closed. how says which of a language's kinds.
var steps = map[string]string{
	"python": `
import asyncio, os, time

def plain(folder):
    try:
        for i in range(1000):
            while i and not os.path.exists(f"{folder}/{i}"):
                time.sleep(0.002)
            yield f"item {i}"
    finally:
        open(folder + "/closed", "w").close()

async def slowly(folder):
    try:
        async with asyncio.timeout(600):  # which minds in what task it is
            for i in range(1000):
                while i and not os.path.exists(f"{folder}/{i}"):
                    await asyncio.sleep(0.002)
                yield f"item {i}"
    finally:
        await asyncio.sleep(0)
        open(folder + "/closed", "w").close()

def callme(how, folder):
    return plain(folder) if how == "plain" else slowly(folder)
`,
	"node": `
const fs = require('fs');
const tick = () => new Promise((resolve) => setTimeout(resolve, 2));

function* plain(folder) {
  try {
    for (let i = 0; i < 1000; i += 1) {
      while (i && !fs.existsSync(folder + '/' + i)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
      yield 'item ' + i;
    }
  } finally {
    fs.writeFileSync(folder + '/closed', '');
  }
}

async function* slowly(folder) {
  try {
    for (let i = 0; i < 1000; i += 1) {
      while (i && !fs.existsSync(folder + '/' + i)) await tick();
      yield 'item ' + i;
    }
  } finally {
    await tick();
    fs.writeFileSync(folder + '/closed', '');
  }
}

function callme(how, folder) {
  return how === 'plain' ? plain(folder) : slowly(folder);
}
`,
}

// eachStep runs a test for both languages and both kinds of generators. Node
// can do nothing else while a plain generator waits.
func eachStep(t *testing.T, test func(t *testing.T, p *process, folder string, x *exchange)) {
	each(t, func(t *testing.T, lang string) {
		for _, how := range []string{"plain", "slowly"} {
			t.Run(how, func(t *testing.T) {
				if lang == "node" && how == "plain" {
					how = "slowly"
				}
				folder := t.TempDir()
				p := boot(t, lang)
				load(t, p.Client(t), steps[lang])
				test(t, p, folder, p.call(t, fmt.Sprintf(`{"how": "%s", "folder": "%s"}`, how, folder)))
			})
		}
	})
}

// Each item comes as a chunk of its own, before the next one is there.
func TestStreamItemByItem(t *testing.T) {
	eachStep(t, func(t *testing.T, p *process, folder string, x *exchange) {
		if status, headers := x.head(t); !strings.HasPrefix(status, "HTTP/1.1 200 ") || headers["transfer-encoding"] != "chunked" || headers["connection"] != "" {
			t.Errorf("the head is %s %v", status, headers)
		}
		for i := range 5 {
			if i > 0 {
				touch(t, fmt.Sprintf("%s/%d", folder, i))
			}
			if got, want := x.chunk(t), fmt.Sprintf("item %d", i); got != want {
				t.Errorf("chunk %q, want %q", got, want)
			}
		}
		if n := *p.Client(t).health(t).InFlight; n != 1 {
			t.Errorf("in_flight is %d while an answer streams", n)
		}
	})
}

// Who shuts down its side wants no more; the iterator is closed, and then the
// answer ends.
func TestStreamIsCancelled(t *testing.T) {
	eachStep(t, func(t *testing.T, p *process, folder string, x *exchange) {
		x.head(t)
		x.chunk(t)
		if err := x.Conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 1000; i++ { // the next item, for a driver that notices then
			touch(t, fmt.Sprintf("%s/%d", folder, i))
		}
		items := 0
		for x.chunk(t) != "" {
			items++
		}
		if !exists(folder + "/closed") {
			t.Error("the answer has ended, and the iterator is not closed")
		}
		if trailers := x.trailers(t); fmt.Sprint(trailers) != "[fob-error: cancelled]" || items > 1 {
			t.Errorf("after %d more items the trailers are %v", items, trailers)
		}
		x.ends(t)
		if n := *p.Client(t).health(t).InFlight; n != 0 {
			t.Errorf("in_flight is %d once a stream is cancelled", n)
		}
	})
}

// Who closes the connection wants no more, either.
func TestStreamLosesItsReader(t *testing.T) {
	eachStep(t, func(t *testing.T, p *process, folder string, x *exchange) {
		x.head(t)
		x.chunk(t)
		_ = x.Close()
		for i := 1; i < 1000; i++ {
			touch(t, fmt.Sprintf("%s/%d", folder, i))
		}
		Eventually(t, "the iterator is closed", func() bool { return exists(folder + "/closed") })
		Eventually(t, "in_flight is 0", func() bool { return *p.Client(t).health(t).InFlight == 0 })
	})
}

// A connection goes on after a stream, even after one that failed.
func TestConnectionGoesOnAfterAStream(t *testing.T) {
	codes := map[string]string{
		"python": "def callme(n: int):\n    yield 'a'\n    if n: raise KeyError(n)",
		"node":   "async function* callme(n) { yield 'a'; if (Number(n)) throw new RangeError(n); }",
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), codes[lang])
		x := p.call(t, `{"n": 0}`)
		for i := range 4 {
			_, headers := x.head(t)
			if got := x.chunk(t) + x.chunk(t); got != "a" || headers["connection"] != "" {
				t.Errorf("answered %q with %v", got, headers)
			}
			if got, want := fmt.Sprint(x.trailers(t)), []string{"[]", "[fob-error: raised]"}[i%2]; got != want {
				t.Errorf("trailers %s, want %s", got, want)
			}
			body := fmt.Sprintf(`{"n": %d}`, (i+1)%2)
			x.say(t, fmt.Sprintf("POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}
	})
}

// A slow reader slows the iterator: it is never far ahead of what was read.
func TestStreamWaitsForItsReader(t *testing.T) {
	const (
		item  = 64 << 10
		items = 1000
		// What a driver may hold, what a socket may, and the item in hand.
		most = 1<<20 + 1<<20 + item
	)
	codes := map[string]string{
		"python": `
def plain(path):
    with open(path, "w") as file:
        for i in range(1000):
            file.write("x")
            file.flush()
            yield b"x" * 65536

async def slowly(path):
    for data in plain(path):
        yield data

def callme(how, path):
    return plain(path) if how == "plain" else slowly(path)
`,
		"node": `
const fs = require('fs');
function* plain(path) {
  for (let i = 0; i < 1000; i += 1) {
    fs.appendFileSync(path, 'x');
    yield Buffer.alloc(65536);
  }
}
async function* slowly(path) {
  yield* plain(path);
}
const callme = (how, path) => (how === 'plain' ? plain(path) : slowly(path));
`,
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), codes[lang])
		for _, how := range []string{"plain", "slowly"} {
			path := t.TempDir() + "/count"
			x := p.call(t, fmt.Sprintf(`{"how": "%s", "path": "%s"}`, how, path))
			x.head(t)
			read, lead := 0, 0
			for i := 0; ; i++ {
				data := x.chunk(t)
				read += len(data)
				if data == "" {
					break
				}
				if i%50 != 0 {
					continue
				}
				made := 0
				for still := 0; still < 3; still++ { // until it makes no more
					info, err := os.Stat(path)
					if err != nil {
						t.Fatal(err)
					}
					if n := int(info.Size()) * item; n != made {
						made, still = n, 0
					}
					time.Sleep(time.Millisecond)
				}
				lead = max(lead, made-read)
			}
			if read != item*items || lead > most {
				t.Errorf("%s: %d bytes came, the iterator was up to %d ahead", how, read, lead)
			}
		}
	})
}

var streamers = map[string]string{
	"python": `
def callme(request, how, path=None):
    if how == "echo":
        return echo(request)
    if how == "first":
        return len(next(request.stream()))
    if how == "early":
        return iter(["early"])
    if how == "all":
        return watch(request, path)

def echo(request):
    for piece in request.stream():
        yield piece

def watch(request, path):
    yield "begun"
    try:
        for piece in request.stream():
            yield str(len(piece))
    finally:
        open(path, "w").close()
`,
	"node": `
const fs = require('fs');
async function callme(request, how, path = null) {
  if (how === 'echo') return echo(request);
  if (how === 'first') return (await request.stream()[Symbol.asyncIterator]().next()).value.length;
  if (how === 'early') return ['early'][Symbol.iterator]();
  if (how === 'all') return watch(request, path);
}
async function* echo(request) {
  for await (const piece of request.stream()) yield piece;
}
async function* watch(request, path) {
  yield 'begun';
  try {
    for await (const piece of request.stream()) yield String(piece.length);
  } finally {
    fs.writeFileSync(path, '');
  }
}
`,
}

func (p *process) stream(t *testing.T, args, framing string) *exchange {
	t.Helper()
	return p.exchange(t, "Fob-Stream: request\r\nFob-Args: "+args+"\r\n"+framing+"\r\n", "")
}

// The function gets what has come before the rest is there, and its answer may
// come in between.
func TestRequestStreams(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), streamers[lang])

		x := p.stream(t, `{"how": "echo"}`, "Content-Length: 6")
		for i, part := range []string{"one", "two"} {
			x.say(t, part)
			if i == 0 {
				x.head(t)
			}
			if got := x.chunk(t); got != part {
				t.Errorf("%q came back as %q", part, got)
			}
		}
		if x.chunk(t) != "" || x.trailers(t) != nil {
			t.Error("the echo does not end as it should")
		}

		x = p.stream(t, `{"how": "echo"}`, "Transfer-Encoding: chunked")
		for i, part := range []string{"one", "three"} {
			x.say(t, fmt.Sprintf("%x\r\n%s\r\n", len(part), part))
			if i == 0 {
				x.head(t)
			}
			if got := x.chunk(t); got != part {
				t.Errorf("%q came back as %q", part, got)
			}
		}
		x.say(t, "0\r\n\r\n")
		if x.chunk(t) != "" || x.trailers(t) != nil {
			t.Error("the echo does not end as it should")
		}
	})
}

// An answer that is complete before its request says that it is the last.
func TestAnswerBeforeTheRequestEnds(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), streamers[lang])
		for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
			x := p.stream(t, `{"how": "first"}`, framing)
			x.say(t, "5\r\nhello\r\n") // 5 or 10 bytes of a body, by its framing
			status, headers := x.head(t)
			body, err := io.ReadAll(x.in)
			if !strings.HasPrefix(status, "HTTP/1.1 200 ") || headers["connection"] != "close" || !bytes.HasPrefix(body, []byte(`{"result": `)) {
				t.Errorf("%s: answered %s %v %s (%v)", framing, status, headers, body, err)
			}

			x = p.stream(t, `{"how": "early"}`, framing)
			_, headers = x.head(t)
			if x.chunk(t) != "early" || x.chunk(t) != "" || x.trailers(t) != nil || headers["connection"] != "close" {
				t.Errorf("%s: a stream was answered with %v", framing, headers)
			}
			x.ends(t)
		}

		// So that there is nothing of the body where the next request would be.
		x := p.stream(t, `{"how": "first"}`, "Content-Length: 5")
		x.say(t, "hello")
		if _, headers := x.head(t); headers["connection"] != "" {
			t.Errorf("all of the body was read, and the head is %v", headers)
		}
	})
}

// The function notices that the request breaks off, and its answer is
// cancelled.
func TestRequestBreaksOff(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), streamers[lang])
		path := t.TempDir() + "/closed"
		x := p.stream(t, fmt.Sprintf(`{"how": "all", "path": "%s"}`, path), "Content-Length: 1000")
		x.head(t)
		x.chunk(t)
		x.say(t, "hello")
		x.chunk(t)
		if err := x.Conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := x.chunk(t); got != "" {
			t.Errorf("another item came: %q", got)
		}
		if trailers := fmt.Sprint(x.trailers(t)); trailers != "[fob-error: cancelled]" || !exists(path) {
			t.Errorf("trailers %s, the iterator closed: %v", trailers, exists(path))
		}
		x.ends(t)
	})
}

// What streams through a driver does not stay there.
func TestStreamsInFlatMemory(t *testing.T) {
	const size, most = 400 << 20, 64 << 20
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), streamers[lang])
		run := func(size int) {
			x := p.stream(t, `{"how": "echo"}`, fmt.Sprintf("Content-Length: %d", size))
			go func() {
				part := make([]byte, 256<<10)
				for left := size; left > 0; left -= len(part) {
					if _, err := x.Write(part); err != nil {
						return // which the reader sees
					}
				}
			}()
			response, err := http.ReadResponse(x.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, response.Body); err != nil || n != int64(size) {
				t.Errorf("%d of %d bytes came back: %v", n, size, err)
			}
		}
		run(8 << 20)
		before := p.peak(t)
		run(size)
		if grown := p.peak(t) - before; grown > most {
			t.Errorf("%d MiB made the driver grow by %d MiB", size>>20, grown>>20)
		}
	})
}

// peak is the most memory that the driver had resident so far, in bytes.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
