package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Functions that run until a file is there, and say that they run by making
// another one.
var waiters = map[string]string{
	"python": `
import os, time
def callme(begun, until):
    open(begun, "w").close()
    while not os.path.exists(until):
        time.sleep(0.002)
    return "done"
`,
	"node": `
const fs = require('fs');
async function callme(begun, until) {
  fs.writeFileSync(begun, '');
  while (!fs.existsSync(until)) await new Promise((resolve) => setTimeout(resolve, 2));
  return 'done';
}
`,
}

var echoes = map[string]string{
	"python": "def callme(x=None): return x",
	"node":   "function callme(x = null) { return x; }",
}

func load(t *testing.T, client *Client, code string) {
	t.Helper()
	if status, _, body := client.Load(t, code); status != http.StatusOK {
		t.Fatalf("loading answered %d %s", status, body)
	}
}

func newRequest(t *testing.T, method, path, body string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(method, "http://driver"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return request
}

type health struct {
	State, Lang, Runtime string
	Contract             int
	InFlight             *int `json:"in_flight"`
	Function             string
	Version              int
	TakesRequest         *bool `json:"takes_request"`
	Port                 *int
}

func (c *Client) health(t *testing.T) (h health) {
	t.Helper()
	status, header, body := c.Do(t, newRequest(t, http.MethodGet, "/_fob/health", ""))
	if status != http.StatusOK || header.Get("Content-Type") != "application/json" {
		t.Fatalf("health answered %d %s", status, body)
	}
	if err := json.Unmarshal(body, &h); err != nil || h.InFlight == nil {
		t.Fatalf("health answered %s: %v", body, err)
	}
	return h
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		blank := client.health(t)
		if blank.State != "blank" || blank.Lang != lang || blank.Runtime == "" || blank.Contract != 2 || *blank.InFlight != 0 || blank.Port != nil {
			t.Errorf("blank: %+v", blank)
		}
		load(t, client, echoes[lang])
		loaded := client.health(t)
		if loaded.State != "loaded" || loaded.Function != "f" || loaded.Version != 1 || loaded.TakesRequest == nil || *loaded.TakesRequest {
			t.Errorf("loaded: %+v", loaded)
		}
		info, err := os.Stat(p.socket)
		if err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("the socket has mode %v, want 0777 (%v)", info.Mode(), err)
		}
	})
}

func TestHealthTellsOfRequest(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		client := boot(t, lang).Client(t)
		load(t, client, strings.Replace(echoes[lang], "x", "request, x", 1))
		if h := client.health(t); h.TakesRequest == nil || !*h.TakesRequest {
			t.Errorf("%+v, want takes_request", h)
		}
	})
}

func TestLoadsOnce(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		for _, code := range []string{echoes[lang], "(((", "x = 1"} {
			client := boot(t, lang).Client(t)
			bad := newRequest(t, http.MethodPut, "/_fob/function", `{"code": 1}`)
			if status, header, body := client.Do(t, bad); status != 400 || header.Get("Fob-Error") != "bad_request" {
				t.Errorf("code that is a number answered %d %s", status, body)
			}
			client.Load(t, code)
			for range 2 {
				if status, header, body := client.Load(t, echoes[lang]); status != 409 || header.Get("Fob-Error") != "already_loaded" {
					t.Errorf("another load answered %d %s", status, body)
				}
			}
		}
	})
}

func TestUnknownPaths(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		client := boot(t, lang).Client(t)
		for _, c := range []struct {
			method, path string
			status       int
			code         string
		}{
			{"GET", "/", 405, "bad_method"},
			{"POST", "/", 409, "not_loaded"},
			{"POST", "/_fob/health", 405, "bad_method"},
			{"POST", "/_fob/function", 405, "bad_method"},
			{"GET", "/_fob", 404, "unknown_path"},
			{"POST", "/x", 404, "unknown_path"},
		} {
			status, header, body := client.Do(t, newRequest(t, c.method, c.path, ""))
			if status != c.status || header.Get("Fob-Error") != c.code {
				t.Errorf("%s %s answered %d %s, want %d %s", c.method, c.path, status, body, c.status, c.code)
			}
		}
	})
}

