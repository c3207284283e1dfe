package front

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Half a second behind a head that is too large, whatever becomes of the server.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// echo answers with what the handler got to see.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	document, _ := json.Marshal(map[string]any{
		"method": r.Method, "uri": r.RequestURI, "path": r.URL.Path, "rawpath": r.URL.RawPath, "query": r.URL.RawQuery, "host": r.Host,
		"proto": r.Proto, "length": r.ContentLength, "header": r.Header, "body": string(body), "err": fmt.Sprint(err),
	})
	w.Header().Set("Content-Type", "application/json")
	w.Header()["X-Several"] = []string{"one", "two\r\nX-Smuggled: 3"}
	w.Header().Set("Content-Length", fmt.Sprint(len(document)))
	w.WriteHeader(299)
	w.Write(document)
}

// serve runs a server until the test ends, and returns its address.
func serve(t *testing.T, s interface {
	Serve(net.Listener) error
	Close() error
}) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return listener.Addr().String()
}

// server makes one whose plain requests are those below /call/. plain counts
// them.
func server(handler http.HandlerFunc) *Server {
	return &Server{Prefix: "/call/", HTTP: &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}}
}

// dial connects, and gives up on an answer after a while.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc.(*net.TCPConn)
}

// answers sends bytes, says that there are no more, and returns all answers as
// text without their dates, the header lines sorted.
func answers(t *testing.T, addr, raw string) []string {
	t.Helper()
	nc := dial(t, addr)
	go func() {
		io.WriteString(nc, raw)
		nc.CloseWrite()
	}()
	in := bufio.NewReader(nc)
	var all []string
	for {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return append(all, fmt.Sprintf("end: %v", errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)))
		}
		body, err := io.ReadAll(response.Body)
		response.Header.Del("Date")
		var lines []string
		for name, values := range response.Header {
			lines = append(lines, fmt.Sprint(name, values))
		}
		slices.Sort(lines)
		all = append(all, fmt.Sprintf("%s %v %v %s %v", response.Status, lines, response.Close, body, err))
		if response.StatusCode == 400 {
			return all
		}
	}
}

