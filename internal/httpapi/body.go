package httpapi

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// bodyPatience is how long a client may take to send a body, or each piece of a body
// that streams.
const bodyPatience = time.Minute

// maxDiscard is how many bytes of an unwanted body are read and thrown away. A client
// that is still sending often does not see the answer.
const maxDiscard = 64 << 20

// limitBody sets the deadline for a request's body, whoever reads it: the handler, or
// net/http, which reads what the handler left in order to keep the connection. Only a
// reader that has seen the end of the body removes the deadline, because from then on
// net/http watches the connection for the client's leaving.
//
// The connection ends after a body in chunks. The request may have had a Content-Length
// as well, which net/http ignores; a proxy in front of us might then see another
// request in the body than we do (RFC 9112, 6.3).
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

// held is the body of a plain request. Held returns it without copying, or nil if some
// of it is still to come. The result is valid until the handler returns.
type held interface{ Held() []byte }

// copies is how many copies of a registration exist at a time: as it came, as it was
// parsed, as it is stored and sent to a sandbox.
const copies = 4

// bodies reads the bodies of requests.
type bodies struct {
	max    int64          // bytes of one body
	budget *buffer.Budget // for what is held of them
}

// read reads the whole body of a request that is not a call. Until the request ends, it
// takes from the budget what handling the body takes.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return b.readAll(w, r, b.max, faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY)", faas.Bytes(b.max)))
}

// readAll is read with a given limit, and the error for a body that is larger.
func (b *bodies) readAll(w http.ResponseWriter, r *http.Request, limit int64, tooLarge error) ([]byte, error) {
	body, more, err := b.readUpTo(w, r, limit)
	defer func() { body.Close() }() // it is there even after an error
	if n := int64(copies * len(body.Bytes())); err == nil && !more && n > buffer.Free {
		if b.budget.Take(n, buffer.Request) {
			context.AfterFunc(r.Context(), func() { b.budget.Give(n) })
		} else {
			err = full()
		}
	}
	switch {
	case more:
		err = tooLarge
	case err == nil:
		whole := bytes.Clone(body.Bytes())
		clear(body.Bytes()) // it may be a secret
		return whole, nil
	}
	clear(body.Bytes())
	if more || faas.CodeOf(err) == faas.CodeNoCapacity {
		newUpload(w, r).discard()
	}
	return nil, err
}

// full returns the error for a body for which there is no room.
func full() *faas.Error {
	return faas.Errorf(faas.CodeNoCapacity, "the dispatcher holds as much of requests and answers as it may (its setting FOB_MAX_BUFFER)").After(time.Second)
}

// readUpTo reads a request's body, and reports whether it is longer than limit. If so,
// the result is a beginning of the body, of any length. The caller must close the
// result, even after an error.
func (b *bodies) readUpTo(w http.ResponseWriter, r *http.Request, limit int64) (body *buffer.Body, more bool, err error) {
	body = new(buffer.Body)
	if err := decode(r); err != nil {
		newUpload(w, r).discard()
		return body, false, err
	}
	if r.ContentLength == 0 {
		return body, false, nil
	}
	if r.ContentLength > limit {
		return body, true, nil
	}
	if _, is := r.Body.(*decoded); is {
		if !b.budget.Take(decoderSize, buffer.Small) {
			return body, false, full()
		}
		defer func() {
			give := func() { b.budget.Give(decoderSize) }
			if more { // the body may go on as a stream
				context.AfterFunc(r.Context(), give)
			} else {
				give()
			}
		}()
	}
	body, err = b.budget.Read(r.Body, r.ContentLength, limit+1, buffer.Request)
	if err != nil {
		return body, false, incomplete(err)
	}
	if more = int64(len(body.Bytes())) > limit; !more {
		http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	return body, more, nil
}

// decoderSize is how many bytes decompressing a body takes.
const decoderSize = 64 << 10

// incomplete returns why a body did not come whole.
func incomplete(err error) error {
	if errors.Is(err, buffer.ErrFull) {
		return full()
	}
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
