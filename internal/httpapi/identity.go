package httpapi

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
)

// callIDPattern matches the call IDs that are accepted from callers.
var callIDPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// identity is what a call is known by.
type identity struct {
	call        string // its ID: the caller's X-Call-Id if that can be logged
	traceparent string // its place in its trace
	parent      string // the caller's span in the trace; empty if the trace begins here
}

// identify returns a call's identity, all in one allocation.
func identify(r *http.Request) (id identity) {
	var room [uuidLength + traceparentLength + spanLength]byte
	b := room[:0]
	if given := r.Header.Get("X-Call-Id"); given == "" || !callIDPattern.MatchString(given) {
		b = appendUUID(b)
	} else {
		id.call = given
	}
	n := len(b)
	b, parent := appendTraceparent(b, r.Header.Get("Traceparent"))
	text := string(append(b, parent...)) // a copy, because the request's head may be long
	if n > 0 {
		id.call = text[:n]
	}
	id.traceparent, id.parent = text[n:n+traceparentLength], text[n+traceparentLength:]
	return id
}

// identify says what the call is known by. sample, unless it is nil, decides whether its
// trace is collected.
func (in *inbound) identify(sample func(*faas.Invocation) bool) {
	id := identify(in.r)
	in.ID, in.TraceParent, in.ParentSpan = id.call, id.traceparent, id.parent
	if id.parent != "" { // otherwise the state is not of this trace
		if states := in.r.Header["Tracestate"]; len(states) > 0 {
			in.TraceState = strings.Join(states, ",")
		}
	}
	if sample == nil {
		return
	}
	if sampled := sample(&in.Invocation); sampled != in.Sampled() {
		last := len(in.TraceParent) - 1
		digit, _ := strconv.ParseUint(in.TraceParent[last:], 16, 4)
		in.TraceParent = in.TraceParent[:last] + strconv.FormatUint(digit^1, 16)
	}
}

const uuidLength, traceparentLength, spanLength = 36, 55, 16

// appendUUID appends a random UUID (RFC 9562, version 4). It need not be secret, so it
// costs less than one that is.
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

// appendTraceparent continues the caller's trace (W3C Trace Context, version 00) with a
// span of our own, or begins a trace. It returns the caller's span, too.
func appendTraceparent(b []byte, from string) (_ []byte, parent string) {
	trace, parent, flags := readTraceparent(from)
	b = append(b, "00-"...)
	if parent == "" {
		b = appendRandomHex(b)
		b = appendRandomHex(b)
		flags = "00"
	}
	b = append(b, trace...)
	b = append(b, '-')
	b = appendRandomHex(b)
	b = append(b, '-')
	return append(b, flags...), parent
}

// readTraceparent returns the parts of a traceparent, or nothing if it is not valid.
func readTraceparent(text string) (trace, span, flags string) {
	const form, noTrace, noSpan = "00-tttttttttttttttttttttttttttttttt-ssssssssssssssss-ff", "00000000000000000000000000000000", "0000000000000000"
	if len(text) != len(form) || text[:3] != form[:3] {
		return "", "", ""
	}
	for i := 3; i < len(text); i++ {
		digit := '0' <= text[i] && text[i] <= '9' || 'a' <= text[i] && text[i] <= 'f'
		if digit == (form[i] == '-') || !digit && text[i] != '-' {
			return "", "", ""
		}
	}
	if trace, span = text[3:35], text[36:52]; trace == noTrace || span == noSpan {
		return "", "", ""
	}
	return trace, span, text[53:]
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