// requests are some that are plain and some that are not, and some that are
// not even HTTP.
var requests = map[string]string{
	"the least":                "GET /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"a query":                  "GET /call/f@2?a:1,b=%20%zz+&&?/x HTTP/1.1\r\nHost: h:80\r\n\r\n",
	"no query":                 "GET /call/f? HTTP/1.1\r\nHost: h\r\n\r\n",
	"several headers":          "GET /call/f HTTP/1.1\r\nhost: [::1]:80\r\nUser-Agent: curl/8\r\naccept: */*\r\nX-a-B: 1\r\nx-A-b:\t2 \r\nEmpty:\r\n\r\n",
	"not ASCII":                "GET /call/f HTTP/1.1\r\nHost: h\r\nX-Umlaut: \xc3\xa4\xff\r\n\r\n",
	"a body":                   "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
	"an empty body":            "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
	"a POST without a length":  "POST /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"a GET with a body":        "GET /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
	"a long body":              "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("x", 60000),
	"a longer body":            "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" + strings.Repeat("x", 90000),
	"half a body":              "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel",
	"half a long body":         "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("x", 30000),
	"three in a row":           "GET /call/f HTTP/1.1\r\nHost: h\r\n\r\nPOST /call/g HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nokGET /call/h?3 HTTP/1.1\r\nHost: h\r\n\r\n",
	"one is not plain":         "GET /call/f HTTP/1.1\r\nHost: h\r\n\r\nPUT /call/g HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nokGET /call/h?3 HTTP/1.1\r\nHost: h\r\n\r\n",
	"the second is cut":        "GET /call/f HTTP/1.1\r\nHost: h\r\n\r\nGET /call/g HTT",
	"keep-alive":               "GET /call/f HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"close":                    "GET /call/f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"chunked":                  "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"chunked and a length":     "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"a length and chunked":     "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"a length twice":           "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
	"two lengths":              "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
	"a signed length":          "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nhi",
	"a length of nothing":      "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n",
	"a length with zeroes":     "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 0000000002\r\n\r\nhi",
	"HTTP/1.0":                 "GET /call/f HTTP/1.0\r\nHost: h\r\n\r\n",
	"HTTP/1.2":                 "GET /call/f HTTP/1.2\r\nHost: h\r\n\r\n",
	"HTTP/2":                   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"no host":                  "GET /call/f HTTP/1.1\r\nAccept: */*\r\n\r\n",
	"two hosts":                "GET /call/f HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
	"an empty host":            "GET /call/f HTTP/1.1\r\nHost:\r\n\r\n",
	"a strange host":           "GET /call/f HTTP/1.1\r\nHost: a b\r\n\r\n",
	"a blank before a colon":   "GET /call/f HTTP/1.1\r\nHost : h\r\n\r\n",
	"a folded header":          "GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n 2\r\n\r\n",
	"a header without colon":   "GET /call/f HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n",
	"a control character":      "GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: 1\x012\r\n\r\n",
	"a NUL":                    "GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: \x00\r\n\r\n",
	"a bare line feed":         "GET /call/f HTTP/1.1\nHost: h\n\n",
	"a line feed in a value":   "GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: 1\nX-B: 2\r\n\r\n",
	"a bare carriage return":   "GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: 1\rX-B: 2\r\n\r\n",
	"percent signs":            "GET /call/f%2Fg%40 HTTP/1.1\r\nHost: h\r\n\r\n",
	"a bad percent sign":       "GET /call/f%zz HTTP/1.1\r\nHost: h\r\n\r\n",
	"dots":                     "GET /call/../f HTTP/1.1\r\nHost: h\r\n\r\n",
	"a slash more":             "GET /call/f/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"another path":             "GET /other HTTP/1.1\r\nHost: h\r\n\r\n",
	"a whole URL":              "GET http://h/call/f HTTP/1.1\r\nHost: i\r\n\r\n",
	"a blank in the path":      "GET /call/f g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a fragment":               "GET /call/f?a#b HTTP/1.1\r\nHost: h\r\n\r\n",
	"another method":           "DELETE /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"HEAD":                     "HEAD /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"no method":                " /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"a long head":              "GET /call/f HTTP/1.1\r\nHost: h\r\nX-A: " + strings.Repeat("x", 9000) + "\r\n\r\n",
	"many headers":             "GET /call/f HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-A: 1\r\n", 100) + "\r\n",
	"noise":                    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"nothing":                  "",
	"an empty line first":      "\r\nGET /call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"expecting":                "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
	"a line more":              "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"lines more":               "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\r\n\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a line more after a GET":  "GET /call/f HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"no cache":                 "GET /call/f HTTP/1.1\r\nHost: h\r\nPragma: no-cache\r\n\r\n",
	"two codings":              "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"an odd coding":            "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"identity":                 "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a tab and a coding":       "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a folded coding":          "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a blank before a coding":  "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a bad chunk":              "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"an extension":             "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nhi\r\n0\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a trailer":                "POST /call/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: GET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"lengths in one":           "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 2\r\n\r\nhiGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a blank in a length":      "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2 2\r\n\r\nhiGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"an underscore for a dash": "POST /call/f HTTP/1.1\r\nHost: h\r\nContent_Length: 40\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a user in the host":       "GET /call/f HTTP/1.1\r\nHost: u@h\r\n\r\n",
	"a user in the URL":        "GET http://u@h/call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"two slashes":              "GET //call/f HTTP/1.1\r\nHost: h\r\n\r\n",
	"an error and another":     "GET /call/%zz HTTP/1.1\r\nHost: h\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"HTTP/0.9":                 "GET /call/f\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a length for a GET":       "GET /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 36\r\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"a mixed line end":         "GET /call/f HTTP/1.1\r\nHost: h\n\r\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"an end without CR":        "GET /call/f HTTP/1.1\r\nHost: h\r\n\nGET /call/g HTTP/1.1\r\nHost: h\r\n\r\n",
	"an upgrade":               "GET /call/f HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}

