package e2e

import (
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
)

// nastyText has what must not reach a terminal as it is. As an argument it is
// percent-encoded, as a header it has what HTTP lets through.
const nastyText = "\x1b[31mmagpie\r\nlevel=error\x00\u009b1m\u202e\u2028end"

// Whatever callers and functions say, each line of the log is one of ours, and
// nothing in it is for a terminal to act upon; metrics have no word of theirs.
func TestNastyLog(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			p := boot(t, "FOB_POOL=python=1,node=0", "FOB_LOG_FORMAT="+format, "FOB_LOG_LEVEL=debug")
			nasty := url.QueryEscape(nastyText)
			code := "import sys, os, signal\ndef callme(how, **others):\n" +
				"    text = '\\x1b[31mmagpie\\r\\nlevel=error\\x00\\u009b1m\\u202e\\u2028end'\n" +
				"    print(text, flush=True)\n" +
				"    sys.stderr.write(text + '\\n')\n" +
				"    if how == 'raise': raise RuntimeError(text)\n" +
				"    if how == 'die':\n        os.write(2, text.encode() + b'\\n')\n        os.kill(os.getpid(), signal.SIGKILL)\n" +
				"    return text\n"
			p.gen("?name=nasty", code)
			p.do("POST", "/api/gen", "raise RuntimeError('\\x1b[31mmagpie\\r\\nlevel=error\\x00\\u009b1m\\u202e\\u2028end')")
			p.do("POST", "/api/gen", "import os; os.write(2, b'\\x1b[31mmagpie\\xc2\\x9b1m\\n'); os._exit(1)")
			for _, path := range []string{
				"/api/call/nasty?how=return&x=" + nasty, "/api/call/nasty?how=raise", "/api/call/nasty?how=die", "/api/call/" + url.PathEscape(nastyText), "/" + url.PathEscape(nastyText),
				"/api/call/nasty?how=return&" + nasty + "=1", "/api/cs/" + url.PathEscape(nastyText), "/api/functions?after=" + nasty,
			} {
				p.do("GET", path, "")
			}
			p.do("PUT", "/api/functions/"+url.PathEscape(nastyText), code)
			p.do("POST", "/api/gen?name="+nasty, code)
			p.do("POST", "/api/gen?lang="+nasty, code)
			p.do("POST", "/api/gen?cors="+nasty, code)
			p.do("GET", "/api/call/nasty?how=return", "", "X-Call-Id", "\u009b31m\u202e", "Traceparent", "\u009b31m", "Origin", "\u009b31m", "Fob-Timeout", "\u009b31m")
			p.do("GET", "/api/call/nasty?how=return", "", "X-Call-Id", "\u202e", "User-Agent", "\u009b31m", "X-Mine", "\u2028")
			for _, raw := range []string{"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x1b[31m / HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\nHost: \x1b[31m\r\n\r\n", "POST /api/gen HTTP/1.1\r\nHost: \xc2\x9b31m\r\nContent-Length: 1\r\n\r\nx"} {
				nc, err := net.Dial("tcp", p.Addr())
				if err != nil {
					t.Fatal(err)
				}
				nc.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(nc, raw)
				nc.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, nc)
				nc.Close()
			}
			metrics := p.do("GET", "/metrics", "").Body
			p.terminate()
			for what, text := range map[string]string{"the log": p.Log.String(), "the metrics": metrics} {
				for i, r := range text {
					if !unicode.IsPrint(r) && r != '\n' {
						t.Errorf("%s: %U in %q", what, r, text[max(0, i-100):min(len(text), i+20)])
						break
					}
				}
				for line := range strings.Lines(text) {
					if strings.HasPrefix(line, "level=error") {
						t.Errorf("%s has the line %q", what, line)
					}
				}
			}
			if !strings.Contains(p.Log.String(), "magpie") {
				t.Errorf("the log has nothing of the function's: %s", p.Log.String())
			}
			if strings.Contains(metrics, "magpie") {
				t.Errorf("the metrics have something of the function's: %s", metrics)
			}
		})
	}
}
