package httpapi

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// answerPatience is how long a client may take to read an answer that is longer
// than bufferedAnswer, which is in bytes and surely fits the kernel's buffers;
// of an answer that streams, each piece.
const (
	answerPatience = time.Minute
	bufferedAnswer = 16 << 10
)

// answerPiece is how much of an answer that streams is read at a time, in bytes,
// and smallPiece when there is no room for that.
const (
	answerPiece = 32 << 10
	smallPiece  = 4 << 10
)

// inbound is a call and the values of the headers that its answer has, in one
// allocation.
type inbound struct {
	faas.Call
	values [6]string
	set    int
}

// header sets a header of the answer.
func (in *inbound) header(h http.Header, name, value string) []string {
	in.values[in.set] = value
	values := in.values[in.set : in.set+1 : in.set+1]
	in.set++
	h[name] = values
	return values
}

// calls answers calls.
type calls struct {
	invoker  faas.Invoker
	registry faas.Registry
	bodies   *bodies
	home     *home
	hidden   *limits[string] // errors that are logged, by the function's ID
	log      zerolog.Logger
	fail     func(w http.ResponseWriter, r *http.Request, err error) // answers with an error
}

// call answers /api/call/REF, and what is below it.
func (s *calls) call(w http.ResponseWriter, r *http.Request, q asked) error {
	in := &inbound{Call: faas.Call{Ref: q.ref, Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header}}
	if in.Target == "" || in.Target[0] != '/' { // an absolute URL, as to a proxy
		in.Target = r.URL.RequestURI()
	}
	call, h := &in.Call, w.Header()
	id, trace := identify(r)
	call.ID = id
	in.header(h, "X-Call-Id", id)
	r.Header["Traceparent"] = in.header(h, "Traceparent", trace) // for a function that takes the request

	result, err := s.invoke(w, r, call)
	if err == nil {
		if err = s.checkRedirect(r, call.Trace.Version, result); err != nil {
			result.Body.Close()
		}
	}
	if v := call.Trace.Version; v != nil {
		in.header(h, "Fob-Version", strconv.Itoa(v.Number))
	}
	length := int64(-1)
	if err == nil && result.Status != http.StatusNoContent && result.Status != http.StatusNotModified {
		length = result.Length
	}
	timing, digits := sizes(call.Trace.Timing, length)
	in.header(h, "Server-Timing", timing)
	if err != nil {
		if faas.CodeOf(err) == faas.CodeMethodNotAllowed {
			h["Allow"] = callMethods
		}
		return s.refuse(w, r, call, s.discreet(r, q.who, call, err))
	}
	defer result.Body.Close()
	contain(h, result.Header)
	if v := call.Trace.Version; h["Vary"] != nil || v != nil && v.Settings.CORS != "" {
		// For caches also where the request had no origin.
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
		h["Content-Type"] = nil // the function gave it none, and net/http is not to guess one
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
		// There is nothing to send, and to a function that streams nobody listens.
	} else if result.Length < 0 {
		err = s.stream(w, result.Body)
	} else if _, err = io.Copy(w, result.Body); err == nil && result.Length > bufferedAnswer {
		err = http.NewResponseController(w).Flush() // within the deadline, not after it
	}
	if err != nil {
		s.log.Debug().Err(err).Str("call", call.ID).Msg("could not send the answer")
		abort(w, r)
	}
	if rest, ok := call.Stream.(*upload); ok {
		result.Body.Close() // after which nobody else reads the request's body
		http.NewResponseController(w).Flush()
		rest.discard()
	}
	return nil
}

// stream sends what comes as it comes.
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

