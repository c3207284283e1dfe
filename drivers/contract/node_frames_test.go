package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What is the Node driver's alone about frames: its console, its ways to go on later,
// its child processes and its descriptors.

// nodeLine is a line that a Node driver sent, put together from its frames.
type nodeLine struct {
	call, level, text string
	time              int64 // of its end, in microseconds
}

// nodeLog is the dispatcher's end of a Node driver's socket for lines.
type nodeLog struct {
	mu    sync.Mutex
	lines []nodeLine
	open  map[[2]string]string // unfinished lines by call and level
	wrong []string
}

// bootNode starts a Node driver that sends its lines, and loads code.
func bootNode(t *testing.T, code string, members map[string]any) (*process, *nodeLog) {
	t.Helper()
	p := boot(t, "node")
	listener, err := net.Listen("unix", filepath.Join(filepath.Dir(p.socket), "log.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	log := &nodeLog{open: make(map[[2]string]string)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go log.read(conn)
		}
	}()
	t.Cleanup(func() {
		log.mu.Lock()
		defer log.mu.Unlock()
		for _, wrong := range log.wrong {
			t.Error(wrong)
		}
		if t.Failed() {
			t.Logf("the lines that were sent: %s", show(fmt.Appendf(nil, "%+v", log.lines)))
		}
	})
	load := map[string]any{"code": code, "log": "log.sock", "concurrency": 100}
	maps.Copy(load, members)
	if status, _, body := p.Client(t).load(t, load); status != http.StatusOK {
		t.Fatalf("loading answered %d %s", status, body)
	}
	return p, log
}

func (l *nodeLog) read(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		head, err := in.ReadString('\n')
		if err != nil {
			return
		}
		fields := strings.Split(strings.TrimSuffix(head, "\n"), " ")
		if len(fields) != 4 {
			l.fail("a frame begins with %q", head)
			return
		}
		length, err := strconv.Atoi(fields[3])
		if err != nil || length < 0 || length > 65536 {
			l.fail("a frame begins with %q", head)
			return
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(in, data); err != nil {
			return
		}
		at, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			l.fail("a frame begins with %q", head)
			return
		}
		l.add(fields[0], fields[1], string(data), at)
	}
}

func (l *nodeLog) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

func (l *nodeLog) add(call, level, text string, at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	level, goesOn := strings.CutSuffix(level, "+")
	key := [2]string{call, level}
	text = l.open[key] + text
	if goesOn {
		l.open[key] = text
		return
	}
	delete(l.open, key)
	l.lines = append(l.lines, nodeLine{call, level, text, at})
}

// of returns the lines of a call, as LEVEL TEXT.
func (l *nodeLog) of(call string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line.call == call {
			lines = append(lines, line.level+" "+line.text)
		}
	}
	return lines
}

// time returns when a line of a call was written.
func (l *nodeLog) time(call, text string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line.call == call && line.text == text {
			return line.time
		}
	}
	return 0
}

// wait waits until a call has a line.
func (l *nodeLog) wait(t *testing.T, call, line string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%s has the line %q", call, line), func() bool { return slices.Contains(l.of(call), line) })
}

// nodeCall makes a call with an ID, on a connection of its own: net/http cannot send these fields first. If the connection breaks, the status is 0.
func nodeCall(t *testing.T, p *process, id string, arguments any) (int, string) {
	body, err := json.Marshal(arguments)
	if err != nil {
		return 0, err.Error()
	}
	conn, err := p.Dial(t.Context())
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nFob-Call: 0123456789abcdef\r\nFob-Call-Id: %s\r\nHost: fob\r\nContent-Length: %d\r\n\r\n%s", id, len(body), body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(answer)
}

// nodeMust makes a call that returns what it must.
func nodeMust(t *testing.T, p *process, id string, arguments any, want string) {
	t.Helper()
	if status, body := nodeCall(t, p, id, arguments); status != http.StatusOK || body != `{"result": `+want+`}` {
		t.Fatalf("%s answered %d %s, want %s", id, status, body, want)
	}
}

type arguments map[string]any

