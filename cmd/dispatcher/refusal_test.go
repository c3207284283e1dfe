package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEarlyRefusals: what is refused before any handler sees it is a problem
// document like all others, on the address and on the control socket.
func TestEarlyRefusals(t *testing.T) {
	p := boot(t, nil)
	p.gen("?name=echo", "def callme(request): return request.method\n")
	const host = "Host: localhost\r\n"
	for what, c := range map[string]struct {
		raw    string
		status int
		code   string
	}{
		"no host":                {"GET /api/call/echo HTTP/1.1\r\n\r\n", 400, "bad_request"},
		"two hosts":              {"GET /api/call/echo HTTP/1.1\r\n" + host + host + "\r\n", 400, "bad_request"},
		"a bad escape":           {"GET /api/call/%zz HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request"},
		"a bad method":           {"G(T /api/stats HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request"},
		"a blank in the path":    {"GET /api/call/a b HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request"},
		"a bad header":           {"GET /api/stats HTTP/1.1\r\n" + host + "nonsense\r\n\r\n", 400, "bad_request"},
		"a bad length":           {"POST /api/call/echo HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400, "bad_request"},
		"a bad chunk":            {"POST /api/call/echo HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"},
		"chunks that break off":  {"POST /api/call/echo HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", 400, "bad_request"},
		"TLS":                    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"},
		"HTTP/2":                 {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405, "method_not_allowed"},
		"CONNECT":                {"CONNECT localhost:80 HTTP/1.1\r\n" + host + "\r\n", 404, "unknown_route"},
		"another version":        {"GET /api/stats HTTP/3.0\r\n" + host + "\r\n", 505, "unsupported_http_version"},
		"another coding":         {"POST /api/call/echo HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 501, "unknown_transfer_encoding"},
		"an unknown expectation": {"POST /api/call/echo HTTP/1.1\r\n" + host + "Content-Length: 2\r\nExpect: cake\r\n\r\nhi", 417, "bad_expectation"},
		"a head too large":       {"GET /api/call/echo HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("x", 256<<10) + "\r\n\r\n", 431, "headers_too_large"},
	} {
		for _, before := range []string{"", "GET /api/call/echo HTTP/1.1\r\n" + host + "\r\n", "GET /healthz HTTP/1.1\r\n" + host + "\r\n"} {
			for _, network := range []string{"tcp", "unix"} {
				addr := strings.TrimPrefix(p.URL, "http://")
				if network == "unix" {
					addr = filepath.Join(p.cfg.Data, controlName)
				}
				nc, err := net.Dial(network, addr)
				if err != nil {
					t.Fatal(err)
				}
				nc.SetDeadline(time.Now().Add(time.Minute))
				go func() {
					io.WriteString(nc, before+c.raw)
					nc.(interface{ CloseWrite() error }).CloseWrite()
				}()
				in := bufio.NewReader(nc)
				var last answered
				for {
					response, err := http.ReadResponse(in, nil)
					if err != nil {
						break
					}
					var body bytes.Buffer
					body.ReadFrom(response.Body)
					last = answered{response.StatusCode, response.Header, body.String()}
				}
				nc.Close()
				t.Run(what, func(t *testing.T) {
					last.wantsProblem(t, c.status, c.code)
					if last.Header.Get("Fob-Error") != "platform" {
						t.Errorf("Fob-Error is %q", last.Header.Get("Fob-Error"))
					}
				})
			}
		}
	}
}
