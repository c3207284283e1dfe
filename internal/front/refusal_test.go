package front

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// refusals are requests that net/http refuses itself, and with which status.
var refusals = map[string]struct {
	raw    string
	status int
}{
	"no host":                {"GET /call/f HTTP/1.1\r\nAccept: */*\r\n\r\n", 400},
	"two hosts":              {"GET /call/f HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400},
	"a strange host":         {"GET /call/f HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
	"a bad escape":           {"GET /call/f%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	"a bad method":           {"G(T /call/f HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	"a bad header":           {"GET /call/f HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", 400},
	"a control character":    {"GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: 1\x012\r\n\r\n", 400},
	"a bad length":           {"POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nhi", 400},
	"two lengths":            {"POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", 400},
	"a bad version":          {"GET /call/f HTTP/one\r\nHost: h\r\n\r\n", 400},
	"TLS":                    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	"a blank in the path":    {"GET /call/f g HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	"another version":        {"GET /call/f HTTP/3.0\r\nHost: h\r\n\r\n", 505},
	"another coding":         {"POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
	"an unknown expectation": {"POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: cake\r\n\r\nhi", 417},
	"the same in HTTP/1.0":   {"POST /call/f HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\nExpect: cake\r\n\r\nhi", 417},
	"a head too large":       {"GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", 431},
}

// TestRefusals: what net/http refuses itself is answered in our words, whatever
// was on the connection before, and with net/http's status.
func TestRefusals(t *testing.T) {
	own := func(s *Server) *Server {
		s.HTTP.MaxHeaderBytes = 1 << 10 // and what net/http adds to that
		s.Refuse = func(status int, why string) []byte {
			return fmt.Appendf(nil, "HTTP/1.1 %d Ours\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(why), why)
		}
		return s
	}
	addr := serve(t, own(server(echo)))
	before := map[string]string{
		"first":                    "",
		"after a plain one":        "GET /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
		"after one of net/http's":  "PUT /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
		"after one that was asked": "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
	}
	for what, c := range refusals {
		for when, head := range before {
			nc := dial(t, addr)
			go func() {
				io.WriteString(nc, head+c.raw)
				nc.CloseWrite()
			}()
			in := bufio.NewReader(nc)
			var last *http.Response
			for {
				response, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				io.Copy(io.Discard, response.Body)
				last = response
			}
			if last == nil || last.StatusCode != c.status || !strings.HasSuffix(last.Status, "Ours") {
				t.Errorf("%s, %s: answered %v", what, when, last)
			}
		}
	}
}

// TestTLS: who speaks TLS to us hears at once that we do not.
func TestTLS(t *testing.T) {
	s := server(echo)
	s.Refuse = func(status int, why string) []byte { return fmt.Appendf(nil, "%d %s", status, why) }
	addr := serve(t, s)
	nc := dial(t, addr)
	client := tls.Client(nc, &tls.Config{ServerName: "localhost"})
	begun := time.Now()
	if err := client.Handshake(); err == nil || time.Since(begun) > s.HTTP.ReadHeaderTimeout {
		t.Errorf("after %v the handshake ends with %v", time.Since(begun), err)
	}
	nc = dial(t, addr)
	io.WriteString(nc, "\x16\x03\x01\x02\x00\x01")
	if answer, _ := io.ReadAll(nc); !strings.HasPrefix(string(answer), "400 it is TLS") {
		t.Errorf("answered %q", answer)
	}
}

// TestNoAnswerIsTakenForARefusal: what a handler sends is its own, be it to the
// letter what net/http would say.
func TestNoAnswerIsTakenForARefusal(t *testing.T) {
	const canned = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
	if _, _, is := cannedRefusal([]byte(canned)); !is {
		t.Fatal("this is no refusal of net/http's any more")
	}
	s := server(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Header().Set("Content-Length", fmt.Sprint(2*len(canned)))
			client := http.NewResponseController(w)
			client.Flush()
			for range 2 {
				io.WriteString(w, canned)
				client.Flush()
			}
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Connection", "close")
		w.WriteHeader(map[string]int{"PATCH": 400, "DELETE": 417}[r.Method])
	})
	s.Refuse = func(int, string) []byte {
		t.Error("an answer was taken for a refusal")
		return nil
	}
	addr := serve(t, s)
	client := http.Client{Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for range 3 {
		for _, method := range []string{"PUT", "PATCH", "DELETE"} {
			request, err := http.NewRequest(method, "http://"+addr+"/call/f", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if method == "PUT" && string(body) != canned+canned || err != nil {
				t.Errorf("answered %q, %v", body, err)
			}
		}
	}
}
