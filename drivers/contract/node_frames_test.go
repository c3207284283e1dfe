package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// What is the Node driver's alone about frames: its console, its ways to go on later,
// its child processes and its descriptors.

// nodeCall makes a call on a connection of its own. If the connection breaks, the status is 0.
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
	response, answer, err := (&caller{conn, bufio.NewReader(conn)}).call(id, string(body))
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, answer
}

// wait waits until a call has a line, "LEVEL TEXT", among others.
func (s *frameSocket) wait(t *testing.T, call, line string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%s has the line %q", call, line), func() bool { return slices.Contains(s.lines(call), line) })
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
	p, log := framed(t, "node", `
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
}`)
	nodeMust(t, p, "c1", arguments{}, `[9,"[Function: warn]"]`)
	log.wait(t, "c1", "stderr promised")
	log.wait(t, "-", "warn at the import")
	want := []string{
		"stdout log 1", "debug debug", "info two", "info lines", "warn warn", "error error", "warn Assertion failed: asserted", "stdout group",
		"stdout out again", "stderr err again", `stdout {"level":30}`, "stderr bytes", "stdout later",
	}
	for _, line := range want {
		log.wait(t, "c1", line)
	}
	for _, line := range []string{"log 1", "debug", "two", "at the import", `{"level":30}`, "bytes", "later"} {
		Eventually(t, "the driver's own output has "+line, func() bool { return strings.Contains(p.Log(), line) })
	}
}

// Calls that run at once, and go on in every way that Node has.
func TestNodeLinesOfCallsAtOnce(t *testing.T) {
	t.Parallel()
	p, log := framed(t, "node", `
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
}`)
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
			lines := slices.DeleteFunc(log.lines(call), func(line string) bool { return !strings.HasPrefix(line, "stdout ") })
			return len(lines) == said[n]
		})
		for _, line := range log.lines(call) {
			if strings.HasPrefix(line, "stdout ") && !strings.HasSuffix(line, fmt.Sprintf(" %d", n)) {
				t.Errorf("%s has the line %q", call, line)
			}
		}
	}
	if strays := log.lines("-"); len(strays) > 0 {
		t.Errorf("lines of no call: %q", strays)
	}
}

// Functions that put something in the place of what writes.
func TestNodeReplacedWriters(t *testing.T) {
	t.Parallel()
	p, log := framed(t, "node", `
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
}`)
	nodeMust(t, p, "c1", arguments{}, `["[ours] one\n","[error] two\n","three\n","four\n"]`)
	log.wait(t, "c1", "stdout [ours] one")
	log.wait(t, "c1", "stdout [error] two")
	if got := log.lines("c1"); len(got) != 2 {
		t.Errorf("lines %q, want two", got)
	}
}

// A function that closes the descriptors of the driver's log gets none of it into its own files.
func TestNodeClosedDescriptors(t *testing.T) {
	t.Parallel()
	p, log := framed(t, "node", `
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
}`)
	for n := range 4 {
		nodeMust(t, p, fmt.Sprintf("call-%d", n), arguments{"n": n}, `[true,""]`)
		log.wait(t, fmt.Sprintf("call-%d", n), fmt.Sprintf("stdout before %d", n))
		log.wait(t, fmt.Sprintf("call-%d", n), fmt.Sprintf("stdout after %d", n))
	}
}

// A bundle may be an ES module, and import what writes by name.
func TestNodeModulesImportWriters(t *testing.T) {
	t.Parallel()
	p, log := framed(t, "node", `
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
}`)
	nodeMust(t, p, "c1", arguments{}, "1")
	for _, line := range []string{"stdout written", "warn warned", "stdout spawned", "stdout executed"} {
		log.wait(t, "c1", line)
	}
	log.wait(t, "-", "info at the import")
}
