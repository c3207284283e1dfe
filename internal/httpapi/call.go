package httpapi

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// answerPatience is how long a client may take to read an answer that is longer than
// bufferedAnswer, or each piece of one that streams. bufferedAnswer is in bytes, and
// surely fits into the kernel's buffers.
const (
	answerPatience = time.Minute
	bufferedAnswer = 16 << 10
)

// answerPiece is how many bytes of a streamed answer are read at a time. If there is no
// room for that, it is smallPiece.
const (
	answerPiece = 32 << 10
	smallPiece  = 4 << 10
)

// inbound is a call over HTTP. It is the faas.LiveBody, and has the values of the
// answer's headers, all in one allocation.
type inbound struct {
	faas.Invocation
	calls *calls
	w     http.ResponseWriter
	r     *http.Request

	unread bool         // the client has a body that has not been read
	held   *buffer.Body // nil if there is none
	rest   *upload      // of a body that is not held whole; otherwise nil

	values [6]string
	set    int
}

// header sets a header of the answer.
func (in *inbound) header(h http.Header, name, value string) {
	in.values[in.set] = value
	h[name] = in.values[in.set : in.set+1 : in.set+1]
	in.set++
}

// calls answers calls.
type calls struct {
	invoker  faas.Invoker
	registry faas.Registry
	sample   func(*faas.Invocation) bool // whether a call's trace is collected; nil if none is
	bodies   *bodies
	home     *home
	hidden   *limits[string] // of redirects whose refusal is logged, by the function's ID
	log      zerolog.Logger
	fail     func(w http.ResponseWriter, r *http.Request, err error) // answers with an error
}

// call answers /api/call/REF and everything below it.
func (s *calls) call(w http.ResponseWriter, r *http.Request, q asked) error {
	in := &inbound{calls: s, w: w, r: r, Invocation: faas.Invocation{
		Ref: q.ref, Who: q.who, From: cameFrom(r), Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header,
	}}
	if in.Target == "" || in.Target[0] != '/' { // an absolute URL, as sent to a proxy
		in.Target = r.URL.RequestURI()
	}
	h := w.Header()
	in.identify(s.sample)
	in.header(h, "X-Call-Id", in.ID)
	in.header(h, "Traceparent", in.TraceParent)

	var result faas.Result
	err := in.read()
	if err == nil {
		result, err = s.invoker.Invoke(r.Context(), &in.Invocation, in.live())
		if r.Context().Err() == nil {
			err = told(err)
		}
	}
	if err == nil {
		if err = s.checkRedirect(r, result); err != nil {
			result.Body.Close()
			s.logRefused(&in.Invocation, result.Version, err)
		}
	}
	if v := result.Version; v != nil {
		in.header(h, "Fob-Version", strconv.Itoa(v.Number))
	}
	length := int64(-1)
	if err == nil && result.Status != http.StatusNoContent && result.Status != http.StatusNotModified {
		length = result.Length
	}
	timing, digits := sizes(result.Timing, length)
	in.header(h, "Server-Timing", timing)
	if err != nil {
		if faas.CodeOf(err) == faas.CodeMethodNotAllowed {
			h["Allow"] = callMethods
		}
		return in.refuse(s.discreet(r.Context(), &in.Invocation, result.Version, err))
	}
	defer result.Body.Close()
	contain(h, result.Header)
	if v := result.Version; h["Vary"] != nil || v != nil && v.Settings.CORS != "" {
		// Caches need it even if this request had no origin.
		h["Vary"] = append([]string{"Origin"}, result.Header["Vary"]...)
	}
	for name, values := range result.Header {
		if _, set := h[name]; !set && passes(name) {
			h[name] = values
		}
	}
	if result.ContentType != "" {
		in.header(h, "Content-Type", result.ContentType)
	} else {
		h["Content-Type"] = nil // the function set none, and net/http must not guess one
	}
	if length >= 0 {
		in.header(h, "Content-Length", digits)
	}
	if result.Length > bufferedAnswer {
		// A client that does not read must not hold the answer for ever.
		deadline := http.NewResponseController(w)
		deadline.SetWriteDeadline(time.Now().Add(answerPatience))
		defer deadline.SetWriteDeadline(time.Time{})
	}
	w.WriteHeader(result.Status)
	if r.Method == http.MethodHead {
		// There is nothing to send, and a function that streams has no listener.
	} else if result.Length < 0 {
		err = s.stream(w, result.Body)
	} else if _, err = io.Copy(w, result.Body); err == nil && result.Length > bufferedAnswer {
		err = http.NewResponseController(w).Flush() // within the deadline, not after it
	}
	if err != nil {
		s.log.Debug().Err(err).Str("call", in.ID).Msg("could not send the answer")
		abort(w, r)
	}
	if in.rest != nil {
		result.Body.Close() // after this nobody else reads the request's body
		http.NewResponseController(w).Flush()
		in.rest.discard()
	}
	return nil
}