// abort breaks the connection, so that a broken answer does not look like a
// whole one.
func abort(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		// There the end of the connection may be that of the answer. What is
		// left to tell them apart is a reset.
		if nc, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if lingers, ok := nc.(interface{ SetLinger(int) error }); ok {
				lingers.SetLinger(0)
			}
			nc.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

// invoke reads what the call is, and makes it.
func (s *calls) invoke(w http.ResponseWriter, r *http.Request, call *faas.Call) (*faas.Result, error) {
	err := place(call, r.URL)
	if err != nil {
		return nil, err
	}
	if call.Args, err = parseArgs(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if given := r.Header["Fob-Timeout"]; len(given) > 0 {
		if call.Timeout, err = time.ParseDuration(given[0]); err != nil || call.Timeout <= 0 {
			return nil, faas.Errorf(faas.CodeBadRequest, "the header Fob-Timeout: %.40q is no positive duration: write one such as 500ms or 2s", given[0])
		}
	}
	switch whole, is := r.Body.(held); {
	case r.ContentLength == 0:
	case is && whole.Held() != nil && r.Header["Content-Encoding"] == nil:
		call.Body = whole.Held()
	default:
		call.Receive = func() error { return s.receive(w, r, call) }
	}
	returned := false
	defer func() {
		if !returned && call.Drop != nil { // it panicked
			call.Drop()
		}
	}()
	result, err := s.invoker.Invoke(r.Context(), call)
	returned = true
	return result, err
}

// receive reads a call's body, as much of it as is held.
func (s *calls) receive(w http.ResponseWriter, r *http.Request, call *faas.Call) error {
	body, more, err := s.bodies.readUpTo(w, r, s.bodies.max)
	call.Body = body.Bytes()
	call.Drop = func() {
		call.Body = nil
		body.Close()
	}
	if more || faas.CodeOf(err) == faas.CodeNoCapacity {
		call.Stream = newUpload(w, r)
	}
	return err
}

// refuse answers a call with an error, and reads what the client is still
// sending, so that it sees the answer.
func (s *calls) refuse(w http.ResponseWriter, r *http.Request, call *faas.Call, err error) error {
	if call.Drop != nil {
		call.Drop()
	}
	rest, _ := call.Stream.(*upload)
	if call.Receive != nil {
		rest = newUpload(w, r)
	}
	if rest == nil {
		return err
	}
	s.fail(w, r, err)
	http.NewResponseController(w).Flush()
	rest.discard()
	return nil
}

var callIDPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// identify returns the call's ID, the caller's X-Call-Id if it is one that can be
// logged, and its traceparent.
func identify(r *http.Request) (id, trace string) {
	var room [uuidLength + traceLength]byte
	b := room[:0]
	given := r.Header.Get("X-Call-Id")
	if minted := given == "" || !callIDPattern.MatchString(given); minted {
		b = appendUUID(b)
	} else {
		id = given
	}
	n := len(b)
	text := string(appendTraceparent(b, r.Header.Get("Traceparent"))) // one allocation for both
	if n > 0 {
		id = text[:n]
	}
	return id, text[n:]
}

const uuidLength, traceLength = 36, 55

// appendUUID appends a random UUID (RFC 9562, version 4). It need not be a
// secret, so it costs less than one that could be.
func appendUUID(b []byte) []byte {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

var traceparentPattern = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)

// appendTraceparent continues the caller's trace (W3C Trace Context, version
// 00) with a span of our own, or begins one.
func appendTraceparent(b []byte, from string) []byte {
	const noTrace, noSpan = "00000000000000000000000000000000", "0000000000000000" // neither is valid
	b = append(b, "00-"...)
	flags := "00"
	var m []string
	if from != "" {
		m = traceparentPattern.FindStringSubmatch(from)
	}
	if m != nil && m[1] != noTrace && m[2] != noSpan {
		b = append(b, m[1]...)
		flags = m[3]
	} else {
		b = appendRandomHex(b)
		b = appendRandomHex(b)
	}
	b = append(b, '-')
	b = appendRandomHex(b)
	b = append(b, '-')
	return append(b, flags...)
}

// appendRandomHex appends 16 hexadecimal digits that are not all zero.
func appendRandomHex(b []byte) []byte {
	var raw [8]byte
	n := rand.Uint64() | 1
	for i := range raw {
		raw[i] = byte(n >> (8 * i))
	}
	return hex.AppendEncode(b, raw[:])
}

// sizes writes the values of Server-Timing, in milliseconds, and, unless length
// is negative, Content-Length.
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
