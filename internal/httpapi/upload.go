package httpapi

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// upload is a request's body, or the rest of one, that is read as it comes. The answer
// may be sent at the same time; the connection ends after it.
type upload struct {
	body   io.Reader
	client *http.ResponseController
	asked  bool // the client waits to be told to send (Expect: 100-continue)

	mu     sync.Mutex
	closed bool
	ended  bool
}

func newUpload(w http.ResponseWriter, r *http.Request) *upload {
	w.Header()["Connection"] = []string{"close"}
	client := http.NewResponseController(w)
	client.EnableFullDuplex()
	return &upload{body: r.Body, client: client, asked: r.Header.Get("Expect") != "" && r.ContentLength >= 0}
}

// Read implements io.Reader. Each piece must come within bodyPatience.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return 0, net.ErrClosed
	}
	u.asked = false
	u.client.SetReadDeadline(time.Now().Add(bodyPatience))
	u.mu.Unlock()
	n, err := u.body.Read(p)
	if err == nil {
		return n, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	if err != io.EOF {
		return n, incomplete(err)
	}
	u.client.SetReadDeadline(time.Time{}) // from now on net/http watches for the client's leaving
	return n, err
}

// Close implements io.Closer. It ends a Read that waits.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.closed && !u.ended {
		u.client.SetReadDeadline(time.Unix(1, 0))
	}
	u.closed = true
	return nil
}

// discard reads the rest that nobody wants, so that a client sees its answer even if it
// reads nothing before it has sent everything. A client that waits to be told to send
// gets the answer instead. Nobody else may be reading.
func (u *upload) discard() {
	if u.ended || u.asked {
		return
	}
	u.client.SetReadDeadline(time.Now().Add(bodyPatience))
	body := u.body
	if d, compressed := body.(*decoded); compressed {
		body = d.raw
	}
	io.CopyN(io.Discard, body, maxDiscard)
}
