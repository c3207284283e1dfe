package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// Whatever is odd about how a request says where it ends, what follows it is
// never run as a second one. The request that is run is either whole and first,
// or none.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.gen("?name=counter&max_scale=1", counterCode)
	number := 0
	for name, c := range map[string]struct {
		raw   string // {2} becomes the second request
		first bool   // whether the first may run; it need not
	}{
		"both lengths":                   {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{2}", true},
		"both lengths, the other":        {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: {n}\r\n\r\n0\r\n\r\n{2}", true},
		"two lengths":                    {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: {n}\r\n\r\n{2}", false},
		"two lengths in one":             {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, {n}\r\n\r\n{2}", false},
		"a signed length":                {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: +0\r\n\r\n{2}", false},
		"a negative length":              {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{2}", false},
		"a hexadecimal length":           {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x0\r\n\r\n{2}", false},
		"a great length":                 {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616\r\n\r\n{2}", false},
		"a length of blanks":             {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0 0\r\n\r\n{2}", false},
		"a length in an odd name":        {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length : {n}\r\n\r\n{2}", false},
		"a coding in an odd name":        {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{2}", false},
		"an odd coding":                  {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{2}", false},
		"chunked, identity":              {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{2}", false},
		"identity":                       {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{2}", false},
		"chunked twice":                  {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{2}", false},
		"chunked and another":            {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{2}", false},
		"a quoted coding":                {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{2}", false},
		"a tabbed coding":                {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{2}", false},
		"an empty coding":                {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{2}", false},
		"a folded coding":                {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nX: x\r\n Transfer-Encoding: chunked\r\nContent-Length: {n}5\r\n\r\n0\r\n\r\n{2}", false},
		"a folded value":                 {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 1{n}\r\n\r\n0\r\n\r\n{2}", true},
		"a coding of HTTP/1.0":           {"POST /api/call/counter?by=first HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{2}", true},
		"a bad chunk size":               {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n{2}", false},
		"a signed chunk size":            {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{2}", false},
		"a negative chunk size":          {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-0\r\n\r\n{2}", false},
		"a prefixed chunk size":          {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{2}", false},
		"a huge chunk size":              {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{2}", false},
		"an empty chunk size":            {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n{2}", false},
		"a chunk too long":               {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n{2}", false},
		"a chunk too short":              {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\r\n0\r\n\r\n{2}", false},
		"a bare CR behind a chunk":       {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r{}\r0\r\r{2}", false},
		"a line feed in an extension":    {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;\n{}\r\n" + "zz\r\n\r\n{2}", false},
		"a long extension":               {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 100000) + "\r\n{}\r\n0\r\n\r\n{2}", false},
		"a request in a trailer":         {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nX: {2}", true},
		"a request as a value":           {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {2}", true},
		"a bare CR in a header":          {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nX: y\r\r{2}", false},
		"a NUL in a header":              {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\nContent-Length: 0\r\n\r\n{2}", false},
		"a NUL in a name":                {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-\x00Length: 5\r\n\r\n{2}", false},
		"a header without a name":        {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n{2}", false},
		"a header without a colon":       {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length\r\n\r\n{2}", false},
		"two hosts":                      {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n{2}", false},
		"another host in the URL":        {"GET http://evil.test/api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{2}", false},
		"a user in the URL's host":       {"GET http://localhost@evil.test/api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{2}", false},
		"a user in the host":             {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: localhost@evil.test\r\nConnection: close\r\n\r\n{2}", false},
		"a host that is none":            {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: local host\r\nConnection: close\r\n\r\n{2}", false},
		"a blank line in the target":     {"GET /api/call/counter?by=first\r\n\r\n HTTP/1.1\r\nHost: localhost\r\n\r\n{2}", false},
		"a bad request":                  {"GET /api/call/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n{2}", false},
		"a body cut short":               {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{2}", false},
		"a long body cut short":          {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n{2}", false},
		"a body of a GET":                {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n\r\n{2}", false},
		"a body to another path":         {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n\r\n{2}", false},
		"a body to no path":              {"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n\r\n{2}", false},
		"a body of another site":         {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\nContent-Length: {n}\r\n\r\n{2}", false},
		"a body of a rebound name":       {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: evil.test\r\nContent-Length: {n}\r\n\r\n{2}", false},
		"a large body of a rebound name": {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 400000\r\n\r\n" + strings.Repeat("x", 300000) + "{2}", false},
		"an upgrade":                     {"GET /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{2}", true},
		"HTTP/2 at once":                 {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{2}", false},
		"a tunnel":                       {"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n{2}", false},
		"HTTP/0.9":                       {"GET /api/call/counter?by=first\r\n\r\n{2}", false},
		"expecting something else":       {"POST /api/call/counter?by=first HTTP/1.1\r\nHost: localhost\r\nExpect: 200-ok\r\nContent-Length: {n}\r\n\r\n{2}", false},
	} {
		number++
		t.Run(name, func(t *testing.T) {
			first, smuggled := fmt.Sprintf("first-%d-", number), fmt.Sprintf("smuggled-%d-", number)
			second := "GET /api/call/counter?by=" + smuggled + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
			raw := strings.NewReplacer("{2}", second, "{n}", fmt.Sprint(len(second)), "by=first", "by="+first).Replace(c.raw)
			nc, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(30 * time.Second))
			go func() {
				io.WriteString(nc, raw)
				nc.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(io.Discard, nc) // to the end, also when that is a reset
			ran := p.do("GET", "/api/call/counter", "").Body
			if strings.Contains(ran, smuggled) {
				t.Errorf("the second request was run: %s", ran)
			}
			if strings.Contains(ran, first) && !c.first {
				t.Errorf("the first request was run: %s", ran)
			}
		})
	}
	if ran := p.do("GET", "/api/call/counter", "").Body; strings.Contains(ran, "smuggled") {
		t.Errorf("in the end it was run by %s", ran)
	}
}

// What follows a proper request is one, whoever serves either of them, but for
// what follows a body in chunks: there is no telling what a proxy saw.
func TestPipelined(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.gen("?name=counter", counterCode)
	nc, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	go io.WriteString(nc, "POST /api/call/counter?by=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"+
		"GET /api/call/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"+
		"GET http://localhost/api/call/counter?by=2 HTTP/1.1\r\nHost: other\r\n\r\n"+
		"POST /api/call/counter?by=3 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\n{}\r\n0\r\n\r\n"+
		"GET /api/call/counter?by=4 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	in := bufio.NewReader(nc)
	for i, want := range []string{`200 {"result": ["1"]}`, `404 {`, `200 {"result": ["1", "2"]}`, `200 {"result": ["1", "2", "3"]}`} {
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(answer.Body)
		if got := fmt.Sprintf("%d %s", answer.StatusCode, body); !strings.HasPrefix(got, want) || err != nil {
			t.Errorf("answer %d: %s (%v), want %s", i, got, err, want)
		}
	}
	if answer, err := http.ReadResponse(in, nil); err == nil {
		t.Errorf("behind chunks came %v", answer)
	}
}

// What names no path comes to the API as well, with all that it checks.
func TestNoRequestPassesTheAPIBy(t *testing.T) {
	t.Parallel()
	p := boot(t)
	for _, line := range []string{"OPTIONS *", "GET *", "CONNECT evil.example:80", "GET http://evil.example/healthz"} {
		nc, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(nc, "%s HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", line)
		answer, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(answer.Body); answer.StatusCode != 403 || !strings.Contains(string(body), "bad_host") {
			t.Errorf("%s: answered %d %s", line, answer.StatusCode, body)
		}
		nc.Close()
	}
}

// TestEarlyRefusals: what is refused before any handler sees it is a problem
// document like all others, on the address and on the control socket.
func TestEarlyRefusals(t *testing.T) {
	t.Parallel()
	p := boot(t)
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
				addr := p.Addr()
				if network == "unix" {
					addr = filepath.Join(p.Data, "control.sock")
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
					last = answered{client.Answer{Status: response.StatusCode, Header: response.Header, Body: body.String()}}
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
