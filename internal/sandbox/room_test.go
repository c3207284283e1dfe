package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// limited is connect with a budget.
func limited(t *testing.T, budget *buffer.Budget, reply reply) (*sandbox.Conn, *driver) {
	t.Helper()
	d := startDriver(t, reply)
	c := sandbox.NewConn(d, maxAnswer, budget)
	t.Cleanup(c.Close)
	t.Cleanup(func() {
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are left taken", used)
		}
	})
	return c, d
}

// TestAnswersTakeFromTheBudget: an answer has its memory until it is closed, also
// a long head; a small one costs nothing.
func TestAnswersTakeFromTheBudget(t *testing.T) {
	long := strings.Repeat("x", 300_000)
	for what, c := range map[string]struct {
		answer string
		least  int64
	}{
		"a small answer": {answer(200, "", long[:1000]), 0},
		"a large one":    {answer(200, "", long), 300_000},
		"a long head":    {answer(200, "X-A: "+long[:40_000]+"\r\n", ""), 40_000},
		"both":           {answer(200, "X-A: "+long[:40_000]+"\r\n", long), 340_000},
	} {
		budget := buffer.New(4 << 20)
		conn, _ := limited(t, budget, raw(c.answer))
		r, err := conn.Call(soon(), &sandbox.Request{})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if used := budget.Used(); used < c.least || used > 2*c.least+1<<19 || c.least == 0 && used != 0 {
			t.Errorf("%s takes %d bytes", what, used)
		}
		r.Close()
		if used := budget.Used(); used != 0 {
			t.Errorf("%s: %d bytes are left taken", what, used)
		}
	}
}

// TestNoRoomForAnAnswer: what cannot be held is sent on as it comes, whole, and the
// connection goes on.
func TestNoRoomForAnAnswer(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	for _, taken := range []int64{1, 2 << 20, 4<<20 - 70_000, 4 << 20} {
		budget := buffer.New(4 << 20)
		conn, d := limited(t, budget, raw(answer(200, "X-A: b\r\n", string(body))))
		budget.Force(taken)
		for range 3 {
			r, err := conn.Call(soon(), &sandbox.Request{})
			if err != nil {
				t.Fatal(err)
			}
			if streams := r.Stream != nil; streams != (taken > 1) {
				t.Errorf("with %d of the budget taken: streams: %v", taken, streams)
			}
			got := r.Body
			if r.Stream != nil {
				if got, err = io.ReadAll(r.Stream); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, body) || r.Header.Get("X-A") != "b" {
				t.Errorf("with %d of the budget taken: %d bytes came, not those that were sent", taken, len(got))
			}
			r.Close()
		}
		if used := budget.Used(); used != taken || d.accepted.Load() != 1 {
			t.Errorf("%d bytes are taken after %d; %d connections", used, taken, d.accepted.Load())
		}
		budget.Give(taken)
	}
}

// TestNoRoomForAnError: a long head, or a document of the driver's own, that finds
// no room is not called a bad answer; a document takes what it has and no more.
func TestNoRoomForAnError(t *testing.T) {
	const total = 4 << 20
	document := `{"error":{"code":"raised","message":"` + strings.Repeat("x", 100_000) + `"}}`
	raised := answer(500, "Fob-Error: raised\r\n", document)
	inChunks := "HTTP/1.1 500 X\r\nFob-Error: raised\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(document[:50_000]) + chunk(document[50_000:]) + "0\r\n\r\n"
	for what, c := range map[string]struct {
		answer string
		left   int64 // of the budget
		room   bool
	}{
		"a long head":                  {answer(200, "X-A: "+strings.Repeat("x", 40_000)+"\r\n", ""), 0, false},
		"an error":                     {raised, 0, false},
		"one in chunks":                {inChunks, 0, false},
		"an error, and room for it":    {raised, 110_000, true},
		"one in chunks, with the same": {inChunks, 140_000, true},
	} {
		budget := buffer.New(total)
		conn, _ := limited(t, budget, raw(c.answer))
		budget.Force(total - c.left)
		_, err := conn.Call(soon(), &sandbox.Request{})
		if _, raised := errors.AsType[*sandbox.DriverError](err); c.room != raised || !c.room && (!errors.Is(err, sandbox.ErrNoRoom) || errors.Is(err, sandbox.ErrBadAnswer)) {
			t.Errorf("%s: %v", what, err)
		}
		if strings.Contains(c.answer, "raised") {
			_, err := conn.Load(t.Context(), sandbox.Load{})
			if _, raised := errors.AsType[*sandbox.DriverError](err); c.room != raised || !c.room && !errors.Is(err, sandbox.ErrNoRoom) {
				t.Errorf("%s, at a load: %v", what, err)
			}
		}
		if used := budget.Used(); used != total-c.left {
			t.Errorf("%s: %d bytes are left taken", what, used-total+c.left)
		}
		budget.Give(total - c.left)
	}
}