func TestNodeLevels(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
const fs = require('fs');
const util = require('util');
console.warn('at the import');
async function callme() {
  console.log('log %d', 1);
  console.debug('debug');
  console.info('two\nlines');
  console.warn('warn');
  console.error('error');
  console.assert(false, 'asserted');
  console.group('group');
  console.table(['x']);
  console.groupEnd();
  process.stdout.write('out');
  process.stderr.write('err');
  process.stdout.write(Buffer.from(' again\n'));
  process.stderr.write(' again\n');
  // As libraries for logging write.
  fs.writeSync(1, '{"level":30}\n');
  fs.writeSync(2, Buffer.from('..bytes\n..'), 2, 6);
  fs.write(1, 'later\n', () => {});
  const { bytesWritten } = await util.promisify(fs.write)(2, Buffer.from('promised\n'), 0, 9);
  return [bytesWritten, util.inspect(console.warn)];
}`, nil)
	nodeMust(t, p, "c1", arguments{}, `[9,"[Function: warn]"]`)
	log.wait(t, "c1", "stderr promised")
	log.wait(t, "c1", "stdout later")
	log.wait(t, "-", "warn at the import")
	want := []string{
		"stdout log 1", "debug debug", "info two", "info lines", "warn warn", "error error", "warn Assertion failed: asserted", "stdout group",
		"stdout out again", "stderr err again", `stdout {"level":30}`, "stderr bytes",
	}
	got := log.of("c1")
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("there is no line %q", line)
		}
	}
	for _, line := range []string{"log 1", "debug", "two", "at the import", `{"level":30}`, "bytes", "later"} {
		Eventually(t, "the driver's own output has "+line, func() bool { return strings.Contains(p.Log(), line) })
	}
}

// Calls that run at once, and go on in every way that Node has.
func TestNodeLinesOfCallsAtOnce(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
const { AsyncLocalStorage, AsyncResource } = require('async_hooks');
const EventEmitter = require('events');
const fs = require('fs');
const http = require('http');
const { Readable, pipeline } = require('stream');
const { setTimeout: sleep } = require('timers/promises');
const { exec } = require('child_process');
const { Worker } = require('worker_threads');
const own = new AsyncLocalStorage();

// Its jobs begin in others' callbacks, as in a pool of connections.
class Pool {
  constructor() { this.waiting = []; this.busy = 0; }
  run(job) {
    return new Promise((resolve) => { this.waiting.push(AsyncResource.bind(() => job().then(resolve))); this.turn(); });
  }
  turn() {
    while (this.busy < 2 && this.waiting.length > 0) {
      this.busy++;
      this.waiting.shift()().then(() => { this.busy--; this.turn(); });
    }
  }
}
const pool = new Pool();
const server = http.createServer((request, response) => response.end('answer')).listen(0, '127.0.0.1');
server.unref();

async function callme(n) {
  let expected = 0;
  const say = (what) => { expected++; console.log(what, n); };
  const waits = [];
  const wait = (start) => waits.push(new Promise(start));
  say('at once');
  wait((resolve) => setTimeout(() => { say('setTimeout'); resolve(); }, n % 7));
  wait((resolve) => setImmediate(() => { say('setImmediate'); resolve(); }));
  wait((resolve) => process.nextTick(() => { say('nextTick'); resolve(); }));
  wait((resolve) => queueMicrotask(() => { say('queueMicrotask'); resolve(); }));
  let ticks = 0;
  wait((resolve) => { const timer = setInterval(() => { say('setInterval'); if (++ticks === 3) { clearInterval(timer); resolve(); } }, 1); });
  wait((resolve) => fs.readFile('/proc/self/stat', () => { say('readFile'); resolve(); }));
  waits.push(fs.promises.readFile('/proc/self/stat').then(() => say('promises.readFile')));
  const emitter = new EventEmitter();
  emitter.on('event', () => say('emitter'));
  wait((resolve) => setTimeout(() => { emitter.emit('event'); resolve(); }, 1));
  wait((resolve) => pipeline(Readable.from(['a', 'b']), async function* (source) { for await (const item of source) { say('stream ' + item); yield item; } },
    (error) => { say('pipeline'); resolve(); }).resume());
  wait((resolve) => http.get({ port: server.address().port, agent: false }, (response) => { say('response'); response.on('end', () => { say('end'); resolve(); }).resume(); }));
  for (let i = 0; i < 3; i++) waits.push(pool.run(async () => { say('job'); await sleep(1); say('job goes on'); }));
  waits.push(own.run('mine', async () => { await sleep(2); say('in a storage of its own'); }));
  wait((resolve) => exec('echo a child', (error, stdout) => { say('exec ' + stdout.trim()); resolve(); }));
  if (n % 10 === 0) {
    expected++;
    wait((resolve) => new Worker('console.log("worker", ' + n + ')', { eval: true }).on('exit', resolve));
  }
  for (const step of [1, 2, 3]) { await sleep(1); say('step ' + step); }
  await Promise.all(waits);
  setTimeout(() => console.error('after the answer', n), 5);
  Promise.reject(new Error('rejected ' + n));
  setTimeout(() => { throw new Error('thrown ' + n); }, 1);
  return expected;
}`, nil)
	const calls = 50
	said := make([]int, calls)
	var all sync.WaitGroup
	for n := range calls {
		all.Go(func() {
			status, body := nodeCall(t, p, fmt.Sprintf("call-%d", n), arguments{"n": n})
			if _, err := fmt.Sscanf(body, `{"result": %d}`, &said[n]); err != nil || status != http.StatusOK {
				t.Errorf("call %d answered %d %s", n, status, body)
			}
		})
	}
	all.Wait()
	for n := range calls {
		call := fmt.Sprintf("call-%d", n)
		log.wait(t, call, fmt.Sprintf("error after the answer %d", n))
		log.wait(t, call, fmt.Sprintf("error unhandledRejection: Error: rejected %d", n))
		log.wait(t, call, fmt.Sprintf("error uncaughtException: Error: thrown %d", n))
		Eventually(t, call+" has all its lines", func() bool {
			lines := slices.DeleteFunc(log.of(call), func(line string) bool { return !strings.HasPrefix(line, "stdout ") })
			return len(lines) == said[n]
		})
		for _, line := range log.of(call) {
			if strings.HasPrefix(line, "stdout ") && !strings.HasSuffix(line, fmt.Sprintf(" %d", n)) {
				t.Errorf("%s has the line %q", call, line)
			}
		}
	}
	if strays := log.of("-"); len(strays) > 0 {
		t.Errorf("lines of no call: %q", strays)
	}
}

