package contract

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// forker forks in every way there is, and its children come back in every way.
const forker = `
import asyncio, ctypes, os, sys, threading, time

libc = ctypes.PyDLL(None)

def fork(way):
    if way == "libc":
        # A thread that waits for the GIL while libc forks leaves the child a lock
        # that nobody opens. So all get the GIL first, and go back to where they rest.
        for _ in range(20):
            time.sleep(0.001)
        return libc.fork()
    return os.forkpty()[0] if way == "forkpty" else os.fork()

def child(how):
    print("child of", how)
    print("begun by", how, end="")
    if how == "raise":
        raise KeyError("child raised")
    if how == "exec":
        os.execvp("no-such-helper", ["x"])
    if how == "exit":
        sys.exit(3)
    if how == "say":
        sys.exit("child says")
    if how == "end":
        os._exit(4)
    if how == "stream":
        return iter(["child"])
    if how == "await":
        return asyncio.sleep(0, "child")
    return "child"

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def plain(user, way, how):
    print("parent begins", how, end=" ")
    pid = fork(way)
    if pid == 0:
        return child(how)
    print("and ends")
    return f"{user} {status(pid)}"

async def coroutine(user, way, how):
    await asyncio.sleep(0)
    pid = fork(way)
    if pid == 0:
        value = child(how)
        return await value if how == "await" else value
    return f"{user} {await asyncio.to_thread(status, pid)}"

def thread(user, way, how):
    pids = []
    def work():
        pid = fork(way)
        if pid == 0:
            child(how)
        pids.append(pid)
    t = threading.Thread(target=work)
    t.start()
    t.join()
    return f"{user} {status(pids[0])}"

def generator(user, way, how):
    yield "first "
    pid = fork(way)
    if pid == 0:
        child(how)
        if how != "stream":
            return
        yield "child"
    yield f"{user} {status(pid)}"
    yield " last"

async def asynchronous(user, way, how):
    yield "first "
    pid = fork(way)
    if pid == 0:
        child(how)
        if how != "stream":
            return
        yield "child"
    yield f"{user} {await asyncio.to_thread(status, pid)}"
    yield " last"

def callme(user, kind="", way="", how=""):
    return globals()[kind](user, way, how) if kind else user
`

// A forked process never answers, however it comes back, and it ends as a script
// would. Its parent's connections go on.
func TestForks(t *testing.T) {
	ends := map[string]int{"return": 0, "raise": 1, "exec": 1, "exit": 3, "say": 1, "end": 4, "stream": 0, "await": 0}
	for _, kind := range []string{"plain", "coroutine", "thread", "generator", "asynchronous"} {
		for _, way := range []string{"fork", "forkpty", "libc"} {
			t.Run(kind+" "+way, func(t *testing.T) {
				t.Parallel()
				p := boot(t, "python")
				load(t, p.Client(t), forker)
				conn, err := p.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(Patience))
				in := bufio.NewReader(conn)
				n := 0
				ask := func(args string) string {
					t.Helper()
					n++
					token := fmt.Sprintf("Fob-Call: %016d\r\n", n)
					body := fmt.Sprintf(`{"user": "u%d"%s}`, n, args)
					_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", token, len(body), body)
					begin, err := in.Peek(len("HTTP/1.1 200 OK\r\n" + token))
					if err != nil || string(begin) != "HTTP/1.1 200 OK\r\n"+token {
						t.Fatalf("%s is answered by %q, %v", body, begin, err)
					}
					response, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Fatal(err)
					}
					answer, err := io.ReadAll(response.Body)
					if err != nil || len(response.Trailer) > 0 {
						t.Fatalf("%s is answered by %s, %v, %v", body, answer, response.Trailer, err)
					}
					return string(answer)
				}
				ask("") // is answered when the driver is done with accepting the connection
				for how, end := range ends {
					if kind == "thread" && how != "end" {
						end = 0 // as of any thread's
					}
					if kind == "coroutine" && how == "await" {
						end = 1
					}
					got := ask(fmt.Sprintf(`, "kind": "%s", "way": "%s", "how": "%s"`, kind, way, how))
					want := fmt.Sprintf(`{"result": "u%d %d"}`, n, end)
					if kind == "generator" || kind == "asynchronous" {
						want = fmt.Sprintf("first u%d %d last", n, end)
					}
					if got != want {
						t.Errorf("%s: answered %q, want %q", how, got, want)
					}
					for range 3 {
						if got, want := ask(""), fmt.Sprintf(`{"result": "u%d"}`, n); got != want {
							t.Fatalf("after %s: answered %s, want %s", how, got, want)
						}
					}
					Eventually(t, "the child's log is written", func() bool {
						log := p.Log()
						return strings.Contains(log, "child of "+how+"\n") && (how == "end" || strings.Contains(log, "begun by "+how))
					})
				}
				log := p.Log()
				for how := range ends {
					// What the child began may be at the beginning of another's line.
					began := 1
					if how == "end" {
						began = 0 // which os._exit loses in a script, too
					}
					if strings.Count(log, "child of "+how+"\n") != 1 || strings.Count(log, "begun by "+how) != began {
						t.Errorf("the log has not the lines of the child of %s, once", how)
					}
					// libc's fork runs no hook to tell that a line is half the parent's.
					if kind == "plain" && way != "libc" && strings.Count(log, "parent begins "+how) != 1 {
						t.Errorf("the log has twice what the parent of %s began", how)
					}
				}
			})
		}
	}
}