// TestAsNetHTTP: whatever is sent, what the handler sees and what the client
// gets is what it would be with net/http alone.
func TestAsNetHTTP(t *testing.T) {
	here := serve(t, server(echo))
	there := serve(t, &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: 5 * time.Second})
	for name, raw := range requests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, want := answers(t, here, raw), answers(t, there, raw)
			if !slices.Equal(got, want) {
				t.Errorf("got  %.2000q\nwant %.2000q", got, want)
			}
		})
	}
}

// FuzzAsNetHTTP looks for bytes that net/http understands otherwise.
func FuzzAsNetHTTP(f *testing.F) {
	for _, raw := range requests {
		if len(raw) < 1000 {
			f.Add([]byte(raw))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := head{header: make(http.Header)}
		end := headEnd(raw)
		if end < 0 || !h.parse(string(raw[:end-len(endOfHead)]), "/call/") {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("taken as plain, but %v", err)
		}
		if r.Method != h.method || r.RequestURI != h.target || r.URL.Path != h.path || r.URL.RawQuery != h.query || r.URL.RawPath != "" ||
			r.Host != h.host || r.ContentLength != int64(max(0, h.length)) || len(r.TransferEncoding) > 0 || r.Close || !r.ProtoAtLeast(1, 1) {
			t.Errorf("taken as %+v, want %+v", h, r)
		}
		if got, want := fmt.Sprint(h.header), fmt.Sprint(r.Header); got != want {
			t.Errorf("headers %s, want %s", got, want)
		}
	})
}

// TestPieces: a request that comes byte by byte is answered as well, by whomever.
func TestPieces(t *testing.T) {
	addr := serve(t, server(echo))
	nc := dial(t, addr)
	in := bufio.NewReader(nc)
	for range 2 {
		for _, c := range []byte(requests["a body"]) {
			nc.Write([]byte{c})
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil || response.StatusCode != 299 {
			t.Fatalf("got %v, %v", response, err)
		}
		io.Copy(io.Discard, response.Body)
	}
}

func TestAnswers(t *testing.T) {
	sent := make(chan struct{}, 1)
	addr := serve(t, server(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, "/call/") {
		case "nothing":
		case "text": // of no stated length
			io.WriteString(w, "some ")
			io.WriteString(w, "text")
		case "long":
			w.Header().Set("Content-Length", "1000000")
			for range 100 {
				w.Write(bytes.Repeat([]byte("x"), 10000))
			}
		case "none":
			w.WriteHeader(204)
		case "stream":
			w.Write([]byte("first"))
			http.NewResponseController(w).Flush()
			<-sent
			w.Write([]byte("second"))
		case "short":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("short"))
		case "surplus":
			w.Header().Set("Content-Length", "5")
			if _, err := w.Write([]byte("surplus")); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("got %v", err)
			}
			w.Write([]byte("right"))
		case "aborted":
			w.Write([]byte("begun"))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "panic":
			panic("a fault")
		}
	}))
	get := func(in *bufio.Reader, nc net.Conn, path string) (*http.Response, error) {
		fmt.Fprintf(nc, "GET /call/%s HTTP/1.1\r\nHost: h\r\n\r\n", path)
		return http.ReadResponse(in, nil)
	}
	nc := dial(t, addr)
	in := bufio.NewReader(nc)
	for path, want := range map[string]string{"nothing": "200 ", "text": "200 some text", "long": "200 " + strings.Repeat("x", 1000000), "none": "204 ", "surplus": "200 right"} {
		response, err := get(in, nc, path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		body, err := io.ReadAll(response.Body)
		if got := fmt.Sprintf("%d %s", response.StatusCode, body); got != want || err != nil {
			t.Errorf("%s: got %.80q, %v", path, got, err)
		}
		if when, err := http.ParseTime(response.Header.Get("Date")); err != nil || time.Since(when).Abs() > time.Minute {
			t.Errorf("its date is %q", response.Header.Get("Date"))
		}
	}
	response, err := get(in, nc, "stream")
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "first" {
		t.Errorf("got %q, %v", first, err)
	}
	sent <- struct{}{} // which it waits for with the second
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != "second" {
		t.Errorf("got %q, %v", rest, err)
	}
	for _, path := range []string{"short", "aborted", "panic"} {
		nc := dial(t, addr)
		response, err := get(bufio.NewReader(nc), nc, path)
		if err == nil {
			_, err = io.ReadAll(response.Body)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: ended with %v", path, err)
		}
	}
}

