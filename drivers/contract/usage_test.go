package contract

import (
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Functions that take processor time or memory, or wait for a file.
var spenders = map[string]string{
	"python": `
import os, time
def callme(how, begun="", until=""):
    if how == "burn":
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
    if how == "sleep":
        time.sleep(0.1)
    if how == "memory":
        x = bytearray(200_000_000)
        for i in range(0, len(x), 4096):
            x[i] = 1
    if how == "wait":
        open(begun, "w").close()
        while not os.path.exists(until):
            time.sleep(0.002)
    if how == "raise":
        raise KeyError("x")
    if how == "stream":
        return iter(["a", "b"])
    if how == "broken":
        return broken()
    return how
def broken():
    yield "a"
    raise KeyError("x")
`,
	"node": `
const fs = require('fs');
require('v8').setFlagsFromString('--expose-gc');
const gc = require('vm').runInNewContext('gc');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function callme(how, begun = '', until = '') {
  if (how === 'burn') for (const { user, system } = process.cpuUsage(), end = user + system + 100_000; process.cpuUsage().user + process.cpuUsage().system < end;);
  if (how === 'sleep') await sleep(100);
  if (how === 'memory') {
    Buffer.alloc(200_000_000, 1);
    await sleep(0);
    gc(); // gives it back
  }
  if (how === 'wait') {
    fs.writeFileSync(begun, '');
    while (!fs.existsSync(until)) await sleep(2);
  }
  if (how === 'raise') throw new Error('x');
  if (how === 'stream') return ['a', 'b'].values();
  if (how === 'broken') return broken();
  return how;
}
function* broken() {
  yield 'a';
  throw new Error('x');
}
`,
}

var usagePattern = regexp.MustCompile(`^cpu=(\d+)(?:; peak=(\d+))?(; shared)?$`)

type usage struct {
	cpu    int // microseconds
	peak   int // bytes; 0 if the kernel does not tell
	shared bool
}

func parseUsage(t *testing.T, field string) (u usage) {
	t.Helper()
	found := usagePattern.FindStringSubmatch(field)
	if found == nil {
		t.Fatalf("Fob-Usage is %q", field)
	}
	u.cpu, _ = strconv.Atoi(found[1])
	u.peak, _ = strconv.Atoi(found[2])
	u.shared = found[3] != ""
	return u
}

func TestUsage(t *testing.T) {
	eachIn(t, spenders, func(t *testing.T, lang string) {
		// The kernel counts what the process had before exec, which is the test's own memory.
		p := start(t, lang, func(cmd *exec.Cmd) {
			shell := exec.Command("sh", append([]string{"-c", `"$@"; exit $?`, "sh"}, cmd.Args...)...)
			cmd.Path, cmd.Args = shell.Path, shell.Args
		})
		p.ready(t)
		load(t, p.Client(t), spenders[lang])
		c := newCaller(t, p)
		spend := func(id, how string) (*http.Response, string) {
			t.Helper()
			response, answer, err := c.call(id, `{"how": "`+how+`"}`)
			if err != nil {
				t.Fatal(err)
			}
			return response, answer
		}
		of := func(how string) usage {
			t.Helper()
			response, _ := spend("id", how)
			return parseUsage(t, response.Header.Get("Fob-Usage"))
		}
		if u := of("burn"); u.cpu < 95_000 || u.shared {
			t.Errorf("burning 100 ms cost %+v", u)
		}
		if u := of("sleep"); u.cpu > 80_000 || u.shared {
			t.Errorf("sleeping cost %+v", u)
		}
		before, during := of("nothing"), of("memory")
		after := of("nothing")
		if during.peak < before.peak+150_000_000 || during.peak < 200_000_000 || after.peak > during.peak-40_000_000 {
			t.Errorf("peaks before, during and after a call with 200 MB: %+v, %+v, %+v", before, during, after)
		}
		if response, answer := spend("id", "raise"); response.StatusCode != 500 || !strings.Contains(answer, "KeyError") && !strings.Contains(answer, "Error") {
			t.Errorf("it answered %d %s", response.StatusCode, answer)
		} else {
			parseUsage(t, response.Header.Get("Fob-Usage"))
		}
		for how, code := range map[string]string{"stream": "", "broken": "raised"} {
			response, _ := spend("id", how)
			if response.Header.Get("Fob-Usage") != "" || response.Trailer.Get("Fob-Error") != code {
				t.Errorf("%s: the head says %q, the trailer %v", how, response.Header.Get("Fob-Usage"), response.Trailer)
			}
			parseUsage(t, response.Trailer.Get("Fob-Usage"))
		}
		for _, how := range []string{"nothing", "stream", "broken"} {
			if response, _ := spend("", how); response.Header.Get("Fob-Usage") != "" || response.Trailer.Get("Fob-Usage") != "" {
				t.Errorf("a call without an ID is told what it cost: %v, %v", response.Header, response.Trailer)
			}
		}
		// The field comes right after the token.
		say := "POST / HTTP/1.1\r\n" + callToken + "Fob-Call-Id: x\r\n\r\n"
		if _, err := c.conn.Write([]byte(say)); err != nil {
			t.Fatal(err)
		}
		line, _ := c.in.ReadString('\n')
		token, _ := c.in.ReadString('\n')
		field, _ := c.in.ReadString('\n')
		if token != callToken || !strings.HasPrefix(field, "Fob-Usage: cpu=") {
			t.Errorf("the answer begins with %q, %q, %q", line, token, field)
		}
	})
}

// A call during which another one ran says so, whichever began first.
func TestSharedUsage(t *testing.T) {
	eachIn(t, spenders, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), spenders[lang])
		folder := t.TempDir()
		long, short := newCaller(t, p), newCaller(t, p)
		of := func(response *http.Response, _ string, err error) usage {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return parseUsage(t, response.Header.Get("Fob-Usage"))
		}
		if u := of(short.call("a", `{"how": "nothing"}`)); u.shared {
			t.Errorf("the first call is not alone: %+v", u)
		}
		var u usage
		done := make(chan struct{})
		go func() {
			defer close(done)
			response, _, err := long.call("b", `{"how": "wait", "begun": "`+folder+`/begun", "until": "`+folder+`/until"}`)
			if err == nil {
				u = parseUsage(t, response.Header.Get("Fob-Usage"))
			}
		}()
		Eventually(t, "the long call runs", func() bool { return exists(folder + "/begun") })
		if u := of(short.call("c", `{"how": "nothing"}`)); !u.shared {
			t.Errorf("a call within another is alone: %+v", u)
		}
		touch(t, folder+"/until")
		<-done
		if !u.shared {
			t.Errorf("a call with another within is alone: %+v", u)
		}
		if u := of(short.call("d", `{"how": "nothing"}`)); u.shared {
			t.Errorf("the last call is not alone: %+v", u)
		}
	})
}