// Child processes that inherit descriptors, whether or not the function waits for them.
func TestNodeChildrenThatInherit(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
const cp = require('child_process');
const fs = require('fs');
const path = require('path');
const os = require('os');
const inherit = { stdio: 'inherit' };
const ended = (child) => new Promise((resolve) => child.on('exit', resolve));
const kinds = {
  spawnSync: (n) => cp.spawnSync('sh', ['-c', 'echo out ' + n + '; echo err ' + n + ' >/dev/stderr'], inherit).status,
  execSync: (n) => { cp.execSync('echo out ' + n + '; echo err ' + n + ' >&2', { stdio: ['ignore', 1, process.stderr] }); return 0; },
  execFileSync: (n) => { cp.execFileSync('sh', ['-c', 'echo out ' + n + '; echo err ' + n + ' >&2'], { stdio: [0, 'inherit', 'inherit'] }); return 0; },
  spawn: (n) => ended(cp.spawn('sh', ['-c', 'echo out ' + n + '; sleep 0.05; echo err ' + n + ' >&2'], inherit)),
  swapped: (n) => ended(cp.spawn('sh', ['-c', 'echo err ' + n + '; echo out ' + n + ' >&2'], { stdio: ['ignore', 2, 1] })),
  async fork(n) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'case'));
    fs.writeFileSync(path.join(folder, 'child.js'), 'console.log("out", process.argv[2]); console.error("err", process.argv[2])');
    const code = await ended(cp.fork(path.join(folder, 'child.js'), [String(n)]));
    fs.rmSync(folder, { recursive: true });
    return code;
  },
  // What a pipe does not hold, of a child that the function waits for.
  much: (n) => cp.spawnSync('sh', ['-c', 'head -c 1000000 /dev/zero | tr "\\0" x; echo; echo out ' + n + '; echo err ' + n + ' >&2'], inherit).status,
  // Whose unfinished line nobody ends.
  partial: (n) => cp.spawnSync('sh', ['-c', 'printf "err ' + n + '" >&2; printf "out ' + n + '"'], inherit).status,
  missing: (n) => { console.log('out', n); process.stderr.write('err ' + n + '\n'); return cp.spawnSync('/no/such/program', inherit).error.code === 'ENOENT' ? 0 : 1; },
  // Nothing is to be passed on: the function reads it.
  piped: (n) => { console.log('out', n); process.stderr.write('err ' + n + '\n'); return cp.execSync('echo read').toString() === 'read\n' ? 0 : 1; },
};
const callme = (kind, n) => kinds[kind](n);
`, nil)
	kinds := []string{"spawnSync", "execSync", "execFileSync", "spawn", "swapped", "fork", "much", "partial", "missing", "piped"}
	var all sync.WaitGroup
	for n := range 3 * len(kinds) {
		all.Go(func() {
			kind := kinds[n%len(kinds)]
			if status, body := nodeCall(t, p, fmt.Sprintf("call-%d", n), arguments{"kind": kind, "n": n}); status != http.StatusOK || body != `{"result": 0}` {
				t.Errorf("%s answered %d %s", kind, status, body)
			}
		})
	}
	all.Wait()
	for n := range 3 * len(kinds) {
		call := fmt.Sprintf("call-%d", n)
		log.wait(t, call, fmt.Sprintf("stdout out %d", n))
		log.wait(t, call, fmt.Sprintf("stderr err %d", n))
		want := 2
		if kinds[n%len(kinds)] == "much" {
			log.wait(t, call, "stdout "+strings.Repeat("x", 1000000))
			want++
		}
		if lines := log.of(call); len(lines) != want {
			t.Errorf("%s has %d lines, want %d", kinds[n%len(kinds)], len(lines), want)
		}
		for _, line := range []string{fmt.Sprintf("out %d", n), fmt.Sprintf("err %d", n)} {
			Eventually(t, "the driver's own output has "+line, func() bool { return strings.Contains(p.Log(), line) })
		}
	}
	if strays := log.of("-"); len(strays) > 0 {
		t.Errorf("lines of no call: %q", strays)
	}
}

// What a child wrote comes before what the function writes when the child has ended.
func TestNodeOrderOfChildren(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
const { spawn, spawnSync } = require('child_process');
async function callme() {
  for (let i = 0; i < 20; i++) {
    console.log('before', i);
    spawnSync('echo', ['sync', i], { stdio: 'inherit' });
    console.log('between', i);
    await new Promise((resolve) => spawn('printf', ['begun %s', i], { stdio: 'inherit' }).on('exit', resolve));
    console.log(' and ended', i);
  }
}`, nil)
	nodeMust(t, p, "c1", arguments{}, "null")
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("before ", i), fmt.Sprint("sync ", i), fmt.Sprint("between ", i), fmt.Sprintf("begun %d and ended %d", i, i))
	}
	Eventually(t, "the driver's own output has all in order", func() bool { return strings.Contains(p.Log(), strings.Join(want, "\n")+"\n") })
	var last int64
	for _, line := range want {
		if strings.HasPrefix(line, "begun ") {
			continue // the two halves come over two connections, one of them perhaps in pieces
		}
		log.wait(t, "c1", "stdout "+line)
		if at := log.time("c1", line); at < last {
			t.Errorf("the line %q is of a time before the line's before it", line)
		} else {
			last = at
		}
	}
}

