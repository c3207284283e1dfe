package contract

import (
	"fmt"
	"strings"
	"testing"
)

// Functions that make children in all ways. Each child writes a line to both of its descriptors.
var parents = map[string]string{
	"python": `
import asyncio, contextlib, multiprocessing, os, pty, subprocess, sys, threading, time

SH = "echo out $0; echo err $0 >&2"

def run(text):
    return subprocess.run(["sh", "-c", SH, text]).returncode

def popen(text):
    child = subprocess.Popen(["sh", "-c", SH, text])
    return child.wait()

def shell(text):
    return subprocess.call(SH.replace("$0", text), shell=True)

def system(text):
    return os.system(SH.replace("$0", text) + "; exit 3") >> 8

def spawn(text):
    return os.spawnvp(os.P_WAIT, "sh", ["sh", "-c", SH, text])

def posix(text):
    return os.waitpid(os.posix_spawnp("sh", ["sh", "-c", SH, text], os.environ), 0)[1]

def preexec(text):
    return subprocess.run(["sh", "-c", SH, text], preexec_fn=os.setsid).returncode

def awaited(text):
    async def work():
        child = await asyncio.create_subprocess_exec("sh", "-c", SH, text)
        return await child.wait()
    return asyncio.run(work())

def thread(text):
    codes = []
    t = threading.Thread(target=lambda: codes.append(run(text)))
    t.start()
    t.join()
    return codes[0]

def fork(text):
    child = os.fork()
    if child == 0:
        print("out", text)
        os.write(2, b"err " + text.encode() + b"\n")
        os._exit(0)
    return os.waitpid(child, 0)[1]

def fork_exec(text):
    child = os.fork()
    if child == 0:
        os.execvp("sh", ["sh", "-c", SH, text])
    return os.waitpid(child, 0)[1]

def work(text):
    print("out", text)
    print("err", text, file=sys.stderr)

def process(text):
    child = multiprocessing.get_context("fork").Process(target=work, args=(text,))
    child.start()
    child.join()
    return child.exitcode

def pool(text):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.apply(work, (text,))
    return 0

def merged(text):
    return subprocess.run(["sh", "-c", "echo out $0; echo more $0 >&2", text], stderr=subprocess.STDOUT).returncode

def both(text):
    return subprocess.run(["sh", "-c", "echo out $0; echo more $0", text], stdout=sys.stderr).returncode

def captured(text):
    done = subprocess.run(["sh", "-c", SH, text], capture_output=True, text=True)
    return [done.stdout, done.stderr]

def half(text):
    return subprocess.run(["sh", "-c", SH, text], stdout=subprocess.PIPE).stdout.decode()

def quiet(text):
    return subprocess.run(["sh", "-c", SH, text], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

def terminal(text):
    child, fd = pty.fork()
    if child == 0:
        os.execvp("sh", ["sh", "-c", "echo out $0", text])
    got = b""
    with contextlib.suppress(OSError):
        while data := os.read(fd, 100):
            got += data
    os.waitpid(child, 0)
    os.close(fd)
    return got.decode().strip()

def file(text):
    kept = os.dup(1)
    path = os.environ["TMPDIR"] + "/" + text
    with open(path, "w") as f:
        os.dup2(f.fileno(), 1)
    try:
        subprocess.run(["sh", "-c", SH, text])
        os.system("echo system")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    with open(path) as f:
        return f.read()

def ordered(text):
    for i in range(20):
        print("before", i, text)
        subprocess.run(["sh", "-c", "echo child $0 $1", str(i), text])
        os.system(f"echo system {i} {text}")
    return 0

def much(text):
    return subprocess.run([sys.executable, "-c", f"import sys; [print('x' * 99, '{text}') for i in range(5000)]; print('y' * 300000)"]).returncode

def unended(text):
    return subprocess.run(["printf", "begun %s", text]).returncode

def late(text):
    subprocess.Popen(["sh", "-c", "until [ -e $0/go ]; do sleep 0.01; done; echo late $1", os.environ["TMPDIR"], text])
    return 0

def fail(text):
    try:
        subprocess.run(["no-such-program"])
    except FileNotFoundError:
        return 0

def descriptors(text):
    return len(os.listdir("/proc/self/fd"))

def callme(how, text=""):
    return globals()[how](text)
`,
}