// TestOwnDate: a handler's Date is sent as it is, whoever sends it.
func TestOwnDate(t *testing.T) {
	const date = "Mon, 01 Jan 2001 00:00:00 GMT"
	addr := serve(t, server(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", date) }))
	for _, path := range []string{"/call/f", "/other"} {
		nc := dial(t, addr)
		fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
		response, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := response.Header["Date"]; !slices.Equal(got, []string{date}) {
			t.Errorf("%s: its dates are %q", path, got)
		}
	}
}

// TestLateLongAnswer: a long answer is sent also when the deadline that was set
// before the call is over, since calls may take longer than clients may idle.
func TestLateLongAnswer(t *testing.T) {
	piece := bytes.Repeat([]byte("x"), maxAhead+1)
	addr := serve(t, server(func(w http.ResponseWriter, r *http.Request) {
		late := func() { w.(*response).c.nc.SetDeadline(time.Unix(1, 0)) }
		late()
		w.Write(piece)
		late()
		w.Write([]byte("y"))
		http.NewResponseController(w).Flush()
		late()
		w.Write([]byte("z"))
	}))
	nc := dial(t, addr)
	in := bufio.NewReader(nc)
	for range 2 {
		io.WriteString(nc, requests["a long body"])
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); string(body) != string(piece)+"yz" || err != nil {
			t.Errorf("got %d bytes, %v", len(body), err)
		}
	}
}

// TestOwnWriteDeadline: the deadline that a handler sets is the one that counts.
func TestOwnWriteDeadline(t *testing.T) {
	addr := serve(t, server(func(w http.ResponseWriter, r *http.Request) {
		client := http.NewResponseController(w)
		client.SetWriteDeadline(time.Unix(1, 0))
		if _, err := w.Write(make([]byte, maxAhead+1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote with %v", err)
		}
		w.Write([]byte("rest"))
		if err := client.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("flushed with %v", err)
		}
	}))
	nc := dial(t, addr)
	io.WriteString(nc, requests["the least"])
	if got, err := io.ReadAll(nc); len(got) > 0 || err != nil {
		t.Errorf("got %.80q, %v", got, err)
	}
}

// TestLog: what goes wrong is logged, as by net/http also when no logger is set.
func TestLog(t *testing.T) {
	var own, standard bytes.Buffer
	log.SetOutput(&standard)
	defer log.SetOutput(os.Stderr)
	for _, logger := range []*log.Logger{nil, log.New(&own, "", 0)} {
		s := server(func(http.ResponseWriter, *http.Request) { panic("a fault") })
		s.HTTP.ErrorLog = logger
		nc := dial(t, serve(t, s))
		io.WriteString(nc, requests["the least"])
		io.ReadAll(nc)
		s.Close()
	}
	log.SetOutput(os.Stderr) // after which nobody writes to the other
	for _, got := range []string{standard.String(), own.String()} {
		if strings.Count(got, "a fault") != 1 {
			t.Errorf("the log has %q", got)
		}
	}
}

// TestHandedOverEnds: a connection that net/http was given can still end with a
// reset, or be shut down for sending alone.
func TestHandedOverEnds(t *testing.T) {
	addr := serve(t, server(func(w http.ResponseWriter, r *http.Request) {
		nc, out, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		switch r.URL.Path {
		case "/reset":
			nc.(interface{ SetLinger(int) error }).SetLinger(0)
		case "/half":
			nc.(interface{ CloseWrite() error }).CloseWrite()
			io.ReadAll(out) // until the client ends it
		}
	}))
	for path, want := range map[string]error{"/reset": syscall.ECONNRESET, "/half": io.EOF} {
		nc := dial(t, addr)
		fmt.Fprintf(nc, "GET %s HTTP/1.0\r\n\r\n", path)
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, want) {
			t.Errorf("%s: ended with %v", path, err)
		}
		nc.Close()
	}
}