// The driver ignores a field that is malformed or in another place.
func TestCallIDInItsPlace(t *testing.T) {
	codes := map[string]string{
		"python": "def callme(request): return [name for name in request.headers if 'call' in name]",
		"node":   "module.exports = (request) => Object.keys(request.headers).filter((name) => name.includes('call'));",
	}
	eachIn(t, spenders, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), codes[lang])
		for fields, cost := range map[string]bool{
			callToken + "Fob-Call-Id: 0193-abc\r\n":                        true,
			callToken + "Fob-Call-Id: " + strings.Repeat("x", 64) + "\r\n": true,
			callToken + "Fob-Call-Id: " + strings.Repeat("x", 65) + "\r\n": false,
			callToken + "Fob-Call-Id: \r\n":                                false,
			callToken + "Fob-Call-Id: a b\r\n":                             false,
			callToken + "Fob-Call-Id: é\r\n":                               false,
			callToken + "Host: fob\r\nFob-Call-Id: x\r\n":                  false,
			"Fob-Call-Id: x\r\n":                                           false,
			"Fob-Call-Id: x\r\n" + callToken:                               false,
			"Host: fob\r\n" + callToken + "Fob-Call-Id: x\r\n":             false,
			callToken: false,
			callToken + "Fob-Call-Id: x\r\nHost: fob\r\nContent-Length: 0\r\n": true,
		} {
			c := newCaller(t, p)
			if _, err := c.conn.Write([]byte("POST / HTTP/1.1\r\n" + fields + "\r\n")); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if told := response.Header.Get("Fob-Usage") != ""; response.StatusCode != 200 || told != cost {
				t.Errorf("%q answered %d, and says what it cost: %v", fields, response.StatusCode, told)
			}
		}
	})
}