// A caller that vanishes leaves its call running, and counted.
func TestInFlight(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		folder := t.TempDir()
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, waiters[lang])
		body := fmt.Sprintf(`{"begun": "%[1]s/begun", "until": "%[1]s/until"}`, folder)
		conn, err := p.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		Eventually(t, "the call runs", func() bool { return exists(folder + "/begun") })
		if n := *client.health(t).InFlight; n != 1 {
			t.Errorf("in_flight is %d while a call runs", n)
		}
		_ = conn.Close()
		if n := *client.health(t).InFlight; n != 1 {
			t.Errorf("in_flight is %d once the caller has gone", n)
		}
		touch(t, folder+"/until")
		Eventually(t, "in_flight is 0", func() bool { return *client.health(t).InFlight == 0 })
	})
}

// Two calls run at once: each waits for the file that the other one makes.
func TestConcurrentCalls(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		folder := t.TempDir()
		client := boot(t, lang).Client(t)
		load(t, client, waiters[lang])
		answers := make(chan string, 2)
		for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
			request := newRequest(t, http.MethodPost, "/", fmt.Sprintf(`{"begun": "%[1]s/%[2]s", "until": "%[1]s/%[3]s"}`, folder, names[0], names[1]))
			go func() {
				status, _, body, err := client.Try(request)
				answers <- fmt.Sprint(status, string(body), err)
			}()
		}
		for range 2 {
			if answer := <-answers; answer != `200{"result": "done"}<nil>` {
				t.Error(answer)
			}
		}
	})
}

func TestChunkedBody(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		client := boot(t, lang).Client(t)
		load(t, client, echoes[lang])
		text := strings.Repeat("0123456789abcdef", 20000)
		reader, writer := io.Pipe()
		go func() {
			for _, part := range []string{`{"x"`, `: "`, text[:1], text[1:], `"}`} {
				_, _ = io.WriteString(writer, part)
			}
			_ = writer.Close()
		}()
		request, err := http.NewRequest(http.MethodPost, "http://driver/", reader)
		if err != nil {
			t.Fatal(err)
		}
		status, _, body := client.Do(t, request)
		if want := `{"result": "` + text + `"}`; status != 200 || string(body) != want {
			t.Errorf("answered %d %s", status, show(body))
		}
	})
}

// speak sends bytes over a connection of its own and returns all that comes
// back until the driver hangs up or has sent so many answers.
func speak(t *testing.T, p *process, say string, answers int) (statuses []int, bodies []string) {
	t.Helper()
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	go func() { _, _ = io.WriteString(conn, say) }() // it may be more than the driver reads
	reader := bufio.NewReader(conn)
	for range answers {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Errorf("after %d answers to %s: %v", len(statuses), show([]byte(say)), err)
			return statuses, bodies
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		statuses, bodies = append(statuses, response.StatusCode), append(bodies, string(body))
	}
	return statuses, bodies
}