// TestClientGone: a handler that waits learns that its client went away.
func TestClientGone(t *testing.T) {
	waiting := make(chan struct{})
	gone := make(chan error)
	addr := serve(t, server(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Err() != nil {
			t.Error("the context ended before anything happened")
		}
		done := r.Context().Done()
		waiting <- struct{}{}
		<-done
		gone <- r.Context().Err()
	}))
	for range 3 {
		nc := dial(t, addr)
		io.WriteString(nc, requests["the least"])
		<-waiting
		nc.Close()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

// TestWatchedClientGoesOn: a client that was watched, and sent its next request
// meanwhile or later, is answered; its old context has ended then.
func TestWatchedClientGoesOn(t *testing.T) {
	var mu sync.Mutex
	var old []context.Context
	more := make(chan struct{})
	addr := serve(t, server(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		old = append(old, r.Context())
		mu.Unlock()
		select {
		case <-r.Context().Done():
			t.Error("the context ended under the handler")
		case <-more:
		}
		echo(w, r)
	}))
	nc := dial(t, addr)
	in := bufio.NewReader(nc)
	raw := requests["a body"] + requests["a query"]
	cut := len(requests["a body"]) + 10
	for range 3 {
		io.WriteString(nc, raw[:cut])
		more <- struct{}{}
		io.WriteString(nc, raw[cut:])
		more <- struct{}{}
		for _, want := range []string{`"body":"hello"`, `"host":"h:80"`} {
			response, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(body), want) {
				t.Errorf("got %s, %v", body, err)
			}
		}
	}
	nc.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, ctx := range old[:len(old)-1] {
		if ctx.Err() == nil {
			t.Error("a context outlived its request")
		}
	}
}

