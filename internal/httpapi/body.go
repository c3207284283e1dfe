package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// bodyPatience is how long a client may take to send a body.
const bodyPatience = time.Minute

// firstRead is how much memory a body gets before any of it has come, in bytes.
const firstRead = 32 << 10

// maxDiscard is how much of a body that is too large is read and thrown away,
// in bytes: a client that is still sending often does not see the answer.
const maxDiscard = 64 << 20

// readBody reads a request's whole body before anything is spent on it.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	deadline := http.NewResponseController(w)
	deadline.SetReadDeadline(time.Now().Add(bodyPatience))
	defer deadline.SetReadDeadline(time.Time{})
	if r.ContentLength > a.cfg.MaxBody {
		return nil, a.tooLarge(r)
	}
	// Memory is spent on what has come, not on what is announced.
	var body bytes.Buffer
	if r.ContentLength > 0 {
		body.Grow(int(min(r.ContentLength, firstRead)) + bytes.MinRead)
	}
	n, err := body.ReadFrom(io.LimitReader(r.Body, a.cfg.MaxBody+1))
	if err != nil {
		return nil, incomplete(err)
	}
	if n > a.cfg.MaxBody {
		return nil, a.tooLarge(r)
	}
	return body.Bytes(), nil
}

func (a *API) tooLarge(r *http.Request) error {
	// Who asks before sending (Expect: 100-continue) gets the answer instead.
	if r.Header.Get("Expect") == "" {
		io.CopyN(io.Discard, r.Body, maxDiscard)
	}
	return faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY)", faas.Bytes(a.cfg.MaxBody))
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