// No line is lost at an end that comes at once.
func TestNodeEnds(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "signal", "dies"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p, log := bootNode(t, `
const { spawnSync } = require('child_process');
function callme(how) {
  spawnSync('sh', ['-c', 'echo last of a child'], { stdio: 'inherit' });
  for (let i = 0; i < 100; i++) console.log('x'.repeat(100)); // no more than a socket holds
  console.log('last words');
  if (how === 'exit') process.exit(0);
  process.kill(process.pid, how === 'signal' ? 'SIGTERM' : 'SIGKILL');
  return new Promise(() => {});
}`, nil)
			status, body := nodeCall(t, p, "c1", arguments{"how": how})
			if status != 0 {
				t.Fatalf("it answered %d %s", status, body)
			}
			p.exit(t)
			lines := []string{"last words"}
			if how == "exit" { // for what a child wrote, an end by a signal waits only briefly
				lines = append(lines, "last of a child")
			}
			for _, line := range lines {
				log.wait(t, "c1", "stdout "+line)
				Eventually(t, "the driver's own output has "+line, func() bool { return strings.Contains(p.Log(), line) })
			}
		})
	}
}

// Functions that put something in the place of what writes.
func TestNodeReplacedWriters(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
const fs = require('fs');
const { log, error } = console;
const write = process.stdout.write;
const caught = [];
console.log = (...args) => log('[ours]', ...args);
console.error = (...args) => process.stdout.write('[error] ' + args.join(' ') + '\n');
process.stdout.write = function (data, ...rest) { caught.push(String(data)); return write.call(process.stdout, data, ...rest); };
process.stderr.write = (data) => { caught.push(String(data)); return true; };
for (const name of ['write', 'writeSync', 'writev', 'writevSync', 'close', 'closeSync']) fs[name] = () => { throw new Error('not to be used'); };
Date.now = () => { throw new Error('not to be used'); };
process.resourceUsage = process.cpuUsage = Date.now;
function callme() {
  console.log('one');
  console.error('two');
  console.warn('three');
  error('four');
  return caught;
}`, nil)
	nodeMust(t, p, "c1", arguments{}, `["[ours] one\n","[error] two\n","three\n","four\n"]`)
	log.wait(t, "c1", "stdout [ours] one")
	log.wait(t, "c1", "stdout [error] two")
	if got := log.of("c1"); len(got) != 2 {
		t.Errorf("lines %q, want two", got)
	}
}

// A function that closes the descriptors of the driver's log gets none of it into its own files.
func TestNodeClosedDescriptors(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
const fs = require('fs');
const os = require('os');
const path = require('path');
// Sockets that have no name: not those on which calls come.
function sockets() {
  const named = new Set(fs.readFileSync('/proc/net/unix', 'latin1').split('\n').map((row) => row.trim().split(/\s+/)).filter((row) => row.length > 7).map((row) => row[6]));
  return fs.readdirSync('/proc/self/fd').filter((fd) => {
    try { return !named.has(/^socket:\[(\d+)\]$/.exec(fs.readlinkSync('/proc/self/fd/' + fd))[1]); } catch { return false; }
  }).map(Number);
}
function callme(n) {
  console.log('before', n);
  const found = sockets();
  for (const fd of found) n % 2 ? fs.closeSync(fd) : fs.close(fd);
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'case')), 'file');
  const opened = [1, 2, 3].map(() => fs.openSync(file, 'a'));
  console.log('after', n);
  opened.forEach((fd) => fs.closeSync(fd));
  return [found.length > 0, fs.readFileSync(file, 'latin1')];
}`, nil)
	for n := range 4 {
		nodeMust(t, p, fmt.Sprintf("call-%d", n), arguments{"n": n}, `[true,""]`)
		log.wait(t, fmt.Sprintf("call-%d", n), fmt.Sprintf("stdout before %d", n))
		log.wait(t, fmt.Sprintf("call-%d", n), fmt.Sprintf("stdout after %d", n))
	}
}

// A bundle may be an ES module, and import what writes by name.
func TestNodeModulesImportWriters(t *testing.T) {
	t.Parallel()
	p, log := bootNode(t, `
import { spawnSync, execSync } from 'node:child_process';
import { writeSync } from 'fs';
import { warn } from 'node:console';
console.info('at the import');
export async function callme() {
  writeSync(1, 'written\n');
  warn('warned');
  spawnSync('echo', ['spawned'], { stdio: 'inherit' });
  execSync('echo executed', { stdio: 'inherit' });
  return 1;
}`, nil)
	nodeMust(t, p, "c1", arguments{}, "1")
	for _, line := range []string{"stdout written", "warn warned", "stdout spawned", "stdout executed"} {
		log.wait(t, "c1", line)
	}
	log.wait(t, "-", "info at the import")
}