func TestMalformedRequests(t *testing.T) {
	good := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{\"x\": 1}"
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, echoes[lang])
		for _, c := range []struct {
			say  string
			want []int
		}{
			{good + good + good, []int{200, 200, 200}},
			{"POST / HTTP/1.0\r\n\r\n" + good, []int{200}},
			{"POST / HTTP/1.1\r\nConnection: close\r\n\r\n" + good, []int{200}},
			{good + "garbage\r\n\r\n" + good, []int{200, 400}},
			{"\x16\x03\x01\x00\r\n\r\n", []int{400}},
			{"POST / HTTP/2.0\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nno colon\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nname : x\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\na: 1\r\n folded\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", []int{400}},
			{"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{\"x\r\n5\r\n\": 1}\r\n0\r\nTrailer: z\r\n\r\n" + good, []int{200, 200}},
			{"POST / HTTP/1.1\r\nFob-Args: {}\r\nFob-Args: {}\r\n\r\n", []int{400}},
			{"POST / HTTP/1.1\r\nX: " + strings.Repeat("x", 300<<10) + "\r\n\r\n", []int{431}},
			{"POST / HTTP/1.1\r\nX: " + strings.Repeat("x", 600<<10), []int{431}},
			{"POST / HTTP/1.1\r\nFob-Args: {\"x\": \"" + strings.Repeat("x", 200<<10) + "\"}\r\n\r\n" + good, []int{200, 200}},
		} {
			statuses, bodies := speak(t, p, c.say, len(c.want))
			if fmt.Sprint(statuses) != fmt.Sprint(c.want) {
				t.Errorf("%s: answered %v, want %v: %v", show([]byte(c.say)), statuses, c.want, bodies)
			}
		}
		if status, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", `{"x": "alive"}`)); status != 200 || string(body) != `{"result": "alive"}` {
			t.Errorf("afterwards a call answered %d %s", status, body)
		}
	})
}

// Repeated headers are one, as HTTP has it, and so are cookies, which have a rule
// of their own: HTTP/2 splits them.
func TestRepeatedHeaders(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), map[string]string{
			"python": "def callme(request): return [request.headers['x-a'], request.headers['cookie']]",
			"node":   "module.exports = (request) => [request.headers['x-a'], request.headers.cookie];",
		}[lang])
		say := "POST / HTTP/1.1\r\nX-A: 1\r\nCookie: a=1\r\nx-a: 2\r\ncookie: b=2; c=3\r\nCookie: d=4\r\n\r\n"
		want := `{"result": ["1, 2", "a=1; b=2; c=3; d=4"]}`
		if _, bodies := speak(t, p, say, 1); len(bodies) != 1 || strings.ReplaceAll(bodies[0], `","`, `", "`) != want {
			t.Errorf("answered %v, want %s", bodies, want)
		}
	})
}

// A request may come in pieces as small as they get.
func TestRequestInPieces(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), echoes[lang])
		conn, err := p.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		say := "POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n{\"x\": 1}"
		for i := range say {
			if _, err := io.WriteString(conn, say[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); string(body) != `{"result": 1}` {
			t.Errorf("answered %s %v", body, err)
		}
	})
}

// A caller that has said all may close its half and still gets its answer.
func TestHalfClosedConnection(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), map[string]string{
			"python": "async def callme(): return 1",
			"node":   "const callme = () => new Promise((resolve) => setTimeout(resolve, 5, 1));",
		}[lang])
		conn, err := p.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\n\r\n")
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(Patience))
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), `{"result": 1}`) {
			t.Errorf("answered %q %v", answer, err)
		}
	})
}

// A connection must not become the standard output that a function closed:
// what it writes there would reach a caller.
func TestConnectionsAfterStandardDescriptorsAreClosed(t *testing.T) {
	codes := map[string]string{
		"python": `
import os
def callme(x):
    if x == "close":
        for fd in (0, 1, 2):
            os.close(fd)
        return x
    return [os.write(fd, b"garbage") for fd in (1, 2)]
`,
		"node": `
const fs = require('fs');
function callme(x) {
  if (x === 'close') {
    for (const fd of [0, 1, 2]) fs.closeSync(fd);
    return x;
  }
  return [1, 2].map((fd) => fs.writeSync(fd, 'garbage'));
}
`,
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		load(t, p.Client(t), codes[lang])
		for _, c := range [][2]string{{"close", `{"result": "close"}`}, {"print", "[7,7]"}, {"print", "[7,7]"}} {
			body := `{"x": "` + c[0] + `"}`
			_, answers := speak(t, p, fmt.Sprintf("POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body), 1)
			if got := strings.ReplaceAll(fmt.Sprint(answers), "7, 7", "7,7"); !strings.Contains(got, c[1]) {
				t.Errorf("%s answered %s", c[0], got)
			}
		}
	})
}