func TestShutdown(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	s := server(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/call/slow" || r.URL.Path == "/slow" {
			inside <- struct{}{}
			<-leave
		}
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "ok")
	})
	addr := serve(t, s)
	idle, other := dial(t, addr), dial(t, addr)
	for _, nc := range []net.Conn{idle, other} {
		io.WriteString(nc, "GET /call/quick HTTP/1.1\r\nHost: h\r\n\r\n")
		if response, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil || response.Close {
			t.Fatal(response, err)
		}
	}
	var slow []net.Conn
	for _, path := range []string{"/call/slow", "/slow"} {
		nc := dial(t, addr)
		fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
		<-inside
		slow = append(slow, nc)
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection ended with %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("it still takes connections")
	}
	select {
	case err := <-done:
		t.Errorf("Shutdown returned %v before all was answered", err)
	default:
	}
	close(leave)
	for _, nc := range slow {
		in := bufio.NewReader(nc)
		if response, err := http.ReadResponse(in, nil); err != nil || response.StatusCode != 200 {
			t.Errorf("got %v, %v", response, err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownGivesUp(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	s := server(func(http.ResponseWriter, *http.Request) {
		inside <- struct{}{}
		<-leave
	})
	addr := serve(t, s)
	io.WriteString(dial(t, addr), requests["the least"])
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestShutdownLosesNoRequest: what was sent before Shutdown began is answered,
// or the connection ends without a byte; never in between.
func TestShutdownLosesNoRequest(t *testing.T) {
	for range 20 {
		s := server(echo)
		addr := serve(t, s)
		var clients sync.WaitGroup
		for range 4 {
			nc := dial(t, addr)
			clients.Go(func() {
				in := bufio.NewReader(nc)
				for {
					if _, err := io.WriteString(nc, requests["a body"]); err != nil {
						return
					}
					response, err := http.ReadResponse(in, nil)
					if err != nil {
						if errors.Is(err, io.ErrUnexpectedEOF) && in.Buffered() > 0 {
							t.Errorf("an answer was cut: %v", err)
						}
						return
					}
					if _, err := io.Copy(io.Discard, response.Body); err != nil {
						t.Errorf("an answer was cut: %v", err)
					}
				}
			})
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		clients.Wait()
	}
}

// nudged is a connection whose first request comes just when Shutdown takes it
// for idle: the request goes on once Shutdown is about to set the deadline, and
// that is set after a while in which the request could set its own.
type nudged struct {
	net.Conn
	first               sync.Once
	came, shutting, set chan struct{}
}

func (n *nudged) Read(b []byte) (int, error) {
	count, err := n.Conn.Read(b)
	n.first.Do(func() {
		close(n.came)
		<-n.shutting
	})
	return count, err
}

func (n *nudged) SetReadDeadline(when time.Time) error {
	if !when.Equal(time.Unix(1, 0)) {
		return n.Conn.SetReadDeadline(when)
	}
	defer close(n.set)
	close(n.shutting)
	time.Sleep(10 * time.Millisecond)
	return n.Conn.SetReadDeadline(when)
}

// TestShutdownSparesWhatBegins: a request that comes just when Shutdown begins
// has the time to bring its body.
func TestShutdownSparesWhatBegins(t *testing.T) {
	s := server(echo)
	first := dial(t, serve(t, s))
	io.WriteString(first, requests["the least"])
	if _, err := http.ReadResponse(bufio.NewReader(first), nil); err != nil { // by then it serves
		t.Fatal(err)
	}
	first.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := dial(t, listener.Addr().String())
	nc, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	n := &nudged{Conn: nc, came: make(chan struct{}), shutting: make(chan struct{}), set: make(chan struct{})}
	c := newConn(s, &counted{Conn: n, server: s})
	if !s.add(c) {
		t.Fatal("it takes no connection")
	}
	go c.serve()
	raw := requests["a body"]
	io.WriteString(client, raw[:len(raw)-1])
	<-n.came
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	<-n.set
	io.WriteString(client, raw[len(raw)-1:])
	response, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(body), `"body":"hello"`) {
		t.Errorf("got %s, %v", body, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestListenerClosed: who closes the listener ends Serve, with an error that is
// not that of an orderly end.
func TestListenerClosed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server(echo)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	listener.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	s.Close()
}

// TestIdleTimeout: a client that says nothing is not kept.
func TestIdleTimeout(t *testing.T) {
	s := server(echo)
	s.HTTP.IdleTimeout = 10 * time.Millisecond
	nc := dial(t, serve(t, s))
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("ended with %v", err)
	}
}

// TestCrowd: many connections, each with many requests, get each its own answers.
func TestCrowd(t *testing.T) {
	addr := serve(t, server(echo))
	var clients sync.WaitGroup
	for n := range 32 {
		nc := dial(t, addr)
		clients.Go(func() {
			in := bufio.NewReader(nc)
			for i := range 100 {
				body := fmt.Sprintf("%d of %d", i, n)
				fmt.Fprintf(nc, "POST /call/f%d?%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nX-Mine: %d\r\n\r\n%s", n, i, len(body), n, body)
				response, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(response.Body)
				if err != nil || !bytes.Contains(got, []byte(body)) || !bytes.Contains(got, fmt.Appendf(nil, `"X-Mine":["%d"]`, n)) {
					t.Errorf("got %s, %v", got, err)
				}
			}
		})
	}
	clients.Wait()
}
