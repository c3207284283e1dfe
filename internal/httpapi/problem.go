package httpapi

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// problem answers a request with an error. An error that is not a *faas.Error is
// logged, and the client learns only that something went wrong. If the client has gone
// away, problem closes its connection.
func (a *API) problem(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, r.Context().Err()) {
		// Nobody waits for the answer. Returning without one would send 200.
		panic(http.ErrAbortHandler)
	}
	e, ok := errors.AsType[*faas.Error](err)
	if !ok {
		a.cfg.Log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
		e = faas.Errorf(faas.CodeInternal, "something went wrong in the dispatcher; its log says what")
	} else if e.Cause != nil {
		a.cfg.Log.Warn().Err(e).Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
	}
	if refusal(e.Code) {
		a.refused(w, r, e.Code)
	}
	info := e.Code.Info()
	h := w.Header()
	inert(h)
	h.Set("Content-Type", "application/problem+json")
	h.Set("Fob-Error", string(info.Fault))
	switch info.Status {
	case http.StatusUnsupportedMediaType:
		if e.Code == faas.CodeUnknownCoding {
			h.Set("Accept-Encoding", acceptedCodings)
		}
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.RetryAfter.Seconds())))))
	}
	body := encode(api.Problem{
		Type:      "urn:fob:error:" + string(e.Code),
		Title:     info.Title,
		Status:    info.Status,
		Detail:    e.Message,
		Code:      e.Code,
		CallID:    h.Get("X-Call-Id"),
		Retryable: info.Retryable,
		Error:     e.Raised,
	})
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(info.Status)
	w.Write(body)
}

// Refusal returns an error as a whole answer, with its head, for a connection that is
// closed before any request was read from it.
func (a *API) Refusal(err *faas.Error) []byte {
	w := &kept{header: make(http.Header)}
	a.problem(w, &http.Request{URL: &url.URL{}}, err)
	answer := http.Response{
		ProtoMajor: 1, ProtoMinor: 1, StatusCode: w.status, Header: w.header,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Close: true,
	}
	var text bytes.Buffer
	answer.Write(&text) // writing to memory cannot fail
	return text.Bytes()
}

// Malformed returns the Refusal for a request that the server could not, or would not,
// read.
func (a *API) Malformed(status int, why string) []byte {
	if why == "" {
		why = "its first line, or a header, is malformed; in a path, % is followed by two hexadecimal digits"
	}
	e := faas.Errorf(faas.CodeBadRequest, "the request is not proper HTTP/1.1: %s", why)
	switch status {
	case http.StatusExpectationFailed:
		e = faas.Errorf(faas.CodeBadExpectation, "the header Expect may say 100-continue and nothing else")
	case http.StatusRequestHeaderFieldsTooLarge:
		e = faas.Errorf(faas.CodeHeadersTooLarge, "the request's first line and headers are larger than the 128 KB allowed: send arguments in the body of a POST")
	case http.StatusNotImplemented:
		e = faas.Errorf(faas.CodeUnknownTransfer, "the header Transfer-Encoding may say chunked and nothing else")
	case http.StatusServiceUnavailable:
		e = full()
	case http.StatusHTTPVersionNotSupported:
		e = faas.Errorf(faas.CodeUnsupportedHTTP, "this is HTTP/1.1, and 1.0")
	}
	return a.Refusal(e)
}

// kept is a ResponseWriter that keeps the answer in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *kept) Header() http.Header         { return w.header }
func (w *kept) WriteHeader(status int)      { w.status = status }
func (w *kept) Write(p []byte) (int, error) { return w.body.Write(p) }