// TestNoRoomAndCutShort: an answer that is sent on, and breaks off, does not look
// whole; nor does what is closed before its end keep anything.
func TestNoRoomAndCutShort(t *testing.T) {
	budget := buffer.New(1 << 20)
	conn, _ := limited(t, budget, hangUp("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n"+strings.Repeat("x", 400_000)))
	budget.Force(1 << 20)
	if n, err := io.Copy(io.Discard, stream(t, conn, soon(), &sandbox.Request{})); n != 400_000 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes came, then %v", n, err)
	}
	s := stream(t, conn, soon(), &sandbox.Request{})
	s.Close()
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("a closed one can be read")
	}
	budget.Give(1 << 20)
}

// TestHoardedAnswers: functions that send all but the last byte take half of the
// budget at most, nobody waits for them, and a small answer comes.
func TestHoardedAnswers(t *testing.T) {
	budget := buffer.New(4 << 20)
	hold := make(chan struct{})
	hoard, _ := limited(t, budget, func(nc net.Conn, _ *http.Request, _ []byte) bool {
		fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", maxAnswer, strings.Repeat("x", maxAnswer-1))
		<-hold
		return false
	})
	defer close(hold)
	deadline := time.Now().Add(2 * time.Second)
	done := make(chan error)
	const calls = 8
	for range calls {
		go func() {
			_, _, err := callWhole(hoard, deadline, &sandbox.Request{})
			done <- err
		}()
	}
	eventually(t, "half of the budget is taken", func() bool { return budget.Used() > 3<<19 })
	other, _ := limited(t, budget, raw(answer(200, "", strings.Repeat("y", 50_000))))
	if r, body, err := callWhole(other, soon(), &sandbox.Request{}); err != nil || len(body) != 50_000 {
		t.Errorf("beside them: %d bytes, %v", len(body), err)
	} else {
		r.Close()
	}
	if used := budget.Used(); used > 2<<20+calls*64<<10 {
		t.Errorf("they take %d of %d", used, budget.Total())
	}
	for range calls {
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a call that was hoarded came to %v", err)
		}
	}
}

// TestBodyIsDropped: a call's body is given back once it is sent, long before the
// answer; one of which nothing was sent is kept, to be sent again.
func TestBodyIsDropped(t *testing.T) {
	dropped := make(chan struct{})
	conn, _ := connect(t, func(nc net.Conn, _ *http.Request, body []byte) bool {
		select {
		case <-dropped:
		case <-time.After(30 * time.Second):
			t.Error("the body is not dropped before the answer")
		}
		fmt.Fprintf(nc, "%s", answer(200, "", fmt.Sprint(len(body))))
		return true
	})
	drop := func() { close(dropped) }
	r, err := conn.Call(soon(), &sandbox.Request{Body: make([]byte, 100_000), Drop: drop})
	if err != nil || string(r.Body) != "100000" {
		t.Errorf("got %+v, %v", r, err)
	}
	// A body that streams.
	dropped = make(chan struct{})
	conn, _ = connect(t, func(nc net.Conn, r *http.Request, _ []byte) bool {
		n, err := io.Copy(io.Discard, r.Body)
		<-dropped
		fmt.Fprintf(nc, "%s", answer(200, "", fmt.Sprint(n, err)))
		return true
	})
	r, err = conn.Call(soon(), &sandbox.Request{Body: make([]byte, 100_000), Drop: func() { close(dropped) }, Stream: io.NopCloser(strings.NewReader("abc"))})
	if err != nil || string(r.Body) != "100003 <nil>" {
		t.Errorf("got %+v, %v", r, err)
	}
	nowhere := sandbox.NewConn(&driver{path: "/nonexistent/fob.sock"}, maxAnswer, nil)
	if _, err := nowhere.Call(soon(), &sandbox.Request{Body: []byte("x"), Drop: func() { t.Error("a body that was not sent is dropped") }}); !errors.Is(err, sandbox.ErrNotSent) {
		t.Errorf("got %v", err)
	}
}

// TestBrokenDocumentsTakeNothing: a health answer that breaks off in the middle
// gives back what was taken for it.
func TestBrokenDocumentsTakeNothing(t *testing.T) {
	for what, rest := range map[string]string{
		"a broken chunk": "zz\r\n",
		"too much":       fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 200_000, strings.Repeat("x", 200_000)),
	} {
		conn, _ := limited(t, buffer.New(4<<20), raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+rest))
		if _, err := conn.Health(t.Context()); !errors.Is(err, sandbox.ErrBadAnswer) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestUploadsLeaveRoom: bodies that stream take no more than large bodies may.
func TestUploadsLeaveRoom(t *testing.T) {
	budget := buffer.New(4 << 20)
	conn, _ := limited(t, budget, func(nc net.Conn, r *http.Request, _ []byte) bool {
		text, _ := io.ReadAll(r.Body)
		_, err := io.WriteString(nc, answer(200, "", string(text)))
		return err == nil
	})
	const taken = 3 << 20
	budget.Force(taken)
	defer budget.Give(taken)
	looks := func(p []byte) (int, error) { return copy(p, fmt.Sprint(budget.Used()-taken)), io.EOF }
	r, err := conn.Call(soon(), &sandbox.Request{Stream: io.NopCloser(reader(looks))})
	if err != nil || string(r.Body) != "0" {
		t.Errorf("a body that streams takes %+v bytes, %v", r, err)
	}
}

type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