func TestChildrenInFrames(t *testing.T) {
	type ways map[string]struct {
		result string
		lines  []string
	}
	plain := []string{"stdout out TEXT", "stderr err TEXT"}
	all := map[string]ways{
		"python": {
			"run": {"0", plain}, "popen": {"0", plain}, "shell": {"0", plain}, "system": {"3", plain}, "spawn": {"0", plain}, "posix": {"0", plain},
			"preexec": {"0", plain}, "awaited": {"0", plain}, "thread": {"0", plain}, "fork": {"0", plain}, "fork_exec": {"0", plain},
			"process": {"0", plain}, "pool": {"0", plain}, "merged": {"0", []string{"stdout out TEXT", "stdout more TEXT"}},
			"both": {"0", []string{"stderr out TEXT", "stderr more TEXT"}}, "captured": {`["out TEXT\n", "err TEXT\n"]`, nil},
			"half": {`"out TEXT\n"`, []string{"stderr err TEXT"}}, "quiet": {"0", nil}, "terminal": {`"out TEXT"`, nil},
			"file": {`"out TEXT\nsystem\n"`, []string{"stderr err TEXT"}}, "unended": {"0", []string{"stdout begun TEXT"}}, "fail": {"0", nil},
		},
	}
	eachIn(t, parents, func(t *testing.T, lang string) {
		p, s := framed(t, lang, parents[lang])
		c := newCaller(t, p)
		descriptors := func() (n int) {
			_, answer, err := c.call("", `{"how": "descriptors"}`)
			if _, e := fmt.Sscanf(strings.ReplaceAll(answer, " ", ""), `{"result":%d}`, &n); err != nil || e != nil {
				t.Fatalf("it answered %q, %v", answer, err)
			}
			return n
		}
		before := descriptors()
		for round := range 2 {
			for how, way := range all[lang] {
				id := fmt.Sprintf("%s-%d", how, round)
				c.result(t, id, fmt.Sprintf(`{"how": "%s", "text": "%s"}`, how, id), strings.ReplaceAll(way.result, "TEXT", id))
				var lines []string
				for _, line := range way.lines {
					line = strings.ReplaceAll(line, "TEXT", id)
					lines = append(lines, line)
					_, text, _ := strings.Cut(line, " ")
					Eventually(t, "the driver's own output has "+text, func() bool { return strings.Contains(p.Log(), text) })
				}
				s.expect(t, id, lines...)
			}
			Eventually(t, "the descriptors are closed", func() bool { return descriptors() <= before+1 }) // one to wait with
		}
		if lines := s.lines("-"); lang == "python" && len(lines) > 0 {
			t.Errorf("lines of no call: %q", lines)
		}
	})
}

// What a child wrote before the function goes on comes before what the function writes next.
func TestOrderOfChildren(t *testing.T) {
	eachIn(t, parents, func(t *testing.T, lang string) {
		p, s := framed(t, lang, parents[lang])
		newCaller(t, p).result(t, "a", `{"how": "ordered", "text": "x"}`, "0")
		var want, framed []string
		for i := range 20 {
			want = append(want, fmt.Sprintf("before %d x", i), fmt.Sprintf("child %d x", i), fmt.Sprintf("system %d x", i))
		}
		for _, line := range want {
			framed = append(framed, "stdout "+line)
		}
		Eventually(t, "all lines come", func() bool { return len(s.lines("a")) >= len(want) })
		if got := s.lines("a"); strings.Join(got, "\n") != strings.Join(framed, "\n") {
			t.Errorf("the frames are\n%s", strings.Join(got, "\n"))
		}
		if !strings.Contains(p.Log(), strings.Join(want, "\n")+"\n") {
			t.Error("the driver's own output is in another order")
		}
	})
}

