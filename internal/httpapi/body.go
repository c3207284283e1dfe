package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// bodyPatience is how long a client may take to send a body; of one that streams,
// each piece.
const bodyPatience = time.Minute

// firstRead is how much memory a body gets before any of it has come, in bytes.
const firstRead = 32 << 10

// maxDiscard is how much of a body that nobody wants is read and thrown away, in
// bytes: a client that is still sending often does not see the answer.
const maxDiscard = 64 << 20

// readBody reads a request's whole body before anything is spent on it.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, more, err := a.readUpTo(w, r, a.cfg.MaxBody)
	if more {
		newUpload(w, r).discard()
		return nil, faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY)", faas.Bytes(a.cfg.MaxBody))
	}
	return body, err
}

// readUpTo reads a request's body, and reports whether it is longer than limit:
// then what it returns is its beginning, of any length.
func (a *API) readUpTo(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, more bool, err error) {
	if r.ContentLength == 0 {
		return nil, false, nil
	}
	if r.ContentLength > limit {
		return nil, true, nil
	}
	if held, ok := r.Body.(interface{ Held() ([]byte, error) }); ok { // of a plain request, and all there
		if body, err = held.Held(); err != nil {
			return nil, false, incomplete(err)
		}
		return body, false, nil
	}
	deadline := http.NewResponseController(w)
	deadline.SetReadDeadline(time.Now().Add(bodyPatience))
	defer deadline.SetReadDeadline(time.Time{})
	// Memory is spent on what has come, not on what is announced.
	var buffer bytes.Buffer
	if r.ContentLength > 0 {
		buffer.Grow(int(min(r.ContentLength, firstRead)) + bytes.MinRead)
	}
	n, err := buffer.ReadFrom(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, false, incomplete(err)
	}
	return buffer.Bytes(), n > limit, nil
}

func incomplete(err error) error {
	message := "the body ended before it was complete"
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() {
		message = "the body did not come in time"
	}
	return faas.Errorf(faas.CodeBadRequest, "%s", message)
}
