package httpapi

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// bodyPatience is how long a client may take to send a body.
const bodyPatience = time.Minute

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
	if r.ContentLength > 0 {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, incomplete(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, a.cfg.MaxBody+1))
	if err != nil {
		return nil, incomplete(err)
	}
	if int64(len(body)) > a.cfg.MaxBody {
		return nil, a.tooLarge(r)
	}
	return body, nil
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
