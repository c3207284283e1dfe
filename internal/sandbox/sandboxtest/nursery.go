package sandboxtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/flockofbirds/fob/drivers/contract"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// A nursery is a sandbox whose function starts further drivers beside its own, by the
// same command and with the same confines. A driver takes a tenth of the time that a
// sandbox takes.
type nursery struct {
	inst         sandbox.Instance
	here, inside string // its folder, as the test and as the sandbox see it
	drivers      atomic.Int64
}

// nurseries are the functions that start a driver, and end it again when they are given
// its process ID.
var nurseries = map[string]string{
	"python": `
import os, subprocess
command = open("/proc/self/cmdline").read().rstrip("\0").split("\0")
born = {}
def callme(socket="", log="", secrets="", end=0):
    if end:
        born[end].kill()
        return born.pop(end).wait()
    os.mkdir(os.environ["FOB_SECRETS"] + secrets, 0o700)
    env = dict(os.environ, FOB_SOCKET=socket, FOB_SECRETS=os.environ["FOB_SECRETS"] + secrets)
    with open(log, "ab") as out:
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    born[child.pid] = child
    return child.pid
`,
	"node": `
const { spawn } = require('child_process');
const fs = require('fs');
const command = fs.readFileSync('/proc/self/cmdline', 'utf8').split('\0').slice(0, -1);
const born = new Map();
async function callme({ socket = '', log = '', secrets = '', end = 0 }) {
  if (end) {
    const child = born.get(end);
    born.delete(end);
    if (child.exitCode !== null || child.signalCode !== null) return 0;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await ended;
    return 0;
  }
  fs.mkdirSync(process.env.FOB_SECRETS + secrets, { mode: 0o700 });
  const env = { ...process.env, FOB_SOCKET: socket, FOB_SECRETS: process.env.FOB_SECRETS + secrets };
  const out = fs.openSync(log, 'a');
  const child = spawn(command[0], command.slice(1), { env, stdio: ['ignore', out, out] });
  fs.closeSync(out);
  born.set(child.pid, child);
  return child.pid;
}
`,
}

// nursery makes a sandbox a nursery.
func (h Harness) nursery(t *testing.T, e sandbox.Engine, lang string) *nursery {
	spec := Spec(lang)
	spec.Limits = sandbox.Limits{Memory: 1 << 30, CPUs: 2, Pids: 512}
	n := &nursery{inst: Create(t, e, spec)}
	n.here, n.inside = h.Folder(t, n.inst)
	if err := os.Chmod(n.here, 0o777); err != nil { // its drivers make sockets there
		t.Fatal(err)
	}
	Load(t, n.inst, nurseries[lang])
	return n
}

// boot starts a driver, which ends with the test.
func (n *nursery) boot(t *testing.T) contract.Driver {
	number := n.drivers.Add(1)
	socket, log := fmt.Sprintf("%03d.sock", number), fmt.Sprintf("%03d.log", number) // as long as SocketName, so that the path fits
	var pid int
	Call(t, n.inst, map[string]any{
		"socket": filepath.Join(n.inside, socket), "log": filepath.Join(n.inside, log), "secrets": fmt.Sprintf("/%03d", number),
	}, &pid)
	t.Cleanup(func() {
		status, body, err := Do(context.Background(), n.inst.Dial, http.MethodPost, "/", "", map[string]any{"end": pid})
		if err != nil || status != http.StatusOK {
			t.Errorf("ending a driver: status %d, %v: %s", status, err, body)
		}
	})
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(n.here, socket))
	}
	read := func() string {
		text, err := os.ReadFile(filepath.Join(n.here, log))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	Eventually(t, "the driver listens", func() bool {
		conn, err := dial(t.Context())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return contract.Driver{Dial: dial, Log: read}
}
