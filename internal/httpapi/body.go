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

// bodyPatience is how long a client may take to send a body; of one that streams,
// each piece.
const bodyPatience = time.Minute

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

// copies is how often what registers something is there while it is dealt with:
// as it came, as it was read, as it is stored and sent to a sandbox.
const copies = 4

// bodies reads the bodies of requests.
type bodies struct {
	max    int64          // of one, in bytes
	budget *buffer.Budget // of what is held of them
}

// read reads the whole body of a request that is not a call, and takes what
// dealing with it takes from the budget, until the request has ended.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return b.readAll(w, r, b.max, faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY)", faas.Bytes(b.max)))
}

// readAll is read with a limit, and the error for what is longer.
func (b *bodies) readAll(w http.ResponseWriter, r *http.Request, limit int64, tooLarge error) ([]byte, error) {
	body, more, err := b.readUpTo(w, r, limit)
	defer func() { body.Close() }() // which there is with an error, too
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
		clear(body.Bytes()) // for it may be a secret
		return whole, nil
	}
	clear(body.Bytes())
	if more || faas.CodeOf(err) == faas.CodeNoCapacity {
		newUpload(w, r).discard()
	}
	return nil, err
}

// full is told to who sends what there is no room for.
func full() *faas.Error {
	return faas.Errorf(faas.CodeNoCapacity, "the dispatcher holds as much of requests and answers as it may (its setting FOB_MAX_BUFFER)").After(time.Second)
}

// readUpTo reads a request's body, and reports whether it is longer than limit:
// then what it returns is its beginning, of any length. What it returns is to be
// closed, with an error too.
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

// decoderSize is what it takes to decompress a body, in bytes.
const decoderSize = 64 << 10

// incomplete says why a body did not come whole.
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