// Code may fork as it is imported, too: its child answers no load.
func TestForkAtImport(t *testing.T) {
	for how, end := range map[string]int{"pass": 0, "raise KeyError('child raised')": 1, "sys.exit(3)": 3, "os._exit(4)": 4, "os.execvp('no-such-helper', ['x'])": 1} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := boot(t, "python")
			conn, err := p.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(Patience))
			in := bufio.NewReader(conn)
			code := fmt.Sprintf(`import os, sys\npid = os.fork()\nif pid == 0:\n    %s\nelse:\n    end = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\ndef callme(): return end`, how)
			for _, request := range []string{"PUT /_fob/function", "POST /", "POST /"} {
				body := ""
				if request != "POST /" {
					body = `{"code": "` + code + `"}`
				}
				_, _ = fmt.Fprintf(conn, "%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", request, len(body), body)
				response, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := io.ReadAll(response.Body)
				if want := fmt.Sprintf(`{"result": %d}`, end); err != nil || response.StatusCode != 200 || body == "" && string(answer) != want || in.Buffered() > 0 {
					t.Errorf("%s: answered %d %s, %v, and %d bytes more", request, response.StatusCode, answer, err, in.Buffered())
				}
			}
		})
	}
}

const childMinder = `
import asyncio, concurrent.futures, multiprocessing, os, signal, subprocess, sys, time

context = multiprocessing.get_context("fork")

def status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def until(path):
    while not os.path.exists(path):
        time.sleep(0.002)

def work(pipe, x):
    print("worker has", x)
    pipe.send(x + 1)
    if x == 1:
        sys.exit(5)

def daemon(folder):
    if os.fork() == 0:
        os.setsid()
        until(folder + "/go")
        print("daemon goes")
        open(folder + "/gone", "w").close()
        os._exit(0)
    return "started"

def process(folder):
    ends = []
    for x in (0, 1):
        ours, theirs = context.Pipe()
        child = context.Process(target=work, args=(theirs, x))
        child.start()
        ends.append(ours.recv())
        child.join()
        ends.append(child.exitcode)
    return ends

def pool(folder):
    with context.Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])

def executor(folder):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(abs, [-1, -2, -3]))

def terminated(folder):
    child = os.fork()
    if child == 0:
        open(folder + "/begun", "w").close()
        time.sleep(600)
    until(folder + "/begun")
    os.kill(child, signal.SIGTERM)
    return status(child)

def command(folder):
    done = subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True, preexec_fn=os.setsid)
    return [done.stdout, done.returncode]

def missing(folder):
    try:
        subprocess.run(["no-such-helper"], preexec_fn=os.setsid)
    except FileNotFoundError as e:
        return e.errno

def loop(folder):
    child = os.fork()
    if child == 0:
        sys.exit(asyncio.run(asyncio.sleep(0.001, 6)))
    return status(child)

def callme(what="", folder=""):
    return globals()[what](folder) if what else "nothing"
`

// What a forked process rightly does goes on working.
func TestForksThatLiveOn(t *testing.T) {
	p := boot(t, "python")
	client := p.Client(t)
	load(t, client, childMinder)
	folder := t.TempDir()
	for what, want := range map[string]string{
		"daemon": `"started"`, "process": "[1, 0, 2, 5]", "pool": "[1, 2, 3]", "executor": "[1, 2, 3]", "terminated": "-15",
		"command": `["5\n", 0]`, "missing": "2", "loop": "6",
	} {
		request := newRequest(t, http.MethodPost, "/", fmt.Sprintf(`{"what": "%s", "folder": "%s"}`, what, folder))
		if _, _, body := client.Do(t, request); string(body) != `{"result": `+strings.ReplaceAll(want, "\n", `\n`)+"}" {
			t.Errorf("%s answered %s, want %s", what, body, want)
		}
		for range 2 {
			if _, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", "")); string(body) != `{"result": "nothing"}` {
				t.Errorf("after %s a call answered %s", what, body)
			}
		}
	}
	// Such as the daemon has none of the driver's connections, and does not keep them open.
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nConnection: close\r\n\r\n")
	_ = conn.SetDeadline(time.Now().Add(Patience))
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), `"nothing"}`) {
		t.Errorf("answered %q, %v", answer, err)
	}
	touch(t, folder+"/go")
	Eventually(t, "the daemon goes", func() bool { return exists(folder + "/gone") })
	for _, line := range []string{"daemon goes", "worker has 0", "worker has 1"} {
		Eventually(t, "the log has "+line+" once", func() bool { return strings.Count(p.Log(), line+"\n") == 1 })
	}
}
