package contract

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Child processes that inherit descriptors, whether or not the function waits for them.
func TestNodeChildrenThatInherit(t *testing.T) {
	t.Parallel()
	p, log := framed(t, "node", `
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
`)
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
		if lines := log.lines(call); len(lines) != want {
			t.Errorf("%s has %d lines, want %d", kinds[n%len(kinds)], len(lines), want)
		}
		for _, line := range []string{fmt.Sprintf("out %d", n), fmt.Sprintf("err %d", n)} {
			Eventually(t, "the driver's own output has "+line, func() bool { return strings.Contains(p.Log(), line) })
		}
	}
	if strays := log.lines("-"); len(strays) > 0 {
		t.Errorf("lines of no call: %q", strays)
	}
}

// What a child wrote comes before what the function writes when the child has ended.
func TestNodeOrderOfChildren(t *testing.T) {
	t.Parallel()
	p, log := framed(t, "node", `
const { spawn, spawnSync } = require('child_process');
async function callme() {
  for (let i = 0; i < 20; i++) {
    console.log('before', i);
    spawnSync('echo', ['sync', i], { stdio: 'inherit' });
    console.log('between', i);
    await new Promise((resolve) => spawn('printf', ['begun %s', i], { stdio: 'inherit' }).on('exit', resolve));
    console.log(' and ended', i);
  }
}`)
	nodeMust(t, p, "c1", arguments{}, "null")
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("before ", i), fmt.Sprint("sync ", i), fmt.Sprint("between ", i), fmt.Sprintf("begun %d and ended %d", i, i))
	}
	Eventually(t, "the driver's own output has all in order", func() bool { return strings.Contains(p.Log(), strings.Join(want, "\n")+"\n") })
	var last time.Time
	for _, line := range want {
		if strings.HasPrefix(line, "begun ") {
			continue // the two halves come over two connections, one of them perhaps in pieces
		}
		log.wait(t, "c1", "stdout "+line)
		for _, f := range log.frames() {
			if f.text == line && f.time.Before(last) {
				t.Errorf("the line %q is of a time before the line's before it", line)
			} else if f.text == line {
				last = f.time
			}
		}
	}
}

// No line is lost at an end that comes at once.
func TestNodeEnds(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "signal", "dies"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p, log := framed(t, "node", `
const { spawnSync } = require('child_process');
function callme(how) {
  spawnSync('sh', ['-c', 'echo last of a child'], { stdio: 'inherit' });
  for (let i = 0; i < 100; i++) console.log('x'.repeat(100)); // no more than a socket holds
  console.log('last words');
  if (how === 'exit') process.exit(0);
  process.kill(process.pid, how === 'signal' ? 'SIGTERM' : 'SIGKILL');
  return new Promise(() => {});
}`)
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
