package contract

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// frame is what a driver sends for a line, or for a piece of one.
type frame struct {
	call, level string
	goesOn      bool
	time        time.Time
	text        string
}

// frameSocket is a dispatcher's end of the sockets for frames.
type frameSocket struct {
	path string
	t    *testing.T

	mu     sync.Mutex
	all    []frame
	conns  []net.Conn
	opened int
	listen net.Listener
	read   chan struct{} // closed when it may read
}

// listenForFrames listens beside a driver's socket.
func listenForFrames(t *testing.T, p *process) *frameSocket {
	t.Helper()
	read := make(chan struct{})
	close(read)
	return listenAndWait(t, p, read)
}

// listenAndWait listens, and reads nothing until a channel is closed.
func listenAndWait(t *testing.T, p *process, read chan struct{}) *frameSocket {
	t.Helper()
	s := &frameSocket{path: filepath.Join(filepath.Dir(p.socket), "log.sock"), t: t, read: read}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *frameSocket) open() {
	s.t.Helper()
	listener, err := net.Listen("unix", s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.listen = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.opened++
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			go s.serve(conn)
		}
	}()
}

// close ends the listener and all connections, as a dispatcher does that dies.
func (s *frameSocket) close() {
	_ = s.listen.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}

func (s *frameSocket) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		<-s.read
		f, err := readFrame(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
				s.t.Errorf("a frame is malformed: %v", err)
			}
			return
		}
		s.mu.Lock()
		s.all = append(s.all, f)
		s.mu.Unlock()
	}
}

func readFrame(in *bufio.Reader) (f frame, err error) {
	head, err := in.ReadString('\n')
	if err != nil {
		return f, err
	}
	words := strings.Split(strings.TrimSuffix(head, "\n"), " ")
	if len(words) != 4 {
		return f, fmt.Errorf("%q has not four words", head)
	}
	f.call = words[0]
	f.level, f.goesOn = strings.CutSuffix(words[1], "+")
	if !slices.Contains([]string{"stdout", "stderr", "debug", "info", "warn", "error", "dropped"}, f.level) {
		return f, fmt.Errorf("%q has no level", head)
	}
	micros, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		return f, fmt.Errorf("%q has no time", head)
	}
	f.time = time.UnixMicro(micros)
	length, err := strconv.Atoi(words[3])
	if err != nil || length < 0 || length > 65536 {
		return f, fmt.Errorf("%q has no length", head)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		return f, err
	}
	f.text = string(text)
	if strings.Contains(f.text, "\n") {
		return f, fmt.Errorf("a frame has several lines: %q", show(text))
	}
	return f, nil
}

func (s *frameSocket) frames() []frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// lines returns "LEVEL TEXT" of all lines of a call, joined from their pieces.
func (s *frameSocket) lines(call string) (lines []string) {
	begun := make(map[string]string)
	for _, f := range s.frames() {
		if f.call != call {
			continue
		}
		begun[f.level] += f.text
		if !f.goesOn {
			lines = append(lines, f.level+" "+begun[f.level])
			delete(begun, f.level)
		}
	}
	for level, text := range begun { // the end of the call is the end of its lines
		lines = append(lines, level+" "+text)
	}
	return lines
}

// expect waits until a call has lines, in any order of the two streams.
func (s *frameSocket) expect(t *testing.T, call string, want ...string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	var got []string
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		got = slices.Sorted(slices.Values(s.lines(call)))
		if slices.Equal(got, want) {
			return
		}
		if len(got) >= len(want) && len(want) > 0 {
			time.Sleep(50 * time.Millisecond) // what comes too much may still come
			if got = slices.Sorted(slices.Values(s.lines(call))); !slices.Equal(got, want) {
				break
			}
		}
	}
	t.Errorf("call %s has the lines\n%s\nwant\n%s", call, show([]byte(strings.Join(got, "\n"))), show([]byte(strings.Join(want, "\n"))))
}

// caller makes calls as the dispatcher makes them, over one connection.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

func newCaller(t *testing.T, p *process) *caller {
	t.Helper()
	conn, err := p.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &caller{conn, bufio.NewReader(conn)}
}

const callToken = "Fob-Call: 0123456789abcdef\r\n"

// call makes one call and returns its answer. The first field of the answer must be the token.
func (c *caller) call(id, body string) (*http.Response, string, error) {
	field := ""
	if id != "" {
		field = "Fob-Call-Id: " + id + "\r\n"
	}
	_ = c.conn.SetDeadline(time.Now().Add(Patience))
	if _, err := fmt.Fprintf(c.conn, "POST / HTTP/1.1\r\n%s%sHost: fob\r\nContent-Length: %d\r\n\r\n%s", callToken, field, len(body), body); err != nil {
		return nil, "", err
	}
	head, err := c.in.Peek(len("HTTP/1.1 200 OK\r\n"))
	if err != nil {
		return nil, "", err
	}
	line := strings.Index(string(head), "\r\n") // an answer with another status is looked at less
	if begin, err := c.in.Peek(len(head) + len(callToken)); line == len(head)-2 && (err != nil || !strings.HasSuffix(string(begin), callToken)) {
		return nil, "", fmt.Errorf("the answer begins with %q, %v", begin, err)
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, "", err
	}
	answer, err := io.ReadAll(response.Body)
	return response, string(answer), err
}

// result makes a call that must have a result.
func (c *caller) result(t *testing.T, id, body, want string) {
	t.Helper()
	response, answer, err := c.call(id, body)
	if err != nil || response.StatusCode != http.StatusOK || strings.ReplaceAll(answer, `": `, `":`) != `{"result":`+want+"}" {
		t.Fatalf("call %s answered %q, %v, want %s", id, show([]byte(answer)), err, want)
	}
}

// loadWithLog loads code and asks for frames.
func loadWithLog(t *testing.T, p *process, code string, members map[string]any) {
	t.Helper()
	load := map[string]any{"code": code, "log": "log.sock", "concurrency": 50}
	for name, value := range members {
		load[name] = value
	}
	if status, _, body := p.Client(t).load(t, load); status != http.StatusOK {
		t.Fatalf("loading answered %d %s", status, body)
	}
}

// eachIn runs a test for each language that it has code for.
func eachIn(t *testing.T, codes map[string]string, test func(t *testing.T, lang string)) {
	t.Parallel()
	for lang := range codes {
		t.Run(lang, func(t *testing.T) {
			t.Parallel()
			test(t, lang)
		})
	}
}

// framed starts a driver with code and a socket for its frames.
func framed(t *testing.T, lang, code string) (*process, *frameSocket) {
	t.Helper()
	p := boot(t, lang)
	s := listenForFrames(t, p)
	loadWithLog(t, p, code, nil)
	return p, s
}