// Children of several calls at once, and one that outlives its call.
func TestChildrenOfManyCalls(t *testing.T) {
	eachIn(t, parents, func(t *testing.T, lang string) {
		p, s := framed(t, lang, parents[lang])
		c := newCaller(t, p)
		c.result(t, "began", `{"how": "late", "text": "began"}`, "0")
		done := make(chan string)
		hows := []string{"run", "system", "fork", "popen", "thread", "process"}
		for i := range hows {
			c := newCaller(t, p)
			go func() {
				wrong := ""
				for round := range 5 {
					id := fmt.Sprintf("c%d-%d", i, round)
					if _, answer, err := c.call(id, fmt.Sprintf(`{"how": "%s", "text": "%s"}`, hows[(i+round)%len(hows)], id)); err != nil || strings.Contains(answer, "error") {
						wrong = fmt.Sprint(answer, err)
					}
				}
				done <- wrong
			}()
		}
		for range hows {
			if wrong := <-done; wrong != "" {
				t.Error(wrong)
			}
		}
		touch(t, strings.TrimSuffix(p.socket, "/s")+"/go")
		Eventually(t, "the late child's line comes", func() bool {
			for _, f := range s.frames() {
				if f.text == "late began" {
					return true
				}
			}
			return false
		})
		count := 0
		Eventually(t, "all lines come", func() bool {
			count = 0
			for _, f := range s.frames() {
				if f.call != "-" && !strings.HasSuffix(f.text, " "+f.call) {
					t.Fatalf("a line of another call, as one of %s: %q", f.call, f.text)
				}
				count++
			}
			return count >= len(hows)*5*2+1
		})
	})
}

// A child that writes much is slowed down, and loses nothing of the driver's own output.
func TestChildrenWriteMuch(t *testing.T) {
	eachIn(t, parents, func(t *testing.T, lang string) {
		p, s := framed(t, lang, parents[lang])
		newCaller(t, p).result(t, "a", `{"how": "much", "text": "much"}`, "0")
		long := "stdout " + strings.Repeat("y", 300_000)
		Eventually(t, "the last line comes", func() bool {
			lines := s.lines("a")
			return len(lines) > 0 && lines[len(lines)-1] == long
		})
		if got := len(s.lines("a")); got != 5001 {
			t.Errorf("%d lines came", got)
		}
		Eventually(t, "the driver's own output has all", func() bool { return strings.Count(p.Log(), "xxx much\n") == 5000 })
	})
}

// What was written before the function ends the process is not lost.
func TestLastWords(t *testing.T) {
	codes := map[string]string{
		"python": `
import os, signal, subprocess
def callme(how):
    if how == "print":
        print("last words")
    if how == "forked":
        if os.fork() == 0:
            print("last words")
            os._exit(0)
        os.wait()
    if how in ("child", "direct", "killed"):
        subprocess.run(["sh", "-c", "echo last words" if how == "child" else ":"])
    if how in ("direct", "killed"):
        os.write(1, b"last words\n")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)
`,
	}
	eachIn(t, codes, func(t *testing.T, lang string) {
		for _, how := range []string{"print", "forked", "child", "direct", "killed"} {
			t.Run(how, func(t *testing.T) {
				p, s := framed(t, lang, codes[lang])
				if _, answer, err := newCaller(t, p).call("a", `{"how": "`+how+`"}`); err == nil {
					t.Fatalf("it answered %q", answer)
				}
				Eventually(t, "the driver's own output has the last words", func() bool { return strings.Contains(p.Log(), "last words\n") })
				if how != "direct" && how != "killed" {
					s.expect(t, "a", "stdout last words")
				}
			})
		}
	})
}
