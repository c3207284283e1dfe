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

// limitBody sets until when a request's body is to come, whoever reads it: what
// no handler wants net/http reads to keep the connection, for as long as it may.
// Who has seen the end of the body, and nobody else, lifts the limit, for until
// the answer the same connection is watched for the client's leaving.
//
// A body in chunks is the last of its connection: it may have had a
// Content-Length as well, which net/http passes over in silence, and then a proxy
// in front may see another request in it than we do (RFC 9112, 6.3).
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if len(r.TransferEncoding) > 0 {
		w.Header()["Connection"] = []string{"close"}
	}
	if h, plain := r.Body.(held); !plain || h.Held() == nil {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyPatience))
	}
}

// held is the body of a plain request. Held returns it without copying it, valid
// until the handler returns, or nil when some of it is still to come.
type held interface{ Held() []byte }

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
	if err := decode(r); err != nil {
		newUpload(w, r).discard()
		return nil, false, err
	}
	if r.ContentLength == 0 {
		return nil, false, nil
	}
	if r.ContentLength > limit {
		return nil, true, nil
	}
	if h, plain := r.Body.(held); plain && h.Held() != nil {
		return h.Held(), false, nil
	}
	// Memory is spent on what has come, not on what is announced.
	var buffer bytes.Buffer
	if r.ContentLength > 0 {
		buffer.Grow(int(min(r.ContentLength, firstRead)) + bytes.MinRead)
	}
	n, err := buffer.ReadFrom(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, false, incomplete(err)
	}
	if more = n > limit; !more {
		http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	return buffer.Bytes(), more, nil
}

func incomplete(err error) error {
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	message := "the body ended before it was complete"
	if t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && t.Timeout() {
		message = "the body did not come in time"
	}
	return faas.Errorf(faas.CodeBadRequest, "%s", message)
}
