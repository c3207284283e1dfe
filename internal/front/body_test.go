package front

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
)

// TestBodyIsLeftToTheHandler: a handler that refuses a request for what its head
// says does so before the body has come; and the connection goes on once it has.
func TestBodyIsLeftToTheHandler(t *testing.T) {
	s := server(func(w http.ResponseWriter, r *http.Request) {
		if h := r.Body.(*body); h.Held() != nil {
			t.Error("what has not come is held")
		}
		w.WriteHeader(http.StatusUnauthorized)
	})
	nc := dial(t, serve(t, s))
	in := bufio.NewReader(nc)
	const length = maxBody
	for range 3 {
		fmt.Fprintf(nc, "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", length, strings.Repeat("x", length/2))
		response, err := http.ReadResponse(in, nil)
		if err != nil || response.StatusCode != http.StatusUnauthorized || response.Close {
			t.Fatalf("answered %v, %v", response, err)
		}
		io.Copy(io.Discard, response.Body)
		io.WriteString(nc, strings.Repeat("x", length/2))
	}
}

// TestBodyInPieces: a handler reads what comes late, whole and in its order, and
// the context of a request whose body is still coming can be asked.
func TestBodyInPieces(t *testing.T) {
	s := server(func(w http.ResponseWriter, r *http.Request) {
		r.Context().Done()
		text, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v %v", len(text), err, strings.Trim(string(text), "ab") == "" && strings.IndexByte(string(text), 'b') == 20_000)
	})
	nc := dial(t, serve(t, s))
	in := bufio.NewReader(nc)
	for range 3 {
		fmt.Fprintf(nc, "POST /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n")
		io.WriteString(nc, strings.Repeat("a", 20_000))
		time.Sleep(time.Millisecond)
		io.WriteString(nc, strings.Repeat("b", 20_000))
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(response.Body); string(text) != "40000 <nil> true" || err != nil {
			t.Fatalf("the handler saw %s, %v", text, err)
		}
	}
}

// TestHeadsTakeFromTheBudget: the heads that net/http holds, for as long as they
// come, are taken from the budget; what finds no room ends, and all is given back.
func TestHeadsTakeFromTheBudget(t *testing.T) {
	s := server(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	s.Buffers = buffer.New(1 << 20)
	addr := serve(t, s)
	// One that is a head, and then goes idle, gives back what it took.
	nc := dial(t, addr)
	in := bufio.NewReader(nc)
	for range 3 {
		fmt.Fprintf(nc, "GET /other HTTP/1.1\r\nHost: h\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 100_000))
		response, err := http.ReadResponse(in, nil)
		if err != nil || response.StatusCode != 200 {
			t.Fatalf("a long head: %v, %v", response, err)
		}
		io.Copy(io.Discard, response.Body)
		eventually(t, func() bool { return s.Buffers.Used() == buffer.Connection })
	}
	const connections = 30
	for range connections {
		nc := dial(t, addr)
		io.WriteString(nc, "GET /other HTTP/1.1\r\nHost: h\r\nX-Long: "+strings.Repeat("x", 100_000)) // some are refused
	}
	eventually(t, func() bool { return s.Buffers.Used() > 1<<19 })
	if used := s.Buffers.Used(); used > 1<<20+connections*buffer.Connection {
		t.Errorf("%d bytes are taken", used)
	}
	s.Close()
	eventually(t, func() bool { return s.Buffers.Used() == 0 })
}

// TestABodyIsNoHead: what comes of a body when a handler has the request is not taken
// for more of its head.
func TestABodyIsNoHead(t *testing.T) {
	arrived, read := make(chan int), make(chan bool)
	s := server(func(w http.ResponseWriter, r *http.Request) {
		for piece := range 2 {
			n, err := io.CopyN(io.Discard, r.Body, 60_000)
			if err != nil {
				t.Errorf("piece %d: %d bytes, %v", piece, n, err)
			}
			arrived <- piece
			<-read
		}
	})
	s.Buffers = buffer.New(1 << 20)
	nc := dial(t, serve(t, s))
	fmt.Fprintf(nc, "PUT /other HTTP/1.1\r\nHost: h\r\nX-Long: %s\r\nContent-Length: 120000\r\n\r\n", strings.Repeat("x", 20_000))
	for range 2 {
		io.WriteString(nc, strings.Repeat("y", 60_000))
		<-arrived
		if used := s.Buffers.Used(); used != buffer.Connection+headStep {
			t.Errorf("a connection and a head of 20 KB take %d bytes", used)
		}
		read <- true
	}
	if response, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil || response.StatusCode != 200 {
		t.Fatalf("answered %v, %v", response, err)
	}
	eventually(t, func() bool { return s.Buffers.Used() == buffer.Connection })
}

// TestNoRoomForAHead: who sends a long head for which there is no room hears that, also
// when he reads nothing before he has sent it all.
func TestNoRoomForAHead(t *testing.T) {
	s := server(func(w http.ResponseWriter, r *http.Request) {})
	s.Buffers = buffer.New(1 << 20)
	s.Refuse = func(status int, why string) []byte { return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n\r\n", status, why) }
	s.Buffers.Force(1 << 20)
	addr := serve(t, s)
	for _, before := range []string{"", "PUT /call/f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"} {
		nc := dial(t, addr)
		in := bufio.NewReader(nc)
		if io.WriteString(nc, before); before != "" {
			if response, err := http.ReadResponse(in, nil); err != nil || response.StatusCode != 200 {
				t.Fatalf("the request before: %v, %v", response, err)
			}
		}
		if _, err := io.WriteString(nc, "GET /other HTTP/1.1\r\nHost: h\r\nX-Long: "+strings.Repeat("x", 100_000)+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(in); string(text) != "HTTP/1.1 503 \r\n\r\n" || err != nil {
			t.Errorf("answered %q, %v", text, err)
		}
	}
	s.Close()
	eventually(t, func() bool { return s.Buffers.Used() == 1<<20 })
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came about")
		}
	}
}