// stream passes on a body as it comes.
func (s *calls) stream(w http.ResponseWriter, body io.Reader) error {
	size := smallPiece
	if s.bodies.budget.Take(answerPiece, buffer.Answer) {
		size = answerPiece
		defer s.bodies.budget.Give(answerPiece)
	}
	client := http.NewResponseController(w)
	defer client.SetWriteDeadline(time.Time{})
	pace, piece := buffer.Pace{}, make([]byte, size)
	for {
		n, err := body.Read(piece)
		if n > 0 {
			// A client that does not read must not hold the function for ever.
			client.SetWriteDeadline(time.Now().Add(answerPatience))
			if _, err := w.Write(piece[:n]); err != nil {
				return err
			}
			if err := client.Flush(); err != nil {
				return err
			}
		}
		switch err {
		case nil:
			pace.Passed(n)
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// abort breaks the connection, so that an incomplete answer does not look complete.
func abort(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		// In HTTP/1.0 the end of the connection may be the end of the answer. Only a
		// reset can show that something is missing.
		if nc, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if lingers, ok := nc.(interface{ SetLinger(int) error }); ok {
				lingers.SetLinger(0)
			}
			nc.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

// read reads the call from the request, except for a body that the client still has.
func (in *inbound) read() (err error) {
	r := in.r
	if in.Root, in.Below, err = place(r.URL); err != nil {
		return err
	}
	if in.Args, err = parseArgs(r.URL.RawQuery); err != nil {
		return err
	}
	if given := r.Header["Fob-Timeout"]; len(given) > 0 {
		if in.Timeout, err = time.ParseDuration(given[0]); err != nil || in.Timeout <= 0 {
			return faas.Errorf(faas.CodeBadRequest, "the header Fob-Timeout: %.40q is not a positive duration: write one like 500ms or 2s", given[0])
		}
	}
	if r.ContentLength == 0 {
		return nil
	}
	_, compressed := r.Header["Content-Encoding"]
	if whole, is := r.Body.(held); is && whole.Held() != nil && !compressed {
		in.Body = whole.Held()
		return nil
	}
	in.unread = true
	if compressed { // the function gets the decompressed body
		in.Header = maps.Clone(r.Header)
		delete(in.Header, "Content-Encoding")
	}
	return nil
}

// live returns the body that the client still has, or nil.
func (in *inbound) live() faas.LiveBody {
	if in.unread {
		return in
	}
	return nil
}

// Receive implements faas.LiveBody.
func (in *inbound) Receive() (body []byte, rest io.ReadCloser, err error) {
	bodies := in.calls.bodies
	held, more, err := bodies.readUpTo(in.w, in.r, bodies.max)
	in.unread, in.held = false, held
	if more || faas.CodeOf(err) == faas.CodeNoCapacity {
		in.rest = newUpload(in.w, in.r)
		rest = in.rest
	}
	return held.Bytes(), rest, err
}

// Drop implements faas.LiveBody.
func (in *inbound) Drop() {
	if in.held != nil {
		in.held.Close()
	}
}

// refuse answers the call with an error. It reads what the client is still sending, so
// that the client sees the answer.
func (in *inbound) refuse(err error) error {
	if in.unread {
		in.rest = newUpload(in.w, in.r)
	}
	if in.rest == nil {
		return err
	}
	in.calls.fail(in.w, in.r, err)
	http.NewResponseController(in.w).Flush()
	in.rest.discard()
	return nil
}

// told returns the error of an invoker without its cause: whoever watches calls has logged
// that.
func told(err error) error {
	e, ok := err.(*faas.Error)
	if !ok || e.Cause == nil {
		return err
	}
	without := *e
	without.Cause = nil
	return &without
}

// sizes returns the values of Server-Timing, in milliseconds, and of Content-Length,
// which is empty if length is negative.
func sizes(t faas.Timing, length int64) (timing, digits string) {
	var room [96]byte
	b := room[:0]
	for i, part := range [...]struct {
		name string
		d    time.Duration
	}{{"queue", t.Queue}, {"start", t.Start}, {"run", t.Run}} {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, part.name...)
		b = append(b, ";dur="...)
		b = appendMillis(b, part.d)
	}
	n := len(b)
	if length >= 0 {
		b = strconv.AppendInt(b, length, 10)
	}
	text := string(b) // one allocation for both
	return text[:n], text[n:]
}

// appendMillis appends a duration in milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	micros := d.Microseconds()
	b = strconv.AppendInt(b, micros/1000, 10)
	rest := micros % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}
