package contract

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

var answerers = map[string]string{
	"python": `
from fob import Response
def callme(request, how="plain", x=None):
    if how == "own":
        return Response("own", headers={"X-A": "b", "Fob-Call": "forged"})
    if how == "stream":
        return iter(["a", "b"])
    if how == "own stream":
        return Response(iter(["a", "b"]), 201, {"X-A": "b"})
    if how == "raise":
        raise KeyError("x")
    return [name for name in request.headers if "fob" in name]
`,
	"node": `
function callme(request, how = 'plain', x = null) {
  if (how === 'own') return new Response('own', { headers: { 'X-A': 'b', 'Fob-Call': 'forged' } });
  if (how === 'stream') return ['a', 'b'][Symbol.iterator]();
  if (how === 'own stream') return new Response(new Blob(['a', 'b'.repeat(100000)]).stream(), { status: 201, headers: { 'X-A': 'b' } });
  if (how === 'raise') throw new RangeError('x');
  return Object.keys(request.headers).filter((name) => name.includes('fob'));
}
`,
}

// Each answer, whatever it is, brings back the token of its request, first of all.
func TestToken(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		n := 0
		say := func(line, fields, body string, status int) {
			t.Helper()
			conn, err := p.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(Patience))
			n++
			token := fmt.Sprintf("Fob-Call: 0123456789ab%04x\r\n", n)
			go func() { // it may be more than the driver reads
				_, _ = io.WriteString(conn, line+" HTTP/1.1\r\n"+token+fields+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
				_ = conn.(*net.UnixConn).CloseWrite()
			}()
			answer, err := io.ReadAll(conn)
			first, rest, _ := strings.Cut(string(answer), "\r\n")
			if err != nil || !strings.HasPrefix(first, fmt.Sprintf("HTTP/1.1 %d", status)) || !strings.HasPrefix(rest, token) || strings.Count(strings.ToLower(rest), "fob-call") != 1 {
				t.Errorf("%s with %s is answered by %.300q, %v", line, body, answer, err)
			}
		}
		say("GET /_fob/health", "", "", 200)
		say("POST /", "", "", 409)
		load(t, p.Client(t), answerers[lang])
		say("GET /_fob/health", "Host: fob\r\n", "", 200)
		say("PUT /_fob/function", "", `{"code": "x"}`, 409)
		say("POST /x", "", "", 404)
		say("GET /", "", "", 405)
		for how, status := range map[string]int{"plain": 200, "own": 200, "stream": 200, "own stream": 201, "raise": 500} {
			body := `{"how": "` + how + `"}`
			for _, fields := range []string{"Host: fob\r\n", "Host: fob\r\nX-A: b\r\n", "Host: fob\r\nConnection: close\r\n", "", "Fob-Args: {}\r\n"} {
				say("POST /", "Content-Type: application/json\r\n"+fields, body, status)
			}
			say("POST /", `Fob-Args: {"how": "`+how+`"}`+"\r\nFob-Stream: request\r\n", "some body", status)
		}
		say("POST /", "Host: fob\r\n", `{`, 200) // which is the function's to judge
		say("POST /", "Host: fob\r\nFob-Args: {\r\n", "", 400)
		say("POST /", "no colon\r\n", "", 400)
		say("POST /", "Transfer-Encoding: gzip\r\n", "", 400)
		say("POST /", "X: "+strings.Repeat("x", 300<<10)+"\r\n", "", 431)

		// A function does not see it, and without one there is none.
		for _, token := range []string{"", "Host: fob\r\nFob-Call: 0123456789abcdef\r\n", "Fob-Call: 0123456789abcde\r\n", "Fob-Call: 0123456789ab\x00def\r\n"} {
			conn, err := p.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\n"+token+"Content-Length: 0\r\n\r\n")
			_ = conn.(*net.UnixConn).CloseWrite()
			_ = conn.SetDeadline(time.Now().Add(Patience))
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasSuffix(string(answer), `{"result": []}`) || strings.Contains(string(answer), "Fob-Call") {
				t.Errorf("%q is answered by %q, %v", token, answer, err)
			}
			_ = conn.Close()
		}
		if status, _, body := p.Client(t).Do(t, newRequest(t, http.MethodPost, "/", "")); status != 200 || string(body) != `{"result": []}` {
			t.Errorf("answered %d %s", status, body)
		}
	})
}
